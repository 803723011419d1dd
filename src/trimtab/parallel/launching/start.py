"""How ranks come to be: started here, joined under torchrun, or asked of Ray. What they run is the same.

A group takes one job at a time, on whatever it runs (`RankGroup`); `start` makes one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from trimtab.parallel.launching.choice import Launch
from trimtab.parallel.tasks import TaskName
from trimtab.spec.errors import RankLostError, UsageError
from trimtab.spec.layout import Layout

OnEvent = Callable[[dict[str, Any]], None]
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class RankGroup(Protocol):
    def run(self, task: TaskName, job: dict[str, Any], on_event: OnEvent | None = None) -> dict[str, Any]:
        """Every rank does the job; rank 0's events and result. Raises what the task raised, and `RankLostError`."""
        ...

    def close(self) -> None: ...


def under_torchrun() -> bool:
    """Whether this process is one of a group that a launcher started and described in the environment."""
    return all(name in os.environ for name in _TORCHRUN)


def start(launch: Launch, layout: Layout, folder: Path) -> RankGroup:
    """A group of `layout.world` ranks. `folder` is one that all machines see, for what has to be shared.

    Raises `UsageError` for what the chosen way cannot do.
    """
    if launch.least is not None and launch.on != "ray":
        raise UsageError(
            "a range of processes is for Ray, which can replace lost machines.",
            where="--processes",
            remedy="Give one number, or --on ray.",
        )
    if launch.on == "ray":
        from trimtab.parallel.launching.on_ray import RayGroup

        return RayGroup(launch, layout, folder)
    if launch.on == "torchrun":
        if launch.restarts:
            raise UsageError(
                "under torchrun, torchrun restarts.", where="--restarts", remedy="Use its --max-restarts."
            )
        from trimtab.parallel.launching.joined import Joined

        return Joined(layout, launch.hang_seconds)
    from trimtab.parallel.launching.launch import launch as launch_here

    return Restarting(lambda: launch_here(layout, hang_seconds=launch.hang_seconds), launch.restarts)


class Restarting:
    """A group that is started again, at most `restarts` times in all, when it loses a rank; the job then resumes.

    `run` tells `on_event` of each: `{"kind": "warning", "message": …}`.
    """

    def __init__(self, start_group: Callable[[], RankGroup], restarts: int) -> None:
        self._start, self._left = start_group, restarts
        self._group = start_group()

    def run(self, task: TaskName, job: dict[str, Any], on_event: OnEvent | None = None) -> dict[str, Any]:
        while True:
            try:
                return self._group.run(task, job, on_event)
            except RankLostError as error:
                if not self._left:
                    raise
                self._left -= 1
                self._group.close()
                if on_event is not None:
                    again = f"starting again, {self._left} restarts left"
                    on_event({"kind": "warning", "message": f"{error.where}: {error.message} — {again}"})
                self._group = self._start()
                job = job | {"resume": True}

    def close(self) -> None:
        self._group.close()
