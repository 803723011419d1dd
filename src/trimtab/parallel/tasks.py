"""The closed table of what a group of ranks can be asked to do. A job names a task, never an import path.

Each module has `run(job, ranks, report, wants_stop) -> dict`, and `prepare()`, which a rank calls while it waits
for its first job. The modules stand on higher floors, so they are named here and imported only inside a rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

TaskName = Literal["calibrate", "parity", "rate", "train"]

TASKS: Mapping[TaskName, str] = {
    "calibrate": "trimtab.parallel.calibration",
    "parity": "trimtab.training.parity.task",
    "rate": "trimtab.training.rate",
    "train": "trimtab.training.task",
}
