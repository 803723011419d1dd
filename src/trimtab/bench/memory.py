"""Memory of a service: the proportional set size (PSS) of its processes and all that they started.

PSS divides shared pages among those who share them, so the sum over a tree counts each page once. Where the
system has no PSS (macOS), what a process alone holds (USS) is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


def process_bytes(pid: int) -> int:
    """PSS of one process; 0 once it is gone."""
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open("rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        if Path("/proc/self/smaps_rollup").exists():
            return 0
    except (ProcessLookupError, PermissionError):
        return 0
    try:
        return psutil.Process(pid).memory_full_info().uss
    except psutil.Error:
        return 0


def tree(pids: Iterable[int]) -> set[int]:
    """These processes and their descendants that live now."""
    found: set[int] = set()
    for pid in pids:
        try:
            found.update(child.pid for child in psutil.Process(pid).children(recursive=True))
        except psutil.Error:
            continue
        found.add(pid)
    return found


def tree_bytes(pids: Iterable[int]) -> int:
    return sum(process_bytes(pid) for pid in tree(pids))


class Peak:
    """Samples a tree while it is entered; `bytes` is the largest sum seen, over all times it was entered."""

    def __init__(self, pids: Iterable[int], *, every_seconds: float = 0.1) -> None:
        self._pids, self._every = tuple(pids), every_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.bytes = 0

    def sample(self) -> None:
        self.bytes = max(self.bytes, tree_bytes(self._pids))

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.sample()

    def __enter__(self) -> Self:
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.sample()
