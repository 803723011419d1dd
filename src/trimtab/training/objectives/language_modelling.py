"""Predict the next token: cross-entropy with the true one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from trimtab.parallel.criterion import Inputs
from trimtab.training.objectives.divergence import IGNORED, divergence


class LanguageModelling:
    classifies = False

    def prepare(self, batch: Mapping[str, torch.Tensor]) -> tuple[Inputs, torch.Tensor, int]:
        """Of `windows` (n, length + 1): inputs (n, length), and as targets the windows themselves, or `targets` where
        not all of them is to be learned.
        """
        windows = batch["windows"]
        targets = batch.get("targets", windows)
        return windows[:, :-1].clamp_min(0), targets, int((targets[:, 1:] != IGNORED).sum())

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over tokens, nats."""
        return divergence(logits.flatten(0, 1), targets[:, 1:].flatten())[0]

    def held_out(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            logits.flatten(0, 1), targets[:, 1:].flatten(), reduction="sum", ignore_index=IGNORED
        )
