"""The names of checkpoints, by which ours are told from whatever else lies in their folder. Others are left alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_WHOLE = re.compile(r"step-(0|[1-9][0-9]*)")
_UNFINISHED = re.compile(r"\.step-(0|[1-9][0-9]*)\.part")


def folder_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step}"


def part_of(folder: Path, step: int) -> Path:
    """Where a checkpoint is written before it is whole."""
    return folder / f".step-{step}.part"


def steps(folder: Path) -> list[int]:
    """Of all checkpoints in a folder, ascending; none where there is no folder."""
    return sorted(int(found[1]) for path in _folders(folder) if (found := _WHOLE.fullmatch(path.name)))


def remove_unfinished(folder: Path) -> None:
    """What a process that was killed has left."""
    for path in _folders(folder):
        if _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def remove_all(folder: Path) -> None:
    """Every checkpoint, and the folder if nothing else was in it."""
    remove_unfinished(folder)
    found = steps(folder)
    for step in found:
        shutil.rmtree(folder_of(folder, step), ignore_errors=True)
    if found and not any(folder.iterdir()):
        folder.rmdir()


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
