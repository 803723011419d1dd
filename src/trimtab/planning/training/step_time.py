"""Seconds of one optimizer step, by term, of the slowest rank.

A step is m micro-batches through the slowest rank, the pipeline's idle time, what the sum of the gradients
leaves exposed, the optimizer, and the host. Tensor-parallel collectives are exposed: the next product needs
what they give.
"""

from __future__ import annotations

import msgspec

from trimtab.planning.training.communication import all_gather, all_reduce
from trimtab.planning.training.host import host_seconds
from trimtab.planning.training.job import Job, Software
from trimtab.planning.training.layer_costs import (
    HeadCosts,
    LayerCosts,
    beside,
    between_stages,
    head_costs,
    layer_costs,
    shard_seconds,
)
from trimtab.planning.training.memory import parameters_of_ranks
from trimtab.planning.training.schedule import idle_micro_batches
from trimtab.planning.training.software import software_of
from trimtab.planning.training.stages import layer_parameters_of_rank, table_parameters_of_rank
from trimtab.planning.training.states import GRADIENT_BYTES, states
from trimtab.planning.training.updates import update_seconds
from trimtab.spec.layout import Layout


class StepSeconds(msgspec.Struct, frozen=True, kw_only=True):
    """Of one step. `tensor` … `data`: communication that no computation hides, by the axis that causes it."""

    compute: float
    recompute: float
    tensor: float
    context: float
    pipeline: float
    shard: float
    data: float
    bubble: float
    optimizer: float
    host: float

    @property
    def total(self) -> float:
        return (
            self.compute
            + self.recompute
            + self.tensor
            + self.context
            + self.pipeline
            + self.shard
            + self.data
            + self.bubble
            + self.optimizer
            + self.host
        )


class StepTimes:
    """Step times of layouts of one job. What layouts have in common is computed once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._layers: dict[tuple[object, ...], LayerCosts] = {}
        self._heads: dict[tuple[object, ...], HeadCosts] = {}

    def of(self, layout: Layout, layers: tuple[int, ...], micro_batches: int) -> StepSeconds:
        """`layers` as `stages.layers_of_ranks` gives them."""
        job, software = self._job, software_of(self._job, layout)
        layer, head = self._layer(layout, software), self._head(layout, software)
        between = between_stages(job, layout, software)
        # The last rank has the head; others may have more layers instead.
        last = layers[-1] * layer.total + head.compute + head.tensor >= max(layers) * layer.total
        count, heads = (layers[-1], micro_batches) if last else (max(layers), 0)
        # A micro-batch passes all ranks; while it is at the others, the slowest waits once.
        others = (sum(layers) - count) * layer.total + (0.0 if last else head.compute + head.tensor)
        many = micro_batches * count
        return StepSeconds(
            compute=many * (layer.forward + layer.backward) + heads * head.compute,
            recompute=many * layer.recompute,
            tensor=many * layer.tensor + heads * head.tensor,
            context=many * layer.context,
            pipeline=micro_batches * between,
            shard=many * layer.shard + count * layer.once + _edges_of_shards(job, layout),
            data=_data(job, layout, layers, micro_batches, layer, software),
            bubble=idle_micro_batches(layout) * (others / max(1, layout.pipeline - 1) + between),
            optimizer=update_seconds(job, layout, layers),
            host=host_seconds(job, layout, count, micro_batches),
        )

    def _layer(self, layout: Layout, software: Software) -> LayerCosts:
        key = (
            layout.tensor,
            layout.sequence,
            layout.context,
            layout.micro_batch,
            layout.recompute,
            software,
            (layout.shard, layout.reshard, layout.data) if layout.shard > 1 else None,
        )
        if key not in self._layers:
            self._layers[key] = layer_costs(self._job, layout, software)
        return self._layers[key]

    def _head(self, layout: Layout, software: Software) -> HeadCosts:
        key = (layout.tensor, layout.context, layout.micro_batch, layout.pipeline == 1, software)
        if key not in self._heads:
            self._heads[key] = head_costs(self._job, layout, software)
        return self._heads[key]


def _edges_of_shards(job: Job, layout: Layout) -> float:
    """The first layer's gather and the last one's reduction have nothing beside them, nor have the tables'."""
    if layout.shard == 1:
        return 0.0
    tables = table_parameters_of_rank(job.architecture, layout.tensor, first=True, last=layout.pipeline == 1)
    # Where nothing is hidden, layers have paid for all of theirs.
    parameters = tables + job.machine.overlap * layer_parameters_of_rank(job.architecture, layout.tensor)
    gathered = states(job.precision, job.optimizer, layout).gathered
    return sum(shard_seconds(job, layout, parameters, gathered))


def _data(
    job: Job,
    layout: Layout,
    layers: tuple[int, ...],
    micro_batches: int,
    layer: LayerCosts,
    software: Software,
) -> float:
    """Replicas sum their gradients, or under `zero` reduce and gather shares of them; beside shards each its own. Of
    stages that are not alike, the one that takes longest.
    """
    tied = _tied_tables(job, layout)
    if layout.data * layout.context == 1:
        return tied
    return tied + max(
        _data_of_rank(job, layout, layers[rank], parameters / layout.shard, micro_batches, layer, software)
        for rank, parameters in parameters_of_ranks(job, layout, layers)
    )


def _data_of_rank(
    job: Job,
    layout: Layout,
    layers: int,
    parameters: float,
    micro_batches: int,
    layer: LayerCosts,
    software: Software,
) -> float:
    ranks, stride = layout.data * layout.context, layout.tensor * layout.shard
    link, gathering = (job.machine.link(ranks, stride, name) for name in ("all_reduce", "all_gather"))
    size = 4 if layout.shard > 1 else GRADIENT_BYTES[job.precision]
    reduce = all_gather(size * parameters, ranks, link)
    gather = reduce if not layout.zero else all_gather(job.compute_bytes * parameters, ranks, gathering)
    if layout.zero == 1 and software == "torch":
        # Ours lets DDP sum gradients whole, and then exchanges 32-bit weights.
        reduce, gather = 2 * reduce, all_gather(4.0 * parameters, ranks, gathering)
    overlap = job.machine.overlap if software != "classic" else 0.0
    # The last micro-batch's backward pass hides it, save for the bucket that is ready last.
    forward, behind = layers * layer.forward, layers * (layer.backward + layer.recompute)
    before = forward if layout.zero else 0.0
    if not layout.zero:
        reduce, gather = reduce + gather, 0.0
    last_bucket = (reduce + gather) / max(1, layers)
    exposed = beside(reduce, behind, overlap) + beside(gather, before, overlap) + last_bucket
    last = min(reduce + gather, exposed)
    if layout.zero < 2:
        return last
    # Gradients that are shared are reduced in every micro-batch, while the next one computes. Software that shares
    # them does that whatever else it overlaps: it came later than what `classic` stands for.
    return last + (micro_batches - 1) * beside(reduce, forward + behind, job.machine.overlap)


def _tied_tables(job: Job, layout: Layout) -> float:
    """First and last rank both hold a tied table, and sum its gradients."""
    if not job.architecture.tied or layout.pipeline == 1:
        return 0.0
    size = GRADIENT_BYTES[job.precision] * job.architecture.embedding / layout.tensor
    return all_reduce(size, 2, job.machine.link(2, layout.world // layout.pipeline))
