"""Which document belongs to which split: a pure function of its name, so no document can be in two.

What a recipe names is taken as it is. What it does not name is set apart from `train`: 8 % of the documents
for test, 4 % for validation. A recipe that names only `test` has no train split, which suits runs without
training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Literal, Protocol, TypeVar

from trimtab.data.sources import Document, divided, documents
from trimtab.spec.recipe_data import Data, Source

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_TEST_PERCENT, _VALIDATION_PERCENT = 8, 4
# Up to so many documents, the least share is less than one of them.
_FEW = 100 // _VALIDATION_PERCENT


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=_Named)


def split_of(name: str) -> SplitName:
    """By SHA-256 of the name (for the standard library: the relative POSIX path)."""
    percent = int(_hash(name)[:8], 16) % 100
    if percent < _TEST_PERCENT:
        return "test"
    return "validation" if percent < _TEST_PERCENT + _VALIDATION_PERCENT else "train"


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def sources(data: Data) -> list[Source]:
    """Every source of a recipe's data, once."""
    return [Source(stdlib=data.stdlib)] if data.stdlib else data.named


class Splits:
    """The documents of a recipe's data by split, each in a stable order.

    A text that comes in few documents is divided as a text file is, and where it is still so short that a split gets
    none of it, that split is given the train document of the least hash. Samples with labels stay as they fall.
    """

    def __init__(self, data: Data) -> None:
        """Raises `DataError` from the source, as does reading it."""
        self._data = data
        self._divide: Source | None = None
        self._given: dict[str, SplitName] = {}
        own = {"train": None, "validation": data.validation, "test": data.test}
        unnamed = [split for split in SPLITS if own[split] is None]
        whole = _whole(data)
        if whole is None or len(unnamed) == 1 or whole.kind != "text":
            return
        if whole.jsonl and whole.text and _is_few(documents(whole)):
            self._divide = whole
        self._given = _given(self._read(whole), unnamed)

    def documents(self, split: SplitName) -> Iterator[Document]:
        return split_items(self._data, split, self._read, self._given)

    def _read(self, source: Source) -> Iterator[Document]:
        if source is not self._divide:
            return documents(source)
        return (piece for document in documents(source) for piece in divided(document))


def _whole(data: Data) -> Source | None:
    """What splits without a source of their own are set apart from."""
    return Source(stdlib=data.stdlib) if data.stdlib else data.train


def _is_few(found: Iterator[Document]) -> bool:
    return len(list(islice(found, _FEW + 1))) <= _FEW


def _given(found: Iterator[Document], unnamed: list[SplitName]) -> dict[str, SplitName]:
    """Which documents make up for splits that would have none; reads on until every split has one."""
    missing, names = set(unnamed), list[str]()
    for document in found:
        missing.discard(split_of(document.name))
        if not missing:
            return {}
        names.append(document.name)
    names.sort(key=_hash)
    if "train" in missing:
        return dict.fromkeys(names[:1], "train")
    candidates = [name for name in names if split_of(name) == "train"]
    # Train keeps one.
    return dict(zip(candidates[:-1], sorted(missing), strict=False))


def split_documents(data: Data, split: SplitName) -> Iterator[Document]:
    """The documents of one split. Raises `DataError` from the source."""
    return Splits(data).documents(split)


def split_items(
    data: Data,
    split: SplitName,
    read: Callable[[Source], Iterator[Item]],
    given: Mapping[str, SplitName] = MappingProxyType({}),
) -> Iterator[Item]:
    """The same of whatever `read` makes of a source, and but for what is `given` to a split by name."""
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    if split != "train" and (source := named[split]):
        yield from read(source)
    elif whole := _whole(data):
        for item in read(whole):
            chosen = given.get(item.name) or split_of(item.name)
            # A named split leaves its share to train.
            if (split if split == chosen else "train" if named[chosen] else chosen) == split:
                yield item
