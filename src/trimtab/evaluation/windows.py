"""Windows of text for a model folder: its own tokenizer, non-overlapping, evenly spread over the text."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.data.prepare import prepare
from trimtab.models.info import inspect
from trimtab.spec.errors import ModelError
from trimtab.spec.recipe_data import Data, Source

# Longer windows than a model was trained on would measure something else; a folder does not say its length.
USUAL_LENGTH = 256


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` indices below `count`, ascending, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, max(1, min(count, wanted))).astype(np.int64))


def windows_of(
    source: Source, model: Path, *, tokens: int, length: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Windows (n, length) of a source's text, about `tokens` in all, and the document of each (n,).

    `length` defaults to 256 or the model's context, if that is less. Raises `DataError` for text that is missing
    or shorter than a window, and `ModelError` for a folder without `tokenizer.json`.
    """
    if not (model / "tokenizer.json").is_file():
        raise ModelError(
            "the folder has no tokenizer.json.",
            where=str(model),
            remedy="Save the tokenizer with transformers' AutoTokenizer first.",
        )
    length = length or min(USUAL_LENGTH, inspect(model).context)
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        data = prepare(Data(test=source), Path(folder) / "data", tokenizer=model, vocabulary=None)
        windows, documents = data.windows("test", length)
        chosen = spread(len(windows), max(1, tokens // length))
        return np.array(windows[chosen]), np.array(documents[chosen])
