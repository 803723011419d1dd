"""News of long work, the same from every floor: what a `progress` callback is given."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """News of a long run: which stage, how much of it is done (0 to 1), and a few words.

    With a `warning` or a `remark`, a sentence each, the rest says nothing new.
    """

    stage: str
    fraction: float
    note: str = ""
    warning: str = ""
    remark: str = ""


OnEvent = Callable[[Event], None]


def silent(event: Event) -> None:
    """For those who want to hear nothing."""
    del event
