"""Prepared data: token files on disk with the documents they came from. Read-only, no torch.

A prepared folder holds per split `SPLIT.tokens` (little-endian, unsigned 16 or 32 bit), `SPLIT.offsets`
(int64, where each document starts, and the end) and `SPLIT.names.json`; for labelled text `SPLIT.labels` (int32, the
class of each document); where chats have messages of weight 0 `SPLIT.unlearned` (a byte for each token, 1 for what is
read and not learned); `tokenizer/`; and `prepared.json`, written last.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from trimtab.data.packing import count_windows, cut_windows, window_documents
from trimtab.data.splits import SPLITS, SplitName
from trimtab.spec.errors import DataError

RECORD = "prepared.json"
# Everything that a prepared folder of text holds; what else lies in one is somebody's own.
PARTS = (
    RECORD,
    "tokenizer",
    *(
        f"{split}.{part}"
        for split in SPLITS
        for part in ("tokens", "offsets", "names.json", "labels", "unlearned")
    ),
)


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tokens` and `documents` count per split, `unlearned` those tokens that are read and not learned. Every id is
    below `vocabulary`; `highest_id` is the largest that occurs. `digest` covers the tokens and the tokenizer (SHA-256).

    `classes` are the names of the labels, by number. `request` is the digest of what was asked: equal requests need no
    new preparation. `overlap` is a share.
    """

    vocabulary: int
    eos_id: int
    token_bytes: int
    tokens: dict[SplitName, int]
    documents: dict[SplitName, int]
    characters: dict[SplitName, int]
    unlearned: dict[SplitName, int]
    highest_id: int
    overlap: float
    digest: str
    request: str
    classes: tuple[str, ...] = ()


class Prepared:
    """A prepared folder. `record` holds its counts; nothing else is read before it is asked for."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder, self.record = folder, record

    @classmethod
    def load(cls, folder: Path) -> Prepared:
        """Raises `DataError` for a folder that was not prepared, or not by this version."""
        path = Path(folder) / RECORD
        try:
            return cls(Path(folder), msgspec.json.decode(path.read_bytes(), type=Record))
        except (OSError, msgspec.MsgspecError) as error:
            raise DataError(f"the folder holds no prepared data: {error}.", where=str(path)) from error

    @classmethod
    def found(cls, folder: Path, request: str) -> Prepared | None:
        """What was prepared for the same request, if it is there and whole."""
        try:
            found = cls.load(folder)
        except DataError:
            return None
        whole = found.record.request == request and all(
            (file := folder / f"{split}.tokens").is_file()
            and file.stat().st_size == found.record.tokens[split] * found.record.token_bytes
            for split in SPLITS
        )
        return found if whole else None

    @property
    def digest(self) -> str:
        return self.record.digest

    @property
    def vocabulary(self) -> int:
        return self.record.vocabulary

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def companions(self) -> Path:
        """The folder of what goes with a model that is trained on this."""
        return self.tokenizer_folder

    @property
    def classes(self) -> tuple[str, ...]:
        return self.record.classes

    @property
    def train_samples(self) -> int:
        """Of labelled text: how many texts an epoch has."""
        return self.record.documents["train"]

    def tokens(self, split: SplitName) -> npt.NDArray[np.unsignedinteger]:
        """All tokens of a split, (tokens,), end-of-text after each document. Raises `DataError` if none."""
        if not self.record.tokens.get(split):
            raise no_split(split)
        kind = np.dtype(f"<u{self.record.token_bytes}")
        return np.memmap(self.folder / f"{split}.tokens", dtype=kind, mode="r")

    def unlearned(self, split: SplitName) -> npt.NDArray[np.bool_] | None:
        """(tokens,) which tokens of a split are read and not learned; None if all are learned."""
        if not self.record.unlearned.get(split):
            return None
        return np.memmap(self.folder / f"{split}.unlearned", dtype=np.bool_, mode="r")

    def offsets(self, split: SplitName) -> npt.NDArray[np.int64]:
        """(documents + 1,) token positions."""
        return np.fromfile(self.folder / f"{split}.offsets", dtype="<i8")

    def labels(self, split: SplitName) -> npt.NDArray[np.int32]:
        """(documents,) the class of each, of labelled text."""
        return np.fromfile(self.folder / f"{split}.labels", dtype="<i4")

    def names(self, split: SplitName) -> list[str]:
        """Documents' names, in order."""
        return msgspec.json.decode((self.folder / f"{split}.names.json").read_bytes(), type=list[str])

    def check_windows(self, split: SplitName, length: int) -> None:
        """Raises `DataError` for a split that does not hold a window of `length`."""
        tokens = self.record.tokens.get(split, 0)
        if not tokens:
            raise no_split(split)
        if not count_windows(tokens, length):
            raise DataError(
                f"the {split} split has {tokens} tokens, less than a window of {length}.",
                where="data",
                remedy="Give more text or a smaller training.sequence_length.",
            )

    def windows(self, split: SplitName, length: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Non-overlapping windows (n, length) and, the index into `names(split)` of each one's document (n,).

        Raises `DataError` if the split is shorter than one window.
        """
        self.check_windows(split, length)
        windows = cut_windows(self.tokens(split), length)
        return windows, window_documents(self.offsets(split), len(windows), length)


def no_split(split: SplitName) -> DataError:
    """Nothing is in a split: no source was named for it, or what was named holds nothing, or was divided too little."""
    return DataError(
        f"the data has no {split} split: there is no text for it.",
        where="data",
        remedy=f"Name a source for {split}, or give more text.",
    )


def prepared_digest(folder: Path) -> str:
    """Of any prepared folder, of text or images. Raises `DataError` if it is none."""
    path = Path(folder) / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Digest).digest
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"the folder holds no prepared data: {error}.", where=str(path)) from error


class _Digest(msgspec.Struct):
    digest: str


__all__ = ["RECORD", "SPLITS", "Prepared", "Record"]
