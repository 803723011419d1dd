"""Ids to text as they come. However a sequence is cut into pieces, the texts put together are the same.

An answer's text is what it adds to its prompt's: decode(prompt + answer) without decode(prompt). The ids before
it count in two ways. Decoders that drop the first space of a text (Llama 2, Mistral, Metaspace) drop it of the
whole, not of the answer; and bytes at a prompt's end may be the beginning of a character that the answer ends.

A chat's answer is the exception: it is a message of its own, so nothing is before it. Where a decoder drops the
first space, "▁Hello" after "[/INST]" is "Hello", as `tokenizer.decode(generated)` of transformers gives it; clients
show and compare such texts, and templates trim or space what they get back. (vLLM keeps the space.)

Two things cannot be had while text is shown as it comes. Byte fallback makes every byte of a run a replacement
character if one of them is wrong; here the characters that are whole already stand. And a decoder that rewrites
earlier text (WordPiece's clean-up of "it ' s") is followed, but what was shown is not taken back.

Bytes that are the beginning of a character are held back until the character is whole, or until `finish`.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from trimtab.text.tokenizer import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Where a text is cleaned up, the space before these goes when more comes: " ' ", " n't", " 's", " 've" and the like.
_BEFORE_CLEANING = (" ", " '", " n", " n'", " 'v", " 'r")
_utf8 = codecs.getincrementaldecoder("utf-8")
# A character has at most four bytes, so three can be the beginning of one.
_UNFINISHED_BYTES = 3
# For decoders without bytes of their own: ids that are decoded again with each new one, and those that may wait.
_CONTEXT_IDS = 8
_WAITING_IDS = 16


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """As byte fallback does it: a replacement character for every byte, not for every broken character."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _REPLACEMENT * (error.end - error.start), error.end


codecs.register_error("trimtab.each_byte", _each_byte)


class Detokenizer(Protocol):
    """State of one sequence."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that these ids complete; may be empty."""
        ...

    def finish(self) -> str:
        """What was held back."""
        ...


def detokenizer(
    tokenizer: Tokenizer, hidden: frozenset[int], before: Sequence[int] | None = None
) -> Detokenizer:
    """A fresh one. `hidden` ids (special tokens, ends of text) leave no trace.

    `before`: the prompt's ids; none for a text of its own. None: some text, of which nothing is known.
    """
    if tokenizer.kind == "other":
        return WindowDetokenizer(tokenizer, hidden, before)
    return PieceDetokenizer(tokenizer, hidden, before)


def prompt_text(tokenizer: Tokenizer, hidden: frozenset[int], ids: Sequence[int]) -> str:
    """A prompt of ids as text, without the beginning of a character that an answer may end.

    With the answer's text behind it, it is the text of both.
    """
    if tokenizer.kind != "other":
        return PieceDetokenizer(tokenizer, hidden, ()).push(ids)
    shown, _ = _whole_characters(tokenizer, [token for token in ids if token not in hidden])
    return tokenizer.decode_all(shown)


class PieceDetokenizer:
    """For vocabularies in which every id has bytes of its own: a table and an incremental UTF-8 decoder."""

    def __init__(
        self, tokenizer: Tokenizer, hidden: frozenset[int], before: Sequence[int] | None = None
    ) -> None:
        self._pieces, self._texts, self._hidden = tokenizer.pieces, tokenizer.texts, hidden
        self._utf8 = _utf8("replace" if tokenizer.kind == "bytes" else "trimtab.each_byte")
        self._strip = tokenizer.strips_space and before is not None
        self._holds = False  # whether a part of a character is held back
        if before:
            self._go_on(before)

    def _go_on(self, before: Sequence[int]) -> None:
        pieces, hidden = self._pieces, self._hidden
        end, strip = b"", self._strip
        for token in reversed(before):
            if token not in hidden:
                end = pieces[token] + end
                if len(end) > _UNFINISHED_BYTES:
                    break
        self._strip = strip and not end
        self._utf8.decode(end)
        self._holds = bool(self._utf8.getstate()[0])

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
        self._holds = False
        return self._utf8.decode(b"", final=True)


class WindowDetokenizer:
    """For any other tokenizer: decode a short window with and without the new id, and give the difference."""

    def __init__(
        self, tokenizer: Tokenizer, hidden: frozenset[int], before: Sequence[int] | None = None
    ) -> None:
        self._decode, self._knows, self._hidden = tokenizer.decode_all, tokenizer.knows, hidden
        self._unsettled = (_REPLACEMENT, *(_BEFORE_CLEANING if tokenizer.cleans_up else ()))
        if before is None:
            # Any token that has text stands for it.
            last = list(islice((n for n in range(tokenizer.vocabulary_size) if self._decode([n])), 1))
        else:
            last = list(islice((n for n in reversed(before) if self._shows(n)), _CONTEXT_IDS))
        shown, waiting = _whole_characters(tokenizer, last[::-1])
        self._window = shown + waiting
        self._shown = len(shown)  # how many ids of the window have been turned into text already
        self._before = self._decode(shown)

    def _shows(self, token: int) -> bool:
        return token not in self._hidden and self._knows(token)

    def push(self, ids: Sequence[int]) -> str:
        return "".join([self._push(token) for token in ids if self._shows(token)])

    def _push(self, token: int) -> str:
        self._window.append(token)
        after = self._decode(self._window)
        waiting = len(self._window) - self._shown
        if after.endswith(self._unsettled) and waiting < _WAITING_IDS:
            return ""
        return self._show(after)

    def _show(self, after: str) -> str:
        """The new text. Of the window a few ids are kept, so that what follows is not a text's beginning."""
        text = after[_same(self._before, after) :]
        kept = self._window[-_CONTEXT_IDS:]
        before = self._decode(kept) if len(kept) < len(self._window) else after
        if before or len(self._window) > _WAITING_IDS:
            self._window, self._before = kept, before
        self._shown = len(self._window)
        return text

    def finish(self) -> str:
        return self._show(self._decode(self._window))


def _same(first: str, second: str) -> int:
    """How many characters both begin with."""
    if second.startswith(first):
        return len(first)
    return next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(second)
    )


def _whole_characters(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[int], list[int]]:
    """`ids` in two: those of whole characters, and at most three that may be the beginning of one."""
    for count in range(min(_UNFINISHED_BYTES, len(ids)) + 1):
        shown = ids[: len(ids) - count]
        if not tokenizer.decode_all(shown[-_CONTEXT_IDS:]).endswith(_REPLACEMENT):
            return shown, ids[len(shown) :]
    return ids, []
