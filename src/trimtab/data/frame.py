"""What an encoder's tokenizer puts around every text, and its other special tokens. Read from the tokenizer's files."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from trimtab.data.tokenizer import load_tokenizer, named_token


class Frame(NamedTuple):
    """`starts` and `ends` are the ids before and after a text; `special` holds all ids that are no text."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    pad: int | None
    mask: int | None
    special: frozenset[int]


def frame_of(folder: Path) -> Frame:
    """Raises `DataError` for a folder without a tokenizer."""
    tokenizer = load_tokenizer(folder)
    encoding = tokenizer.encode("a")
    flags = list(zip(encoding.ids, encoding.special_tokens_mask, strict=True))
    added = json.loads(tokenizer.to_str())["added_tokens"]
    return Frame(
        starts=tuple(number for number, special in takewhile(lambda pair: pair[1], flags)),
        ends=tuple(number for number, special in takewhile(lambda pair: pair[1], reversed(flags)))[::-1],
        pad=named_token(folder, tokenizer, "pad_token"),
        mask=named_token(folder, tokenizer, "mask_token"),
        special=frozenset(token["id"] for token in added if token["special"]),
    )
