"""Where ranks are to run, as a person chooses it."""

from __future__ import annotations

from typing import Literal

import msgspec

from trimtab.parallel.launching.watch import HANG_SECONDS


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """`restarts`: how often a group that lost a rank is started again. `least`: on Ray, the fewest workers to go on
    with when the layout's number cannot be had.
    """

    on: Literal["local", "torchrun", "ray"] = "local"
    restarts: int = 0
    least: int | None = None
    hang_seconds: float = HANG_SECONDS
