"""What the loop asks of an objective, and the one place that makes one from a job."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from trimtab.training.job import TrainJob
from trimtab.training.objectives.distillation import Distillation
from trimtab.training.objectives.language_modelling import LanguageModelling


class Objective(Protocol):
    """`loss` is a sum over this rank's tokens, in nats; the loop divides by their global number."""

    def loss(self, logits: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """`logits` (batch, length, V), `inputs` and `targets` (batch, length) int64 → scalar."""
        ...


def make_objective(job: TrainJob, device: torch.device) -> Objective:
    """Loads the teacher, once, if the job has one. Raises `ModelError`, `UsageError`."""
    if job.objective == "language_modelling":
        return LanguageModelling()
    return Distillation.load(Path(job.teacher) if job.teacher else None, device, job.cross_entropy_weight)
