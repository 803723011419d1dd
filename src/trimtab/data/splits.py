"""Which document belongs to which split: a pure function of its name, so no document can be in two.

What a recipe names is taken as it is. What it does not name is set apart from `train`: 8 % of the documents
for test, 4 % for validation. A recipe that names only `test` has no train split, which suits runs without
training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

from trimtab.data.sources import Document, documents
from trimtab.spec.recipe_data import Data, Source

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_TEST_PERCENT, _VALIDATION_PERCENT = 8, 4


def split_of(name: str) -> SplitName:
    """By SHA-256 of the name (for the standard library: the relative POSIX path)."""
    percent = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100
    if percent < _TEST_PERCENT:
        return "test"
    return "validation" if percent < _TEST_PERCENT + _VALIDATION_PERCENT else "train"


def sources(data: Data) -> list[Source]:
    """Every source of a recipe's data, once."""
    if data.stdlib:
        return [Source(stdlib=data.stdlib)]
    return [source for source in (data.train, data.validation, data.test) if source]


def split_documents(data: Data, split: SplitName) -> Iterator[Document]:
    """The documents of one split, in a stable order. Raises `DataError` from the source."""
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    whole = Source(stdlib=data.stdlib) if data.stdlib else data.train
    if split != "train" and (source := named[split]):
        yield from documents(source)
    elif whole:
        for document in documents(whole):
            chosen = split_of(document.name)
            # A named split leaves its share to train.
            if (split if split == chosen else "train" if named[chosen] else chosen) == split:
                yield document
