"""Where the figures of every step go: JSON lines, TensorBoard, MLflow, any number of them. Rank 0 writes.

One small interface; what a writer needs is imported by the writer alone, and its absence is said in a sentence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from trimtab.spec.clock import now
from trimtab.spec.errors import UsageError
from trimtab.training.job import Watching

Figures = Mapping[str, float | int | None]


class Writer(Protocol):
    def write(self, step: int, figures: Figures) -> None: ...

    def tell(self, message: str) -> None:
        """An event in words, such as a checkpoint that could not be saved."""

    def close(self) -> None: ...


class JsonLines:
    """`{"time": …, "step": …, "loss": …, …}` a line; events have `message` instead. Appends, and flushes each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, figures: Figures) -> None:
        self._line({"step": step, **figures})

    def tell(self, message: str) -> None:
        self._line({"message": message})

    def close(self) -> None:
        self._file.close()

    def _line(self, values: dict[str, Any]) -> None:
        self._file.write(msgspec.json.encode({"time": now(), **values}) + b"\n")


class TensorBoard:
    """Scalars and texts in an event folder. Needs the extra `tensorboard`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoard", "tensorboard") from error
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, figures: Figures) -> None:
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def tell(self, message: str) -> None:
        self._writer.add_text("events", message)

    def close(self) -> None:
        self._writer.close()


class MlFlow:
    """A run in the tracking server or folder at `address`. Needs the extra `mlflow`."""

    def __init__(self, address: str, name: str) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise _missing("MLflow", "mlflow") from error
        self._client = MlflowClient(tracking_uri=address)
        known = self._client.get_experiment_by_name("trimtab")
        experiment = known.experiment_id if known else self._client.create_experiment("trimtab")
        self._run = self._client.create_run(experiment, run_name=name).info.run_id
        self._events = 0

    def write(self, step: int, figures: Figures) -> None:
        from mlflow.entities import Metric

        at = int(time.time() * 1e3)
        metrics = [Metric(name, value, at, step) for name, value in figures.items() if value is not None]
        self._client.log_batch(self._run, metrics=metrics)

    def tell(self, message: str) -> None:
        self._events += 1
        self._client.set_tag(self._run, f"event.{self._events}", message)

    def close(self) -> None:
        self._client.set_terminated(self._run)


def writers(watching: Watching, name: str) -> list[Writer]:
    """Those that are asked for. `name` is what the run is called. Raises `UsageError` if an extra is missing."""
    chosen: list[Writer] = []
    if watching.log:
        chosen.append(JsonLines(Path(watching.log)))
    if watching.tensorboard:
        chosen.append(TensorBoard(Path(watching.tensorboard)))
    if watching.mlflow:
        chosen.append(MlFlow(watching.mlflow, name))
    return chosen


def _missing(what: str, extra: str) -> UsageError:
    return UsageError(f"{what} is not installed.", remedy=f"Install trimtab[{extra}].")
