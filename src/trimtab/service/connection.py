"""The gateway's end of one worker's socket: sends requests, hands news to whoever asked, counts life signs.

One per worker process. It knows neither text nor HTTP; a sink is called in the event loop and must not block.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from trimtab.service.errors import DeadlineError, origin
from trimtab.service.turns import Turn
from trimtab.spec.errors import EngineError, OverloadedError, TrimtabError, UsageError
from trimtab.spec.wire import (
    PROTOCOL,
    AnyMessage,
    Cancel,
    Chunk,
    Drain,
    Event,
    Fault,
    FrameReader,
    Hello,
    Scored,
    Step,
    Submit,
    WireError,
    encode,
)

_LOG = logging.getLogger(__name__)


class Sink(Protocol):
    """Who asked. `cost` is the number of tokens that it may need, for choosing the least busy worker.

    What it raises costs only its own request.
    """

    cost: int

    def on_event(self, event: Event) -> None: ...

    def on_scored(self, scored: Scored, parts: list[bytes]) -> None: ...

    def on_fault(self, error: TrimtabError) -> None: ...


class Listener(Protocol):
    """Somebody who gathers news and acts on all of one read together."""

    def flush(self) -> None: ...

    def fail(self, error: TrimtabError) -> None:
        """Its `flush` raised: end its request with this."""
        ...


def fault_error(fault: Fault) -> TrimtabError:
    """A worker's refusal as an error of ours. Only refusals of the request itself keep the worker's words."""
    if fault.code == "invalid":
        return UsageError(fault.message)
    if fault.code == "overloaded":
        return OverloadedError("The engine's queue is full.")
    if fault.code == "deadline":
        return DeadlineError("The request was not finished before its deadline.")
    return EngineError("The engine failed while it worked on this request.")


def _contained(call: Callable[..., None], *arguments: object) -> bool:
    """Call somebody's callback; whether it did not raise. An exception would close everybody's connection.

    BaseException, because a native library's panic is no Exception.
    """
    try:
        call(*arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic is no Exception
        _note(error)
        return False
    return True


def _note(error: BaseException) -> None:
    _LOG.error("a request's news could not be taken: %s", origin(error))


def _our_fault() -> TrimtabError:
    return TrimtabError("The service failed while it worked on this request.")


class Connection(asyncio.Protocol):
    """`hello` is done when the worker is loaded; `lost` when the socket is closed, for whatever reason.

    `frames` counts what came: it standing still is the first sign of a dead worker. `wasted_tokens` counts
    tokens that came for requests which had been cancelled. Who has put itself on `touched` is flushed once all
    frames of a read are handed out.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[Hello] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.step: Step | None = None
        self.frames = 0
        self.cost = 0
        self.wasted_tokens = 0
        self.failure: str | None = None
        self.touched: list[Listener] = []
        self._sinks: dict[int, Sink] = {}
        self._reader = FrameReader()
        self._full = False
        self._transport: asyncio.Transport | None = None

    def __len__(self) -> int:
        """Requests that are not finished."""
        return len(self._sinks)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyrefly: ignore[bad-assignment]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.lost.done():
            self.lost.set_result(None)
        sinks, self._sinks = self._sinks, {}
        self.cost = 0
        for sink in sinks.values():
            _contained(sink.on_fault, EngineError("The worker stopped while it worked on this request."))

    def data_received(self, data: bytes) -> None:
        """Takes frames for one turn of the loop, so that others get theirs also while a worker outruns us."""
        turn, over, more = Turn(), False, False
        try:
            for message, parts in self._reader.feed(data):
                if over:
                    # Not taken: the reader gives it again.
                    more = True
                    break
                self.frames += 1
                if type(message) is Chunk:
                    self._on_chunk(message)
                else:
                    self._on_message(message, parts)
                over = turn.over
        except WireError as error:
            self.failure = str(error)
            self.close()
        touched, self.touched = self.touched, []
        for listener in touched:
            try:
                listener.flush()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - see `_contained`, of which this is the fast form
                _note(error)
                _contained(listener.fail, _our_fault())
        self._go_on(more=more)

    def _go_on(self, *, more: bool) -> None:
        """Read nothing new before everything that came is taken."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if more:
            asyncio.get_running_loop().call_soon(self.data_received, b"")
        if more != self._full:
            self._full = more
            (transport.pause_reading if more else transport.resume_reading)()

    def _on_chunk(self, chunk: Chunk) -> None:
        sinks = self._sinks
        for event in chunk.events:
            sink = sinks.get(event.id)
            if sink is None:
                self.wasted_tokens += len(event.tokens)
                continue
            if event.finish is not None:
                self._forget(event.id)
            try:
                sink.on_event(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - see `_contained`, of which this is the fast form
                _note(error)
                self._fail(event.id, sink)

    def _fail(self, request: int, sink: Sink) -> None:
        """A sink could not take its news."""
        self.cancel(request)
        _contained(sink.on_fault, _our_fault())

    def _on_message(self, message: AnyMessage, parts: list[bytes]) -> None:
        if isinstance(message, Step):
            self.step = message
        elif isinstance(message, Hello):
            if message.protocol != PROTOCOL:
                self.failure = f"the worker speaks protocol {message.protocol}, this service {PROTOCOL}"
                self.close()
            elif not self.hello.done():
                self.hello.set_result(message)
        elif isinstance(message, Scored):
            sink = self._forget(message.id)
            if sink is not None and not _contained(sink.on_scored, message, parts):
                self._fail(message.id, sink)
        elif isinstance(message, Fault):
            self._on_fault(message)

    def _on_fault(self, fault: Fault) -> None:
        if fault.id is None:
            self.failure = fault.message
            return
        sink = self._forget(fault.id)
        if sink is not None:
            _contained(sink.on_fault, fault_error(fault))

    def _forget(self, request: int) -> Sink | None:
        sink = self._sinks.pop(request, None)
        if sink is not None:
            self.cost -= sink.cost
        return sink

    def submit(self, message: Submit, tokens: bytes, sink: Sink) -> None:
        """Send a request; all its news go to `sink` until it is finished or cancelled."""
        if self._transport is None or self._transport.is_closing():
            raise EngineError("The worker is not connected.")
        self._sinks[message.id] = sink
        self.cost += sink.cost
        self._transport.write(encode(message, tokens))

    def cancel(self, request: int) -> None:
        """Stop a request. Nothing more is heard of it. A finished one is left alone."""
        if self._forget(request) is not None:
            self._send(Cancel(id=request))

    def drain(self) -> None:
        self._send(Drain())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send(self, message: Cancel | Drain) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))
