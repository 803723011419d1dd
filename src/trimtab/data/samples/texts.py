"""Texts with a class each, cut at the longest length and padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab.data.frame import Frame
from trimtab.data.samples.base import Batch
from trimtab.spec.errors import DataError


class LabelledTexts:
    """`input_ids` and `attention_mask` (n, longest), `labels` (n,), all int64."""

    def __init__(
        self,
        tokens: npt.NDArray[np.unsignedinteger],
        offsets: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int32],
        frame: Frame,
        *,
        length: int,
    ) -> None:
        """`length` counts the frame. Raises `DataError` for a tokenizer without padding."""
        if frame.pad is None:
            raise DataError(
                "the tokenizer has no padding token.", where="model", remedy="Name its pad_token."
            )
        self._tokens, self._offsets, self._labels, self._frame = tokens, offsets, labels, frame
        self._pad, self._room = frame.pad, length - len(frame.starts) - len(frame.ends)
        if self._room < 1:
            raise DataError(
                f"a sequence of {length} has no room for text.",
                where="training.sequence_length",
                remedy="Use a larger one.",
            )

    @property
    def count(self) -> int:
        return len(self._labels)

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        del positions
        texts = [self._framed(number) for number in numbers]
        shape = len(texts), max(map(len, texts))
        ids, mask = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        labels = self._labels[list(numbers)].astype(np.int64)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def _framed(self, number: int) -> list[int]:
        start, end = self._offsets[number], self._offsets[number + 1]
        return [*self._frame.starts, *self._tokens[start : min(end, start + self._room)], *self._frame.ends]
