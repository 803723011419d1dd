"""A folder that is there whole or not at all: made under another name, and renamed when all of it is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from trimtab.spec.errors import DataError, TrimtabError


@contextmanager
def new_folder(folder: Path, parts: Collection[str], record: str) -> Iterator[Path]:
    """Yields the folder to write to, which takes the place of `folder` unless something was raised.

    `parts` are what such a folder is made of; what else lies in the old one is kept. Raises `DataError` for a folder
    with other things and no `record`, which is none of ours, and `TrimtabError` where nothing can be written.
    """
    strangers = _strangers(folder, parts, record)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for name in strangers:
            (folder / name).rename(temporary / name)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        raise _unwritten(error, folder, temporary) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _strangers(folder: Path, parts: Collection[str], record: str) -> list[str]:
    if not folder.is_dir():
        return []
    found = sorted(path.name for path in folder.iterdir())
    strangers = [name for name in found if name not in parts]
    if strangers and record not in found:
        raise DataError(
            f"the folder holds {strangers[0]!r} and no prepared data, so it is not written to.",
            where=str(folder),
            remedy="Name another --output.",
        )
    return strangers


def _unwritten(error: OSError, folder: Path, temporary: Path) -> TrimtabError:
    """The temporary folder is gone when this is read, so it is not named."""
    # Of a copy that fails the second name is what could not be written.
    named = str(error.filename2 or error.filename or temporary)
    if not named.startswith((str(temporary), str(folder))):
        return DataError(f"the file cannot be read: {error.strerror}.", where=named)
    return TrimtabError(
        f"what is prepared cannot be written: {error.strerror or error}.",
        where=str(folder.parent),
        remedy="Make room or give the right to write there, or name another --output; then start again.",
    )
