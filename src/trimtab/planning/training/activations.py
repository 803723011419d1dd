"""Bytes that a layer keeps from its forward pass for its backward pass.

`gpt`: Korthikanti et al. 2022, table 2, term by term, so that other FFN widths and grouped keys count right.
`llama`: derived the same way without dropout masks; SwiGLU keeps both gates, the activation and the product.
Eager torch keeps more than fused kernels do: `eager.py`.
"""

from __future__ import annotations

from trimtab.planning.training import eager
from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.job import Job, Software
from trimtab.planning.training.software import software_of
from trimtab.spec.layout import Layout, Recompute


def layer_bytes(job: Job, layout: Layout, software: Software, recompute: Recompute | None = None) -> float:
    """Of one layer and one micro-batch on one rank; `recompute` replaces the layout's."""
    shape, recompute = job.architecture, recompute or layout.recompute
    tokens = tokens_of(job, layout)
    # Outside of the tensor-parallel matrices every rank keeps everything, unless the sequence is split there.
    outside = layout.tensor if layout.sequence else 1
    scale = job.compute_bytes / 2
    if software == "torch":
        return tokens * eager.layer_bytes_per_token(job, layout.tensor, outside, recompute)
    if recompute == "full":
        return scale * 2 * tokens * shape.hidden / outside
    kept = tokens * (_replicated(shape) / outside + _split(shape) / layout.tensor)
    if software == "classic" and shape.family == "gpt" and recompute == "none":
        # Softmax's output, dropout's mask and dropout's output: 5 bytes a score.
        kept += 5 * shape.heads * tokens * job.sequence_length / layout.tensor
    return scale * kept


def tokens_of(job: Job, layout: Layout) -> float:
    """Of one micro-batch on one rank."""
    return (layout.micro_batch or 1) * job.sequence_length / layout.context


def _replicated(shape: Architecture) -> float:
    """Bytes a token: inputs of both norms and of both column-parallel matrices, and gpt's two dropout masks."""
    return shape.hidden * (10 if shape.family == "gpt" else 8)


def _split(shape: Architecture) -> float:
    """Bytes a token: queries, keys, values, what attention gives, and the FFN's inside."""
    attention = 4 * shape.query_width + 4 * shape.kv_width
    return attention + shape.ffn * (4 if shape.family == "gpt" else 8)


def logits_bytes(job: Job, layout: Layout) -> float:
    """On the last rank: logits in the compute dtype, in 32 bits, and their gradient; in torch as our loss has them."""
    if software_of(job, layout) == "torch":
        return eager.head_bytes(job, layout, tokens_of(job, layout))
    return tokens_of(job, layout) * job.architecture.vocabulary * (job.compute_bytes + 4 + 4) / layout.tensor
