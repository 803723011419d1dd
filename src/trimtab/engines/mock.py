"""An engine without a model: deterministic tokens at a set rate. The gauge of what everything around costs.

Time is planned, never waited for: a step that is not due yet says nothing, and `pause_seconds` tells the loop
how long to sleep. Prompts are taken in one after the other at the prefill rate, as a real engine would.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from trimtab.engines.base import EngineStatus, Score, Tokens, check_request, room_for, seed_of
from trimtab.engines.scoring import score_pieces
from trimtab.spec.ids import digest
from trimtab.spec.serving import MockSettings, ServingConfiguration
from trimtab.spec.wire import Capabilities, Event, Submit

_MIX, _WORD = 0x9E3779B97F4A7C15, (1 << 64) - 1
# With a byte vocabulary the text is readable: a small letter, or every seventh time or so a space.
_LETTER_A, _SPACE, _LETTERS = 97, 32, 26
_SCORE_ROWS = 64
# After a stall (a stopped process, a slow reader) missed steps are not made up for.
_LATE_SECONDS = 0.1


class _Running:
    """One stream. `left` counts prompt tokens still to be taken in, then `index` counts what was said."""

    __slots__ = ("id", "index", "left", "limit", "logprobs", "seed")

    def __init__(self, message: Submit, tokens: Tokens, limit: int) -> None:
        self.id, self.index, self.left, self.limit = message.id, 0, len(tokens), limit
        self.seed = prompt_seed(tokens, 0)
        self.logprobs = False
        if message.sampling is not None:
            self.logprobs = message.sampling.logprobs
            if message.sampling.temperature > 0:
                self.seed = prompt_seed(tokens, seed_of(message))


def prompt_seed(tokens: Tokens, seed: int) -> int:
    return (zlib.crc32(np.ascontiguousarray(tokens, "<i4").tobytes()) << 16) ^ seed


def token_at(seed: int, index: int, vocabulary: int) -> int:
    """The token at `index` of the answer: a hash, so that any test can say what must come."""
    value = ((seed + index + 1) * _MIX) & _WORD
    value = (value ^ (value >> 29)) % 1_000_003
    if vocabulary <= _LETTER_A + _LETTERS:
        return value % vocabulary
    return _SPACE if value % 7 == 0 else _LETTER_A + value % _LETTERS


class MockEngine:
    """`engines.base.Engine` on `MockSettings`. `clock` (seconds, monotonic) may be replaced in tests."""

    def __init__(self, serving: ServingConfiguration, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = serving.mock or MockSettings()
        self._serving, self._clock = serving, clock
        self._waiting: deque[_Running] = deque()
        self._running: dict[int, _Running] = {}
        self._due = 0.0
        self._planned: list[_Running] = []
        self.content_digest = digest(self._settings)
        self.capabilities = Capabilities(
            kinds=("generate", "score"),
            context_length=self._settings.context_length,
            vocabulary_size=self._settings.vocabulary_size,
            max_batch=serving.max_batch,
        )

    def submit(self, message: Submit, tokens: Tokens) -> None:
        check_request(message, tokens, self.capabilities)
        self._waiting.append(_Running(message, tokens, room_for(message, tokens, self.capabilities)))
        if not self._running:
            self._plan(self._clock())

    def cancel(self, request: int) -> None:
        self._running.pop(request, None)
        self._waiting = deque(stream for stream in self._waiting if stream.id != request)

    def step(self) -> list[Event]:
        now = self._clock()
        if not self.has_work or now < self._due:
            return []
        events = [self._say(stream) for stream in self._planned if stream.id in self._running]
        self._plan(max(self._due, now - _LATE_SECONDS))
        return events

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def pause_seconds(self) -> float:
        return max(0.0, self._due - self._clock()) if self.has_work else 0.0

    def score(self, tokens: Tokens, top: int) -> Iterator[Score | None]:
        ids = np.arange(self._settings.vocabulary_size, dtype=np.float32)
        pieces = (
            np.sin(np.outer(tokens[start : start + _SCORE_ROWS] + 1.0, ids + 1.0)).astype(np.float32)
            for start in range(0, len(tokens), _SCORE_ROWS)
        )
        return score_pieces(tokens, top, pieces)

    def status(self) -> EngineStatus:
        used = len(self._running) / self._serving.max_batch
        return EngineStatus(running=len(self._running), waiting=len(self._waiting), cache_used=used)

    def close(self) -> None:
        self._running.clear()
        self._waiting.clear()

    def _plan(self, now: float) -> None:
        """Decide what the step that begins now will do and when it will be done."""
        while self._waiting and len(self._running) < self._serving.max_batch:
            stream = self._waiting.popleft()
            self._running[stream.id] = stream
        budget, taken, self._planned = self._serving.max_batch_tokens, 0, []
        for stream in self._running.values():
            piece = min(stream.left, budget - taken)
            stream.left -= piece
            taken += piece
            if stream.left == 0:
                self._planned.append(stream)
        self._due = now + self._settings.step_seconds + taken / self._settings.prefill_tokens_per_second

    def _say(self, stream: _Running) -> Event:
        token = token_at(stream.seed, stream.index, self._settings.vocabulary_size)
        stream.index += 1
        finish = None
        if stream.index >= stream.limit:
            del self._running[stream.id]
            finish = "length"
        logprobs = (-1.0 - token % 3,) if stream.logprobs else ()
        return Event(id=stream.id, tokens=(token,), logprobs=logprobs, finish=finish)
