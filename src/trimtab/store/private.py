"""Secrets on disk: a file made once, for its owner only, whole or not at all. Knows no content."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trimtab.spec.errors import TrimtabError
from trimtab.store.durable import sync
from trimtab.store.ownership import check_owned


def private_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes of `path`, made as `make_private` does."""
    make_private(path, make)
    return path.read_bytes()


def make_private(path: Path, make: Callable[[], bytes]) -> None:
    """Where `path` is missing, `make` is called and what it returns is kept (mode 0600). It is not opened.

    Processes that race get the same bytes: the first link wins. Raises `TrimtabError` for a file that others
    may read, `UsageError` for one that is theirs or that they could replace.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_owned(path.parent)
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)  # under any umask
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first; its bytes are the ones that count
                os.link(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink()
    if path.stat().st_mode & 0o077:
        raise TrimtabError(
            "this secret can be read by others.",
            where=str(path),
            remedy=f"Run: chmod 600 '{path}'; then make new keys.",
        )
    check_owned(path)
