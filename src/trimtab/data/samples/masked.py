"""Windows for masked language modelling (Devlin et al. 2019): 15 % of the tokens are to be found again.

Of those 80 % are masked, 10 % are another token, 10 % stay. Text is packed without padding, as RoBERTa does (Liu et al.
2019), and what is drawn is a function of seed and place in the data order: another epoch masks other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab.data.frame import Frame
from trimtab.data.packing import count_windows
from trimtab.data.samples.base import IGNORED, Batch
from trimtab.data.samples.windows import too_short
from trimtab.spec.errors import DataError

SHARE, MASKED, REPLACED = 0.15, 0.8, 0.1


class MaskedWindows:
    """`input_ids` and `labels` (n, length) int64; labels are `IGNORED` where nothing is asked."""

    def __init__(
        self,
        tokens: npt.NDArray[np.unsignedinteger],
        frame: Frame,
        *,
        length: int,
        vocabulary: int,
        seed: int,
    ) -> None:
        """`length` counts the frame. Raises `DataError` for too little text or a tokenizer without a mask."""
        if frame.mask is None:
            raise DataError(
                "the tokenizer has no mask token.",
                where="model",
                remedy="Use a model that was made for fill-mask.",
            )
        self._body = length - len(frame.starts) - len(frame.ends)
        self.count = count_windows(len(tokens), self._body) if self._body > 0 else 0
        if not self.count:
            raise too_short(len(tokens), length)
        self._tokens, self._frame, self._mask = tokens, frame, frame.mask
        self._seed = seed
        self._special = np.array(sorted(frame.special), dtype=np.int64)
        self._words = np.setdiff1d(np.arange(vocabulary), self._special)

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        pairs = [self._one(number, position) for number, position in zip(numbers, positions, strict=True)]
        return {
            "input_ids": np.stack([ids for ids, _ in pairs]),
            "labels": np.stack([due for _, due in pairs]),
        }

    def _one(self, number: int, position: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        start = number * self._body
        ids = np.array(
            [*self._frame.starts, *self._tokens[start : start + self._body], *self._frame.ends], np.int64
        )
        random = np.random.Generator(np.random.PCG64([self._seed, position]))
        usual = np.flatnonzero(~np.isin(ids, self._special))
        chosen = random.choice(usual, min(len(usual), max(1, round(SHARE * len(usual)))), replace=False)
        labels = np.full_like(ids, IGNORED)
        labels[chosen] = ids[chosen]
        fate = random.random(len(chosen))
        others = random.choice(self._words, len(chosen))
        ids[chosen] = np.where(
            fate < MASKED, self._mask, np.where(fate < MASKED + REPLACED, others, ids[chosen])
        )
        return ids, labels
