"""The figures of each step: gathered while it runs, written when all ranks' loss is known, told now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from torch import nn

from trimtab.parallel.memory import peak_bytes
from trimtab.parallel.ranks import Ranks
from trimtab.training.job import Point, TrainJob
from trimtab.training.watching.utilization import flops_per_token, peak
from trimtab.training.watching.writers import Writer

_REPORT_SECONDS = 0.5


class Step(msgspec.Struct, kw_only=True):
    """One step's own figures. `seconds` is its wall time; `point` is that of the curve, if it has one here."""

    number: int
    seconds: float
    learning_rate: float
    gradient_norm: float
    point: Point | None = None

    @property
    def held_out(self) -> dict[str, float | None]:
        point = self.point
        accuracy = point.validation_accuracy if point else None
        found = {"validation_loss": point.validation_loss if point else None}
        return found if accuracy is None else found | {"validation_accuracy": accuracy}


class Meter:
    """Rank 0's writes and reports; the others' is silent."""

    def __init__(
        self,
        job: TrainJob,
        ranks: Ranks,
        model: nn.Module,
        writers: list[Writer],
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self._job, self._ranks, self._writers, self._report = job, ranks, writers, report
        # What is counted: a decoder's tokens, a classifier's samples.
        self._unit = "tokens" if job.sample_tokens else "samples"
        self._step_size = job.batch * (job.sample_tokens or 1)
        flops = flops_per_token(model, job.sample_tokens) if job.sample_tokens else None
        peak_flops = peak(ranks.device)
        self._mfu_rate = flops / (peak_flops * ranks.world) if flops and peak_flops else None
        self._reported_at = 0.0
        self._steps, self._seconds = 0, 0.0

    def step(self, step: Step, loss: float) -> None:
        """`loss` is the mean per token or sample over all ranks."""
        self._steps += 1
        self._seconds += step.seconds
        if not self._ranks.first:
            return
        rate = self._step_size / step.seconds
        if self._writers:
            figures = {
                self._unit: step.number * self._step_size,
                "loss": loss,
                "learning_rate": step.learning_rate,
                "gradient_norm": step.gradient_norm,
                **step.held_out,
                "step_seconds": step.seconds,
                f"{self._unit}_per_second": rate,
                "mfu": rate * self._mfu_rate if self._mfu_rate else None,
                "memory_bytes": peak_bytes(self._ranks.device),
            }
            self._each(lambda writer: writer.write(step.number, figures))
        self._tell(step, loss)

    def warn(self, message: str) -> None:
        """To all writers, and to whoever started the run."""
        if self._ranks.first:
            self._each(lambda writer: writer.tell(message))
            self._report({"kind": "warning", "message": message})

    def close(self) -> None:
        self._each(lambda writer: writer.close())

    def _each(self, act: Callable[[Writer], None]) -> None:
        """A figure that cannot be written stops no training: its writer is dropped, and that is told once."""
        for writer in list(self._writers):
            try:
                act(writer)
            except Exception as error:  # noqa: BLE001 (a tracking client raises whatever its transport does)
                self._writers.remove(writer)
                name = type(writer).__name__
                message = f"figures are no longer written by {name}: {error or type(error).__name__}"
                self._report({"kind": "warning", "message": message})

    def _tell(self, step: Step, loss: float) -> None:
        """Progress, now and then; always with a point of the curve."""
        now = time.monotonic()
        if step.point is None and now - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at = now
        per_step = self._seconds / self._steps
        self._report(
            {
                "kind": "progress",
                "step": step.number,
                "steps": self._job.steps,
                "unit": self._unit,
                self._unit: step.number * self._step_size,
                "total": self._job.steps * self._step_size,
                "loss": loss,
                "learning_rate": step.learning_rate,
                "gradient_norm": step.gradient_norm,
                f"{self._unit}_per_second": self._step_size / per_step,
                "seconds_left": per_step * (self._job.steps - step.number),
                **step.held_out,
            }
        )
