"""Chats through a model's template: their text, and which stretches of it are not to be learned.

A template shows what it knows. Whatever a chat says that it does not show would be lost without a word, so that is
refused, with the key named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trimtab.data.chat import IDENTIFIERS, Message, render_plain
from trimtab.data.sources import Document
from trimtab.spec.errors import DataError, UsageError
from trimtab.text.markup import Markup, unmarked
from trimtab.text.templates import ChatTemplate

# Put in the place of an answer, to see where the template writes it; private characters that no text has.
_ANSWER = "\ue000weight-0\ue001"
# A tool's name beside its result says again which call is answered.
_TOOL_ROLES = frozenset({"tool", "function"})
# Its messages stand for what the model is to generate, control tokens such as `</think>` included.
_MODEL_ROLE = "assistant"


class Rendered(NamedTuple):
    """`unlearned` are stretches of the text, from and to, in characters. `marked` is the text with the control tokens
    marked that others than the model spell out; None where they spell none.
    """

    text: str
    unlearned: tuple[tuple[int, int], ...] = ()
    marked: str | None = None


class Renderer:
    """Of chats, through `template` as the service does; without one, plainly. `markup` keeps what they spell text."""

    def __init__(self, template: ChatTemplate | None, markup: Markup) -> None:
        self._template, self._markup = template, markup

    def render(self, chat: Document) -> Rendered:
        """Raises `DataError` for what the template refuses, does not show, or shows wrongly."""
        messages = [message.shown for message in chat.messages]
        try:
            text = self._text(messages, chat.tools)
        except UsageError as error:
            raise DataError(error.message, where=f"{chat.where} messages", remedy=error.remedy) from error
        self._check_shown(chat, messages, text)
        _check_arguments(chat, text)
        unlearned = tuple(
            self._stretch(chat, messages, text, place)
            for place, message in enumerate(chat.messages)
            if not message.counts
        )
        marked = self._marked(chat, messages, text)
        if marked is not None and unlearned:
            raise DataError(
                "the messages spell control tokens, and some have weight 0: what is not learned cannot be told.",
                where=f"{chat.where} messages",
                remedy="Take the weights out, or write the control tokens otherwise.",
            )
        return Rendered(text, unlearned, marked)

    def _marked(self, chat: Document, messages: list[dict[str, Any]], text: str) -> str | None:
        others = [message for message in messages if message["role"] != _MODEL_ROLE]
        try:
            found = self._markup.mark([*others, {"tools": list(chat.tools)}])
            if found is None:
                return None
            *marks, last = found
            following = iter(marks)
            shown = [message if message["role"] == _MODEL_ROLE else next(following) for message in messages]
            marked = self._text(shown, last["tools"])
        except UsageError as error:
            raise DataError(error.message, where=f"{chat.where} messages", remedy=error.remedy) from error
        if unmarked(marked) != unmarked(text):
            raise DataError(
                "the messages spell control tokens, and the chat template changes them: they cannot be kept as text.",
                where=f"{chat.where} messages",
                remedy="Write the control tokens otherwise.",
            )
        return marked

    def _text(self, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> str:
        if self._template is None:
            return render_plain([Message(m["role"], m.get("content") or "") for m in messages])
        return self._template.render(messages, add_generation_prompt=False, tools=list(tools) or None)

    def _names(self, key: str) -> bool:
        """Whether the template speaks of a key at all: then what it shows of it, and when, is its own."""
        return self._template is not None and bool(re.search(rf"\b{re.escape(key)}\b", self._template.source))

    def _other(self, messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> str:
        """The text of a chat that is changed to see what becomes of it; nothing where the template refuses it."""
        try:
            return self._text(messages, tools)
        except UsageError:
            return ""

    def _check_shown(self, chat: Document, messages: list[dict[str, Any]], text: str) -> None:
        for key in {key: None for message in chat.messages for key in _said(message)}:
            # A word like this is in most templates, as a function's name.
            if key != "name" and self._names(key):
                continue
            without = [{name: value for name, value in m.items() if name != key} for m in messages]
            if self._other(without, chat.tools) == text:
                raise DataError(
                    f"the chat template does not show {key!r} of the messages, so it would not be learned.",
                    where=f"{chat.where} messages {key}",
                    remedy="Take the key out, or use a model whose template shows it.",
                )
        if chat.tools and not self._names("tools") and self._other(messages, ()) == text:
            raise DataError(
                "the chat template does not show 'tools', so they would not be learned.",
                where=f"{chat.where} tools",
                remedy="Take the key out, or use a model whose template shows it.",
            )

    def _stretch(
        self, chat: Document, messages: list[dict[str, Any]], text: str, place: int
    ) -> tuple[int, int]:
        """Where a message stands in the text, with what ends its turn and without what opens it.

        Found by rendering another message in its place; so the template's own marks need not be known.
        """
        other = {"role": messages[place]["role"], "content": _ANSWER}
        whole = self._other([*messages[:place], other, *messages[place + 1 :]], chat.tools)
        last = self._other([*messages[:place], other], chat.tools)
        before, mark, after = whole.partition(_ANSWER)
        if not mark or not text.endswith(after):
            raise DataError(
                f"where the chat template writes message {place + 1}, which has weight 0, cannot be told.",
                where=f"{chat.where} messages weight",
                remedy="Take the message or its weight out.",
            )
        start, end = _shared(before, text), len(text) - len(after)
        ending = last.partition(_ANSWER)[2]
        return start, end + (len(ending) if after.startswith(ending) else 0)


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _said(message: Message) -> set[str]:
    """Keys of which a reader would expect that they are learned."""
    silent = IDENTIFIERS | ({"name"} if message.role in _TOOL_ROLES else set())
    return {key for key, value in message.others.items() if key not in silent and value != ""}


def _check_arguments(chat: Document, text: str) -> None:
    """Some templates take the arguments of a call as an object, and some as its JSON. What is given the wrong one
    writes JSON within JSON, or Python.
    """
    for arguments in _arguments(chat.messages):
        if isinstance(arguments, str):
            quoted, wanted = json.dumps(arguments, ensure_ascii=False), "an object"
            wrong = quoted[1:-1] != arguments and quoted in text
        else:
            wrong = str(arguments) != json.dumps(arguments, ensure_ascii=False) and str(arguments) in text
            wanted = "their JSON as text"
        if wrong:
            raise DataError(
                "the chat template does not write the arguments of this call as JSON.",
                where=f"{chat.where} messages tool_calls",
                remedy=f"Give the arguments as {wanted}.",
            )


def _arguments(messages: Sequence[Message]) -> Iterator[str | dict[str, Any]]:
    for message in messages:
        calls = message.others.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function", call) if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if arguments and isinstance(arguments, str | dict):
                yield arguments
