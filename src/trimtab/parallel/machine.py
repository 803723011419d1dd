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

# What `probes.strategies` names, which only a process with torch can import.
_STRATEGIES = 4


def measure_machine(processes: int, on_event: Callable[[dict[str, Any]], None] | None = None) -> Profile:
    """About a minute and a half. `on_event` is told `{fraction, note}`."""
    found: dict[str, Any] = {}
    count = _STRATEGIES if processes > 1 else 1
    for place in range(count):

        def tell(event: dict[str, Any], place: int = place) -> None:
            if on_event is not None:
                on_event(event | {"fraction": (place + event["fraction"]) / count})

        with launch(Layout(data=processes)) as group:
            answer = group.run("calibrate", {"place": place}, tell)
        found = answer if not found else found | {"steps": [*found["steps"], *answer["steps"]]}
    measured = {"name": "this machine", "measured_at": now(), "per_node": processes}
    return msgspec.convert(found | measured | {"hardware": msgspec.to_builtins(this_machine())}, Profile)
