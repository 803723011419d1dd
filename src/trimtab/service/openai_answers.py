"""What both of OpenAI's generating APIs share: running an order and writing its answer, whole or as a stream.

A stream's events are put together from byte templates, because this is done for every token. The first news
is awaited before the head of an answer is sent, so that a fault before it still gets its proper status.

A whole answer is made in pieces of a few hundred tokens. Between them others get their turn, and what would take
much memory is sent as it is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec

from trimtab.service.errors import error_body
from trimtab.service.exchange import DirectWriter, Exchange
from trimtab.service.generation import Generation
from trimtab.service.metrics import Metrics
from trimtab.service.model import Model, Scores
from trimtab.service.openai_logprobs import Told
from trimtab.service.orders import Order
from trimtab.service.sequence import Sequence
from trimtab.service.turns import Turn
from trimtab.spec.errors import TrimtabError
from trimtab.spec.wire import Finish

DONE = b"data: [DONE]\n\n"
to_json = msgspec.json.Encoder().encode
# Tokens whose log-probabilities are written at once.
ROWS = 128
# How much of a whole answer is kept before it is sent.
_KEPT_BYTES = 2**18


class Answer:
    """One answer. A dialect says how a choice looks, whole (`choice_pieces`) and in a stream."""

    object_whole: ClassVar[str]
    object_stream: ClassVar[str]
    prefix: ClassVar[str]
    # JSON around a delta's text in a stream.
    before_text: ClassVar[bytes]
    after_text: ClassVar[bytes]

    def __init__(self, exchange: Exchange, model: Model, generation: Generation) -> None:
        self.exchange, self.model, self.generation, self.order = exchange, model, generation, generation.order
        self._head = {
            "id": self.prefix + exchange.id.removeprefix("req_"),
            "object": self.object_stream if self.order.stream else self.object_whole,
            "created": int(time.time()),
            "model": model.name,
        }
        self._detailed = self.order.alternatives is not None or self.order.return_token_ids
        self._told = [0] * len(generation.sequences)
        if self.order.stream:
            self._make_templates()

    def _make_templates(self) -> None:
        common = b"data: " + to_json(self._head)[:-1] + b',"choices":[{"index":'
        self._before = [b"%b%d," % (common, n) + self.before_text for n in range(len(self._told))]
        usage = b',"usage":null}\n\n' if self.order.include_usage else b"}\n\n"
        self._after: dict[Finish | None, bytes] = {
            finish: self.after_text + b',"logprobs":null,"finish_reason":' + to_json(finish) + b"}]" + usage
            for finish in (None, "stop", "length")
        }

    def opening(self) -> bytes:
        """Events before the first text."""
        raise NotImplementedError

    def choice_pieces(self, sequence: Sequence, scores: Scores | None) -> Iterator[bytes]:
        """JSON of a choice, but for its last brace: a little at a time, because much of it takes long."""
        raise NotImplementedError

    def detailed_delta(self, sequence: Sequence, text: str, told: list[Told] | None) -> dict[str, Any]:
        raise NotImplementedError

    def piece(self, sequence: Sequence) -> bytes:
        """The event for what is new of a sequence; nothing if no text is."""
        text, finish = sequence.take(), sequence.finish
        if self._detailed:
            return self._detailed_piece(sequence, text)
        if not text and finish is None:
            return b""
        return self._before[sequence.index] + to_json(text) + self._after[finish]

    def _detailed_piece(self, sequence: Sequence, text: str) -> bytes:
        start, self._told[sequence.index] = self._told[sequence.index], len(sequence.tokens)
        told = None if self.order.alternatives is None else self.told(sequence, start, len(sequence.tokens))
        choice = self.detailed_delta(sequence, text, told)
        if self.order.return_token_ids:
            choice["token_ids"] = sequence.tokens[start:]
        return self.event({"choices": [choice]})

    def event(self, body: dict[str, Any]) -> bytes:
        usage = {"usage": None} if self.order.include_usage else {}
        return b"data: " + to_json({**self._head, **usage, **body}) + b"\n\n"

    def told(self, sequence: Sequence, start: int, stop: int, scores: Scores | None = None) -> list[Told]:
        """The generated tokens from `start` to `stop`, with their log-probabilities and alternatives.

        Where there are scores, both come from them, so that they agree to the last digit.
        """
        wanted, prompt = self.order.alternatives, len(sequence.prompt.ids)
        found = []
        for place in range(start, stop):
            token = sequence.tokens[place]
            logprob = sequence.logprobs[place] if place < len(sequence.logprobs) else None
            alternatives = None
            if scores is not None:
                logprob = scores.logprobs[prompt + place]
                alternatives = scores.alternatives(prompt + place) if wanted else None
            elif wanted and logprob is not None:
                alternatives = [(token, logprob)]
            found.append(Told(id=token, logprob=logprob, alternatives=alternatives))
        return found

    def usage(self) -> dict[str, int]:
        prompt, generated = self.generation.prompt_tokens, self.generation.generated_tokens
        return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}

    def whole(self, scores: list[Scores | None]) -> Iterator[bytes]:
        yield to_json(self._head)[:-1] + b',"choices":['
        for sequence, found in zip(self.generation.sequences, scores, strict=True):
            if sequence.index:
                yield b","
            yield from self.choice_pieces(sequence, found)
            if self.order.return_token_ids:
                yield b',"token_ids":' + to_json(sequence.tokens)
            yield b"}"
        yield b'],"usage":' + to_json(self.usage()) + b"}"

    def told_pieces(self, sequence: Sequence, scores: Scores | None) -> Iterator[list[Told]]:
        """All of the generated tokens, some at a time."""
        for start in range(0, len(sequence.tokens), ROWS):
            yield self.told(sequence, start, min(start + ROWS, len(sequence.tokens)), scores)

    def closing(self) -> bytes:
        if not self.order.include_usage:
            return DONE
        return self.event({"choices": [], "usage": self.usage(), "timing_ms": self.exchange.timing()}) + DONE


async def run(
    exchange: Exchange,
    metrics: Metrics,
    model: Model,
    order: Order,
    make: Callable[[Exchange, Model, Generation], Answer],
) -> None:
    """Do the order and answer. A client that goes away stops the work."""
    generation = Generation(model, order)
    answer = make(exchange, model, generation)
    begun = time.perf_counter()
    try:
        generation.start()
        exchange.on_disconnect(generation.abandon)
        await (_stream if order.stream else _whole)(exchange, generation, answer)
        model.note_duration(time.perf_counter() - begun)
    finally:
        generation.close()
        metrics.note_generation(model.name, generation, exchange)


async def _whole(exchange: Exchange, generation: Generation, answer: Answer) -> None:
    await generation.done()
    exchange.mark("generate")
    scores: list[Scores | None] = [None] * len(generation.sequences)
    if answer.order.needs_scores:
        scores = [await generation.score(sequence) for sequence in generation.sequences]
        exchange.mark("score")
    await _write(exchange, generation, answer.whole(scores))


async def _write(exchange: Exchange, generation: Generation, pieces: Iterator[bytes]) -> None:
    """A small answer at once, a large one as it is made; in turns with everybody else."""
    kept, size, write, turn = [], 0, None, Turn()
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if turn.over:
            await turn.again()
            generation.check()
        if size > _KEPT_BYTES:
            write = write or await exchange.open_body()
            await write(b"".join(kept))
            kept, size = [], 0
    if write is None:
        await exchange.respond(200, b"".join(kept))
    else:
        await exchange.close_stream(b"".join(kept))


def _delivery(writer: DirectWriter, piece: Callable[[Sequence], bytes]) -> Callable[[list[Sequence]], bool]:
    """Renders and writes in one go, in the callback that brought the news.

    Rendering takes text away from a sequence, so the writer is asked first whether it can take any.
    """
    ready, write = writer.ready, writer.write

    def deliver(fresh: list[Sequence]) -> bool:
        if not ready():
            return False
        data = piece(fresh[0]) if len(fresh) == 1 else b"".join([piece(sequence) for sequence in fresh])
        if data:
            write(data)
        return True

    return deliver


async def _stream(exchange: Exchange, generation: Generation, answer: Answer) -> None:
    fresh = await generation.news()
    exchange.mark("first_token")
    write = await exchange.open_stream()
    parts, piece, news = [answer.opening()], answer.piece, generation.news
    generation.deliver = _delivery(exchange.direct_writer, piece)
    try:
        while True:
            parts += [piece(sequence) for sequence in fresh]
            if generation.finished:
                break
            data = b"".join(parts)
            parts = []
            if data:
                await write(data)
            fresh = await news()
    except TrimtabError as error:
        # The head is sent; the fault can only be told in the stream, which then ends without [DONE].
        parts += [b"data: ", error_body(error), b"\n\n"]
        await exchange.close_stream(b"".join(parts))
        return
    exchange.mark("generate")
    await exchange.close_stream(b"".join([*parts, answer.closing()]))
