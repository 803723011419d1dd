"""Training batches: which window each rank gets at each step, as a pure function of seed and position.

The order of an epoch is a seeded permutation of all windows; positions count windows over all epochs and
ranks, so the one number `position` resumes to the exact next batch, in any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trimtab.data.packing import count_windows
from trimtab.spec.errors import DataError


def epoch_order(count: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of `count` windows, different for every epoch and seed."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def share(batch: int, rank: int, world: int) -> range:
    """The places of a global batch that a rank takes: contiguous, all taken once, as even as can be."""
    return range(batch * rank // world, batch * (rank + 1) // world)


class Loader:
    """Endless batches of one rank. `position` is the number of windows that all ranks together have taken."""

    def __init__(
        self,
        tokens: npt.NDArray[np.unsignedinteger],
        *,
        length: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        position: int = 0,
    ) -> None:
        """Raises `DataError` if there is not one window, or fewer sequences in a batch than ranks."""
        self.count = count_windows(len(tokens), length, extra=1)
        if not self.count:
            raise DataError(
                f"the train split has {len(tokens)} tokens, less than one sequence of {length}.",
                where="data",
                remedy="Give more text or a smaller training.sequence_length.",
            )
        if batch < world:
            raise DataError(
                f"a batch of {batch} cannot be shared by {world} processes.",
                where="training.batch",
                remedy=f"Use at least {world}, or fewer processes.",
            )
        self._tokens, self._length, self._batch, self._seed = tokens, length, batch, seed
        self._places = share(batch, rank, world)
        self.position = position
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def window_at(self, position: int) -> int:
        """The window at a position of the endless order."""
        epoch, place = divmod(position, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self.count, epoch, self._seed)
        return int(self._order[place])

    def next(self) -> npt.NDArray[np.int64]:
        """Its share of the next global batch, int64 (share, length + 1): inputs and targets in one."""
        starts = [self.window_at(self.position + place) * self._length for place in self._places]
        self.position += self._batch
        return np.stack([self._tokens[start : start + self._length + 1].astype(np.int64) for start in starts])

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        while True:
            yield self.next()
