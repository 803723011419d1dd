"""OpenAI's request bodies as records with a bound on every field, and their faults as sentences.

A parameter that is unknown is refused by name, so is one that is known, would change the answer and is not served
(`openai_neutral`). null means: not given.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from trimtab.service import json_body, limits
from trimtab.service.exchange import Exchange
from trimtab.service.openai_messages import ChatMessage, Text, Word, gather
from trimtab.service.openai_neutral import without_neutral
from trimtab.service.turns import apart
from trimtab.spec.errors import UsageError

TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Meta(max_length=limits.MAX_PROMPT_TOKENS)]
Stop = Annotated[str, Meta(min_length=1, max_length=limits.MAX_STOP_LENGTH)]
Tokens = Annotated[int, Meta(ge=0, le=limits.MAX_TOKENS)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both APIs share."""

    model: Word
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    max_tokens: Tokens | None = None
    n: Annotated[int, Meta(ge=1, le=limits.MAX_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=limits.MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Not OpenAI's, but vLLM's: fixed lengths for measurements, and ids beside the text.
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None


class CompletionRequest(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text | TokenId | TokenIds], Meta(min_length=1, max_length=limits.MAX_PROMPT_TOKENS)]
    )
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=limits.MAX_LOGPROBS)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=limits.MAX_CHOICES)] | None = None


class ChatRequest(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=limits.MAX_MESSAGES)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=limits.MAX_TOP_LOGPROBS)] | None = None


_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")

R = TypeVar("R", CompletionRequest, ChatRequest)


async def receive(exchange: Exchange, kind: type[R]) -> R:
    """The request in an exchange's body. Raises what reading and `decode` raise."""
    body = await exchange.read_json()
    return await apart(lambda: decode(body, kind), if_=len(body) > limits.LONG_BODY_BYTES)


def decode(body: bytes, kind: type[R]) -> R:
    """Raises `UsageError` naming the parameter, in `where`, and what is wrong with it."""
    asked = without_neutral(json_body.read(body), frozenset(kind.__struct_fields__))
    if kind is CompletionRequest and asked.get("logprobs") is False:
        # As chats say it; here it is a number.
        del asked["logprobs"]
    if "messages" in asked:
        asked["messages"] = gather(asked["messages"])
    try:
        return _convert(asked, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from error
    except RecursionError as error:
        raise UsageError("The body is nested too deeply.") from error


def _convert(asked: dict[str, Any], kind: type[R]) -> R:
    try:
        return msgspec.convert(asked, kind)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
    return msgspec.convert(json_body.whole_numbers(asked), kind)


def _explain(text: str) -> UsageError:
    place = _PLACE.search(text)
    path, text = (place[1], text[: place.start()]) if place else ("", text)
    if unknown := _UNKNOWN.match(text):
        name = f"{path}.{unknown[1]}".lstrip(".")
        return UsageError(f"The parameter '{name}' is unknown.", where=name, remedy=f"Leave '{name}' out.")
    if missing := _MISSING.match(text):
        name = f"{path}.{missing[1]}".lstrip(".")
        return UsageError(f"The parameter '{name}' is missing.", where=name, remedy=f"Send '{name}'.")
    text = text[:1].lower() + text[1:].replace("`", "")
    return UsageError(
        f"'{path}' is not right: {text}." if path else f"The body is not right: {text}.", where=path or None
    )
