"""Floating-point operations of training, by the convention in which utilisation is published.

Attention counts in full, though a causal mask halves what is needed: that is what Megatron-LM, PaLM and most
tables do. MFU counts what the model needs; HFU also what is recomputed.
"""

from __future__ import annotations

from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.job import Job
from trimtab.spec.layout import Layout, Recompute


def flops_per_token(shape: Architecture, sequence_length: int, recompute: Recompute = "none") -> float:
    """Forward and backward pass, and what is computed again.

    For a gpt 72 L h² (1 + s/6h + V/12Lh); with `full` 96 and V/16Lh; with `selective` 72 and s/3h, which is
    Korthikanti et al. 2022, equation 8: it counts the attention's core twice over, more than is recomputed.
    """
    matrices = 2 * shape.layers * shape.layer_matrices
    attention = 4 * shape.layers * shape.query_width * sequence_length
    head = 2 * shape.embedding
    again = {"none": 0.0, "selective": 3 * attention, "full": matrices + attention}[recompute]
    return 3.0 * (matrices + attention + head) + again


def reported_tflops(job: Job, layout: Layout, step_seconds: float) -> float:
    """Per device, as Megatron-LM's tables report them: with what is recomputed in full, without what
    selective recomputation adds.
    """
    recompute: Recompute = "full" if layout.recompute == "full" else "none"
    flops = flops_per_token(job.architecture, job.sequence_length, recompute) * job.tokens
    return flops / step_seconds / job.devices / 1e12


def utilisation(job: Job, step_seconds: float, recompute: Recompute = "none") -> float:
    """MFU; HFU with the layout's `recompute`. A fraction of the devices' peak rate."""
    flops = flops_per_token(job.architecture, job.sequence_length, recompute) * job.tokens
    return flops / step_seconds / (job.devices * job.machine.peak_flops)
