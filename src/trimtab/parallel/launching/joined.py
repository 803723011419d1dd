"""Under torchrun: this process is one rank of a group, described in the environment. Rank 0 leads, the rest follow.

Rank 0 runs the command as it would alone, and passes its jobs through the group's store; the others wait for
them. SIGTERM and Ctrl-C, which schedulers and torchrun pass on, ask for a checkpoint and an end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch.distributed as dist

from trimtab.parallel.launching.guest import work
from trimtab.parallel.launching.lines import Done, End, Job, decode_down, encode
from trimtab.parallel.launching.pulse import RECORDER
from trimtab.parallel.ranks import Ranks, leave, meet
from trimtab.parallel.tasks import TaskName
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout

_LONGEST_PAUSE_SECONDS = 0.2


def _join() -> tuple[Ranks, dist.Store]:
    """The process's place in the group, and a store that all of it shares."""
    os.environ.update(RECORDER)
    store, rank, world = next(dist.rendezvous("env://"))
    ranks = meet(dist.PrefixStore("ranks", store), rank, world, int(os.environ["LOCAL_RANK"]))
    return ranks, dist.PrefixStore("jobs", store)


class Joined:
    """The group as rank 0 sees it. Raises `UsageError` if torchrun started another number than the layout's."""

    def __init__(self, layout: Layout, hang_seconds: float) -> None:
        started = int(os.environ["WORLD_SIZE"])
        if layout.world != started:
            raise UsageError(
                f"{layout} needs {layout.world} processes, and torchrun started {started}.",
                where="parallel",
                remedy=f"Use --processes {started} or torchrun's --nproc-per-node {layout.world}.",
            )
        self._ranks, self._store = _join()
        self._hang_seconds = hang_seconds
        self._sent = 0

    def run(
        self,
        task: TaskName,
        job: dict[str, Any],
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Raises what the task raised. The loss of another rank ends this process; torchrun names it."""
        self._send(encode(Job(task=task, job=job)))
        with stop_signals() as wants_stop:
            answer = work(
                task,
                job,
                self._ranks,
                on_event or (lambda _: None),
                wants_stop,
                hang_seconds=self._hang_seconds,
            )
        if not isinstance(answer, Done):
            raise answer.to_error()
        return answer.result

    def close(self) -> None:
        self._send(encode(End()))
        leave(self._ranks)

    def _send(self, line: bytes) -> None:
        self._store.set(str(self._sent), line.decode())
        self._sent += 1


def follow(hang_seconds: float) -> None:
    """The other ranks' whole life: jobs until rank 0 has no more. Raises what a task raised."""
    ranks, store = _join()
    received = 0
    with stop_signals() as wants_stop:
        while True:
            order = _next(store, str(received), wants_stop)
            received += 1
            if not isinstance(order, Job):
                break
            answer = work(order.task, order.job, ranks, lambda _: None, wants_stop, hang_seconds=hang_seconds)
            if not isinstance(answer, Done):
                raise answer.to_error()
    leave(ranks)


def _next(store: dist.Store, key: str, wants_stop: Callable[[], bool]) -> Job | End | None:
    """What rank 0 wants next; None if this process is asked to end while it waits."""
    pause = 0.001
    while not store.check([key]):
        if wants_stop():
            return None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    order = decode_down(store.get(key))
    return order if isinstance(order, Job) else End()


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT came while in here; they do nothing else meanwhile."""
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
