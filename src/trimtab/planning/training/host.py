"""Seconds that the host spends on a step beside the computation, where the processor that computes is the host."""

from __future__ import annotations

from trimtab.planning.training.job import Job
from trimtab.planning.training.schedule import idle_micro_batches
from trimtab.spec.layout import Layout

# Strategies, by the axis of a layout. Plain is data parallelism, which costs the host least.
PLAIN, AXES = "data", ("shard", "tensor", "pipeline")


def strategies(layout: Layout) -> list[str]:
    """Those that a layout uses; plain alone where there is no other."""
    return [axis for axis in AXES if getattr(layout, axis) > 1] or [PLAIN]


def host_seconds(job: Job, layout: Layout, layers: int, micro_batches: int) -> float:
    """`layers` of the slowest rank. What each strategy adds to the plain one is added up."""
    costs = job.machine.host
    if PLAIN not in costs:
        return job.machine.step_seconds
    plain = costs[PLAIN]
    layer, step = plain.layer_seconds, plain.step_seconds
    for axis in strategies(layout):
        if axis in costs:
            layer += costs[axis].layer_seconds - plain.layer_seconds
            step += costs[axis].step_seconds - plain.step_seconds
    return layer * passes(layout, layers, micro_batches) + step


def passes(layout: Layout, layers: int, micro_batches: int) -> float:
    """How often a layer is passed in a step, the time in which a stage idles counted."""
    return layers * (micro_batches + idle_micro_batches(layout))
