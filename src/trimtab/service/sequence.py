"""One answer in the making: ids as they come from the engine, their text, and where it stops.

This is the hot path: `on_event` runs once for every sequence of every engine step. Text is made only when
somebody takes it, or at once where stop strings must be looked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Protocol

from trimtab.service.connection import Connection
from trimtab.service.orders import Prompt
from trimtab.spec.errors import EngineError, TrimtabError
from trimtab.spec.wire import Event, Finish, Scored
from trimtab.text.detokenizer import Detokenizer
from trimtab.text.stops import StopMatcher, StopStrings

_PIECE_TOKENS = 256


class Owner(Protocol):
    """Who is told."""

    def notify(self, sequence: Sequence) -> None: ...

    def fail(self, error: TrimtabError) -> None: ...

    def stop(self, sequence: Sequence) -> None:
        """The sequence met a stop string: the engine need not go on."""


class Sequence:
    """`tokens` and `logprobs` (nats) hold what was generated. `finish` is None while more may come.

    `markup` is how the tokens are written that add no text: stop strings are looked for in what includes it.
    """

    __slots__ = (
        "_detokenizer",
        "_markup",
        "_owner",
        "_parts",
        "_stops",
        "_taken",
        "connection",
        "cost",
        "finish",
        "fresh",
        "id",
        "index",
        "logprobs",
        "prompt",
        "tokens",
    )

    def __init__(
        self,
        owner: Owner,
        index: int,
        prompt: Prompt,
        detokenizer: Detokenizer,
        stops: StopStrings | None,
        markup: Mapping[int, str],
        cost: int,
    ) -> None:
        self._owner, self.index, self.prompt, self._detokenizer = owner, index, prompt, detokenizer
        self._stops = None if stops is None else StopMatcher(stops)
        self._markup = markup
        self._parts: list[str] = []
        self._taken = 0
        self.cost = cost
        self.id = 0
        self.connection: Connection | None = None
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish: Finish | None = None
        self.fresh = False

    def on_event(self, event: Event) -> None:
        if self.finish is not None:
            return
        self.tokens += event.tokens
        if event.logprobs:
            self.logprobs += event.logprobs
        finish = event.finish
        if finish is not None:
            if finish in ("error", "cancelled"):
                self._owner.fail(EngineError("The engine gave up on this request."))
                return
            self.finish = finish
        if self._stops is not None:
            self._look_for_stops(self._stops, ended=finish is not None)
        self._owner.notify(self)

    def on_scored(self, scored: Scored, parts: list[bytes]) -> None:  # noqa: ARG002 - the protocol's
        self._owner.fail(EngineError("The engine answered another question."))

    def on_fault(self, error: TrimtabError) -> None:
        self._owner.fail(error)

    def end(self, finish: Finish) -> None:
        """Finish without the engine."""
        self.finish = finish

    def take(self) -> str:
        """The text since the last time."""
        if self._stops is not None:
            text = "".join(self._parts)
            self._parts.clear()
            return text
        tokens = self.tokens
        fresh = tokens[self._taken :]
        self._taken = len(tokens)
        text = self._detokenizer.push(fresh)
        return text if self.finish is None else text + self._detokenizer.finish()

    def pieces(self) -> Iterator[str]:
        """The text of a finished sequence, a little at a time: turning ids into text may take long."""
        if self._stops is None:
            while len(self.tokens) - self._taken > _PIECE_TOKENS:
                fresh = self.tokens[self._taken : self._taken + _PIECE_TOKENS]
                self._taken += _PIECE_TOKENS
                yield self._detokenizer.push(fresh)
        yield self.take()

    def packed_prompt(self) -> bytes:
        return array("i", self.prompt.ids).tobytes()

    def _look_for_stops(self, stops: StopMatcher, *, ended: bool) -> None:
        """Id by id, so that the count and the log-probabilities end where the text does."""
        for place in range(self._taken, len(self.tokens)):
            text = stops.push(self._detokenizer.push(self.tokens[place : place + 1]))
            markup = self._markup.get(self.tokens[place])
            if markup is not None:
                text += stops.push(markup, hidden=True)
            self._parts.append(text)
            if stops.stopped:
                del self.tokens[place + 1 :], self.logprobs[place + 1 :]
                self.finish = "stop"
                if not ended:
                    self._owner.stop(self)
                break
        self._taken = len(self.tokens)
        if ended and not stops.stopped:
            self._parts.append(stops.push(self._detokenizer.finish()) + stops.finish())
