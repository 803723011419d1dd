"""What a caller from Python gets wrong, told as the command line tells it. `where` is the option's name there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from trimtab.spec.errors import UsageError


def check_between(value: float | None, low: float, high: float, where: str) -> None:
    """None was left out. Raises `UsageError`, for what is no number as well."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{value!r} is out of range.", where=where, remedy=f"Use {low:g} to {high:g}.")


def check_one_of(value: str | None, known: Sequence[str], where: str) -> None:
    """None was left out. Raises `UsageError` naming the nearest."""
    if value is None or value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    raise UsageError(f"{value!r} is unknown.", where=where, remedy=remedy)
