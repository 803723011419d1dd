"""A chat's messages: from the forms that clients write them in to the one that chat templates read.

Templates are written for what transformers gives them: dicts with `role` and `content` as text, and whatever else
stands in a message under its own name (`reasoning_content`, `tool_calls`, `tool_call_id`). So nothing of a message
is dropped here, and what of a tool's use the template does not show is refused afterwards.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trimtab.service import limits
from trimtab.service.errors import UnsupportedError
from trimtab.spec.errors import UsageError

Word = Annotated[str, Meta(max_length=limits.MAX_WORD)]
Text = Annotated[str, Meta(max_length=limits.MAX_BODY_BYTES)]
# Read here, or asked of servers with a cache of prompts, which this one has not.
_READ = frozenset({"role", "content", "refusal", "cache_control"})
_REST = "*"


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a message. A refusal is what an assistant said, too."""

    type: Literal["text", "refusal"]
    text: Text | None = None
    refusal: Text | None = None
    cache_control: dict[str, Any] | None = None


class ToolFunction(msgspec.Struct, frozen=True, kw_only=True):
    """`arguments`: JSON of an object, as OpenAI writes it, or the object."""

    name: Word
    arguments: Text | dict[str, Any] = ""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that an assistant made."""

    function: ToolFunction
    id: Word | None = None
    type: Word | None = None


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message. Only an assistant's may be without content."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], Meta(max_length=limits.MAX_CONTENT_PARTS)] | None = None
    refusal: Text | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=limits.MAX_TOOL_CALLS)] | None = None
    # Refused unless empty.
    audio: None = None
    function_call: None = None
    # Everything, as it was sent.
    rest: dict[str, Any] = msgspec.field(default_factory=dict, name=_REST)


def gather(messages: Any) -> Any:
    """Messages as sent, each with what is in it beside itself, so that keys that only a template knows are kept.

    Raises `UsageError` for what is nested too deeply for a template.
    """
    if not isinstance(messages, list):
        return messages
    return [_gathered(message) if isinstance(message, dict) else message for message in messages]


def _gathered(message: dict[str, Any]) -> dict[str, Any]:
    given = _given(message)
    if isinstance(given.get("content"), list):
        given["content"] = [_given(part) if isinstance(part, dict) else part for part in given["content"]]
    for name, value in given.items():
        if _too_deep(value, limits.MAX_DEPTH):
            raise UsageError(f"'{name}' of a message is nested too deeply.", where="messages")
    return {**given, _REST: given}


def _too_deep(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_too_deep(each, levels - 1) for each in inner)


def _given(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def for_template(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """Raises `UsageError` for a message that says nothing."""
    return [_plain(message, f"messages[{number}]") for number, message in enumerate(messages)]


def _plain(message: ChatMessage, where: str) -> dict[str, Any]:
    found = {name: value for name, value in message.rest.items() if name not in _READ and value != []}
    found["role"] = "system" if message.role == "developer" else message.role
    found["content"] = _content(message, where)
    if message.tool_calls:
        found["tool_calls"] = [
            _tool_call(call, sent)
            for call, sent in zip(message.tool_calls, message.rest["tool_calls"], strict=True)
        ]
    return found


def _content(message: ChatMessage, where: str) -> str:
    content = message.content
    if content is None and message.role != "assistant":
        raise UsageError(
            f"The parameter '{where}.content' is missing.", where=f"{where}.content", remedy="Send its text."
        )
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{number}]") for number, part in enumerate(content))
    return content or message.refusal or ""


def _part(part: Part, where: str) -> str:
    text = part.text if part.type == "text" else part.refusal
    if text is None:
        raise UsageError(f"'{where}' holds no {part.type}.", where=where, remedy=f"Send '{part.type}'.")
    return text


def _tool_call(call: ToolCall, sent: dict[str, Any]) -> dict[str, Any]:
    """Templates write the arguments themselves, so they want the object and not its JSON."""
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            read = msgspec.json.decode(arguments or "{}")
        except (msgspec.DecodeError, RecursionError):
            read = None
        arguments = read if isinstance(read, dict) else arguments
    return {**sent, "function": {**sent["function"], "arguments": arguments}}


def refuse_left_out(messages: list[dict[str, Any]], text: str) -> None:
    """Raises `UnsupportedError` where the template left out the use of a tool, which it may not have heard of."""
    at = 0
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        for call in message.get("tool_calls", ()):
            at = _shown(call["function"]["name"], text, at)
            if at < 0:
                raise _left_out("a call of a tool", f"{where}.tool_calls")
        if message["role"] == "tool":
            at = _shown(message["content"].strip(), text, at)
            if at < 0:
                raise _left_out("a tool's answer", where)


def _shown(content: str, text: str, at: int) -> int:
    """Where it stands behind `at`, as it is or as JSON; -1 where it stands nowhere.

    Templates write messages in order, so not all of the text is looked through for each.
    """
    for written in (content, json.dumps(content, ensure_ascii=False)[1:-1]):
        place = text.find(written, at)
        if place >= 0:
            return place
        if written in text:
            return at
    return -1


def _left_out(what: str, where: str) -> UnsupportedError:
    return UnsupportedError(
        f"The model's chat template does not write {what}, so the model would not see it.",
        where=where,
        remedy="Leave it out, or serve a model whose template knows tools.",
    )
