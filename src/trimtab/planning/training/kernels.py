"""One layer's work on one rank: its matrix products, and the memory traffic of all that is no product.

Element-wise traffic is counted kernel by kernel in bytes a token (reads and writes, 16 bits), for the fused
kernels that the software has: bias + GELU, bias + dropout + add, scale + mask + softmax (Megatron-LM);
RMSNorm, rotary positions, SwiGLU, residual adds (llama).
"""

from __future__ import annotations

import msgspec

from trimtab.planning.devices.efficiency import EAGER_BUSY
from trimtab.planning.training.job import Job, Software
from trimtab.planning.training.software import adds_gradients_apart
from trimtab.spec.layout import Layout

# Kernels that eager code starts for a layer, forward and backward.
_FORWARD_KERNELS, _BACKWARD_KERNELS = 25, 50


class LayerSeconds(msgspec.Struct, frozen=True, kw_only=True):
    """Computation of one layer and one micro-batch. `core` is attention's, part of `forward`."""

    forward: float
    backward: float
    core: float


class Pair(msgspec.Struct, frozen=True):
    """Forward and backward of one quantity."""

    forward: float
    backward: float


def layer_seconds(job: Job, layout: Layout, software: Software) -> LayerSeconds:
    machine, shape = job.machine, job.architecture
    tokens = (layout.micro_batch or 1) * job.sequence_length / layout.context
    t, width = layout.tensor, job.compute_bytes
    apart = adds_gradients_apart(software, layout)
    forward = backward = 0.0
    for inner, outer in _products(job, t):
        once, back = matrix_seconds(job, tokens, inner, outer, apart=apart)
        forward += once
        backward += back
    core = _attention(job, layout, software, tokens)
    moved = traffic_bytes(job, layout, software)
    each = width * tokens * shape.hidden
    forward += core.forward + machine.traffic_seconds(moved.forward, each)
    backward += core.backward + machine.traffic_seconds(moved.backward, each)
    if machine.host:
        return LayerSeconds(forward=forward, backward=backward, core=core.forward)
    busy = EAGER_BUSY if software == "torch" and not machine.measured else 1.0
    return LayerSeconds(
        forward=max(forward / busy, _FORWARD_KERNELS * machine.launch_seconds),
        backward=max(backward / busy, _BACKWARD_KERNELS * machine.launch_seconds),
        core=core.forward,
    )


def _products(job: Job, tensor: int) -> list[tuple[float, float]]:
    """(inner, outer) sides of a layer's matrices on one rank. Stock modules, which a measured machine runs, keep
    queries, keys, values and gates apart; else they are one product each.
    """
    shape, t = job.architecture, tensor
    ends = [(shape.query_width / t, shape.hidden), (shape.ffn / t, shape.hidden)]
    if job.machine.measured and shape.family == "llama":
        widths = [shape.query_width, shape.kv_width, shape.kv_width, *[shape.ffn] * shape.gates]
    else:
        widths = [shape.query_width + 2 * shape.kv_width, shape.gates * shape.ffn]
    return [*((shape.hidden, width / t) for width in widths), *ends]


def traffic_bytes(job: Job, layout: Layout, software: Software) -> Pair:
    """Bytes that element-wise kernels of one layer and micro-batch move on one rank."""
    shape, t, outside = job.architecture, layout.tensor, layout.tensor if layout.sequence else 1
    per_token = job.compute_bytes / 2 * (layout.micro_batch or 1) * job.sequence_length / layout.context
    whole, split = _traffic(job, software)
    return Pair(
        per_token * (whole.forward * shape.hidden / outside + split.forward / t),
        per_token * (whole.backward * shape.hidden / outside + split.backward / t),
    )


def matrix_seconds(job: Job, rows: float, inner: float, outer: float, *, apart: bool) -> tuple[float, float]:
    """(rows, inner) × (inner, outer), and its backward pass: the input's gradient, and the weights'.

    The weights' is added to 32-bit gradients: by the product itself (8 bytes a weight), or `apart`, which
    writes it in 16 bits and reads it once more.
    """
    machine, width = job.machine, job.compute_bytes
    flops = 2.0 * rows * inner * outer
    weights, inputs, outputs = inner * outer, rows * inner, rows * outer
    once = machine.gemm_seconds(flops, width * (weights + inputs + outputs))
    added = (8 + 2 * width if apart else 8) * weights
    return once, once + machine.gemm_seconds(flops, width * (inputs + outputs) + added)


def _attention(job: Job, layout: Layout, software: Software, tokens: float) -> Pair:
    machine, shape = job.machine, job.architecture
    heads, length = shape.heads / layout.tensor, job.sequence_length
    scores = heads * tokens * length
    flops = 4.0 * scores * shape.head_dim
    if software != "classic":
        # A causal mask halves the work; the backward pass does 2.5 times the forward pass's products.
        once = flops / 2 / machine.attention_flops
        return Pair(once, 2.5 * once)
    width = job.compute_bytes
    operands = 2 * heads * tokens * shape.head_dim * width
    product = machine.gemm_seconds(flops / 2, operands + width * scores)
    # Softmax reads and writes, dropout reads and writes and keeps a mask of a byte; backwards both once more.
    softmax = machine.traffic_seconds((4 * width + 1) * scores)
    softmax_backward = machine.traffic_seconds((5 * width + 1) * scores)
    return Pair(2 * product + softmax, 4 * product + softmax_backward)


def _traffic(job: Job, software: Software) -> tuple[Pair, Pair]:
    """Bytes a token: a hidden unit, of what every tensor-parallel rank does whole; and of what they share."""
    shape = job.architecture
    if shape.family == "gpt":
        # Two LayerNorms (4, backward 6 each); two bias + dropout + add (7, backward 11), or without dropout
        # plain adds (6, backward 6). GELU reads and writes, backwards it reads two; attention is laid out anew.
        adds = Pair(14, 22) if software == "classic" else Pair(12, 12)
        whole = Pair(8 + adds.forward, 12 + adds.backward)
        laid_out = 4 * shape.query_width
        return whole, Pair(4 * shape.ffn + laid_out, 6 * shape.ffn + laid_out)
    turned = shape.query_width + shape.kv_width
    if software == "torch":
        # Two RMSNorms of four kernels (12, backward 24 each), two adds, and five sums of gradients. SwiGLU and
        # rotary positions, which turn queries and keys in 32 bits, are kernels of their own.
        return Pair(24 + 12, 48 + 30), Pair(10 * shape.ffn + 20 * turned, 18 * shape.ffn + 20 * turned)
    # Two fused RMSNorms (4, backward 6 each), two adds; SwiGLU reads two and writes one; rotary positions.
    return Pair(8 + 12, 12 + 12), Pair(6 * shape.ffn + 4 * turned, 10 * shape.ffn + 4 * turned)
