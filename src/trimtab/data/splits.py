"""Which document belongs to which split: a pure function of its name, so no document can be in two.

What a recipe names is taken as it is. What it does not name is set apart from `train`: 8 % of the documents
for test, 4 % for validation. A recipe that names only `test` has no train split, which suits runs without
training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal, Protocol, TypeVar

from trimtab.data.sources import Document, documents
from trimtab.spec.recipe_data import Data, Source

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_TEST_PERCENT, _VALIDATION_PERCENT = 8, 4


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=_Named)


def split_of(name: str) -> SplitName:
    """By SHA-256 of the name (for the standard library: the relative POSIX path)."""
    percent = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100
    if percent < _TEST_PERCENT:
        return "test"
    return "validation" if percent < _TEST_PERCENT + _VALIDATION_PERCENT else "train"


def sources(data: Data) -> list[Source]:
    """Every source of a recipe's data, once."""
    return [Source(stdlib=data.stdlib)] if data.stdlib else data.named


def split_documents(data: Data, split: SplitName) -> Iterator[Document]:
    """The documents of one split, in a stable order. Raises `DataError` from the source."""
    return split_items(data, split, documents)


def split_items(data: Data, split: SplitName, read: Callable[[Source], Iterator[Item]]) -> Iterator[Item]:
    """The same of whatever `read` makes of a source."""
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    whole = Source(stdlib=data.stdlib) if data.stdlib else data.train
    if split != "train" and (source := named[split]):
        yield from read(source)
    elif whole:
        for item in read(whole):
            chosen = split_of(item.name)
            # A named split leaves its share to train.
            if (split if split == chosen else "train" if named[chosen] else chosen) == split:
                yield item
