"""A machine measured by a group of ranks that are all busy at once, as in training. The parent's side: no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from trimtab.parallel.launching.launch import launch
from trimtab.spec.clock import now
from trimtab.spec.hardware import this_machine
from trimtab.spec.layout import Layout
from trimtab.spec.profile import Profile


def measure_machine(processes: int, on_event: Callable[[dict[str, Any]], None] | None = None) -> Profile:
    """About a minute. `on_event` is told `{fraction, note}`."""
    with launch(Layout(data=processes)) as group:
        found = group.run("calibrate", {}, on_event)
    measured = {"name": "this machine", "measured_at": now(), "per_node": processes}
    return msgspec.convert(found | measured | {"hardware": msgspec.to_builtins(this_machine())}, Profile)
