"""Files that survive a power cut: copy, sync, rename. Knows nothing of models.

A folder is complete before it is renamed into place, so a reader sees all of it or none.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from trimtab.spec.errors import TrimtabError

_REFUSALS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        *(errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.ENAMETOOLONG),
    }
)
# How libraries in Rust tell of one, in errors of their own (safetensors).
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, deepest first, and `folder` itself."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old bytes or the new ones (mode 0600)."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_files(files: Mapping[PurePosixPath, Path], destination: Path) -> None:
    """Copy each file's bytes to its relative name below `destination`. Modes and links are not copied."""
    for name, source in files.items():
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def move(source: Path, target: Path) -> None:
    """Rename on one filesystem, and make the rename itself durable."""
    source.rename(target)
    sync(target.parent)
    if source.parent != target.parent:
        sync(source.parent)


def refusal(error: BaseException) -> OSError | None:
    """The operating system's refusal (full disk, no right) that an error is or tells of; None for any other."""
    if isinstance(error, TrimtabError):
        return None
    if isinstance(error, OSError):
        return error if error.errno in _REFUSALS else None
    found = _OS_ERROR.search(str(error))
    number = int(found[1]) if found else 0
    return OSError(number, os.strerror(number)) if number in _REFUSALS else None


def refused(error: OSError, place: Path, *, remedy: str) -> TrimtabError:
    """A refusal as a sentence. `remedy` says what is left and how it goes on, once there is room or right."""
    # Of a copy the second name is the file that was to be written.
    name = Path(error.filename2 or error.filename or place)
    return TrimtabError(
        f"a file cannot be read or written: {error.strerror or error}.",
        where=str(name),
        remedy=f"Free space or get the right to use {place if place in name.parents else name}; {remedy}",
    )


def check_writable(folder: Path) -> None:
    """Raises `TrimtabError` if nothing could be written to a folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with writing_to(folder), tempfile.TemporaryFile(dir=there):
        pass


@contextmanager
def writing_to(place: Path, *, remedy: str = "then do it again. Nothing was changed.") -> Iterator[None]:
    """Turns the operating system's refusal into a sentence; other errors pass."""
    try:
        yield
    except Exception as error:  # whatever its class, see `refusal`; what is none goes on as it is
        found = refusal(error)
        if found is None:
            raise
        raise refused(found, place, remedy=remedy) from error
