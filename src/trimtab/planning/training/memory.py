"""Peak memory of the fullest rank, by term, before anything is started."""

from __future__ import annotations

import msgspec

from trimtab.planning.training.activations import layer_bytes, logits_bytes
from trimtab.planning.training.job import Job
from trimtab.planning.training.schedule import held
from trimtab.planning.training.software import software_of
from trimtab.planning.training.stages import layer_parameters_of_rank, table_parameters_of_rank
from trimtab.planning.training.states import states
from trimtab.spec.layout import Layout

# The allocator's unused remainder of what comes and goes; states stay where they are put.
_FRAGMENTATION = 0.05


class MemoryBytes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one device. `transient` comes and goes: gathered weights, the layer being recomputed, casts.

    `reserve` is the process itself, communication buffers and what the allocator cannot use.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    transient: int
    reserve: int
    total: int


def memory_of(job: Job, layout: Layout, layers: tuple[int, int, int], micro_batches: int) -> MemoryBytes:
    """`layers` as `stages.stage_layers` gives them. The first rank holds most activations, the last the logits."""
    first = _rank(
        job, layout, layers[0], held(layout, micro_batches, 0), first=True, last=layout.pipeline == 1
    )
    if layout.pipeline == 1:
        return first
    stage = layout.pipeline - 1
    last = _rank(job, layout, layers[2], held(layout, micro_batches, stage), first=False, last=True)
    fullest = max(first, last, key=lambda found: found.total)
    if layout.pipeline == 2:
        return fullest
    second = _rank(job, layout, layers[1], held(layout, micro_batches, 1), first=False, last=False)
    return max(fullest, second, key=lambda found: found.total)


def rank_parameters(job: Job, layout: Layout, layers: int, *, first: bool, last: bool) -> float:
    """Parameters that the tensor and pipeline axes leave to one rank, before any sharding."""
    shape = job.architecture
    return layers * layer_parameters_of_rank(shape, layout.tensor) + table_parameters_of_rank(
        shape, layout.tensor, first=first, last=last
    )


def _rank(job: Job, layout: Layout, layers: int, in_flight: float, *, first: bool, last: bool) -> MemoryBytes:
    software = software_of(job, layout)
    parameters = rank_parameters(job, layout, layers, first=first, last=last)
    kept = states(job.precision, job.optimizer, layout)
    activations = layers * in_flight * layer_bytes(job, layout, software)
    logits = logits_bytes(job, layout) if last else 0.0
    transient = _gathered(job, layout, parameters, kept.gathered, first=first, last=last)
    if layout.recompute != "none":
        # The layer whose backward pass is under way is whole again.
        rebuilt = layer_bytes(job, layout, software, "none") - layer_bytes(job, layout, software)
        transient += max(0.0, rebuilt)
    coming_and_going = activations + logits + transient
    machine = job.machine
    steady = parameters * kept.total
    reserve = machine.process_bytes + _FRAGMENTATION * coming_and_going
    reserve += (machine.memory_factor - 1) * (steady + coming_and_going)
    return MemoryBytes(
        weights=round(parameters * kept.weights),
        gradients=round(parameters * kept.gradients),
        optimizer=round(parameters * kept.optimizer),
        activations=round(activations),
        logits=round(logits),
        transient=round(transient),
        reserve=round(reserve),
        total=round(steady + coming_and_going + reserve),
    )


def _gathered(
    job: Job, layout: Layout, parameters: float, bytes_each: float, *, first: bool, last: bool
) -> float:
    """Weights gathered for use, and under FSDP the 32-bit gradients of the block that is being reduced."""
    if layout.shard == 1:
        return parameters * bytes_each
    block = layer_parameters_of_rank(job.architecture, layout.tensor)
    reduced = 4 * block
    if not layout.reshard:
        return parameters * bytes_each + reduced
    tables = table_parameters_of_rank(job.architecture, layout.tensor, first=first, last=last)
    # The block in use and the one that is prefetched.
    return bytes_each * (2 * block + tables) + reduced
