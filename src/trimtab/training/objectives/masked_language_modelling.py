"""Find masked tokens again (Devlin et al. 2019): cross-entropy with the true one, where one was masked."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trimtab.parallel.criterion import Inputs
from trimtab.training.objectives.divergence import IGNORED, divergence


class MaskedLanguageModelling:
    classifies = False

    def prepare(self, batch: Mapping[str, torch.Tensor]) -> tuple[Inputs, torch.Tensor, int]:
        """Of `input_ids` and `labels` (n, length). Windows are full, so nothing is to be left out of attention."""
        labels = batch["labels"]
        return {"input_ids": batch["input_ids"]}, labels, int((labels != IGNORED).sum())

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum over masked tokens, nats, of (n, length, V) logits."""
        return divergence(logits.flatten(0, 1), labels.flatten())[0]

    held_out = loss
