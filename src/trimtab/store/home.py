"""Where everything of ours lives on this machine. Knows nothing of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from trimtab.spec.errors import UsageError


def home() -> Path:
    """`$TRIMTAB_HOME`, else the platform's data folder; created for its owner only (0700).

    Raises `UsageError` where it cannot be made.
    """
    wanted = os.environ.get("TRIMTAB_HOME")
    if wanted:
        return prepare(Path(wanted))
    from platformdirs import user_data_path

    return prepare(user_data_path("trimtab", appauthor=False))


def prepare(folder: Path) -> Path:
    """The folder as an absolute path, made if it is not there."""
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"this folder cannot be made: {error.strerror}.",
            where=str(folder),
            remedy="Set TRIMTAB_HOME to a folder that you may write to.",
        ) from error
    return folder
