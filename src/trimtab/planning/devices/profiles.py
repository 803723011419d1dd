"""A machine's measured profile in the place of an accelerator's datasheet."""

from __future__ import annotations

from statistics import median

from trimtab.planning.devices.machine import Link, Machine
from trimtab.spec.errors import UsageError
from trimtab.spec.profile import Profile

# Nothing was measured between devices: only one of them can be planned for.
_NO_LINK = Link(latency_seconds=0.0, bytes_per_second=float("inf"))


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
    link = _link(profile)
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
    )


def _link(profile: Profile) -> Link:
    """Of the all-reduce over the most ranks, which stands for the others."""
    reduces = [rate for rate in profile.collectives if rate.operation == "all_reduce"]
    if not reduces:
        return _NO_LINK
    widest = max(reduces, key=lambda rate: rate.ranks)
    return Link(latency_seconds=widest.latency_seconds, bytes_per_second=widest.bytes_per_second)
