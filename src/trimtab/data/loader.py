"""Training batches: which samples each rank gets at each step, as a pure function of seed and position.

The order of an epoch is a seeded permutation of all samples; positions count samples over all epochs and
ranks, so the one number `position` resumes to the exact next batch, in any number of ranks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimtab.data.samples.base import Batch, Samples
from trimtab.spec.errors import DataError


def epoch_order(count: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of `count` samples, different for every epoch and seed."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def share(batch: int, rank: int, world: int) -> range:
    """The places of a global batch that a rank takes: contiguous, all taken once, as even as can be."""
    return range(batch * rank // world, batch * (rank + 1) // world)


class Loader:
    """Endless batches of one rank. `position` is the number of samples that all ranks together have taken."""

    def __init__(
        self,
        samples: Samples,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        position: int = 0,
    ) -> None:
        """Raises `DataError` if there are fewer samples in a batch than ranks."""
        if batch < world:
            raise DataError(
                f"a batch of {batch} cannot be shared by {world} processes.",
                where="training.batch",
                remedy=f"Use at least {world}, or fewer processes.",
            )
        self._samples, self._batch, self._seed = samples, batch, seed
        self._places = share(batch, rank, world)
        self.position = position
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def sample_at(self, position: int) -> int:
        """The sample at a position of the endless order."""
        epoch, place = divmod(position, self._samples.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._samples.count, epoch, self._seed)
        return int(self._order[place])

    def next(self) -> Batch:
        """Its share of the next global batch."""
        positions = [self.position + place for place in self._places]
        self.position += self._batch
        return self._samples.take([self.sample_at(position) for position in positions], positions)
