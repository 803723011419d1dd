"""All sequences of one request: sent to workers, gathered, and stopped when nobody wants them any more.

Knows nothing of HTTP. Whoever serves the request awaits `news` (streaming) or `done`, which raise what went
wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trimtab.service.errors import ClientGoneError
from trimtab.service.model import Model, Scores
from trimtab.service.orders import Order, Prompt
from trimtab.service.sequence import Sequence
from trimtab.spec.errors import TrimtabError
from trimtab.text.detokenizer import Detokenizer, detokenizer


class _NoText:
    """For a model without a tokenizer: ids have no text."""

    def push(self, ids: object) -> str:  # noqa: ARG002 - the protocol's signature
        return ""

    def finish(self) -> str:
        return ""


class Generation:
    """Must be `close`d, which cancels what still runs."""

    def __init__(self, model: Model, order: Order) -> None:
        self._model, self.order = model, order
        self._loop = asyncio.get_running_loop()
        self._fresh: list[Sequence] = []
        self._waiter: asyncio.Future[None] | None = None
        self._failure: TrimtabError | ClientGoneError | None = None
        self._open = 0
        self._scoring: asyncio.Task[Scores] | None = None
        self._streams = order.stream
        # Writes the news of these sequences, or returns False: then `news` gives them.
        self.deliver: Callable[[list[Sequence]], bool] | None = None
        pairs = [(prompt, choice) for prompt in order.prompts for choice in range(order.choices)]
        self.sequences = [
            Sequence(
                self,
                index,
                prompt,
                self._text(prompt),
                order.stops,
                len(prompt.ids) + order.sampling.max_tokens,
            )
            for index, (prompt, _) in enumerate(pairs)
        ]

    def _text(self, prompt: Prompt) -> Detokenizer:
        tokenizer = self._model.tokenizer
        if tokenizer is None:
            return _NoText()
        return detokenizer(tokenizer, self._model.hidden_ids, prompt.ids if prompt.goes_on else ())

    @property
    def finished(self) -> bool:
        return self._open == 0

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.order.prompts)

    @property
    def generated_tokens(self) -> int:
        return sum(len(sequence.tokens) for sequence in self.sequences)

    def start(self) -> None:
        """Send everything, or nothing. Raises `OverloadedError` or `EngineError`."""
        if self.order.sampling.max_tokens == 0:
            for sequence in self.sequences:
                sequence.end("length")
            return
        self._open = len(self.sequences)
        self._model.submit(self.sequences, self.order)

    def notify(self, sequence: Sequence) -> None:
        if sequence.finish is not None:
            self._open -= 1
        if self._streams:
            if not sequence.fresh:
                sequence.fresh = True
                fresh = self._fresh
                fresh.append(sequence)
                if len(fresh) == 1 and sequence.connection is not None:
                    sequence.connection.touched.append(self)
        elif not self._open:
            self._wake()

    def flush(self) -> None:
        """Hand the news on: straight to the client where it can be written now, else to who awaits `news`."""
        waiter, fresh = self._waiter, self._fresh
        if waiter is None or not fresh:
            return
        if self.deliver is not None and self._open and self.deliver(fresh):
            for sequence in fresh:
                sequence.fresh = False
            fresh.clear()
        else:
            self._wake()

    def stop(self, sequence: Sequence) -> None:
        self._model.cancel(sequence)

    def fail(self, error: TrimtabError | ClientGoneError) -> None:
        """The first failure ends the request; the rest of it is cancelled."""
        if self._failure is None:
            self._failure = error
            self.close()
            self._wake()
            if self._scoring is not None:
                self._scoring.cancel()

    def abandon(self) -> None:
        """The client is gone."""
        if self._open:
            self._model.count_abandoned()
        self.fail(ClientGoneError())

    def close(self) -> None:
        if self._open:
            self._open = 0
            for sequence in self.sequences:
                if sequence.finish is None:
                    self._model.cancel(sequence)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def news(self) -> list[Sequence]:
        """The sequences that went on since the last time; waits for some."""
        if not self._fresh and self._open and self._failure is None:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure
        fresh, self._fresh = self._fresh, []
        for sequence in fresh:
            sequence.fresh = False
        return fresh

    async def score(self, sequence: Sequence) -> Scores:
        """The log-probabilities of its prompt and answer, with the order's alternatives."""
        top = self.order.alternatives or 0
        self._scoring = asyncio.ensure_future(self._model.score(sequence.prompt, sequence.tokens, top))
        try:
            return await self._scoring
        except asyncio.CancelledError:
            if self._failure is not None:
                raise self._failure from None
            raise
        finally:
            self._scoring = None

    async def done(self) -> None:
        while self._open and self._failure is None:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure
