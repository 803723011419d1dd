"""Name the class of a sample: cross-entropy with the true one. Samples are texts or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

from trimtab.parallel.criterion import Inputs

_LEVELS = 255


class _Classification:
    classifies = True

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum over samples, nats, of (n, classes) logits."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return functional.cross_entropy(wide, labels, reduction="sum")

    held_out = loss


class TextClassification(_Classification):
    def prepare(self, batch: Mapping[str, torch.Tensor]) -> tuple[Inputs, torch.Tensor, int]:
        """Of `input_ids` and `attention_mask` (n, length), `labels` (n,)."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return inputs, batch["labels"], len(batch["labels"])


class ImageClassification(_Classification):
    """Pixels from 0 to 1 are shifted by `mean` and divided by `std`, by channel, as the saved preprocessor says."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
    ) -> None:
        self._mean, self._std = (
            torch.tensor(values, dtype=dtype).view(1, -1, 1, 1) for values in (mean, std)
        )

    def prepare(self, batch: Mapping[str, torch.Tensor]) -> tuple[Inputs, torch.Tensor, int]:
        """Of `pixels` (n, channels, height, width) uint8 and `labels` (n,)."""
        pixels = batch["pixels"]
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        values = (pixels.to(mean.dtype) / _LEVELS - mean) / std
        return {"pixel_values": values}, batch["labels"], len(batch["labels"])
