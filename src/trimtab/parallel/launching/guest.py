"""A rank in a process that somebody else started (torchrun, Ray): the same tasks, and the same watch.

There is no parent of ours that sees a neighbour hang, so each rank watches all: whoever finds one says so and
ends, upon which the launcher ends or restarts the rest.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trimtab.parallel.launching.again import start_again
from trimtab.parallel.launching.launch import threads_of_each
from trimtab.parallel.launching.lines import EXIT_NEIGHBOUR_LOST, Crashed, Done, Failed
from trimtab.parallel.launching.pulse import BEAT_SECONDS, Pulse
from trimtab.parallel.launching.rank import attempt, load_tasks
from trimtab.parallel.launching.watch import Watch
from trimtab.parallel.ranks import Ranks
from trimtab.parallel.tasks import TaskName
from trimtab.spec.errors import RankLostError


def work(
    task: TaskName,
    job: dict[str, Any],
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    wants_stop: Callable[[], bool],
    *,
    hang_seconds: float,
) -> Done | Failed | Crashed:
    """Do a job in this process. Every rank calls it."""
    torch.set_num_threads(threads_of_each(int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world))))
    with watched(ranks, job, hang_seconds) as seen:
        return attempt(load_tasks()[task], job, seen, report, wants_stop)


@contextmanager
def watched(ranks: Ranks, job: dict[str, Any], hang_seconds: float) -> Iterator[Ranks]:
    """The ranks with beats in a folder beside the job's checkpoints, which all machines see; else unwatched."""
    if ranks.world == 1 or not job.get("checkpoints"):
        yield ranks
        return
    root = Path(job["checkpoints"]).parent / "beats"
    if ranks.first:
        shutil.rmtree(root, ignore_errors=True)
    # A name of its own for each attempt: what dead processes left says nothing.
    name = ranks.broadcast(torch.tensor([secrets.randbits(62)]))
    folder = root / f"{int(name.item()):x}"
    folder.mkdir(parents=True, exist_ok=True)
    pulse = Pulse(folder, ranks.rank)
    pulse.start()
    ended = threading.Event()
    watch = Watch(folder, ranks.world, hang_seconds)
    thread = threading.Thread(target=_guard, args=(watch, ranks, job, ended), name="watch", daemon=True)
    thread.start()
    try:
        yield replace(ranks, pulse=pulse)
    finally:
        ended.set()
        thread.join()
        pulse.stop()


def _guard(watch: Watch, ranks: Ranks, job: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        try:
            watch.look()
        except RankLostError as error:
            error.remedy = start_again(job)
            sys.stderr.write(f"error: {error} (seen by rank {ranks.rank})\n")
            sys.stderr.flush()
            os._exit(EXIT_NEIGHBOUR_LOST)
