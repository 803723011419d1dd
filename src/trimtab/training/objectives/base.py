"""What the loop asks of an objective, and the one place that makes one from a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from trimtab.data.prepared_images import PreparedImages
from trimtab.parallel.criterion import Inputs
from trimtab.training.job import TrainJob
from trimtab.training.objectives.classification import ImageClassification, TextClassification
from trimtab.training.objectives.distillation import Distillation
from trimtab.training.objectives.language_modelling import LanguageModelling
from trimtab.training.objectives.masked_language_modelling import MaskedLanguageModelling


class Objective(Protocol):
    """Losses are sums over what counts of this rank's share, in nats; the loop divides by the global number.

    `classifies`: there is one right answer a sample, (n,), so accuracy is worth telling.
    """

    @property
    def classifies(self) -> bool: ...

    def prepare(self, batch: Mapping[str, torch.Tensor], /) -> tuple[Inputs, torch.Tensor, int]:
        """A loader's arrays → the model's inputs, the targets, and how many of these count."""
        ...

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, /) -> torch.Tensor:
        """Scalar, differentiable in the logits."""
        ...

    def held_out(self, logits: torch.Tensor, targets: torch.Tensor, /) -> torch.Tensor:
        """Cross-entropy with what is true, whatever `loss` is: scalar."""
        ...


def make_objective(job: TrainJob, device: torch.device) -> Objective:
    """Loads the teacher, once, if the job has one. Raises `ModelError`, `UsageError`."""
    match job.objective:
        case "language_modelling":
            return LanguageModelling()
        case "distillation":
            teacher = Path(job.teacher) if job.teacher else None
            return Distillation.load(teacher, device, job.cross_entropy_weight)
        case "masked_language_modelling":
            return MaskedLanguageModelling()
        case "text_classification":
            return TextClassification()
        case "image_classification":
            record = PreparedImages.load(Path(job.data)).record
            return ImageClassification(record.mean, record.std)
