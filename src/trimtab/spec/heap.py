"""Memory that the C library has freed and not handed back: glibc keeps it, by threads, for ever if nobody asks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def hand_back() -> None:
    """Give free memory back to the system, where the C library can. Takes milliseconds for hundreds of megabytes."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
