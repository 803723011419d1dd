"""How prompts and answers read: the text of ids, and where in it each token begins."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trimtab.service.model import Model
from trimtab.service.orders import Prompt
from trimtab.text.detokenizer import Detokenizer, detokenizer, prompt_text

# How many characters of a text may be passed over that its tokens do not show, because a normalizer drops them.
_DROPPED = 16


class _NoText:
    """For a model without a tokenizer: ids have no text."""

    def push(self, ids: object) -> str:  # noqa: ARG002 - the protocol's signature
        return ""

    def finish(self) -> str:
        return ""


def answer_text(model: Model, prompt: Prompt) -> Detokenizer:
    """What turns the ids of one answer into text."""
    if model.tokenizer is None:
        return _NoText()
    return detokenizer(model.tokenizer, model.hidden_ids, prompt.ids if prompt.goes_on else ())


def readable(prompt: Prompt, model: Model, *, starts: bool) -> Prompt:
    """With its text, and where its tokens begin in it if that is asked for. May take long."""
    if model.tokenizer is None:
        return msgspec.structs.replace(prompt, starts=[0] * len(prompt.ids))
    if starts:
        text = detokenizer(model.tokenizer, model.hidden_ids)
        found, read = _starts(prompt, text, model.markup)
        return msgspec.structs.replace(prompt, text=prompt.text or read, starts=found)
    if prompt.text:
        return prompt
    return msgspec.structs.replace(prompt, text=prompt_text(model.tokenizer, model.hidden_ids, prompt.ids))


def _starts(prompt: Prompt, made: Detokenizer, markup: Mapping[int, str]) -> tuple[list[int], str]:
    """Where each token begins in the prompt's own text, which is put together where there is none.

    Special tokens take room only where the client wrote them.
    """
    written, at = prompt.text, 0
    starts, pieces = [], []
    for token in prompt.ids:
        starts.append(at)
        piece = made.push([token])
        if not written:
            at += len(piece)
            pieces.append(piece)
            continue
        mark = markup.get(token)
        if mark is not None and written.startswith(mark, at):
            at += len(mark)
        elif piece:
            place = written.find(piece, at, at + len(piece) + _DROPPED)
            at = min((at if place < 0 else place) + len(piece), len(written))
    # What a prompt of ids ends with may be the beginning of a character that the answer ends.
    return starts, "".join(pieces)
