"""What a calibration of this machine might have found, for tests that need one and not its figures."""

from trimtab.spec.hardware import this_machine
from trimtab.spec.profile import GemmSample, Profile


def machine_profile(**changes):
    """Of two ranks, with one matrix product in float32 at 30 GFLOPS."""
    values = {
        "name": "this machine",
        "hardware": this_machine(),
        "measured_at": "2026-11-25",
        "per_node": 2,
        "memory_bytes": 8 * 2**30,
        "memory_bytes_per_second": 8e9,
        "gemm": (GemmSample(dtype="float32", m=1000, n=1000, k=1000, seconds=2e9 / 30e9),),
    }
    return Profile(**values | changes)
