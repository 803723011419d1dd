"""Packing: one long row of tokens cut into windows of equal length. Pure arithmetic on NumPy arrays.

Documents follow each other with an end-of-text token between, so no position is padding.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Kind = TypeVar("Kind", bound=np.generic)


def count_windows(tokens: int, length: int, *, extra: int = 0) -> int:
    """How many windows `length` tokens apart fit, each `extra` tokens longer than that (for targets)."""
    return max(0, (tokens - extra) // length)


def cut_windows(tokens: npt.NDArray[np.unsignedinteger], length: int) -> npt.NDArray[np.int32]:
    """Non-overlapping windows, int32 (n, length); the rest at the end is left out."""
    return cut_rows(tokens, length).astype(np.int32)


def cut_rows(values: npt.NDArray[Kind], length: int) -> npt.NDArray[Kind]:
    """The same of anything that there is one of for each token, of its own type."""
    count = count_windows(len(values), length)
    return values[: count * length].reshape(count, length)


def window_documents(offsets: npt.NDArray[np.int64], count: int, length: int) -> npt.NDArray[np.int32]:
    """The document that each of `count` windows belongs to: the one that holds the window's middle token.

    `offsets` (documents + 1,) are the token positions at which documents start, and the end of the last.
    """
    middles = np.arange(count, dtype=np.int64) * length + length // 2
    return (np.searchsorted(offsets, middles, side="right") - 1).astype(np.int32)
