"""Temporary folders that a killed process cannot leave behind for long. Knows nothing of what is put in them.

Each folder has a lock file beside it which its owner keeps locked (`flock`); the kernel frees the lock when
the owner dies, however it dies, so whoever sweeps next can tell the dead from the living without trusting
process ids.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".lock"
_OURS = re.compile(r"[0-9a-f]{16}")


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file `path` (made if missing); yields whether it was got.

    With `wait` it always is. Threads exclude each other as processes do.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if not _is_file(descriptor, path):
                continue  # swept between our opening and our locking it
            yield True
            return
        finally:
            os.close(descriptor)


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """An empty folder below `root`, gone at the end unless it was renamed away."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / secrets.token_hex(8)
    lock = folder.with_suffix(_LOCK)
    with locked(lock):
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def sweep(root: Path) -> None:
    """Remove what dead processes left below `root`; what living ones use stays."""
    for lock in root.glob(f"*{_LOCK}"):
        if not _OURS.fullmatch(lock.stem):
            continue
        with locked(lock, wait=False) as free:
            if free:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
