"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trimtab.service.backend import Backend
from trimtab.service.exchange import Exchange
from trimtab.service.model import Scores
from trimtab.service.openai_answers import Answer, run, to_json
from trimtab.service.openai_logprobs import Told, chat_logprobs
from trimtab.service.openai_orders import chat_order
from trimtab.service.openai_requests import ChatRequest, receive
from trimtab.service.sequence import Sequence


class ChatAnswer(Answer):
    object_whole, object_stream = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl-"
    before_text = b'"delta":{"content":'
    after_text = b"}"

    def opening(self) -> bytes:
        delta = {"role": "assistant", "content": ""}
        return b"".join(
            self.event({"choices": [_delta(sequence.index, delta, None, None)]})
            for sequence in self.generation.sequences
        )

    def detailed_delta(self, sequence: Sequence, text: str, told: list[Told] | None) -> dict[str, Any]:
        return _delta(sequence.index, {"content": text}, self._logprobs(told), sequence.finish)

    def choice_pieces(self, sequence: Sequence, scores: Scores | None) -> Iterator[bytes]:
        yield b'{"index":%d,"message":{"role":"assistant","content":"' % sequence.index
        for text in sequence.pieces():
            yield to_json(text)[1:-1]
        yield b'","refusal":null},"logprobs":'
        if self.order.alternatives is None:
            yield b"null"
        else:
            before = b'{"content":['
            for told in self.told_pieces(sequence, scores):
                yield before + to_json(chat_logprobs(self.model.names, told))[1:-1]
                before = b","
            yield (b'{"content":[' if not sequence.tokens else b"") + b'],"refusal":null}'
        yield b',"finish_reason":' + to_json(sequence.finish)

    def _logprobs(self, told: list[Told] | None) -> dict[str, Any] | None:
        if told is None:
            return None
        return {"content": chat_logprobs(self.model.names, told), "refusal": None}


def _delta(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


async def chat_completions(exchange: Exchange, backend: Backend) -> None:
    request = await receive(exchange, ChatRequest)
    model = backend.model(request.model)
    model.admit(request.n or 1)
    order = await chat_order(request, model, exchange.deadline())
    exchange.mark("tokenize")
    await run(exchange, backend.metrics, model, order, ChatAnswer)
