"""Secrets on disk: a file made once, for its owner only, whole or not at all. Knows no content."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trimtab.spec.errors import TrimtabError
from trimtab.store.durable import sync


def private_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes of `path`; where it is missing, `make` is called and what it returns is kept (mode 0600).

    Processes that race get the same bytes: the first link wins. Raises `TrimtabError` for a file that others
    may read.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
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
    return path.read_bytes()
