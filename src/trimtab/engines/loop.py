"""The worker's loop: drain the socket, step the engine, write. One thread, one engine, one connection.

Invariants: a request's fault is told and never ends the loop; every request ends with exactly one `finish`,
`Scored` or `Fault`; a heartbeat leaves at least every 500 ms unless one engine step takes longer. The counter
counts turns of the loop, so it moves while the worker is idle too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import numpy as np

from trimtab.engines.base import Engine, Score, Tokens, check_request
from trimtab.engines.connection import Connection
from trimtab.spec.errors import OverloadedError, TrimtabError, UsageError
from trimtab.spec.wire import (
    MAX_FRAME_BYTES,
    AnyMessage,
    Cancel,
    Chunk,
    Drain,
    Event,
    Fault,
    Scored,
    Step,
    Submit,
    WireError,
)

HEARTBEAT_SECONDS = 0.25
_TOKEN_BYTES = 4


class _Request(msgspec.Struct, kw_only=True):
    """One request under way. `expires` is on the monotonic clock; `job` is set for scoring."""

    expires: float | None
    job: Iterator[Score | None] | None = None
    top: int = 0


class Loop:
    """Serves one connection until it is drained. `run` returns when everything asked for has been written."""

    def __init__(self, engine: Engine, connection: Connection, *, max_requests: int) -> None:
        self._engine, self._connection, self._max_requests = engine, connection, max_requests
        self._requests: dict[int, _Request] = {}
        self._draining = False
        self._counter = self._generated = 0
        self._next_heartbeat = 0.0

    def run(self) -> None:
        """Raises `ConnectionLostError` when the gateway goes, `WireError` for bytes that are no frame."""
        while not (self._draining and not self._requests and self._connection.empty):
            self._connection.wait(self._idle_seconds())
            self._turn()

    def drain(self) -> None:
        """Finish what runs, take nothing new."""
        self._draining = True

    def _turn(self) -> None:
        self._counter += 1
        self._connection.flush()
        if self._connection.full:
            return
        for message, parts in self._connection.receive():
            self._take(message, parts)
        self._expire()
        self._step()
        self._score()
        self._beat()

    def _idle_seconds(self) -> float:
        """How long nothing needs doing here, if nothing arrives."""
        if self._connection.full:
            return HEARTBEAT_SECONDS
        until_beat = max(0.0, self._next_heartbeat - time.monotonic())
        if any(request.job is not None for request in self._requests.values()):
            return 0.0
        return min(self._engine.pause_seconds, until_beat) if self._engine.has_work else until_beat

    def _take(self, message: AnyMessage, parts: list[bytes]) -> None:
        match message:
            case Submit():
                self._submit(message, parts)
            case Cancel():
                self._cancel(message.id)
            case Drain():
                self.drain()
            case _:
                raise WireError(f"a gateway does not send {type(message).__name__}")

    def _submit(self, message: Submit, parts: list[bytes]) -> None:
        try:
            self._start(message, _tokens(parts))
        except OverloadedError as error:
            self._connection.send(Fault(id=message.id, code="overloaded", message=str(error)))
        except UsageError as error:
            self._connection.send(Fault(id=message.id, code="invalid", message=str(error)))
        except TrimtabError as error:
            self._connection.send(Fault(id=message.id, code="failed", message=str(error)))

    def _start(self, message: Submit, tokens: Tokens) -> None:
        if message.id in self._requests:
            raise UsageError(f"the id {message.id} is in use.", where="id")
        if self._draining or len(self._requests) >= self._max_requests:
            raise OverloadedError(
                "this worker is stopping." if self._draining else "this worker's queue is full."
            )
        expires = None if message.deadline is None else time.monotonic() + message.deadline
        if message.kind == "score":
            check_request(message, tokens, self._engine.capabilities)
            _check_answer(len(tokens), message.top)
            job = self._engine.score(tokens, message.top)
            self._requests[message.id] = _Request(expires=expires, job=job, top=message.top)
        else:
            self._engine.submit(message, tokens)
            self._requests[message.id] = _Request(expires=expires)

    def _cancel(self, request: int) -> None:
        if self._drop(request):
            self._connection.send(Chunk(events=(Event(id=request, finish="cancelled"),)))

    def _expire(self) -> None:
        now = time.monotonic()
        late = [
            id_
            for id_, request in self._requests.items()
            if request.expires is not None and request.expires <= now
        ]
        for request in late:
            self._drop(request)
            self._connection.send(Fault(id=request, code="deadline", message="the request's time is over."))

    def _drop(self, request: int) -> bool:
        found = self._requests.pop(request, None)
        if found is not None and found.job is None:
            self._engine.cancel(request)
        return found is not None

    def _step(self) -> None:
        if not self._engine.has_work:
            return
        events = tuple(self._engine.step())
        for event in events:
            self._generated += len(event.tokens)
            if event.finish is not None:
                self._requests.pop(event.id, None)
        if events:
            self._connection.send(Chunk(events=events))

    def _score(self) -> None:
        """One piece of the oldest scoring job, so that generation goes on beside it."""
        found = next(
            ((id_, request) for id_, request in self._requests.items() if request.job is not None), None
        )
        if found is None:
            return
        id_, request = found
        score = next(request.job) if request.job is not None else None
        if score is None:
            return
        del self._requests[id_]
        parts = [_bytes(score.logprobs, "<f4")]
        if request.top:
            parts += [_bytes(score.top_ids, "<i4"), _bytes(score.top_logprobs, "<f4")]
        self._connection.send(Scored(id=id_, top=request.top), *parts)

    def _beat(self) -> None:
        now = time.monotonic()
        if now < self._next_heartbeat:
            return
        self._next_heartbeat = now + HEARTBEAT_SECONDS
        status = self._engine.status()
        scoring = sum(request.job is not None for request in self._requests.values())
        self._connection.send(
            Step(
                counter=self._counter,
                running=status.running + scoring,
                waiting=status.waiting,
                cache_used=status.cache_used,
                generated_tokens=self._generated,
            )
        )


def _tokens(parts: list[bytes]) -> Tokens:
    if len(parts) != 1 or len(parts[0]) % _TOKEN_BYTES:
        raise UsageError("a request carries one part: token ids as int32.", where="prompt")
    return np.frombuffer(parts[0], "<i4").astype(np.int32, copy=False)


def _check_answer(tokens: int, top: int) -> None:
    """An answer that no frame can hold is refused before it is computed."""
    if tokens * (1 + 2 * top) * _TOKEN_BYTES > MAX_FRAME_BYTES - 4096:
        raise UsageError(f"{top} alternatives for {tokens} tokens do not fit one answer.", where="top")


def _bytes(array: np.ndarray, kind: str) -> bytes:
    return np.ascontiguousarray(array, kind).tobytes()
