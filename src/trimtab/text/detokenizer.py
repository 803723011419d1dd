"""Ids to text as they come. However a sequence is cut into pieces, the texts put together are the same.

Bytes that are the beginning of a character are held back until the character is whole, or until `finish`.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from trimtab.text.tokenizer import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_utf8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer(Protocol):
    """State of one sequence."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that these ids complete; may be empty."""
        ...

    def finish(self) -> str:
        """What was held back."""
        ...


def detokenizer(tokenizer: Tokenizer, hidden: frozenset[int]) -> Detokenizer:
    """A fresh one. `hidden` ids (special tokens, ends of text) leave no trace."""
    if tokenizer.kind == "other":
        return WindowDetokenizer(tokenizer, hidden)
    return PieceDetokenizer(tokenizer, hidden)


class PieceDetokenizer:
    """For vocabularies in which every id has bytes of its own: a table and an incremental UTF-8 decoder.

    Equal to `Tokenizer.decode` for byte-level vocabularies; for sentencepiece's, where the bytes are UTF-8.
    """

    def __init__(self, tokenizer: Tokenizer, hidden: frozenset[int]) -> None:
        self._pieces, self._texts, self._hidden = tokenizer.pieces, tokenizer.texts, hidden
        self._utf8 = _utf8("replace")
        self._strip = tokenizer.strips_space
        self._holds = False  # whether a part of a character is held back

    def push(self, ids: Sequence[int]) -> str:
        hidden = self._hidden
        if len(ids) == 1 and not self._holds and not self._strip:
            token = ids[0]
            text = "" if token in hidden else self._texts[token]
            if text is not None:
                return text
        pieces = self._pieces
        data = b"".join([pieces[token] for token in ids if token not in hidden])
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        text = self._utf8.decode(data)
        self._holds = bool(self._utf8.getstate()[0])
        return text

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowDetokenizer:
    """For any other tokenizer: decode a short window with and without the new id, and give the difference."""

    def __init__(self, tokenizer: Tokenizer, hidden: frozenset[int]) -> None:
        self._decode, self._hidden = tokenizer.decode, hidden
        self._window: list[int] = []
        self._shown = 0  # how many ids of the window have been turned into text already

    def push(self, ids: Sequence[int]) -> str:
        return "".join([self._push(token) for token in ids if token not in self._hidden])

    def _push(self, token: int) -> str:
        self._window.append(token)
        before, after = self._decode(self._window[: self._shown]), self._decode(self._window)
        if len(after) <= len(before) or after.endswith(_REPLACEMENT):
            return ""
        del self._window[: self._shown]
        self._shown = len(self._window)
        return after[len(before) :]

    def finish(self) -> str:
        before, after = self._decode(self._window[: self._shown]), self._decode(self._window)
        self._shown = len(self._window)
        return after[len(before) :]
