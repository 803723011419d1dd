"""Windows of tokens for a decoder: inputs and targets in one, a token longer than the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab.data.packing import count_windows
from trimtab.data.samples.base import IGNORED, Batch
from trimtab.spec.errors import DataError


class Windows:
    """Of one long row of tokens. `windows` (n, length + 1) int64."""

    def __init__(self, tokens: npt.NDArray[np.unsignedinteger], length: int) -> None:
        """Raises `DataError` if there is not one."""
        self.count = count_windows(len(tokens), length, extra=1)
        if not self.count:
            raise too_short(len(tokens), length)
        self._tokens, self._length = tokens, length

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        del positions
        starts = [number * self._length for number in numbers]
        rows = [self._tokens[start : start + self._length + 1].astype(np.int64) for start in starts]
        return {"windows": np.stack(rows)}


class HeldOutWindows:
    """Windows that do not overlap: `windows` (n, length) int64, of which the first token is no target.

    Ranks that share sequences take whole shares: inputs are lengthened to a `multiple`, by what does not count and,
    at the end, no token before it sees.
    """

    def __init__(self, windows: npt.NDArray[np.int32], multiple: int) -> None:
        self._windows, self.count = windows, len(windows)
        self._surplus = -(windows.shape[1] - 1) % multiple

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        del positions
        rows = self._windows[list(numbers)].astype(np.int64)
        return {"windows": np.pad(rows, ((0, 0), (0, self._surplus)), constant_values=IGNORED)}


def too_short(tokens: int, length: int) -> DataError:
    return DataError(
        f"the train split has {tokens} tokens, less than one sequence of {length}.",
        where="data",
        remedy="Give more text or a smaller training.sequence_length.",
    )
