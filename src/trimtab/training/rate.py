"""The task "rate" of a group of ranks: how fast a job trains, from its own first steps. Nothing is saved.

Turns a recipe's `training.time` into tokens or samples before the run starts, so that the schedule knows its end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec

from trimtab.parallel.memory import forget_peak, fullest
from trimtab.parallel.ranks import Ranks
from trimtab.training.job import Rate, TrainJob
from trimtab.training.setup import Setup

# The first steps pay for allocations and DDP's bucket order.
_WARM_UP, _MEASURED = 2, 4


def measure(job: TrainJob, ranks: Ranks) -> Rate:
    """Every rank calls it."""
    forget_peak(ranks.device)
    ranks.at("loading")
    started = time.perf_counter()
    setup = Setup(job, ranks)
    ready = time.perf_counter()
    times = []
    for number in range(_WARM_UP + _MEASURED):
        ranks.at("training", number + 1)
        before = time.perf_counter()
        setup.backward(setup.loader.next())
        setup.clip()
        # A step that moves nothing: what counts is its time.
        setup.update(0.0)
        times.append(time.perf_counter() - before)
    step_seconds = statistics.median(times[_WARM_UP:])
    return Rate(
        tokens_per_second=job.batch * job.sample_tokens / step_seconds,
        samples_per_second=job.batch / step_seconds,
        step_seconds=step_seconds,
        setup_seconds=ready - started,
        precision=setup.precision,
        peak_memory_bytes=fullest(ranks),
    )


def prepare() -> None:
    """What training imports is all that is needed."""


def run(
    job: dict[str, Any],
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    wants_stop: Callable[[], bool],
) -> dict[str, Any]:
    """A `TrainJob` in, a `Rate` out, both as plain data."""
    del report, wants_stop
    return msgspec.to_builtins(measure(msgspec.convert(job, TrainJob), ranks))
