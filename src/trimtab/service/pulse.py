"""Is a process dead or busy? Dead = no message came *and* no thread used the CPU, for some seconds."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import psutil


def cpu_seconds(pid: int, *, children: bool = False) -> float:
    """CPU time that a process has used so far; 0 when it is gone. Nanoseconds count, on Linux.

    Raises `OSError` where it cannot be told, as when no file can be opened.
    An idle worker's heartbeat takes microseconds, which the usual 10 ms ticks would not show.
    """
    used = _scheduled_seconds(pid)
    try:
        process = psutil.Process(pid)
        if used is None:
            times = process.cpu_times()
            used = times.user + times.system
        if children:
            used += sum(cpu_seconds(child.pid) for child in process.children(recursive=True))
    except psutil.Error:
        return used or 0.0
    return used


def _scheduled_seconds(pid: int) -> float | None:
    """From Linux's schedstat, over all threads; None where there is none."""
    total, found = 0, False
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            total += int(Path(task.path, "schedstat").read_text(encoding="ascii").split()[0])
            found = True
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    except (IndexError, ValueError):
        return None
    return total / 1e9 if found else None


class Pulse:
    """How long a process has stood still. Looks at CPU time only while no message comes."""

    def __init__(self, pid: int, now: float, *, children: bool = False) -> None:
        self._pid, self._children = pid, children
        self._frames, self._cpu, self._alive = -1, -1.0, now

    def standstill(self, frames: int, now: float) -> float:
        """Seconds since the last sign of life. `frames` counts the messages that came from the process."""
        if frames != self._frames:
            self._frames, self._cpu, self._alive = frames, -1.0, now
            return 0.0
        try:
            cpu = cpu_seconds(self._pid, children=self._children)
        except OSError:
            # We cannot look, which says nothing of the process.
            self._cpu, self._alive = -1.0, now
            return 0.0
        if cpu != self._cpu:
            self._cpu, self._alive = cpu, now
        return now - self._alive
