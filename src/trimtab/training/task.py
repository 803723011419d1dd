"""The task "train" of a group of ranks: a job as plain data in, a result as plain data out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from trimtab.models.load import import_libraries
from trimtab.parallel.ranks import Ranks
from trimtab.training.job import TrainJob
from trimtab.training.loop import train


def prepare() -> None:
    """Import what training needs."""
    import_libraries()


def run(
    job: dict[str, Any],
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    wants_stop: Callable[[], bool],
) -> dict[str, Any]:
    """See `training.loop.train`."""
    return msgspec.to_builtins(train(msgspec.convert(job, TrainJob), ranks, report, wants_stop))
