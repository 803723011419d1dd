"""One loop for everybody: work that takes long is done in a thread, or in turns.

A thread is enough for Python too: the interpreter changes between threads every few milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

# How long one request may hold the loop at a time.
TURN_SECONDS = 0.002

T = TypeVar("T")


async def apart(work: Callable[[], T], *, if_: bool) -> T:
    """The result of `work`: in a thread where it is much, else at once."""
    return await asyncio.get_running_loop().run_in_executor(None, work) if if_ else work()


class Turn:
    """`over` once it has taken its time; `again` lets the others have theirs."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = time.perf_counter() + TURN_SECONDS

    @property
    def over(self) -> bool:
        return time.perf_counter() > self._end

    async def again(self) -> None:
        await asyncio.sleep(0)
        self._end = time.perf_counter() + TURN_SECONDS
