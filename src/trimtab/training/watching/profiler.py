"""`--profile`: a trace of a few steps per rank, which chrome://tracing and Perfetto open."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from trimtab.parallel.ranks import Ranks

# The first steps pay for allocations; a few steps show what all do, and traces grow by megabytes a step.
_SKIPPED, _WARM_UP, _TRACED = 2, 1, 3


class Profiler:
    """A context; `step` after every step. Does nothing without a folder."""

    def __init__(self, folder: str | None, ranks: Ranks, name: str) -> None:
        self._profile: profile | None = None
        if folder is None:
            return
        path = Path(folder) / f"{name}-rank{ranks.rank}.trace.json"
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)

        def keep(traced: profile) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            traced.export_chrome_trace(str(path))

        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=_SKIPPED, warmup=_WARM_UP, active=_TRACED, repeat=1),
            on_trace_ready=keep,
            acc_events=True,
        )

    def __enter__(self) -> Self:
        if self._profile is not None:
            self._profile.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profile is not None:
            self._profile.stop()

    def step(self) -> None:
        if self._profile is not None:
            self._profile.step()
