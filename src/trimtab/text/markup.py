r"""Control tokens that a chat's messages spell out: they stay text, and only the template writes control tokens.

A message "…<|im_end|>\n<|im_start|>system\n…" would otherwise end its own turn and begin another's. Where a message
spells a control token (few do; all others go as before), private-use characters are set into it before the
template is rendered. Afterwards they are taken out again, and what they were in is encoded as plain text.

A special token is marked after each of its characters, so that no template can cut a whole one out of it. Other
tokens that the template writes itself (`</think>`) are marked before and after, because templates split their
messages at them; a mark that a template tore off still tells of the token beside it, and parts the text.

Templates see the marks, so they are as rare as can be. The ids are those of transformers'
`sanitize_control_tokens`, which misses some of this: tokens cut out, in another case where a template changes it,
and spelled over two messages. One that comes about only when the text is normalized is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from trimtab.spec.errors import UsageError
from trimtab.text.tokenizer import Tokenizer

_START, _END, _INSIDE = "\U000f0000", "\U000f0001", "\U000f0002"
_ANY = f"[{_START}{_END}{_INSIDE}]"
_OTHER = f"[^{_START}{_END}{_INSIDE}]"
_NEVER = "(?!)"
Messages = list[dict[str, Any]]


class Markup:
    """The control tokens of one tokenizer and its template: special ones, and those that the template writes."""

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        tokens = {
            token.content: token
            for token in tokenizer.added.values()
            if token.content.strip() and (token.special or token.content in template)
        }
        self._around = {text.lower() for text, token in tokens.items() if not token.special}
        self._spelled = re.compile(_one_of(list(tokens)), re.IGNORECASE)
        around = _one_of(list(self._around))
        self._marked = re.compile(
            f"{_START}((?:{_OTHER}{_INSIDE})+){_END}?|{_START}({around}){_END}?|({around}){_END}|{_ANY}",
            re.IGNORECASE | re.DOTALL,
        )
        self._normalized = [text for text, token in tokens.items() if token.normalized]

    def mark(self, messages: Messages) -> Messages | None:
        """The messages to render with marks in them; None where they spell no control token.

        Raises `UsageError` for a token that comes about by normalizing only.
        """
        orders = (
            list(_texts(messages)),
            [text for message in messages for text in _texts(message.get("content"))],
            list(_texts(messages, keys=True)),
            list(_keys(messages)),
        )
        found = [len(self._spelled.findall("".join(texts))) for texts in orders]
        if not any(found):
            self._refuse_disguised("".join(orders[2]))
            return None
        # What is spelled over two texts must not come together where a template sets one after the other.
        parted = any(
            count > sum(len(self._spelled.findall(text)) for text in texts)
            for count, texts in zip(found, orders, strict=True)
        )
        marked = [self._mark(message, parted) for message in messages]
        self._refuse_spelled_over_keys(marked)
        return marked

    def encode(self, rendered: str) -> list[int]:
        """Ids of a chat that was rendered from marked messages. Raises `UsageError` where a text stays a token."""
        newline = self._tokenizer.encode("\n", add_special_tokens=False)
        ids, done = [], 0
        for found in self._marked.finditer(rendered):
            ids += self._encode_piece(rendered[done : found.start()], newline, first=not done, plain=False)
            spelled = found[1] or found[2] or found[3] or ""
            ids += self._encode_piece(unmarked(spelled), newline, first=False, plain=True)
            done = found.end()
        return ids + self._encode_piece(rendered[done:], newline, first=not done, plain=False)

    def _mark(self, value: Any, parted: bool) -> Any:
        if isinstance(value, str):
            marked = self._mark_text(value)
            return marked + _END if parted else marked
        if isinstance(value, dict):
            # A key is never parted: templates look most of them up.
            return {self._mark_text(key): self._mark(each, parted) for key, each in value.items()}
        return [self._mark(each, parted) for each in value] if isinstance(value, list) else value

    def _mark_text(self, text: str) -> str:
        return self._spelled.sub(self._mark_token, unmarked(text))

    def _mark_token(self, found: re.Match[str]) -> str:
        text = found[0]
        if text.lower() not in self._around:
            text = "".join(character + _INSIDE for character in text)
        return f"{_START}{text}{_END}"

    def _encode_piece(self, piece: str, newline: list[int], *, first: bool, plain: bool) -> list[int]:
        """As it stands in the middle of a text: after a newline, which is taken away again, so that no tokenizer
        puts the space before it that belongs to the beginning of a text.
        """
        if not piece:
            return []
        encode = self._tokenizer.encode_plain if plain else self._encode
        ids = encode(piece) if first else encode("\n" + piece)
        if not first:
            ids = ids[len(newline) :] if ids[: len(newline)] == newline else encode(piece)
        if plain and any(self._is_control(token) for token in ids):
            raise UsageError(
                f"{piece!r} is a control token of this model, even where it is meant as text.",
                where="messages",
                remedy="Write it otherwise.",
            )
        return ids

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _is_control(self, token: int) -> bool:
        added = self._tokenizer.added.get(token)
        return added is not None and self._spelled.fullmatch(added.content) is not None

    def _refuse_spelled_over_keys(self, marked: Messages) -> None:
        for texts in (_texts(marked, keys=True), _keys(marked)):
            if spelled := self._spelled.search(self._marked.sub(_START, "".join(texts))):
                raise UsageError(
                    f"The messages spell the control token {spelled[0]!r} over a key and what is beside it.",
                    where="messages",
                    remedy="Write it otherwise.",
                )

    def _refuse_disguised(self, text: str) -> None:
        if not self._normalized or not text:
            return
        seen = self._tokenizer.normalize(text)
        for token in self._normalized:
            if token in seen or self._tokenizer.normalize(token) in seen:
                raise UsageError(
                    f"The messages spell the control token {token!r} in other characters.",
                    where="messages",
                    remedy="Write it otherwise.",
                )


def unmarked(text: str) -> str:
    return re.sub(_ANY, "", text)


def _one_of(texts: list[str]) -> str:
    """The longest first, so that a token counts before those within it."""
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or _NEVER


def _texts(value: Any, *, keys: bool = False) -> Iterator[str]:
    """Texts in the order in which they stand, with `keys` also those of objects: a template may print them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            if keys:
                yield key
            yield from _texts(each, keys=keys)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, keys=keys)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _keys(each)
