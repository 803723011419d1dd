"""What strategies are given to run: inputs, targets, and the loss that compares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

# A tensor, or the named tensors that a library model takes.
Inputs = torch.Tensor | Mapping[str, torch.Tensor]
# Output of the module, targets → the loss summed over samples.
Criterion = Callable[[Any, torch.Tensor], torch.Tensor]


class Runner(Protocol):
    """How a share of a batch goes through what this rank holds of a model."""

    def backward(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion, scale: float) -> float:
        """Gradients of `scale` times the criterion over all samples; returns the criterion, unscaled."""
        ...

    def total(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion) -> float:
        """The criterion over all samples, without gradients."""
        ...
