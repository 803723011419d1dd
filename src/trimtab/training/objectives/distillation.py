"""Predict what a teacher predicts: forward KL on logits, summed over the vocabulary, mean over tokens.

Forward KL covers the teacher's modes, which suits recovery after pruning (Hinton et al. 2015; Muralidharan
et al. 2024). An optional share of cross-entropy keeps the true token in sight. The teacher is never
trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch

from trimtab.models.load import load
from trimtab.parallel.criterion import Inputs
from trimtab.spec.errors import UsageError
from trimtab.training.objectives.divergence import divergence
from trimtab.training.objectives.language_modelling import LanguageModelling

# Axes of targets that say what the teacher reads and what counts.
_WITH_WHAT_COUNTS = 3


class Distillation(LanguageModelling):
    """Data and held-out loss are those of language modelling."""

    def __init__(self, teacher: torch.nn.Module, cross_entropy_weight: float) -> None:
        self._teacher, self._weight = teacher.eval().requires_grad_(False), cross_entropy_weight

    @classmethod
    def load(cls, folder: Path | None, device: torch.device, cross_entropy_weight: float) -> Self:
        if folder is None:
            raise UsageError("distillation needs a teacher.", where="teacher", remedy="Name a model folder.")
        if not 0 <= cross_entropy_weight <= 1:
            raise UsageError("cross_entropy_weight must lie between 0 and 1.", where="cross_entropy_weight")
        teacher: torch.nn.Module = load(folder)
        return cls(teacher.to(device), cross_entropy_weight)

    def prepare(self, batch: Mapping[str, torch.Tensor]) -> tuple[Inputs, torch.Tensor, int]:
        """Where not all is to be learned, targets (n, length + 1, 2) are what the teacher reads and what counts."""
        inputs, targets, count = super().prepare(batch)
        if targets is not batch["windows"]:
            targets = torch.stack([batch["windows"], targets], dim=-1)
        return inputs, targets, count

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over tokens, nats: (1 - w) KL(teacher ‖ student) + w cross-entropy."""
        windows, wanted = targets.unbind(-1) if targets.ndim == _WITH_WHAT_COUNTS else (targets, targets)
        with torch.no_grad():
            taught = self._teacher(input_ids=windows[:, :-1], use_cache=False).logits
        return divergence(
            logits.flatten(0, 1), wanted[:, 1:].flatten(), teacher=taught.flatten(0, 1), weight=self._weight
        )[0]

    def held_out(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().held_out(logits, targets[..., 1] if targets.ndim == _WITH_WHAT_COUNTS else targets)
