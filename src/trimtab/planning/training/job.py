"""What is to be planned: a model, devices, a batch, and how numbers are kept."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from trimtab.planning.devices.machine import Machine
from trimtab.planning.training.architecture import Architecture
from trimtab.spec.errors import UsageError

Precision = Literal["bf16", "fp16", "mixed", "fp32"]
Optimizer = Literal["adamw", "muon", "sgd"]
Software = Literal["classic", "fused", "torch"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`sequence_length` in tokens, `global_batch` in sequences of one optimizer step.

    `precision`: `bf16` and `fp16` keep 16-bit weights beside a 32-bit master copy, `mixed` keeps 32-bit weights
    and computes in 16 bits (autocast), `fp32` computes in 32. `software` None: as `software_of` decides.
    """

    architecture: Architecture
    machine: Machine
    devices: int
    sequence_length: int
    global_batch: int
    precision: Precision = "bf16"
    optimizer: Optimizer = "adamw"
    software: Software | None = None

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.global_batch * self.sequence_length

    @property
    def compute_bytes(self) -> int:
        """Of one number in the forward pass."""
        return 4 if self.precision == "fp32" else 2


def check_job(job: Job) -> Job:
    """Raises `UsageError` for a job that no layout could do."""
    for value, unit, flag in (
        (job.devices, "devices", "--devices"),
        (job.sequence_length, "tokens a sequence", "--sequence-length"),
        (job.global_batch, "sequences a step", "--global-batch"),
    ):
        if not 1 <= value <= 10**9:
            raise UsageError(
                f"{value} {unit} cannot be planned for.", where=flag, remedy="Use 1 to a billion."
            )
    places = job.architecture.positions
    if places and job.sequence_length > places:
        raise UsageError(
            f"the model has positions for {places:,} tokens, and a sequence is to have {job.sequence_length:,}.",
            where="--sequence-length",
            remedy=f"Use {places} or less.",
        )
    if job.machine.per_node < 1:
        raise UsageError("a node has no device.", where="--per-node", remedy="Use 1 or more.")
    for value, words, flag in (
        (job.precision, get_args(Precision), "--precision"),
        (job.optimizer, get_args(Optimizer), "--optimizer"),
        (job.software or "fused", get_args(Software), "--software"),
    ):
        if value not in words:
            raise UsageError(f"{value!r} is unknown.", where=flag, remedy=f"Use {', '.join(words)}.")
    return job
