"""Where images come from: a folder with one of image files for every class, or arrays in an `.npz` file.

Yields images that are read when they are wanted. Every fault names the file, and in an array the image.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.spec.errors import DataError, UsageError
from trimtab.spec.recipe_data import Source

SUFFIXES = (".png", ".jpg", ".jpeg")
_CHANNELS = (1, 3)


class Image(NamedTuple):
    """`name` is stable from run to run; `read` gives uint8 (height, width, channels)."""

    name: str
    label: str
    read: Callable[[], npt.NDArray[np.uint8]]


def images(source: Source) -> Iterator[Image]:
    """In a stable order. Raises `DataError` for what is missing, empty or malformed."""
    if source.npz:
        return _arrays(Path(source.npz))
    return _folder(Path(source.images or ""), source.size)


def image_files(source: Source) -> list[Path]:
    """The files that a source reads, to see whether they changed."""
    if source.npz:
        return [Path(source.npz)]
    return [path for path, _ in _found(Path(source.images or ""))]


def _found(folder: Path) -> list[tuple[Path, str]]:
    """Every image of `folder`/CLASS with its class."""
    if not folder.is_dir():
        raise DataError("there is no such folder.", where=str(folder))
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [
        (path, inside.name)
        for inside in classes
        for path in sorted(inside.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise DataError(
            "the folder holds no images.",
            where=str(folder),
            remedy=f"Put a folder for every class into it, with files that end in {', '.join(SUFFIXES)}.",
        )
    return found


def _folder(folder: Path, size: int | None) -> Iterator[Image]:
    pillow = _pillow()
    for path, label in _found(folder):
        yield Image(f"{label}/{path.name}", label, lambda path=path: _decoded(pillow, path, size))


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError as error:
        raise UsageError(
            "reading image files needs Pillow, which is not installed.",
            where="data",
            remedy="Install trimtab[images], or give {npz: FILE}.",
        ) from error
    return PIL.Image


def _decoded(pillow: Any, path: Path, size: int | None) -> npt.NDArray[np.uint8]:
    """In colour, whatever the file has."""
    try:
        with pillow.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, pillow.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read: {error}.", where=str(path)) from error
    if size is not None:
        image = image.resize((size, size), pillow.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def _arrays(path: Path) -> Iterator[Image]:
    pixels, labels = _read_npz(path)
    if (
        pixels.dtype != np.uint8
        or pixels.ndim not in (3, 4)
        or (pixels.ndim == 4 and pixels.shape[3] not in _CHANNELS)
    ):
        raise DataError(
            f"images is {pixels.dtype} {pixels.shape}.",
            where=f"{path} images",
            remedy="Store uint8 (n, h, w) or (n, h, w, channels) with 1 or 3 channels.",
        )
    if labels.dtype.kind not in "iuU" or labels.ndim != 1:
        raise DataError(
            f"labels is {labels.dtype} {labels.shape}.",
            where=f"{path} labels",
            remedy="Store (n,) whole numbers or words.",
        )
    if len(labels) != len(pixels) or not len(labels):
        raise DataError(f"there are {len(pixels)} images and {len(labels)} labels.", where=str(path))
    whole = pixels if pixels.ndim == 4 else pixels[..., np.newaxis]
    for number, label in enumerate(labels):
        yield Image(f"{path.name}#{number}", str(label), lambda number=number: whole[number])


def _read_npz(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """`images` and `labels` as they are stored. Never unpickles."""
    try:
        stored = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}.", where=str(path)) from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            "the file is no .npz of arrays.", where=str(path), remedy="Use numpy.savez."
        ) from error
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise DataError("the file is one array, no .npz.", where=str(path), remedy="Use numpy.savez.")
    with stored:
        for name in ("images", "labels"):
            if name not in stored:
                known = ", ".join(stored.files) or "none"
                raise DataError(f"the file has no {name}.", where=str(path), remedy=f"Arrays here: {known}.")
        try:
            return stored["images"], stored["labels"]
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise DataError(
                "the file holds pickled objects, or is damaged; objects are never read.",
                where=str(path),
                remedy="Store plain arrays: images of one size as uint8, labels as numbers or words.",
            ) from error
