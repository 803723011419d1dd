"""From a recipe's images to a prepared folder: every split's pixels in one file, and their statistics.

As with text, made anew only if the request or a file changed, and always whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from trimtab.data.classes import class_names, numbered
from trimtab.data.images import Image, image_files, images
from trimtab.data.new_folder import new_folder
from trimtab.data.overlap import check_overlap
from trimtab.data.prepared import RECORD
from trimtab.data.prepared_images import PARTS, ImageRecord, PreparedImages
from trimtab.data.reading import check_file_name
from trimtab.data.splits import SPLITS, SplitName, sources, split_items
from trimtab.spec.artifact import PREPROCESSOR, file_digest
from trimtab.spec.errors import DataError
from trimtab.spec.ids import digest
from trimtab.spec.recipe_data import Data

# Raised when prepared folders made by older code must not be reused.
_FORMAT = 1
_LEVELS = 256
# Of images that are all alike; pixels are divided by it.
_LEAST_DEVIATION = 1 / (_LEVELS - 1)


class Scale(NamedTuple):
    """What pixels, from 0 to 1, are shifted and divided by: a value for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def prepare_images(
    data: Data, folder: Path, *, known_classes: Sequence[str] = (), scale: Scale | None = None
) -> PreparedImages:
    """Pixels and classes of every split in `folder`. `known_classes` and `scale` are those of a model that has some;
    without a scale it is that of the train split.

    Raises `DataError`: images that are missing, malformed or of different sizes, one class alone, classes that train
    has not, test images that are in train too.
    """
    stamps = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for source in sources(data)
        for path in _existing(image_files(source))
    ]
    request = digest((_FORMAT, data.model_dump(), stamps, tuple(known_classes), scale))
    if (found := PreparedImages.found(folder, request)) is not None:
        return found
    with new_folder(folder, PARTS, RECORD) as temporary:
        record = _write(data, temporary, request, known_classes, scale)
        (temporary / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    return PreparedImages.load(folder)


def _existing(paths: list[Path]) -> list[Path]:
    for path in paths:
        check_file_name(path)
        if not path.is_file():
            raise DataError("there is no such file.", where=str(path))
    return paths


class _Writer:
    """Appends the images of one split to a file; all splits share the shape of the first image."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.counts = np.zeros((0, _LEVELS), dtype=np.int64)

    def write(
        self, chosen: Iterator[Image], path: Path, *, counted: bool
    ) -> tuple[list[str], list[str], set[bytes]]:
        """Names, labels and digests of the images, (channels, height, width) each in the file."""
        names, labels, digests = [], [], set()
        with path.open("wb") as file:
            for image in chosen:
                pixels = np.ascontiguousarray(self._checked(image).transpose(2, 0, 1))
                if counted:
                    self.counts += np.stack([np.bincount(c.ravel(), minlength=_LEVELS) for c in pixels])
                file.write(pixels.tobytes())
                names.append(image.name)
                labels.append(image.label)
                digests.add(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest())
        return names, labels, digests

    def _checked(self, image: Image) -> npt.NDArray[np.uint8]:
        pixels = image.read()
        if not self.shape:
            self.shape = pixels.shape
            self.counts = np.zeros((pixels.shape[2], _LEVELS), dtype=np.int64)
        if pixels.shape != self.shape:
            size, first = (f"{h} × {w} × {c}" for h, w, c in (pixels.shape, self.shape))
            raise DataError(
                f"the image is {size}, and others are {first}.",
                where=image.name,
                remedy="Give images of one size, or with {images: FOLDER} a size: PIXELS that all are brought to.",
            )
        return pixels

    def scale(self) -> Scale:
        levels = np.arange(_LEVELS) / (_LEVELS - 1)
        share = self.counts / self.counts.sum(1, keepdims=True)
        mean = share @ levels
        deviation = np.sqrt((share * (levels - mean[:, np.newaxis]) ** 2).sum(1))
        return Scale(tuple(mean.tolist()), tuple(np.maximum(deviation, _LEAST_DEVIATION).tolist()))


def _write(
    data: Data, folder: Path, request: str, known_classes: Sequence[str], scale: Scale | None
) -> ImageRecord:
    writer, written = _Writer(), {}
    for split in SPLITS:
        chosen = split_items(data, split, images)
        written[split] = writer.write(chosen, folder / f"{split}.pixels", counted=split == "train")
    classes = class_names(written["train"][1], known_classes)
    for split, (names, labels, _) in written.items():
        (folder / f"{split}.labels").write_bytes(numbered(labels, names, classes, split).tobytes())
    share = _overlap(written["train"][2], written["test"][2])
    height, width, channels = writer.shape
    used = scale or writer.scale()
    _write_preprocessor(folder / "preprocessor", used, height, width)
    return ImageRecord(
        classes=classes,
        shape=(channels, height, width),
        images={split: len(names) for split, (names, _, _) in written.items()},
        mean=used.mean,
        std=used.std,
        overlap=share,
        digest=_digest(folder, classes),
        request=request,
    )


def _overlap(train: set[bytes], test: set[bytes]) -> float:
    share = len(train & test) / len(test) if test else 0.0
    check_overlap(share, what="images")
    return share


def _write_preprocessor(folder: Path, scale: Scale, height: int, width: int) -> None:
    """As stock image processors read it."""
    folder.mkdir()
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / (_LEVELS - 1),
        "do_normalize": True,
        "image_mean": scale.mean,
        "image_std": scale.std,
    }
    (folder / PREPROCESSOR).write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _digest(folder: Path, classes: Sequence[str]) -> str:
    names: list[SplitName] = [*SPLITS]
    parts = [file_digest(folder / f"{split}.{kind}") for split in names for kind in ("pixels", "labels")]
    return digest((parts, file_digest(folder / "preprocessor" / PREPROCESSOR), tuple(classes)))
