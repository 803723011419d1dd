"""The tables that a model looks ids and places up in: what lies beyond one is refused before anything is computed.

Reads `config.json` alone; no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trimtab.models.families import ENCODER_DEFAULTS, FAMILIES
from trimtab.models.info import CONFIG, read_config
from trimtab.spec.errors import ModelError

_LENGTHEN = "Lengthen it with model.resize_token_embeddings(len(tokenizer)), or take the tokenizer that belongs to it."


class Tables(NamedTuple):
    """`rows` of the embedding. `places` are learned positions, none of which is beyond the last; `context` is what a
    model with rotary positions is meant for. None where the config does not say, or the model has none.
    """

    rows: int | None
    places: int | None
    context: int | None


def tables_of(folder: Path) -> Tables:
    """Raises `ModelError` for a folder without a config."""
    config = read_config(folder)
    kind = str(config.get("model_type"))
    if kind in ENCODER_DEFAULTS:
        config = {**ENCODER_DEFAULTS[kind], **config}
        return Tables(_number(config, "vocab_size"), _encoder_places(config), None)
    known = FAMILIES.get(kind)
    if known is None:
        return Tables(_number(config, "vocab_size"), None, None)
    # The other name of a key wins.
    others = {key: config[name] for key, name in known.aliases.items() if name in config}
    config = {**known.defaults, **config, **others}
    rows, found = _number(config, "vocab_size"), _number(config, known.keys.context)
    return Tables(rows, found, None) if known.positions else Tables(rows, None, found)


def _encoder_places(config: Mapping[str, Any]) -> int | None:
    places = _number(config, "max_position_embeddings")
    if places is None or config.get("model_type") != "roberta":
        return places
    # RoBERTa counts positions from the one after padding's id.
    padding = _number(config, "pad_token_id")
    return places - (padding + 1 if padding is not None else 0)


def _number(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) else None


def check_ids(folder: Path, ids: Mapping[str, int]) -> None:
    """`ids` by the tokens' texts. Raises `ModelError` for one that the embedding has no row for."""
    rows = tables_of(folder).rows
    beyond = {text: number for text, number in ids.items() if rows is not None and number >= rows}
    if beyond:
        text, number = min(beyond.items(), key=lambda pair: pair[1])
        others = f", and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        raise ModelError(
            f"the tokenizer has the token {text!r} with id {number}{others}, and the model's embedding has {rows} "
            "rows, for ids below that.",
            where=str(folder),
            remedy=_LENGTHEN,
        )


def check_highest(folder: Path, highest: int) -> None:
    """The same of the largest id that a text came to, such as that of a marker which was only added."""
    if highest >= (rows := tables_of(folder).rows or highest + 1):
        raise ModelError(
            f"the text comes to the tokenizer's id {highest}, and the model's embedding has {rows} rows.",
            where=str(folder),
            remedy=_LENGTHEN,
        )


def check_length(folder: Path, length: int, *, where: str) -> str | None:
    """Whether sequences of `length` tokens are within the model's positions: raises `ModelError` beyond learned ones,
    and gives a warning beyond the context of a model with rotary ones. `where` is what sets the length.
    """
    _, places, context = tables_of(folder)
    if places is not None and length > places:
        raise ModelError(
            f"the model has positions for {places} tokens, and {where} is {length}.",
            where=str(folder / CONFIG),
            remedy=f"Use {where}: {places} or less."
            if not where.startswith("-")
            else f"Use {where} {places}.",
        )
    if context is not None and length > context:
        return beyond_context(length, context, where)
    return None


def beyond_context(length: int, context: int, where: str) -> str:
    """The warning."""
    return (
        f"{where} is {length}, and the model's context is {context} tokens: what lies beyond is computed, and is not "
        "what it is served for."
    )
