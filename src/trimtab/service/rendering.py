"""One model's chats as text: off the event loop, and apart from every other model.

Each model has its own processes and its own threads, so a slow template holds nobody else's requests. Long chats
take a lane of their own, so they do not hold the short ones. Few may wait, and not for long.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from trimtab.service import limits
from trimtab.spec.errors import OverloadedError
from trimtab.text.templates import ChatTemplate


class _Lane:
    """One process and the thread that waits for it."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chat-template")
        self._waiting = 0

    async def render(self, messages: list[dict[str, Any]]) -> str:
        if self._waiting >= limits.MAX_WAITING_CHATS:
            raise OverloadedError(f"{self._waiting} chats wait for this model's chat template.")
        self._waiting += 1
        try:
            async with asyncio.timeout(limits.RENDER_WAIT_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, self.template.render, messages
                )
        except TimeoutError as error:
            raise OverloadedError("This model's chat template is too busy.") from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.template.close()


class Rendering:
    """Two lanes of one template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._short, self._long = _Lane(template), _Lane(template.another())

    async def render(self, messages: list[dict[str, Any]]) -> str:
        """Raises what `ChatTemplate.render` does, and `OverloadedError` where too many wait."""
        long = len(msgspec.json.encode(messages)) > limits.LONG_CHAT_BYTES
        return await (self._long if long else self._short).render(messages)

    def close(self) -> None:
        """At once, whatever is being rendered."""
        self._short.close()
        self._long.close()
