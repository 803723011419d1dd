"""Whether another user could put files of theirs in place of ours. What OpenSSH's strict modes ask of a key file.

A folder or file of ours must belong to us, and nobody else may write to it. The same of every folder above it, which
could be renamed away with all that is in it; there root may own them too, and a sticky folder (/tmp) will do.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path

from trimtab.spec.errors import UsageError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH


def check_owned(path: Path) -> None:
    """Raises `UsageError` with the place and the remedy. `path` must exist."""
    where = path.absolute()
    real = where.resolve()
    _check(real, real.stat(), above=False)
    # The way to it, as it is written and as it is: a link in between can be pointed elsewhere.
    for each in dict.fromkeys([*real.parents, *where.parents]):
        _check(each, each.stat(), above=True)
    for each in (where, *where.parents):
        if each.is_symlink():
            _check_owner(each, each.lstat())


def check_owner(path: Path) -> None:
    """Raises `UsageError` where another user owns it. `path` must exist; a link counts, not what it leads to."""
    _check_owner(path, path.lstat())


def check_inside(home: Path) -> None:
    """The same of what lies directly in a folder of ours, where others may enter that folder."""
    if not home.stat().st_mode & _OTHERS_ENTER:
        return
    for each in home.iterdir():
        with contextlib.suppress(FileNotFoundError):  # somebody's temporary file
            found = each.lstat()
            if not stat.S_ISLNK(found.st_mode):
                _check(each, found, above=False)


def _check(path: Path, found: os.stat_result, *, above: bool) -> None:
    _check_owner(path, found)
    if not found.st_mode & _OTHERS_WRITE:
        return
    if above and (found.st_mode & stat.S_ISVTX or _is_own_group(found)):
        return
    raise UsageError(
        f"other users may write to this {_kind(found)}, and could change keys and models.",
        where=str(path),
        remedy=f"Run: chmod go-w '{path}'; then look at what is in it. Or set TRIMTAB_HOME to another folder.",
    )


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid in (0, os.geteuid()):
        return
    raise UsageError(
        f"this {_kind(found)} belongs to another user ({_name(found.st_uid)}).",
        where=str(path),
        remedy=f"Run: chown {_name(os.geteuid())} '{path}'; or set TRIMTAB_HOME to a folder of your own.",
    )


def _is_own_group(found: os.stat_result) -> bool:
    """Only the group may write, and it is the private one that many systems give each user (never root's)."""
    user = os.geteuid()
    if not user or found.st_mode & stat.S_IWOTH:
        return False
    try:
        group, name = grp.getgrgid(found.st_gid), pwd.getpwuid(user).pw_name
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def _kind(found: os.stat_result) -> str:
    return "folder" if stat.S_ISDIR(found.st_mode) else "file"


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
