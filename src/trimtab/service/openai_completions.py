"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from trimtab.service.backend import Backend
from trimtab.service.exchange import Exchange
from trimtab.service.generation import Generation
from trimtab.service.model import Model, Scores
from trimtab.service.openai_answers import ROWS, Answer, run, to_json
from trimtab.service.openai_logprobs import Told, completion_logprobs
from trimtab.service.openai_orders import completion_order
from trimtab.service.openai_requests import CompletionRequest, receive
from trimtab.service.orders import Prompt
from trimtab.service.prompts import answer_text
from trimtab.service.sequence import Sequence
from trimtab.text.detokenizer import Detokenizer


class CompletionAnswer(Answer):
    object_whole = object_stream = "text_completion"
    prefix = "cmpl-"
    before_text = b'"text":'
    after_text = b""

    def __init__(self, exchange: Exchange, model: Model, generation: Generation) -> None:
        super().__init__(exchange, model, generation)
        # For `text_offset`: the texts that were told of, and how far each goes.
        self._texts: dict[int, Detokenizer] = {}
        self._ends = [0] * len(generation.sequences)

    def opening(self) -> bytes:
        if not self.order.echo:
            return b""
        return b"".join(
            self.event({"choices": [_choice(sequence.index, sequence.prompt.text, None, None)]})
            for sequence in self.generation.sequences
        )

    def told(self, sequence: Sequence, start: int, stop: int, scores: Scores | None = None) -> list[Told]:
        """In order, each token once: where one begins is where the text of those before it ends."""
        index, found = sequence.index, []
        if index not in self._texts:
            self._texts[index] = answer_text(self.model, sequence.prompt)
        text = self._texts[index]
        for each in super().told(sequence, start, stop, scores):
            found.append(msgspec.structs.replace(each, start=self._ends[index]))
            self._ends[index] += len(text.push([each.id]))
        return found

    def detailed_delta(self, sequence: Sequence, text: str, told: list[Told] | None) -> dict[str, Any]:
        logprobs = None if told is None else {"top_logprobs": None, **self._logprobs(told)}
        return _choice(sequence.index, text, logprobs, sequence.finish)

    def _logprobs(self, told: list[Told]) -> dict[str, list[Any]]:
        return completion_logprobs(self.model.names, told, tables=bool(self.order.alternatives))

    def _columns(self, told: Iterable[list[Told]]) -> Iterator[bytes]:
        """JSON of `_logprobs` of all. Its lists run side by side, so nothing is given before all are made."""
        columns: dict[str, list[bytes]] = {name: [] for name in self._logprobs([])}
        for some in told:
            for name, values in self._logprobs(some).items():
                columns[name].append(to_json(values)[1:-1])
            yield b""
        before = b"{"
        for name, pieces in columns.items():
            yield before + to_json(name) + b":["
            for number, piece in enumerate(pieces):
                yield b"," + piece if number else piece
            yield b"]"
            before = b","
        if not self.order.alternatives:
            yield b',"top_logprobs":null'
        yield b"}"

    def choice_pieces(self, sequence: Sequence, scores: Scores | None) -> Iterator[bytes]:
        prompt = sequence.prompt if self.order.echo else None
        yield b'{"index":%d,"text":"' % sequence.index
        if prompt is not None:
            yield to_json(prompt.text)[1:-1]
        for text in sequence.pieces():
            yield to_json(text)[1:-1]
        yield b'","logprobs":'
        if self.order.alternatives is None:
            yield b"null"
        else:
            told = self.told_pieces(sequence, scores)
            if prompt is not None and scores is not None:
                self._ends[sequence.index] = len(prompt.text)
                told = chain(_prompt_told(prompt, scores), told)
            yield from self._columns(told)
        yield b',"finish_reason":' + to_json(sequence.finish)


def _prompt_told(prompt: Prompt, scores: Scores) -> Iterator[list[Told]]:
    """The first token has nothing before it, so nothing is said of it."""
    for start in range(0, len(prompt.ids), ROWS):
        yield [
            Told(
                id=prompt.ids[place],
                logprob=scores.logprobs[place] if place else None,
                alternatives=scores.alternatives(place) if place and scores.top else None,
                start=prompt.starts[place],
            )
            for place in range(start, min(start + ROWS, len(prompt.ids)))
        ]


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


async def completions(exchange: Exchange, backend: Backend) -> None:
    request = await receive(exchange, CompletionRequest)
    model = backend.model(request.model)
    model.admit(request.n or 1)
    order = await completion_order(request, model, exchange.deadline())
    exchange.mark("tokenize")
    await run(exchange, backend.metrics, model, order, CompletionAnswer)
