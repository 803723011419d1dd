"""A machine's measured profile in the place of an accelerator's datasheet."""

from __future__ import annotations

from statistics import median

from trimtab.planning.devices.machine import Link, Machine
from trimtab.spec.errors import UsageError
from trimtab.spec.profile import CollectiveRate, Profile

# 16 bits cost some exactness, so they must be clearly faster (as training chooses, training/precision.py).
_MUST_GAIN = 1.3
# Nothing was measured between devices: only one of them can be planned for.
_NO_LINK = Link(latency_seconds=0.0, bytes_per_second=float("inf"))


def is_faster_in_16_bits(profile: Profile) -> bool:
    """Whether products in bfloat16 are what training would choose here."""
    best = {
        dtype: max((s.flops / s.seconds for s in profile.gemm if s.dtype == dtype), default=0.0)
        for dtype in ("float32", "bfloat16")
    }
    return best["bfloat16"] >= _MUST_GAIN * best["float32"]


def machine_of_profile(profile: Profile, *, single_precision: bool, per_node: int | None = None) -> Machine:
    """Raises `UsageError` where no matrix product was measured in the precision that is asked for."""
    kinds = ("float32",) if single_precision else ("bfloat16", "float16")
    samples = [sample for sample in profile.gemm if sample.dtype in kinds]
    if not samples:
        raise UsageError(
            f"the profile {profile.name} has no matrix products in {' or '.join(kinds)}.",
            where="--accelerator",
            remedy=f"Plan with --precision {'bf16' if single_precision else 'fp32'}, or measure again.",
        )
    best: dict[float, float] = {}
    for sample in samples:
        best[sample.flops] = max(best.get(sample.flops, 0.0), sample.flops / sample.seconds)
    curve = tuple(sorted(best.items()))
    rates = [rate for _, rate in curve]
    collectives = _collectives(profile)
    # It stands for those that were not measured.
    link = collectives.get("all_reduce", _NO_LINK)
    return Machine(
        name=profile.name,
        peak_flops=max(rates),
        gemm_flops=max(rates),
        attention_flops=median(rates),
        memory_bytes=profile.memory_bytes,
        memory_bytes_per_second=profile.memory_bytes_per_second,
        inside=link,
        between=link,
        per_node=per_node or profile.per_node,
        launch_seconds=profile.launch_seconds,
        step_seconds=profile.step_seconds,
        overlap=profile.overlap,
        process_bytes=profile.process_bytes,
        memory_factor=profile.memory_factor,
        measured=True,
        gemm_curve=curve,
        collectives=collectives,
    )


def _collectives(profile: Profile) -> dict[str, Link]:
    """Each collective as it was measured over the most ranks."""
    widest: dict[str, CollectiveRate] = {}
    for rate in profile.collectives:
        if rate.operation not in widest or rate.ranks > widest[rate.operation].ranks:
            widest[rate.operation] = rate
    return {
        name: Link(latency_seconds=rate.latency_seconds, bytes_per_second=rate.bytes_per_second)
        for name, rate in widest.items()
    }
