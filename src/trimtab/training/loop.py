"""The training loop: one for every objective, in any number of ranks.

A step is a global batch: its share per rank, loss divided by the *global* number of valid tokens, gradients
summed over ranks, clipped, applied. What a step does depends on the job, the step's number and the state alone,
so a resumed run gives the same weights, bit for bit, as one that was never interrupted (in the same number
of ranks).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import TrimtabError
from trimtab.training import checkpoint
from trimtab.training.job import Point, TrainJob, TrainResult
from trimtab.training.schedule import rate_factor
from trimtab.training.setup import Setup

_REPORT_SECONDS = 0.5


def train(
    job: TrainJob,
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    wants_stop: Callable[[], bool],
) -> TrainResult:
    """Train and save the model to `job.output`; every rank calls it and gets the same result.

    `report` is told of progress; when any rank's `wants_stop` turns true, a checkpoint is saved and the run
    ends. Raises `TrimtabError` when the loss is no longer a number; what data and models raise goes
    through.
    """
    run = Run(job, ranks, report)
    stopped = False
    while run.step < job.steps and not stopped:
        stopped, due = run.agree(wants_stop())
        if due or stopped:
            run.save()
        if not stopped:
            run.advance()
    if not stopped:
        run.export()
    ranks.barrier()
    return run.result(stopped=stopped)


class Run:
    """One run's state: what `Setup` made, how far it is, and the curve so far."""

    def __init__(self, job: TrainJob, ranks: Ranks, report: Callable[[dict[str, Any]], None]) -> None:
        self._job, self._ranks, self._report = job, ranks, report
        self._setup = Setup(job, ranks)
        self._loader, self.export = self._setup.loader, self._setup.save
        self._identity = job.identity()
        self._checkpoints = Path(job.checkpoints) if job.checkpoints else None
        progress = self._restored()
        self.step, self._seconds = progress.step, progress.seconds
        self._optimizer_seconds = progress.optimizer_seconds
        self._loss_sum, self._loss_steps, self._curve = (
            progress.loss_sum,
            progress.loss_steps,
            list(progress.curve),
        )
        self._loader.position = progress.position
        self._saved_at = self._reported_at = time.monotonic()
        self._first_step, self._first_seconds = self.step, self._seconds

    def agree(self, wants_stop: bool) -> tuple[bool, bool]:
        """(stop, save), the same on all ranks: any may stop, rank 0's clock says when to save."""
        waited = time.monotonic() - self._saved_at
        due = self._checkpoints is not None and self._ranks.first and waited >= self._job.checkpoint_seconds
        flags = self._ranks.sum(torch.tensor([int(wants_stop), int(due)]))
        return bool(flags[0]), bool(flags[1])

    def advance(self) -> None:
        """One step: forward, backward, clip, update; then news."""
        started = time.perf_counter()
        loss = self._setup.backward(self._loader.next())
        norm = self._setup.clip()
        if not torch.isfinite(norm):
            raise TrimtabError(
                f"the loss is no longer a number at step {self.step + 1} of {self._job.steps}.",
                where="training",
                remedy="Lower training.learning_rate, or use precision: float32.",
            )
        before_update = time.perf_counter()
        self._setup.update(self.factor)
        ended = time.perf_counter()
        self._optimizer_seconds += ended - before_update
        self._seconds += ended - started
        self.step += 1
        self._loss_sum += loss
        self._loss_steps += 1
        at_point = self.step == self._job.steps or self.step % self._point_every == 0
        self._tell(loss, self._add_point() if at_point else None)

    @property
    def factor(self) -> float:
        return rate_factor(self.step, self._job.steps, warmup=self._job.warmup, decay=self._job.decay)

    @property
    def tokens(self) -> int:
        return self.step * self._job.batch * self._job.sequence_length

    @property
    def _point_every(self) -> int:
        return max(1, self._job.steps // max(1, self._job.validation_points))

    def save(self) -> None:
        if self._checkpoints is None:
            return
        progress = checkpoint.Progress(
            job=self._identity,
            step=self.step,
            position=self._loader.position,
            seconds=self._seconds,
            optimizer_seconds=self._optimizer_seconds,
            loss_sum=self._loss_sum,
            loss_steps=self._loss_steps,
            curve=tuple(self._curve),
        )
        checkpoint.save(self._checkpoints, progress, self._setup.tensors(), self._ranks)
        self._saved_at = time.monotonic()

    def result(self, *, stopped: bool) -> TrainResult:
        last = self._curve[-1] if self._curve else None
        return TrainResult(
            steps=self.step,
            tokens=self.tokens,
            seconds=self._seconds,
            tokens_per_second=self.tokens / self._seconds if self._seconds else 0.0,
            loss=last.loss if last else 0.0,
            validation_loss=last.validation_loss if last else None,
            curve=tuple(self._curve),
            next_sequence=self._loader.position,
            precision=self._setup.precision,
            optimizer_share=self._optimizer_seconds / self._seconds if self._seconds else 0.0,
            stopped=stopped,
        )

    def _restored(self) -> checkpoint.Progress:
        """The last checkpoint's progress with its tensors in place, or a beginning."""
        found = checkpoint.newest(self._checkpoints) if self._checkpoints and self._job.resume else None
        if found is None:
            return checkpoint.Progress(job=self._identity, step=0, position=self._job.start_sequence)
        return checkpoint.restore(found, self._identity, self._setup.tensors(), self._ranks)

    def _add_point(self) -> Point:
        mean = self._ranks.sum(torch.tensor([self._loss_sum / self._loss_steps], dtype=torch.float64)).item()
        point = Point(tokens=self.tokens, loss=mean, validation_loss=self._setup.held_out.loss())
        self._curve.append(point)
        self._loss_sum, self._loss_steps = 0.0, 0
        return point

    def _tell(self, loss: float, point: Point | None) -> None:
        """Progress, now and then; always with a point of the curve."""
        now = time.monotonic()
        if point is None and now - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at = now
        since = self._seconds - self._first_seconds
        per_step = since / max(1, self.step - self._first_step)
        self._report(
            {
                "kind": "progress",
                "step": self.step,
                "steps": self._job.steps,
                "tokens": self.tokens,
                "total": self._job.steps * self._job.batch * self._job.sequence_length,
                "loss": loss * self._ranks.world,
                "learning_rate": self._job.learning_rate * self.factor
                if self.step < self._job.steps
                else 0.0,
                "tokens_per_second": self._job.batch * self._job.sequence_length / per_step
                if per_step
                else 0.0,
                "seconds_left": per_step * (self._job.steps - self.step),
                "validation_loss": point.validation_loss if point else None,
            }
        )
