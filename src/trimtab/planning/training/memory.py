"""Peak memory of the fullest rank, by term, before anything is started."""

from __future__ import annotations

import msgspec

from trimtab.planning.training import eager
from trimtab.planning.training.activations import layer_bytes, logits_bytes, tokens_of
from trimtab.planning.training.host import strategies
from trimtab.planning.training.job import Job
from trimtab.planning.training.schedule import held
from trimtab.planning.training.software import software_of
from trimtab.planning.training.stages import (
    different_ranks,
    layer_parameters_of_rank,
    table_parameters_of_rank,
)
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


def memory_of(job: Job, layout: Layout, layers: tuple[int, ...], micro_batches: int) -> MemoryBytes:
    """`layers` as `stages.layers_of_ranks` gives them. The first rank holds most activations, the last the logits."""
    ranks = (_rank(job, layout, layers, micro_batches, rank) for rank in different_ranks(layers))
    return max(ranks, key=lambda found: found.total)


def rank_parameters(job: Job, layout: Layout, layers: int, *, first: bool, last: bool) -> float:
    """Parameters that the tensor and pipeline axes leave to one rank, before any sharding."""
    shape = job.architecture
    return layers * layer_parameters_of_rank(shape, layout.tensor) + table_parameters_of_rank(
        shape, layout.tensor, first=first, last=last
    )


def parameters_of_ranks(job: Job, layout: Layout, layers: tuple[int, ...]) -> list[tuple[int, float]]:
    """Of ranks that stand for all of a pipeline: rank, and its `rank_parameters`."""
    last = layout.pipeline - 1
    return [
        (rank, rank_parameters(job, layout, layers[rank], first=rank == 0, last=rank == last))
        for rank in different_ranks(layers)
    ]


def _rank(job: Job, layout: Layout, layers: tuple[int, ...], micro_batches: int, rank: int) -> MemoryBytes:
    software = software_of(job, layout)
    first, last = rank == 0, rank == layout.pipeline - 1
    parameters = rank_parameters(job, layout, layers[rank], first=first, last=last)
    kept = states(job.precision, job.optimizer, layout)
    activations = layers[rank] * held(layout, micro_batches, rank) * layer_bytes(job, layout, software)
    logits = logits_bytes(job, layout) if last else 0.0
    block = layer_parameters_of_rank(job.architecture, layout.tensor)
    tables = table_parameters_of_rank(job.architecture, layout.tensor, first=first, last=last)
    transient, backwards = _gathered(layout, parameters, kept.gathered, block=block, tables=tables)
    if layout.recompute != "none":
        # The layer whose backward pass is under way is whole again.
        rebuilt = layer_bytes(job, layout, software, "none") - layer_bytes(job, layout, software)
        backwards += max(0.0, rebuilt)
    gradients = parameters * kept.gradients
    if software == "torch":
        transient += _eager(job, layout, parameters, micro_batches, first=first, last=last)
        # When the layers' backward pass begins, the logits have gone.
        backwards = max(0.0, backwards + eager.backward_bytes(job, layout, tokens_of(job, layout)) - logits)
        if micro_batches == 1 and layout.world > layout.data:
            # They come as activations go; DDP alone has their memory before.
            gradients = max(0.0, gradients - activations - logits)
    transient += backwards
    coming_and_going = activations + logits + transient
    steady = parameters * (kept.weights + kept.optimizer) + gradients
    reserve = _reserve(job, layout, steady, coming_and_going)
    return MemoryBytes(
        weights=round(parameters * kept.weights),
        gradients=round(gradients),
        optimizer=round(parameters * kept.optimizer),
        activations=round(activations),
        logits=round(logits),
        transient=round(transient),
        reserve=round(reserve),
        total=round(steady + coming_and_going + reserve),
    )


def _reserve(job: Job, layout: Layout, steady: float, coming_and_going: float) -> float:
    """Where the processor that computes is the host, as measured: of the strategies that are used the most."""
    machine = job.machine
    known = [machine.host_memory[name] for name in strategies(layout) if name in machine.host_memory]
    process = max((found.process_bytes for found in known), default=machine.process_bytes)
    spare = max((found.spare for found in known), default=_FRAGMENTATION)
    return process + spare * coming_and_going + (machine.memory_factor - 1) * (steady + coming_and_going)


def _gathered(
    layout: Layout, parameters: float, bytes_each: float, *, block: float, tables: float
) -> tuple[float, float]:
    """Bytes of weights gathered for use all the time; and in the layers' backward pass alone, where FSDP has a block's
    gradients as well, and in 32 bits the buffer that reduces them.
    """
    if layout.shard == 1:
        return parameters * bytes_each, 0.0
    if layout.pipeline > 1:
        # Torch's stages keep weights and gradients whole until all micro-batches have passed.
        return parameters * (bytes_each + 4), 4 * block
    reduced = (bytes_each + 4) * block
    if not layout.reshard:
        return parameters * bytes_each, reduced
    # The block in use and the one that is prefetched.
    return bytes_each * tables, 2 * bytes_each * block + reduced


def _eager(
    job: Job, layout: Layout, parameters: float, micro_batches: int, *, first: bool, last: bool
) -> float:
    """What our own training in eager torch holds beside, on one rank."""
    held_too = 0.0
    if layout.pipeline > 1:
        # A stage has a buffer for every micro-batch that it receives, and one for every gradient.
        outside = layout.tensor if layout.sequence else 1
        buffer = tokens_of(job, layout) * job.architecture.hidden * job.compute_bytes / outside
        held_too += micro_batches * layout.virtual * buffer * (2 - first - last)
    if layout.shard > 1 and job.precision == "mixed":
        # Autocast keeps 16-bit weights of all layers for their backward pass.
        held_too += 2 * parameters
    return held_too
