"""Where everything of ours lives on this machine. Knows nothing of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from trimtab.spec.errors import UsageError
from trimtab.store.ownership import check_inside, check_owned


def home() -> Path:
    """`$TRIMTAB_HOME`, else the platform's data folder; created for its owner only (0700).

    Raises `UsageError` where it cannot be made, or another user could change what is in it.
    """
    wanted = os.environ.get("TRIMTAB_HOME")
    if wanted:
        return prepare(Path(wanted))
    from platformdirs import user_data_path

    try:
        folder = user_data_path("trimtab", appauthor=False)
    except RuntimeError as error:
        raise _homeless("this user") from error
    return prepare(folder)


def prepare(folder: Path) -> Path:
    """The folder as an absolute path, made if it is not there. Raises `UsageError` as `home` does."""
    try:
        folder = folder.expanduser().absolute()
    except RuntimeError as error:
        raise _homeless(str(folder)) from error
    try:
        # Whatever the umask is: what we make on the way is ours alone.
        for missing in reversed([each for each in folder.parents if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"this folder cannot be made: {error.strerror}.",
            where=str(folder),
            remedy="Set TRIMTAB_HOME to a folder that you may write to.",
        ) from error
    check_owned(folder)
    check_inside(folder)
    return folder


def _homeless(where: str) -> UsageError:
    """Containers may run under a number that is no user."""
    return UsageError(
        "there is no home folder.", where=where, remedy="Set TRIMTAB_HOME to a folder that you may write to."
    )
