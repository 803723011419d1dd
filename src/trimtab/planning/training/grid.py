"""Every dense layout worth a look, for a number of devices.

Left out, because another layout is never worse: `gpipe` (1f1b holds less and idles as long), `sequence=off`
beside tensor parallelism, and tensor parallelism beyond a node. Shards span all replicas, or those of a node.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from trimtab.planning.training.job import Job
from trimtab.planning.training.software import software_of
from trimtab.planning.training.stages import can_split
from trimtab.spec.layout import Layout, Recompute

# A shorter piece of a sequence than this is not worth a context axis.
_CONTEXT_TOKENS = 4096
_MAX_CONTEXT, _MAX_VIRTUAL, _MAX_MICRO_BATCH = 32, 8, 64


def divisors(number: int) -> list[int]:
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def families(job: Job) -> Iterator[Layout]:
    """Layouts without micro-batch and recomputation, which `members` adds; every one divides."""
    shape, devices = job.architecture, job.devices
    for tensor in divisors(devices):
        if (
            tensor > job.machine.per_node
            or shape.heads % tensor
            or shape.kv_heads % tensor
            or shape.ffn % tensor
        ):
            continue
        for context in _contexts(job, devices // tensor, tensor):
            for pipeline in divisors(devices // tensor // context):
                replicas = devices // tensor // context // pipeline
                if job.global_batch % replicas or job.global_batch // replicas < pipeline:
                    continue
                inner = Layout(tensor=tensor, sequence=tensor > 1, context=context, pipeline=pipeline)
                for staged in _staged(inner, job.global_batch // replicas):
                    for layout in _shared(job, staged, replicas):
                        if can_split(job, layout):
                            yield layout


def _contexts(job: Job, rest: int, tensor: int) -> Iterator[int]:
    for context in divisors(rest):
        if context > _MAX_CONTEXT:
            return
        piece = job.sequence_length // context
        if job.sequence_length % context or (context > 1 and piece < _CONTEXT_TOKENS) or piece % tensor:
            continue
        yield context


def _staged(layout: Layout, sequences: int) -> Iterator[Layout]:
    """The schedules of a pipeline. Virtual stages ask for micro-batches in multiples of the pipeline."""
    if layout.pipeline == 1:
        yield layout
        return
    yield replace(layout, schedule="1f1b")
    yield replace(layout, schedule="zero_bubble")
    if sequences % layout.pipeline:
        return
    for virtual in range(2, _MAX_VIRTUAL + 1):
        yield replace(layout, schedule="interleaved", virtual=virtual)


def _shared(job: Job, layout: Layout, replicas: int) -> Iterator[Layout]:
    """How replicas share states: not at all, ZeRO 1 and 2, or FSDP over all of them or over those of a node."""
    if replicas == 1:
        yield layout
        return
    most = 2 if layout.pipeline == 1 else 1
    if job.machine.measured:
        # Our own training, which a measured machine is for, shares no gradients that way, and state of whole weights.
        most = 1 if layout.tensor == 1 else 0
    for zero in range(most + 1):
        yield replace(layout, data=replicas, zero=zero)
    local = max(1, job.machine.per_node // (layout.tensor * layout.context))
    for shard in {replicas, local}:
        if shard > 1 and replicas % shard == 0:
            for reshard in (False, True):
                yield replace(layout, data=replicas // shard, shard=shard, reshard=reshard)


def members(job: Job, family: Layout) -> Iterator[list[Layout]]:
    """Its micro-batches for each way to recompute, in rising order: once one does not fit, no larger one does."""
    sequences = job.global_batch // (family.data * family.shard)
    sizes = [
        size for size in divisors(sequences) if size <= _MAX_MICRO_BATCH and _fills(family, sequences // size)
    ]
    ways: tuple[Recompute, ...] = ("none", "selective", "full")
    if software_of(job, family) != "classic":
        # Attention that keeps no scores has nothing to recompute.
        ways = ("none", "full")
    for recompute in ways:
        yield [replace(family, micro_batch=size, recompute=recompute) for size in sizes]


def _fills(layout: Layout, micro_batches: int) -> bool:
    if micro_batches < layout.pipeline:
        return False
    return layout.virtual == 1 or micro_batches % layout.pipeline == 0
