"""A model's texts to ids: short ones at once, others in threads of the model's own.

So one model's tokenizer cannot hold the loop, nor the threads of another model, and many long texts of one client
do not pile up.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from trimtab.service import limits
from trimtab.spec import heap
from trimtab.spec.errors import OverloadedError
from trimtab.text.markup import Markup
from trimtab.text.tokenizer import Tokenizer

T = TypeVar("T")
Messages = list[dict[str, Any]]


def _handing_back(work: Callable[[], T]) -> T:
    """The library makes small pieces of a text by the million, and their memory would stay with us."""
    try:
        return work()
    finally:
        heap.hand_back()


class Encoding:
    """`template` is the source of the model's chat template. With `trust_markup`, messages may write control
    tokens themselves.
    """

    def __init__(self, name: str, tokenizer: Tokenizer, template: str, *, trust_markup: bool = False) -> None:
        self._name, self._tokenizer = name, tokenizer
        self._markup = None if trust_markup else Markup(tokenizer, template)
        self._threads = ThreadPoolExecutor(limits.TEXT_THREADS, thread_name_prefix=f"text of {name}")
        self._places = threading.BoundedSemaphore(limits.MAX_TEXTS_WAITING)

    async def encode(self, texts: list[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Raises `UsageError` for texts that the tokenizer does not take, `OverloadedError` for too many."""
        much = sum(map(len, texts)) + len(texts) * limits.TEXT_OVERHEAD
        return await self._run(
            lambda: self._tokenizer.encode_many(texts, add_special_tokens=add_special_tokens), much
        )

    async def mark(self, messages: Messages) -> Messages | None:
        """Messages in which the control tokens that they spell are marked as text; None where they spell none."""
        markup = self._markup
        if markup is None:
            return None
        much = sum(len(content) for each in messages if isinstance(content := each.get("content"), str))
        # Looking for them takes a small part of the time that encoding takes.
        return await self._run(lambda: markup.mark(messages), much // 8, guarded=False)

    async def encode_marked(self, rendered: str) -> list[int]:
        """Ids of a chat that was rendered from marked messages."""
        markup = self._markup
        if markup is None:
            raise ValueError("nothing is marked where markup is trusted")
        return await self._run(lambda: markup.encode(rendered), len(rendered))

    def close(self) -> None:
        self._tokenizer.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T], much: int, *, guarded: bool = True) -> T:
        if much <= limits.LONG_TEXT and not (guarded and self._tokenizer.guarded):
            return work()
        if not self._places.acquire(blocking=False):
            raise OverloadedError(
                f"The model {self._name!r} has {limits.MAX_TEXTS_WAITING} long texts to read already.",
                retry_after=1,
            )
        future = self._threads.submit(work if much < limits.HUGE_TEXT else lambda: _handing_back(work))
        # Not when the client leaves: the work goes on.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)
