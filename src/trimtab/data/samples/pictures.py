"""Images with a class each, as they are stored: the objective brings pixels to the model's scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab.data.samples.base import Batch


class Pictures:
    """`pixels` (n, channels, height, width) uint8, `labels` (n,) int64."""

    def __init__(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32]) -> None:
        self._pixels, self._labels = pixels, labels

    @property
    def count(self) -> int:
        return len(self._labels)

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        del positions
        chosen = list(numbers)
        return {"pixels": np.asarray(self._pixels[chosen]), "labels": self._labels[chosen].astype(np.int64)}
