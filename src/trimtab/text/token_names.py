"""What tokens are called in reports of log-probabilities: their text, in a form in which no two look alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from trimtab.text.tokenizer import Tokenizer

_RESERVED = re.compile(r"token_id:[0-9]+|bytes:(\\x[0-9a-f]{2})+")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenName(NamedTuple):
    """`octets` are the bytes that the token stands for; None where there is no text to it."""

    text: str
    octets: bytes | None


class TokenNames(dict[int, TokenName]):
    r"""id → name, made when first asked for.

    A token is called by its text, a special one by its markup. A token that stands for one byte, or for a part
    of a character, is written out in bytes (`bytes:\xc3`), also where the byte is a letter that has a token of
    its own. An id without text, as vocabularies have that were filled up to a round number, is `token_id:N`.
    """

    def __init__(self, tokenizer: Tokenizer | None, markup: Mapping[int, str]) -> None:
        super().__init__()
        self._tokenizer, self._markup = tokenizer, markup

    def __missing__(self, token: int) -> TokenName:
        self[token] = name = self._make(token)
        return name

    def _make(self, token: int) -> TokenName:
        written = None if self._tokenizer is None else self._tokenizer.written(token)
        if self._tokenizer is None or written is None:
            return TokenName(numbered(token), None)
        if token in self._markup:
            written = self._markup[token]
            return TokenName(numbered(token) if _RESERVED.fullmatch(written) else written, written.encode())
        octets = self._tokenizer.pieces[token]
        byte = None if self._tokenizer.kind == "bytes" else _BYTE_TOKEN.fullmatch(written)
        if byte is not None and octets != written.encode():
            octets = bytes((int(byte[1], 16),))
        else:
            try:
                text = octets.decode()
            except UnicodeDecodeError:
                pass
            else:
                return TokenName(numbered(token) if not text or _RESERVED.fullmatch(text) else text, octets)
        return TokenName("bytes:" + "".join(f"\\x{each:02x}" for each in octets), octets)


def numbered(token: int) -> str:
    """The name of a token that cannot be called by its text."""
    return f"token_id:{token}"
