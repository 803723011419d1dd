"""What kernels and what overlap a layout is assumed to run with, since both decide time and memory.

`classic` is Megatron-LM as its papers of 2021 and 2022 describe it: attention scores are written to memory
(in `gpt`, whose dropout needs them), and gradients are reduced after the backward pass. `fused` is today's:
attention never writes its scores (FlashAttention, torch's SDPA), and gradients and gathered weights travel
beside the computation.
"""

from __future__ import annotations

from trimtab.planning.job import Job, Software
from trimtab.spec.layout import Layout


def software_of(job: Job, layout: Layout) -> Software:
    """What was asked for; else `classic` where published GPTs were trained so.

    That is a `gpt` on an accelerator from before Hopper whose parameters are not sharded: sharded parameters
    mean torch's FSDP, which brings SDPA, and a llama has no dropout that would keep it from fused attention.
    """
    if job.software is not None:
        return job.software
    old = job.machine.generation == "classic" and job.architecture.family == "gpt"
    return "classic" if old and layout.shard == 1 else "fused"


def adds_gradients_apart(software: Software, layout: Layout) -> bool:
    """Whether a kernel of its own adds a micro-batch's weight gradients to the 32-bit ones.

    Megatron-LM fused that into the matrix product between its papers of 2021 and 2022; what marks the later
    one are sequence parallelism and selective recomputation.
    """
    return software == "classic" and not layout.sequence and layout.recompute != "selective"
