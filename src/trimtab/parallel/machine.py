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


def strategies(ranks: int) -> list[Layout]:
    """Plain first. Each is probed in processes of its own, whose memory no other has touched."""
    if ranks == 1:
        return [Layout()]
    return [
        Layout(data=ranks),
        Layout(shard=ranks, reshard=True),
        Layout(tensor=ranks),
        Layout(pipeline=ranks),
    ]


def measure_machine(processes: int, on_event: Callable[[dict[str, Any]], None] | None = None) -> Profile:
    """About two minutes. `on_event` is told `{fraction, note}`."""
    found: dict[str, Any] = {}
    layouts = strategies(processes)
    for place, layout in enumerate(layouts):

        def tell(event: dict[str, Any], place: int = place) -> None:
            if on_event is not None:
                on_event(event | {"fraction": (place + event["fraction"]) / len(layouts)})

        with launch(Layout(data=processes)) as group:
            answer = group.run("calibrate", {"layout": msgspec.to_builtins(layout)}, tell)
        found = answer if not found else found | {"steps": [*found["steps"], *answer["steps"]]}
    measured = {"name": "this machine", "measured_at": now(), "per_node": processes}
    return msgspec.convert(found | measured | {"hardware": msgspec.to_builtins(this_machine())}, Profile)
