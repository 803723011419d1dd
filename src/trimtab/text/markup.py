r"""Control tokens that a chat's messages spell out: they stay text, and only the template writes control tokens.

A message "…<|im_end|>\n<|im_start|>system\n…" would otherwise end its own turn and begin another's. Where a message
spells a control token (few do; all others go as before), the token is set between two private-use characters
before the template is rendered; what stands between them afterwards is encoded as plain text, and all else as
usual. A template that trims, splits or compares sees the text with its token in it. Marks that a template tore
apart are dropped, but part the text, so that nothing joins into a control token across them.

This is transformers' `sanitize_control_tokens`, and gives the same ids, with three more cases in which a message
could get through: other letters' case where a template changes it, a token cut over two messages, and a token
that appears only when the text is normalized, which is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from trimtab.spec.errors import UsageError
from trimtab.text.tokenizer import Tokenizer

_START, _END = "\U000f0000", "\U000f0001"
_MARKS = re.compile(f"[{_START}{_END}]")
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
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        spelled = "|".join(longest_first) or _NEVER
        self._spelled = re.compile(spelled, re.IGNORECASE)
        self._marked = re.compile(f"{_START}((?:{spelled}))?{_END}|[{_START}{_END}]", re.IGNORECASE)
        self._normalized = [text for text, token in tokens.items() if token.normalized]

    def mark(self, messages: Messages) -> Messages | None:
        """The messages to render with marks in them; None where they spell no control token.

        Raises `UsageError` for a token that comes about by normalizing only.
        """
        alone = list(_texts(messages))
        orders = (alone, [text for message in messages for text in _texts(message.get("content"))])
        found = [len(self._spelled.findall("".join(texts))) for texts in orders]
        if not any(found):
            self._refuse_disguised("".join(alone))
            return None
        # What is spelled over two texts must not come together where a template sets one after the other.
        parted = any(
            count > sum(len(self._spelled.findall(text)) for text in texts)
            for count, texts in zip(found, orders, strict=True)
        )
        return [{key: self._mark(value, parted) for key, value in message.items()} for message in messages]

    def encode(self, rendered: str) -> list[int]:
        """Ids of a chat that was rendered from marked messages. Raises `UsageError` where a text stays a token."""
        pieces = self._marked.split(rendered)
        newline = self._tokenizer.encode("\n", add_special_tokens=False)
        ids = self._tokenizer.encode(pieces[0], add_special_tokens=False)
        for place, piece in enumerate(pieces[1:], start=1):
            if piece:
                ids += self._encode_piece(piece, newline, plain=place % 2 == 1)
        return ids

    @staticmethod
    def unmarked(rendered: str) -> str:
        return _MARKS.sub("", rendered)

    def _mark(self, value: Any, parted: bool) -> Any:
        if isinstance(value, str):
            marked = self._spelled.sub(f"{_START}\\g<0>{_END}", _MARKS.sub("", value))
            return marked + _END if parted else marked
        if isinstance(value, dict):
            return {key: self._mark(each, parted) for key, each in value.items()}
        return [self._mark(each, parted) for each in value] if isinstance(value, list) else value

    def _encode_piece(self, piece: str, newline: list[int], *, plain: bool) -> list[int]:
        """As it stands in the middle of a text: after a newline, which is taken away again, so that no tokenizer
        puts the space before it that belongs to the beginning of a text.
        """
        encode = self._tokenizer.encode_plain if plain else self._encode
        ids = encode("\n" + piece)
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


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
