"""One layout of one job, scored: does it fit, how long does a step take, and why."""

from __future__ import annotations

import msgspec

from trimtab.planning.training.division import micro_batches, misfit
from trimtab.planning.training.flops import reported_tflops, utilisation
from trimtab.planning.training.job import Job, Software
from trimtab.planning.training.memory import MemoryBytes, memory_of
from trimtab.planning.training.software import software_of
from trimtab.planning.training.stages import layers_of_ranks
from trimtab.planning.training.step_time import StepSeconds, StepTimes
from trimtab.spec.layout import Layout
from trimtab.spec.units import format_bytes


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is why the layout is not feasible. What does not divide has no figures; what does not fit has.

    `tflops_per_device` counts full recomputation, as published tables do; `mfu` and `hfu` are fractions.
    """

    layout: Layout
    feasible: bool
    reason: str | None = None
    micro_batches: int | None = None
    memory_bytes: MemoryBytes | None = None
    step_seconds: float | None = None
    seconds: StepSeconds | None = None
    tokens_per_second: float | None = None
    tflops_per_device: float | None = None
    mfu: float | None = None
    hfu: float | None = None


class Scorer:
    """Scores layouts of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._times = StepTimes(job)
        self._splits: dict[tuple[int, int, Software], tuple[int, ...]] = {}

    def plan(self, layout: Layout) -> Plan:
        if layout.micro_batch is None:
            layout = msgspec.structs.replace(layout, micro_batch=1)
        if (reason := misfit(self.job, layout)) is not None:
            return Plan(layout=layout, feasible=False, reason=reason)
        return self.timed(layout, self.memory(layout))

    def memory(self, layout: Layout) -> MemoryBytes:
        """Of a layout that divides."""
        return memory_of(self.job, layout, self._layers(layout), micro_batches(self.job, layout))

    def timed(self, layout: Layout, memory: MemoryBytes) -> Plan:
        """The whole record of a layout that divides."""
        job, count = self.job, micro_batches(self.job, layout)
        seconds = self._times.of(layout, self._layers(layout), count)
        total = seconds.total
        reason = too_large(job, memory)
        return Plan(
            layout=layout,
            feasible=reason is None,
            reason=reason,
            micro_batches=count,
            memory_bytes=memory,
            step_seconds=total,
            seconds=seconds,
            tokens_per_second=job.tokens / total,
            tflops_per_device=reported_tflops(job, layout, total),
            mfu=utilisation(job, total),
            hfu=utilisation(job, total, layout.recompute),
        )

    def _layers(self, layout: Layout) -> tuple[int, ...]:
        key = (layout.pipeline, layout.virtual, software_of(self.job, layout))
        if key not in self._splits:
            self._splits[key] = layers_of_ranks(self.job, layout)
        return self._splits[key]


def too_large(job: Job, memory: MemoryBytes) -> str | None:
    """Why it does not fit, with its largest term."""
    if memory.total <= job.machine.memory_bytes:
        return None
    term = max(
        (name for name in memory.__struct_fields__ if name != "total"), key=lambda name: getattr(memory, name)
    )
    return (
        f"needs {format_bytes(memory.total)} of {format_bytes(job.machine.memory_bytes)} a device, "
        f"{format_bytes(getattr(memory, term))} of it for {term}."
    )
