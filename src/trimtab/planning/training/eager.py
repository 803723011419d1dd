"""What eager torch keeps for the backward pass, one kernel an operation: counted on transformers' stock blocks.

`torch.autograd.graph.saved_tensors_hooks` shows every storage that is kept; the terms below name each of them
(`tests/parallel/test_kept_activations.py` counts again). Norms compute in 32 bits and keep their input and what they
make of it before its weight. Under `mixed` the stream between layers stays in 32 bits, and every product casts its
input for itself.
"""

from __future__ import annotations

from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.job import Job
from trimtab.spec.layout import Layout, Recompute

# Tokens whose loss is computed at once, in 32 bits: `CHUNK_TOKENS` of training/objectives/divergence.py.
CHUNK_TOKENS = 256


def layer_bytes_per_token(job: Job, tensor: int, outside: int, recompute: Recompute) -> float:
    """On one rank. `outside` of the split matrices as many ranks share what is kept."""
    shape, width = job.architecture, job.compute_bytes
    if recompute == "full":
        return _stream_bytes(job) * shape.hidden / outside
    if shape.family == "gpt":
        return _gpt_whole(job) / outside + _gpt_split(job) / tensor
    # Each norm: its input in 32 bits, what it makes of it, and the root; what products read of it.
    made = width if job.precision in ("bf16", "fp16") else 4
    read = (3 + shape.gates if job.precision == "mixed" else 2) * width
    whole = shape.hidden * (2 * (4 + made) + read) + 8
    # Queries, keys, values, what attention gives and the logarithms of its sums; SwiGLU's four.
    split = width * (2 * shape.query_width + 2 * shape.kv_width + 4 * shape.ffn) + 4 * shape.heads
    return whole / outside + (split + _head_norms(shape, width)) / tensor


def _stream_bytes(job: Job) -> int:
    """Of a hidden unit between layers."""
    return 2 if job.precision in ("bf16", "fp16") else 4


def _head_norms(shape: Architecture, width: int) -> float:
    """RMSNorm on queries and keys, as on hidden states, one root a head."""
    if not shape.query_key_norm:
        return 0.0
    return (4 + width) * (shape.query_width + shape.kv_width) + 4 * (shape.heads + shape.kv_heads)


def _gpt_whole(job: Job) -> float:
    """Inputs and results of two LayerNorms, two dropout masks, and mean and deviation of each norm."""
    width = job.compute_bytes
    mask = width if job.machine.host else 1
    return job.architecture.hidden * (2 * _stream_bytes(job) + 2 * width + 2 * mask) + 16


def _gpt_split(job: Job) -> float:
    """Attention's four and the FFN's five: GELU by its formula keeps its input, a half of it, tanh, tanh + 1, result.

    On a CPU attention with dropout writes its scores: softmax's, the mask, and their product.
    """
    shape, width = job.architecture, job.compute_bytes
    scores = 3 * width * shape.heads * job.sequence_length if job.machine.host else 0
    return width * (2 * shape.query_width + 2 * shape.kv_width + 5 * shape.ffn) + scores


def head_bytes(job: Job, layout: Layout, tokens: float) -> float:
    """Final norm, the head's input, logits and their gradient; a chunk of the loss in 32 bits.

    Under tensor parallelism a rank's part of the logits, the gathered parts and the whole that is put together from
    them are there at once, before there is a gradient.
    """
    shape, width = job.architecture, job.compute_bytes
    outside = layout.tensor if layout.sequence else 1
    norm = tokens * shape.hidden * ((4 + _stream_bytes(job)) / outside + width)
    whole = tokens * shape.vocabulary * width
    loss = 2 * whole + 4.0 * min(tokens, CHUNK_TOKENS) * shape.vocabulary
    gathering = whole * (2 + 1 / layout.tensor) if layout.tensor > 1 else 0.0
    return norm + max(loss, gathering)


def backward_bytes(job: Job, layout: Layout, tokens: float) -> float:
    """What a layer's backward pass has at its fullest beside what was kept: of the FFN's product the gradient and those
    of its two factors, one of which takes the place of the product; gradients before and after the residual.
    """
    shape, outside = job.architecture, layout.tensor if layout.sequence else 1
    return tokens * job.compute_bytes * (2 * shape.ffn / layout.tensor + 2 * shape.hidden / outside)
