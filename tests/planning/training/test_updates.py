import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trimtab.planning.devices.machine import Link, Machine
from trimtab.planning.training.job import Job
from trimtab.planning.training.presets import preset
from trimtab.planning.training.updates import _newton_schulz, update_seconds
from trimtab.spec.layout import Layout
from trimtab.training.orthogonal import orthogonalize

LINK = Link(latency_seconds=0.0, bytes_per_second=1e12)


def job(**changes):
    machine = Machine(
        name="one operation a second",
        peak_flops=1.0,
        gemm_flops=1.0,
        attention_flops=1.0,
        memory_bytes=2**40,
        memory_bytes_per_second=float("inf"),
        inside=LINK,
        between=LINK,
        per_node=8,
        launch_seconds=0.0,
    )
    values = {
        "architecture": preset("llama3-8b", where="test"),
        "machine": machine,
        "devices": 2,
        "sequence_length": 128,
        "global_batch": 8,
        "optimizer": "muon",
    }
    return Job(**values | changes)


@pytest.mark.parametrize(("short", "long"), [(16, 16), (16, 24), (16, 32), (16, 64)])
def test_the_operations_of_newton_schulz_are_those_that_run(short, long):
    with FlopCounterMode(display=False) as counted:
        orthogonalize(torch.randn(1, short, long))
    assert _newton_schulz(job(), short, long) == counted.get_total_flops()


def test_ranks_share_muons_products():
    layers = (32, 32, 32)
    alone = update_seconds(job(devices=1), Layout(), layers)
    shared = update_seconds(job(), Layout(data=2), layers)
    assert shared == pytest.approx(alone / 2, rel=1e-6)
    assert update_seconds(job(optimizer="adamw"), Layout(data=2), layers) == 0
