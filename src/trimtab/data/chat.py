"""Chats as training text: the shape of a message, and the plain template for tokenizers that bring none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from trimtab.data.reading import check_characters
from trimtab.spec.errors import DataError

# Written beside a tokenizer that we train, so that the service renders chats exactly as training did.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# They say which call is meant, and nothing that a model could learn.
IDENTIFIERS = frozenset({"id", "tool_call_id"})
_HOW = 'Each message is {"role": "user", "content": "text"}.'
# What other tools give a template beside the messages, or train on in another way; nothing here reads it.
_NOT_READ = ("functions", "function_call", "chat_template_kwargs")


class Message(msgspec.Struct, frozen=True):
    """`content` is null or left out only where `others` say something. `others` are keys that a template may show, such
    as `tool_calls`. What does not count (`"weight": 0`) is read by the model, and not learned.
    """

    role: str
    content: str | msgspec.UnsetType | None = msgspec.UNSET
    others: Mapping[str, Any] = {}
    counts: bool = True

    @property
    def shown(self) -> dict[str, Any]:
        """As a template is given it."""
        content = {} if self.content is msgspec.UNSET else {"content": self.content}
        return {"role": self.role, **content, **self.others}


def check_messages(value: object, *, where: str) -> tuple[Message, ...]:
    """A list of `{"role": …, "content": …}`, as OpenAI's and Hugging Face's chats are, → messages.

    Content is a text or a list of parts of text. Keys that hold nothing (null, an empty list) are left out. Raises
    `DataError` naming the place.
    """
    if not isinstance(value, list):
        raise DataError("the chat is malformed: it is no list of messages.", where=where, remedy=_HOW)
    if not value:
        raise DataError("the chat has no message.", where=where)
    check_strings(value, where)
    return tuple(_message(each, number, where) for number, each in enumerate(value, 1))


def _message(value: object, number: int, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise DataError(
            f"the chat is malformed: message {number} has no role, or one that is no text.",
            where=where,
            remedy=_HOW,
        )
    others = {
        key: held
        for key, held in value.items()
        if key not in ("role", "content", "weight") and not _empty(held)
    }
    content = _content(value["content"], number, where) if "content" in value else msgspec.UNSET
    if not isinstance(content, str) and not set(others) - IDENTIFIERS - {"name"}:
        raise DataError(
            f"the chat is malformed: message {number} ({value['role']}) has no content.",
            where=where,
            remedy=_HOW,
        )
    return Message(value["role"], content, others, _counts(value.get("weight"), number, where))


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, list | dict) and not value)


def _content(value: object, number: int, where: str) -> str | None:
    """Parts are joined as the service joins them."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise DataError(
            f"the chat is malformed: the content of message {number} is no text.", where=where, remedy=_HOW
        )
    for part in value:
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise DataError(
                f"the content of message {number} has a part of type {kind!r}; only text is read.",
                where=where,
                remedy='A part is {"type": "text", "text": "…"}.',
            )
    return "".join(part["text"] for part in value)


def _counts(weight: object, number: int, where: str) -> bool:
    if weight is None:
        return True
    if not isinstance(weight, int | float) or weight not in (0, 1):
        raise DataError(
            f"the weight of message {number} is {weight!r}.",
            where=where,
            remedy="It is 0, for a message that is not learned, or 1.",
        )
    return weight == 1


def check_tools(row: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], ...]:
    """What stands under `tools` beside a chat: a list of objects, or its JSON as text. Raises `DataError`."""
    for key in _NOT_READ:
        if not _empty(row.get(key)):
            raise DataError(
                f"{key!r} beside a chat is not read, and would change what is learned.",
                where=f"{where} {key}",
                remedy='Describe functions under "tools", or take the key out.',
            )
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise DataError("the text is not JSON.", where=f"{where} tools") from error
    if tools == "" or _empty(tools):
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(
            "the tools of a chat are no list of objects.",
            where=f"{where} tools",
            remedy='Each is {"type": "function", "function": {"name": …}}.',
        )
    check_strings(tools, f"{where} tools")
    return tuple(tools)


def check_strings(value: object, where: str) -> None:
    """Raises `DataError` for a text, anywhere in a JSON value, that UTF-8 cannot hold."""
    match value:
        case str():
            check_characters(value, where)
        case list():
            for number, each in enumerate(value):
                check_strings(each, f"{where}[{number}]")
        case dict():
            for key, each in value.items():
                check_characters(key, where)
                check_strings(each, f"{where}.{key}")


def words(messages: Sequence[Message]) -> str:
    """All that messages say, without any template and without identifiers."""
    return "\n".join(text for message in messages for text in _words(message))


def _words(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    yield from _strings(message.others)


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _strings(each)
        case dict():
            for key, each in value.items():
                if key not in IDENTIFIERS and key != "type":
                    yield from _strings(each)


def render_plain(messages: Sequence[Message]) -> str:
    """What `PLAIN_TEMPLATE` gives of messages with content, without a template engine."""
    return "".join(f"{message.role}: {message.content}\n" for message in messages)
