"""What does not divide: whether a model, a batch and devices can be split as a layout says."""

from __future__ import annotations

import msgspec

from trimtab.planning.training.job import Job
from trimtab.planning.training.stages import can_split
from trimtab.spec.layout import Layout


def as_run(layout: Layout, batch: int) -> Layout:
    """The layout with the micro-batch that training takes where none is named, for a `batch` of sequences."""
    if layout.micro_batch is not None:
        return layout
    share = max(1, batch // (layout.data * layout.shard))
    return msgspec.structs.replace(layout, micro_batch=default_micro_batch(share, layout.pipeline))


def default_micro_batch(share: int, pipeline: int) -> int:
    """Of a rank's share of sequences: all, or under a pipeline as many as make two micro-batches a stage, or one."""
    if pipeline == 1:
        return share
    return next((share // parts for parts in (2 * pipeline, pipeline) if share % parts == 0), 1)


def micro_batches(job: Job, layout: Layout) -> int:
    """Of one rank and one step."""
    return job.global_batch // (layout.data * layout.shard * (layout.micro_batch or 1))


def misfit(job: Job, layout: Layout) -> str | None:
    """A sentence, or None: the layout fits in all but memory, which is another matter."""
    return (
        _devices(job, layout) or _tensors(job, layout) or _batch(job, layout) or _stages(job, layout) or None
    )


def _devices(job: Job, layout: Layout) -> str:
    if layout.world != job.devices:
        return f"the layout is for {layout.world:,} devices, not {job.devices:,}."
    return ""


def _tensors(job: Job, layout: Layout) -> str:
    shape, t = job.architecture, layout.tensor
    for what, number in (
        ("heads", shape.heads),
        ("key-value heads", shape.kv_heads),
        ("units of the FFN", shape.ffn),
    ):
        if number % t:
            return f"{number:,} {what} do not divide over tensor={t}."
    if job.sequence_length % layout.context:
        return f"{job.sequence_length:,} tokens do not divide over context={layout.context}."
    if layout.sequence and job.sequence_length // layout.context % t:
        return f"{job.sequence_length // layout.context:,} tokens do not divide over tensor={t}, sequence=on."
    return ""


def _batch(job: Job, layout: Layout) -> str:
    replicas, size = layout.data * layout.shard, layout.micro_batch or 1
    if job.global_batch % (replicas * size):
        return (
            f"{job.global_batch:,} sequences do not divide over {replicas:,} replicas in "
            f"micro-batches of {size}."
        )
    return ""


def _stages(job: Job, layout: Layout) -> str:
    if layout.pipeline == 1:
        return ""
    stages, count = layout.pipeline * layout.virtual, micro_batches(job, layout)
    if not can_split(job, layout):
        return f"{job.architecture.layers} layers do not divide into {stages} stages."
    if count < layout.pipeline:
        return f"{count} micro-batches cannot fill a pipeline of {layout.pipeline} stages."
    if layout.virtual > 1 and count % layout.pipeline:
        return f"{count} micro-batches are no multiple of pipeline={layout.pipeline}, as virtual stages need."
    return ""
