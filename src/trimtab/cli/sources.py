"""How a flag names data: `text:FILE`. Light; the file is read elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.spec.errors import UsageError

if TYPE_CHECKING:
    from trimtab.spec.recipe_data import Source


def text_source(flag: str) -> Source:
    """`text:FILE` → a source with the file's absolute path. Raises `UsageError` for anything else."""
    from trimtab.spec.recipe_data import Source

    kind, _, file = flag.partition(":")
    if kind != "text" or not file:
        raise UsageError(f"{flag!r} names no data.", where="--data", remedy="Write text:FILE.")
    return Source(text=str(Path(file).resolve()))
