"""Seconds that one layer, and the head, cost one rank for one micro-batch: computation, and what communication
adds to it. Ranks are laid out with `tensor` innermost, then context, shard, data, pipeline.
"""

from __future__ import annotations

import msgspec

from trimtab.planning.devices.efficiency import COMMUNICATION_CORES
from trimtab.planning.training.communication import all_gather, all_reduce, send
from trimtab.planning.training.job import Job, Software
from trimtab.planning.training.kernels import layer_seconds, matrix_seconds
from trimtab.planning.training.stages import layer_parameters_of_rank
from trimtab.planning.training.states import states
from trimtab.spec.layout import Layout

# Cross-entropy over the vocabulary in 32 bits: cast, maximum, exponentials, gradient, cast back.
_LOSS_BYTES = 24.0
# All-reduces that computation waits for; where they were not measured apart, as any other.
IN_LAYERS = "all_reduce in layers"


class LayerCosts(msgspec.Struct, frozen=True, kw_only=True):
    """One layer and one micro-batch on one rank. Communication is what no computation hides. `once`: a step's, however
    many micro-batches pass.
    """

    forward: float
    backward: float
    recompute: float
    tensor: float
    context: float
    shard: float
    once: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recompute + self.tensor + self.context + self.shard


class HeadCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Head and loss of one micro-batch."""

    compute: float
    tensor: float


def layer_costs(job: Job, layout: Layout, software: Software) -> LayerCosts:
    seconds = layer_seconds(job, layout, software)
    again = {
        "none": 0.0,
        "selective": seconds.core if software == "classic" else 0.0,
        "full": seconds.forward,
    }[layout.recompute]
    tensor_forward, tensor_backward = _tensor(job, layout)
    forward, backward = seconds.forward + tensor_forward, seconds.backward + again + tensor_backward
    shard, once = _shard(job, layout, forward, backward) if layout.shard > 1 else (0.0, 0.0)
    return LayerCosts(
        forward=seconds.forward,
        backward=seconds.backward,
        recompute=again,
        tensor=tensor_forward + tensor_backward,
        context=_context(job, layout),
        shard=shard,
        once=once,
    )


def hidden_bytes(job: Job, layout: Layout) -> float:
    """The hidden states of one micro-batch between two layers."""
    tokens = (layout.micro_batch or 1) * job.sequence_length / layout.context
    return tokens * job.architecture.hidden * job.compute_bytes


def _tensor(job: Job, layout: Layout) -> tuple[float, float]:
    """Two all-reduces forward and two backward, or under `sequence` a gather and a scatter in the place of each.

    `full` repeats the forward ones. Under `sequence` the inputs of two products are gathered once more
    in the backward pass, beside the products that do not need them.
    """
    if layout.tensor == 1:
        return 0.0, 0.0
    link = job.machine.link(layout.tensor, 1, IN_LAYERS)
    forward = 2 * all_reduce(hidden_bytes(job, layout), layout.tensor, link)
    backward = forward * (2 if layout.recompute == "full" else 1)
    if layout.sequence:
        gathered_again = 2 * all_gather(hidden_bytes(job, layout), layout.tensor, link)
        backward += (1 - job.machine.overlap) * gathered_again
    return forward, backward


def _context(job: Job, layout: Layout) -> float:
    """Keys and values of the whole sequence are gathered, forward and again backward, and their gradients reduced."""
    if layout.context == 1:
        return 0.0
    tokens = (layout.micro_batch or 1) * job.sequence_length
    size = 2 * tokens * job.architecture.kv_width / layout.tensor * job.compute_bytes
    gathers = 3 if layout.recompute == "full" else 2
    link = job.machine.link(layout.context, layout.tensor, "all_gather")
    return (gathers + 1) * all_gather(size, layout.context, link)


def _shard(job: Job, layout: Layout, forward: float, backward: float) -> tuple[float, float]:
    """FSDP of one layer, by micro-batch and once a step: weights gathered (twice under `reshard`), gradients reduced.

    Stages of a pipeline reduce gradients once, when all micro-batches have passed, and gather once without `reshard`.
    """
    kept = states(job.precision, job.optimizer, layout)
    parameters = layer_parameters_of_rank(job.architecture, layout.tensor)
    gather, reduce = shard_seconds(job, layout, parameters, kept.gathered)
    overlap = job.machine.overlap
    if layout.pipeline == 1:
        again = gather if layout.reshard else 0.0
        return beside(gather, forward, overlap) + beside(again + reduce, backward, overlap), 0.0
    if not layout.reshard:
        return 0.0, gather + reduce
    return beside(gather, forward, overlap) + beside(gather, backward, overlap), reduce


def beside(communication: float, computation: float, overlap: float) -> float:
    """What communication adds to the computation it runs beside: what is longer, and the cores it takes away."""
    hidden = min(communication, overlap * computation)
    return communication - hidden * (1 - COMMUNICATION_CORES)


def shard_seconds(job: Job, layout: Layout, parameters: float, bytes_each: float) -> tuple[float, float]:
    """To gather `parameters`, and to reduce their gradients over shards, in 32 bits."""
    inner = layout.tensor * layout.context
    gather = all_gather(
        bytes_each * parameters, layout.shard, job.machine.link(layout.shard, inner, "all_gather")
    )
    reduce = all_gather(4 * parameters, layout.shard, job.machine.link(layout.shard, inner, "reduce_scatter"))
    return gather, reduce


def head_costs(job: Job, layout: Layout, software: Software) -> HeadCosts:
    """Under tensor parallelism eager torch gathers the logits, and every rank computes the loss of all of them."""
    tokens = (layout.micro_batch or 1) * job.sequence_length / layout.context
    vocabulary = job.architecture.vocabulary / layout.tensor
    forward, backward = matrix_seconds(job, tokens, job.architecture.hidden, vocabulary, apart=False)
    gathered = 0.0
    if software == "torch":
        vocabulary = job.architecture.vocabulary
        size = float(tokens * vocabulary * job.compute_bytes)
        gathered = all_gather(size, layout.tensor, job.machine.link(layout.tensor, 1, "all_gather"))
        if layout.tensor > 1:
            # The parts are put together, read and written; of the whole gradient every rank copies its part.
            gathered += job.machine.traffic_seconds(size * (2 + 2 / layout.tensor), size)
    loss = job.machine.traffic_seconds(_LOSS_BYTES * tokens * vocabulary, 4.0 * tokens * vocabulary)
    link = job.machine.link(layout.tensor, 1, IN_LAYERS)
    # The head's backward pass sums its input's gradient; the embedding sums its output where it is here too.
    sums = 2 if layout.pipeline == 1 else 1
    return HeadCosts(
        compute=forward + backward + loss,
        tensor=gathered + sums * all_reduce(hidden_bytes(job, layout), layout.tensor, link),
    )


def between_stages(job: Job, layout: Layout, software: Software) -> float:
    """Hidden states and their gradients handed on, once a stage that the rank has.

    Each of the tensor-parallel ranks sends its share, which is gathered inside of the node.
    """
    if layout.pipeline == 1:
        return 0.0
    size = hidden_bytes(job, layout)
    stride = layout.world // layout.pipeline
    once = send(size / layout.tensor, job.machine.link(2, stride, "point_to_point"))
    if not layout.sequence:
        once += all_gather(size, layout.tensor, job.machine.link(layout.tensor, 1, "all_gather"))
    hidden = job.machine.overlap if software != "classic" and layout.virtual > 1 else 0.0
    return 2 * layout.virtual * once * (1 - hidden)
