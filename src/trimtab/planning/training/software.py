"""What kernels and what overlap a layout is assumed to run with, since both decide time and memory.

`classic` is Megatron-LM as its papers of 2021 and 2022 describe it: fused element-wise kernels, but attention
scores are written to memory (in `gpt`, whose dropout needs them), and gradients are reduced after the
backward pass. `fused` is Megatron's successor: attention never writes its scores, and gradients travel beside
the computation. `torch` is eager PyTorch: fused attention and overlap too, but one kernel an operation.
"""

from __future__ import annotations

from trimtab.planning.training.job import Job, Software
from trimtab.spec.layout import Layout


def software_of(job: Job, layout: Layout) -> Software:
    """What was asked for; else what published runs of such a layout used.

    A measured machine is one that we train on, in eager torch. Sharded parameters mean torch's FSDP. Else a `gpt` on
    an accelerator from before Hopper was trained by `classic` software. Else layers that are split mean `fused`, and
    those that are not `torch`.
    """
    if job.software is not None:
        return job.software
    if job.machine.measured or layout.shard > 1:
        return "torch"
    if job.machine.generation == "classic" and job.architecture.family == "gpt":
        return "classic"
    return "fused" if layout.tensor > 1 or layout.pipeline > 1 else "torch"


def adds_gradients_apart(software: Software, layout: Layout) -> bool:
    """Whether a kernel of its own adds a micro-batch's weight gradients to the 32-bit ones.

    Megatron-LM fused that into the matrix product between its papers of 2021 and 2022; what marks the later
    one are sequence parallelism and selective recomputation.
    """
    return software == "classic" and not layout.sequence and layout.recompute != "selective"
