"""Prepared images: pixels on disk with the classes they are of. Read-only, no torch.

A prepared folder holds per split `SPLIT.pixels` (uint8, image after image as (channels, height, width)) and
`SPLIT.labels` (int32); `preprocessor/`, what goes with a model trained on them; and `prepared.json`, written last.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from trimtab.data.prepared import RECORD
from trimtab.data.splits import SPLITS, SplitName
from trimtab.spec.errors import DataError

# Everything that such a folder holds; what else lies in one is somebody's own.
PARTS = (RECORD, "preprocessor", *(f"{split}.{part}" for split in SPLITS for part in ("pixels", "labels")))


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`shape` is (channels, height, width) of every image; `images` counts them per split. `mean` and `std` are those
    of the pixels from 0 to 1 by channel. `digest` covers all of it (SHA-256), `request` what was asked.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    images: dict[SplitName, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    overlap: float
    digest: str
    request: str


class PreparedImages:
    """A prepared folder. `record` holds its counts; nothing else is read before it is asked for."""

    def __init__(self, folder: Path, record: ImageRecord) -> None:
        self.folder, self.record = folder, record

    @classmethod
    def load(cls, folder: Path) -> PreparedImages:
        """Raises `DataError` for a folder that was not prepared, or not by this version."""
        path = Path(folder) / RECORD
        try:
            return cls(Path(folder), msgspec.json.decode(path.read_bytes(), type=ImageRecord))
        except (OSError, msgspec.MsgspecError) as error:
            raise DataError(f"the folder holds no prepared images: {error}.", where=str(path)) from error

    @classmethod
    def found(cls, folder: Path, request: str) -> PreparedImages | None:
        """What was prepared for the same request, if it is there and whole."""
        try:
            found = cls.load(folder)
        except DataError:
            return None
        images, size = found.record.images, math.prod(found.record.shape)
        whole = found.record.request == request and all(
            (file := folder / f"{split}.pixels").is_file() and file.stat().st_size == images[split] * size
            for split in SPLITS
        )
        return found if whole else None

    @property
    def companions(self) -> Path:
        """The folder of what goes with a model that is trained on this."""
        return self.folder / "preprocessor"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.record.classes

    @property
    def train_samples(self) -> int:
        return self.record.images["train"]

    def pixels(self, split: SplitName) -> npt.NDArray[np.uint8]:
        """(images, channels, height, width)."""
        shape = (self.record.images[split], *self.record.shape)
        if not shape[0]:
            return np.empty(shape, dtype=np.uint8)
        return np.memmap(self.folder / f"{split}.pixels", dtype=np.uint8, mode="r", shape=shape)

    def labels(self, split: SplitName) -> npt.NDArray[np.int32]:
        """(images,) the class of each."""
        return np.fromfile(self.folder / f"{split}.labels", dtype="<i4")
