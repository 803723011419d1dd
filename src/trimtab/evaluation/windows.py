"""Windows of text for a model folder: its own tokenizer, non-overlapping, evenly spread over the text."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.data.encode import Encoder
from trimtab.data.packing import cut_windows, window_documents
from trimtab.data.sources import documents, files
from trimtab.data.tokenizer import needed_ids
from trimtab.models.info import inspect
from trimtab.models.tables import check_highest, check_ids, check_length
from trimtab.spec.errors import DataError, ModelError
from trimtab.spec.recipe_data import Source

# Longer windows than a model was trained on would measure something else; a folder does not say its length.
USUAL_LENGTH = 256
# What sets the length of a window, in the words of a person.
WINDOW = "--window"


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` indices below `count`, ascending, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, max(1, min(count, wanted))).astype(np.int64))


def windows_of(
    source: Source,
    model: Path,
    *,
    tokens: int,
    length: int | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Windows (n, length) of a source's text, about `tokens` in all, and the document of each (n,).

    `length` defaults to 256 or the model's context, if that is less. Raises `DataError` for text that is missing
    or shorter than a window, and `ModelError` for a folder without `tokenizer.json`, or whose model has no place for
    an id of its tokenizer or for so long a window.
    """
    if not (model / "tokenizer.json").is_file():
        raise ModelError(
            "the folder has no tokenizer.json.",
            where=str(model),
            remedy="Save the tokenizer with transformers' AutoTokenizer first.",
        )
    check_ids(model, needed_ids(model))
    length = length or min(USUAL_LENGTH, inspect(model).context)
    warning = check_length(model, length, where=WINDOW)
    if warning and on_warning:
        on_warning(warning)
    ids, offsets = _tokens(source, model)
    windows = cut_windows(ids, length)
    if not len(windows):
        raise DataError(
            f"the text has {len(ids)} tokens, less than a window of {length}.",
            where=source.text or source.jsonl or "data",
            remedy="Give more text, or a smaller window.",
        )
    check_highest(model, int(ids.max()))
    chosen = spread(len(windows), max(1, tokens // length))
    return windows[chosen], window_documents(offsets, len(windows), length)[chosen]


def _tokens(source: Source, model: Path) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    """The ids of a whole text, and where its documents start and the last one ends."""
    files(source)
    with closing(Encoder(model)) as encoder:
        rows = [
            np.array(encoded.ids, dtype=encoder.token_type) for encoded in encoder.encode(documents(source))
        ]
        ids = np.concatenate(rows) if rows else np.empty(0, dtype=encoder.token_type)
    return ids, np.cumsum([0, *map(len, rows)], dtype=np.int64)
