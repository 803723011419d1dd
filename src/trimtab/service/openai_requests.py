"""OpenAI's request bodies as records with a bound on every field, and their faults as sentences.

A parameter that is unknown is refused by name, so is one that is known, would change the answer and is not
served. Known ones that change nothing (`user`, `metadata`) are taken and ignored. null means: not given.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from trimtab.service import limits
from trimtab.service.errors import UnsupportedError
from trimtab.spec.errors import UsageError

Word = Annotated[str, Meta(max_length=limits.MAX_WORD)]
Text = Annotated[str, Meta(max_length=limits.MAX_BODY_BYTES)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Meta(max_length=limits.MAX_PROMPT_TOKENS)]
Stop = Annotated[str, Meta(min_length=1, max_length=limits.MAX_STOP_LENGTH)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=0, le=limits.MAX_TOKENS)]
Something = dict[Word, msgspec.Raw]
Nothing = Annotated[list[msgspec.Raw], Meta(max_length=limits.MAX_MESSAGES)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    type: Word = "text"


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both APIs share."""

    model: Word
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    max_tokens: Tokens | None = None
    n: Annotated[int, Meta(ge=1, le=limits.MAX_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=limits.MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Not OpenAI's, but vLLM's: fixed lengths for measurements, and ids beside the text.
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    # Change nothing here.
    user: Word | None = None
    metadata: dict[Word, Word] | None = None
    # Change the answer, and are not served.
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[Word, float] | None = None


class CompletionRequest(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text | TokenId | TokenIds], Meta(min_length=1, max_length=limits.MAX_PROMPT_TOKENS)]
    )
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=limits.MAX_LOGPROBS)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=limits.MAX_CHOICES)] | None = None
    suffix: Text | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["text"]
    text: Text


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message. What an assistant's answer carries beside its text may be sent back, if it is empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Meta(max_length=limits.MAX_CONTENT_PARTS)]
    name: Word | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[msgspec.Raw], Meta(max_length=0)] | None = None
    annotations: Annotated[list[msgspec.Raw], Meta(max_length=0)] | None = None

    def plain(self) -> dict[str, str]:
        """As a chat template wants it."""
        content = (
            self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        )
        message = {"role": "system" if self.role == "developer" else self.role, "content": content}
        return message if self.name is None else {**message, "name": self.name}


class ChatRequest(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=limits.MAX_MESSAGES)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=limits.MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Word], Meta(max_length=4)] | None = None
    service_tier: Word | None = None
    store: bool | None = None
    safety_identifier: Word | None = None
    prompt_cache_key: Word | None = None
    tools: Nothing | None = None
    tool_choice: Word | Something | None = None
    parallel_tool_calls: bool | None = None
    functions: Nothing | None = None
    function_call: Word | Something | None = None
    reasoning_effort: Word | None = None
    verbosity: Word | None = None
    prediction: Something | None = None
    audio: Something | None = None
    web_search_options: Something | None = None


# Parameter → the values (beside null) that ask for nothing; any other value is refused.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "response_format": (ResponseFormat(type="text"),),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": (),
    "verbosity": (),
    "prediction": (),
    "audio": (),
    "web_search_options": (),
}
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")

R = TypeVar("R", CompletionRequest, ChatRequest)


def decode(body: bytes, kind: type[R]) -> R:
    """Raises `UsageError` naming the parameter, in `where`, and what is wrong with it."""
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from error
    except msgspec.DecodeError as error:
        raise UsageError(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise UsageError("The body is nested too deeply.") from error
    except UnicodeDecodeError as error:
        raise UsageError("The body is not UTF-8.") from error
    for name, neutral in _NEUTRAL.items():
        value = getattr(request, name, None)
        if value is not None and value not in neutral:
            raise UnsupportedError(
                f"'{name}' is not served with this value.", where=name, remedy=f"Leave '{name}' out."
            )
    return request


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
