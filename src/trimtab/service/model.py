"""A served model: its tokenizer and chat template, its replicas, and how much work may wait for them.

Admission is bounded: what is over it is refused before anything is sent to a worker. A request goes to the
replica that owes the fewest tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from array import array

import msgspec

from trimtab.service import limits
from trimtab.service.connection import Connection
from trimtab.service.encoding import Encoding
from trimtab.service.orders import Order, Prompt
from trimtab.service.rendering import Rendering
from trimtab.service.replica import Replica
from trimtab.service.sequence import Sequence
from trimtab.spec.errors import EngineError, OverloadedError, TrimtabError, UsageError
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.wire import Capabilities, Event, Scored, Submit
from trimtab.text.token_names import TokenNames
from trimtab.text.tokenizer import Tokenizer

_SEED_MASK = 2**63 - 1


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Log-probabilities of a text's tokens (index 0 means nothing); row i holds the `top` best at place i."""

    logprobs: array[float]
    top: int
    top_ids: array[int]
    top_logprobs: array[float]

    def alternatives(self, place: int) -> list[tuple[int, float]]:
        row = slice(place * self.top, (place + 1) * self.top)
        return list(zip(self.top_ids[row], self.top_logprobs[row], strict=True))


class _ScoreSink:
    """Waits for one `Scored`."""

    def __init__(self, cost: int) -> None:
        self.cost = cost
        self.result: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()

    def on_event(self, event: Event) -> None:  # noqa: ARG002 - the protocol's signature
        self.on_fault(EngineError("The engine answered another question."))

    def on_scored(self, scored: Scored, parts: list[bytes]) -> None:
        arrays = (array("f"), array("i"), array("f"))
        for filled, part in zip(arrays, parts, strict=False):
            filled.frombytes(part)
        if not self.result.done():
            self.result.set_result(
                Scores(logprobs=arrays[0], top=scored.top, top_ids=arrays[1], top_logprobs=arrays[2])
            )

    def on_fault(self, error: TrimtabError) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class Model:
    """`capabilities` are those of the first worker that loaded; None before."""

    def __init__(
        self,
        name: str,
        serving: ServingConfiguration,
        replicas: list[Replica],
        *,
        tokenizer: Tokenizer | None,
        template: Rendering | None,
        encoding: Encoding | None,
    ) -> None:
        self.name, self.serving, self.replicas = name, serving, replicas
        self.tokenizer, self.template, self._encoding = tokenizer, template, encoding
        self._hide(tokenizer.special_ids | set(tokenizer.eos_ids) if tokenizer else frozenset())
        self.capabilities: Capabilities | None = None
        self.created = int(time.time())
        self.abandoned = 0
        self._ids = itertools.count(1)
        self._seconds_per_sequence = 1.0

    async def load(self) -> None:
        """The first replica alone, because it may have to make the build; then the others at once."""
        first, *others = self.replicas
        hello = await first.start()
        self.capabilities = hello.capabilities
        self._hide(self.hidden_ids | frozenset(hello.capabilities.eos_token_ids))
        if others:
            await asyncio.gather(*(replica.start() for replica in others))

    def _hide(self, ids: frozenset[int]) -> None:
        """These add no text to an answer; stop strings and reports know them by their markup."""
        written = {} if self.tokenizer is None else {token: self.tokenizer.written(token) for token in ids}
        self.hidden_ids = ids
        self.markup = {token: text for token, text in written.items() if text}
        self.names = TokenNames(self.tokenizer, self.markup)

    async def close(self, *, drain_seconds: float) -> None:
        await asyncio.gather(*(replica.close(drain_seconds=drain_seconds) for replica in self.replicas))
        if self.template is not None:
            self.template.close()
        if self._encoding is not None:
            self._encoding.close()

    @property
    def connections(self) -> list[Connection]:
        return [replica.connection for replica in self.replicas if replica.connection is not None]

    @property
    def ready(self) -> bool:
        return self.capabilities is not None and bool(self.connections)

    @property
    def unfinished(self) -> int:
        """Sequences that were sent and not finished."""
        return sum(len(connection) for connection in self.connections)

    def loaded(self) -> Capabilities:
        """Raises `EngineError` while no worker is there."""
        if self.capabilities is None or not self.connections:
            raise EngineError(f"The model {self.name!r} is not ready.", remedy="Try again in a few seconds.")
        return self.capabilities

    async def encode(self, texts: list[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Raises `UsageError` for a model that has no tokenizer."""
        return await self.encoding.encode(texts, add_special_tokens=add_special_tokens)

    @property
    def encoding(self) -> Encoding:
        """Raises `UsageError` for a model that has no tokenizer."""
        if self._encoding is None:
            raise UsageError(
                f"The model {self.name!r} has no tokenizer.",
                where="prompt",
                remedy="Send token ids as the prompt.",
            )
        return self._encoding

    @property
    def _places(self) -> int:
        return (self.serving.max_batch + self.serving.max_queue) * len(self.connections)

    def at_once(self, count: int) -> int:
        """How many of a request's `count` sequences may be under way together, so that others get in between."""
        return min(count, limits.MAX_AT_ONCE, max(1, self._places // 2))

    def admit(self, count: int) -> None:
        """Raises `OverloadedError` unless a request for `count` more sequences may begin."""
        self.loaded()
        count, places = self.at_once(count), self._places
        unfinished = self.unfinished
        if unfinished + count > places:
            at_once = self.serving.max_batch * len(self.connections)
            seconds = self._seconds_per_sequence * unfinished / at_once / 2
            raise OverloadedError(
                f"The model {self.name!r} has {unfinished} of at most {places} answers in work; "
                f"this request needs {count} more.",
                retry_after=min(60, math.ceil(seconds)),
            )

    def submit(self, sequences: list[Sequence], order: Order) -> None:
        """Send the first of a request's sequences. Raises `OverloadedError` before any is sent."""
        self.admit(len(sequences))
        for sequence in sequences:
            self._send(self._least_busy(), sequence, order, order.deadline)

    def submit_after(self, ended: Sequence, sequence: Sequence, order: Order, deadline: float | None) -> None:
        """Send one more to where one ended just now. Raises `EngineError` if that worker is gone."""
        self._send(ended.connection or self._least_busy(), sequence, order, deadline)

    def _send(self, connection: Connection, sequence: Sequence, order: Order, deadline: float | None) -> None:
        sampling = order.sampling
        choice = sequence.index % order.choices
        if sampling.seed is not None and choice:
            sampling = msgspec.structs.replace(sampling, seed=(sampling.seed + choice) & _SEED_MASK)
        sequence.id = next(self._ids)
        sequence.connection = connection
        connection.submit(
            Submit(id=sequence.id, kind="generate", sampling=sampling, deadline=deadline),
            sequence.packed_prompt(),
            sequence,
        )

    async def score(self, prompt: Prompt, generated: list[int], top: int) -> Scores:
        """Log-probabilities of a prompt and what was generated after it. Raises `UsageError` where the engine
        cannot.
        """
        if "score" not in self.loaded().kinds:
            raise UsageError(
                f"The engine of {self.name!r} gives no log-probabilities of a prompt and no alternatives.",
                where="logprobs",
                remedy="Leave out echo, and ask for logprobs 0.",
            )
        ids = array("i", prompt.ids + generated)
        sink = _ScoreSink(len(ids))
        request = next(self._ids)
        connection = self._least_busy()
        connection.submit(Submit(id=request, kind="score", top=top), ids.tobytes(), sink)
        try:
            return await sink.result
        finally:
            connection.cancel(request)

    def cancel(self, sequence: Sequence) -> None:
        if sequence.connection is not None:
            sequence.connection.cancel(sequence.id)

    def count_abandoned(self) -> None:
        self.abandoned += 1

    def note_duration(self, seconds: float) -> None:
        """A request took so long: what `Retry-After` is estimated from."""
        self._seconds_per_sequence += 0.1 * (seconds - self._seconds_per_sequence)

    def _least_busy(self) -> Connection:
        found = self.connections
        if not found:
            raise EngineError(f"The model {self.name!r} is not ready.", remedy="Try again in a few seconds.")
        return min(found, key=lambda connection: connection.cost)
