"""What both of OpenAI's generating APIs share: running an order and writing its answer, whole or as a stream.

A stream's events are put together from byte templates, because this is done for every token. The first news
is awaited before the head of an answer is sent, so that a fault before it still gets its proper status.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
from trimtab.spec.errors import TrimtabError
from trimtab.spec.wire import Finish

DONE = b"data: [DONE]\n\n"
to_json = msgspec.json.Encoder().encode


class Answer:
    """One answer. A dialect says how a choice looks, whole (`choice`) and in a stream."""

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

    def choice(self, sequence: Sequence, scores: Scores | None) -> dict[str, Any]:
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
        told = None if self.order.alternatives is None else self.told(sequence, start)
        choice = self.detailed_delta(sequence, text, told)
        if self.order.return_token_ids:
            choice["token_ids"] = sequence.tokens[start:]
        return self.event({"choices": [choice]})

    def event(self, body: dict[str, Any]) -> bytes:
        return b"data: " + to_json({**self._head, **body}) + b"\n\n"

    def told(self, sequence: Sequence, start: int = 0, scores: Scores | None = None) -> list[Told]:
        """The generated tokens from `start` on, with their log-probabilities and alternatives.

        Where there are scores, both come from them, so that they agree to the last digit.
        """
        wanted, prompt = self.order.alternatives, len(sequence.prompt.ids)
        found = []
        for place in range(start, len(sequence.tokens)):
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

    def whole(self, scores: list[Scores | None]) -> bytes:
        choices = []
        for sequence, found in zip(self.generation.sequences, scores, strict=True):
            choice = self.choice(sequence, found)
            if self.order.return_token_ids:
                choice["token_ids"] = sequence.tokens
            choices.append(choice)
        return to_json({**self._head, "choices": choices, "usage": self.usage()})

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
    await exchange.respond(200, answer.whole(scores))


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
    data, piece, news = answer.opening(), answer.piece, generation.news
    if exchange.direct_writer is not None:
        generation.deliver = _delivery(exchange.direct_writer, piece)
    try:
        while True:
            for sequence in fresh:
                data += piece(sequence)
            if generation.finished:
                break
            if data:
                await write(data)
            data = b""
            fresh = await news()
    except TrimtabError as error:
        # The head is sent; the fault can only be told in the stream, which then ends without [DONE].
        await exchange.close_stream(data + b"data: " + error_body(error) + b"\n\n")
        return
    exchange.mark("generate")
    await exchange.close_stream(data + answer.closing())
