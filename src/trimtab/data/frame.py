"""What an encoder's tokenizer puts around every text, and its other special tokens. Read from the tokenizer's files."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trimtab.data.tokenizer import load_tokenizer, named_token
from trimtab.text.folder_files import read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MASKS = ("[MASK]", "<mask>")
# What an absent pad_token_id means to stock's configs.
_PAD_OF_MODEL = {"bert": 0, "distilbert": 0, "roberta": 1}


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
    starts = tuple(number for number, special in takewhile(lambda pair: pair[1], flags))
    ends = tuple(number for number, special in takewhile(lambda pair: pair[1], reversed(flags)))[::-1]
    added = json.loads(tokenizer.to_str())["added_tokens"]
    pad, mask = (named_token(folder, tokenizer, name) for name in ("pad_token", "mask_token"))
    return Frame(
        starts=starts,
        ends=ends,
        pad=_padding(folder, tokenizer) if pad is None else pad,
        mask=_usual_mask(added) if mask is None else mask,
        special=frozenset({*(token["id"] for token in added if token["special"]), *starts, *ends}),
    )


def _padding(folder: Path, tokenizer: Tokenizer) -> int | None:
    """What the model pads with where the tokenizer does not say. Attention leaves it out, so any id will do, but that
    RoBERTa counts positions without it.
    """
    config = read_object(folder / "config.json")
    number = config.get("pad_token_id", _PAD_OF_MODEL.get(str(config.get("model_type"))))
    known = isinstance(number, int) and tokenizer.id_to_token(number) is not None
    return number if known else None


def _usual_mask(added: list[dict[str, Any]]) -> int | None:
    """A special token that is written as masks are, where none is named."""
    found = [token["id"] for token in added if token["special"] and token["content"] in _MASKS]
    return found[0] if len(found) == 1 else None
