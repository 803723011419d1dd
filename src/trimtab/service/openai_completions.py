"""POST /v1/completions."""

from __future__ import annotations

from typing import Any

from trimtab.service.backend import Backend
from trimtab.service.exchange import Exchange
from trimtab.service.model import Scores
from trimtab.service.openai_answers import Answer, run
from trimtab.service.openai_logprobs import Told, completion_logprobs
from trimtab.service.openai_orders import completion_order
from trimtab.service.openai_requests import CompletionRequest, decode
from trimtab.service.orders import Prompt
from trimtab.service.sequence import Sequence
from trimtab.text.detokenizer import prompt_text


class CompletionAnswer(Answer):
    object_whole = object_stream = "text_completion"
    prefix = "cmpl-"
    before_text = b'"text":'
    after_text = b""

    def _prompt_text(self, prompt: Prompt) -> str:
        if prompt.text is not None:
            return prompt.text
        tokenizer = self.model.tokenizer
        return "" if tokenizer is None else prompt_text(tokenizer, self.model.hidden_ids, prompt.ids)

    def opening(self) -> bytes:
        if not self.order.echo:
            return b""
        return b"".join(
            self.event({"choices": [_choice(sequence.index, self._prompt_text(sequence.prompt), None, None)]})
            for sequence in self.generation.sequences
        )

    def detailed_delta(self, sequence: Sequence, text: str, told: list[Told] | None) -> dict[str, Any]:
        logprobs = None if told is None else completion_logprobs(self.model.tokenizer, told, 0)
        return _choice(sequence.index, text, logprobs, sequence.finish)

    def choice(self, sequence: Sequence, scores: Scores | None) -> dict[str, Any]:
        prompt = self._prompt_text(sequence.prompt) if self.order.echo else ""
        logprobs = None
        if self.order.alternatives is not None:
            told = self.told(sequence, scores=scores)
            if self.order.echo and scores is not None:
                told = _prompt_told(sequence.prompt, scores) + told
            logprobs = completion_logprobs(self.model.tokenizer, told, 0)
        return _choice(sequence.index, prompt + sequence.take(), logprobs, sequence.finish)


def _prompt_told(prompt: Prompt, scores: Scores) -> list[Told]:
    """The first token has nothing before it, so nothing is said of it."""
    return [
        Told(
            id=token,
            logprob=scores.logprobs[place] if place else None,
            alternatives=scores.alternatives(place) if place and scores.top else None,
        )
        for place, token in enumerate(prompt.ids)
    ]


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


async def completions(exchange: Exchange, backend: Backend) -> None:
    request = decode(await exchange.read_json(), CompletionRequest)
    model = backend.model(request.model)
    model.admit(request.n or 1)
    order = await completion_order(request, model, exchange.deadline())
    exchange.mark("tokenize")
    await run(exchange, backend.metrics, model, order, CompletionAnswer)
