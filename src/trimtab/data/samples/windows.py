"""Windows of tokens for a decoder: inputs and targets in one, a token longer than the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab.data.packing import count_windows
from trimtab.data.samples.base import IGNORED, Batch
from trimtab.spec.errors import DataError


class Windows:
    """Of one long row of tokens. `windows` (n, length + 1) int64; and `targets`, the same with `IGNORED` where a token
    is not to be learned, if there are such.
    """

    def __init__(
        self,
        tokens: npt.NDArray[np.unsignedinteger],
        length: int,
        unlearned: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """`unlearned` (tokens,). Raises `DataError` if there is not one window, or nothing to learn."""
        if unlearned is not None and unlearned.all():
            raise DataError(
                "no token of the train split is to be learned: all messages have weight 0.",
                where="data.train",
                remedy="Leave the weight out where an answer is to be learned.",
            )
        self.count = count_windows(len(tokens), length, extra=1)
        if not self.count:
            raise too_short(len(tokens), length)
        self._tokens, self._length, self._unlearned = tokens, length, unlearned

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        del positions
        parts = [slice(number * self._length, (number + 1) * self._length + 1) for number in numbers]
        windows = np.stack([self._tokens[part].astype(np.int64) for part in parts])
        if self._unlearned is None:
            return {"windows": windows}
        left_out = np.stack([self._unlearned[part] for part in parts])
        return {"windows": windows, "targets": np.where(left_out, IGNORED, windows)}


class HeldOutWindows:
    """Windows that do not overlap: `windows` (n, length) int64, of which the first token is no target.

    Ranks that share sequences take whole shares: inputs are lengthened to a `multiple`, by what does not count and,
    at the end, no token before it sees.
    """

    def __init__(
        self,
        windows: npt.NDArray[np.int32],
        multiple: int,
        unlearned: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """`unlearned` (n, length): what does not count."""
        self._windows, self.count, self._unlearned = windows, len(windows), unlearned
        self._surplus = -(windows.shape[1] - 1) % multiple

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        del positions
        rows = self._windows[list(numbers)].astype(np.int64)
        windows = np.pad(rows, ((0, 0), (0, self._surplus)), constant_values=IGNORED)
        if self._unlearned is None:
            return {"windows": windows}
        left_out = np.pad(self._unlearned[list(numbers)], ((0, 0), (0, self._surplus)))
        return {"windows": windows, "targets": np.where(left_out, IGNORED, windows)}


def too_short(tokens: int, length: int) -> DataError:
    return DataError(
        f"the train split has {tokens} tokens, less than one sequence of {length}.",
        where="data",
        remedy="Give more text or a smaller training.sequence_length.",
    )
