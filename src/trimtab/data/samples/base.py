"""What a loader takes batches from: samples by number, as arrays that a training objective knows how to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

# Targets with this id do not count.
IGNORED = -100
# Arrays by name, each with the samples along its first axis.
Batch = dict[str, npt.NDArray[np.generic]]


class Samples(Protocol):
    @property
    def count(self) -> int:
        """How many there are: an epoch."""
        ...

    def take(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        """The samples of these numbers. `positions` are their places in the endless data order, which what is drawn at
        random depends on: so a resumed run draws the same, in any number of ranks.
        """
        ...
