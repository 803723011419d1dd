"""The training loop: one for every objective, in any number of ranks.

A step is a global batch: its share per rank, loss divided by the *global* number of valid targets, gradients
summed over ranks, clipped, applied. What a step does depends on the job, the step's number and the state alone,
so a resumed run gives the same weights, bit for bit, as one that was never interrupted (in the same number
of ranks).
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import torch

from trimtab.parallel.memory import forget_peak, fullest
from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import TrimtabError
from trimtab.training.checkpoint import Progress
from trimtab.training.job import Point, TrainJob, TrainResult
from trimtab.training.keeping import Keeper
from trimtab.training.offence import stop_at
from trimtab.training.places import check_places
from trimtab.training.schedule import rate_factor
from trimtab.training.setup import Setup
from trimtab.training.streams import begin_step
from trimtab.training.watching.meter import Meter, Step
from trimtab.training.watching.profiler import Profiler
from trimtab.training.watching.writers import writers


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
    ranks.at("loading")
    forget_peak(ranks.device)
    with (
        Run(job, ranks, report) as run,
        Profiler(job.watching.profile, ranks, Path(job.output).name) as profiler,
    ):
        while not (stopped := run.agree(wants_stop())) and run.step < job.steps:
            run.advance()
            profiler.step()
        ranks.at("saving", run.step)
        if stopped:
            run.save_now()
        else:
            run.finish()
        ranks.barrier()
        return run.result(stopped=stopped)


class Run:
    """One run's state: what `Setup` made, how far it is, and the curve so far."""

    def __init__(self, job: TrainJob, ranks: Ranks, report: Callable[[dict[str, Any]], None]) -> None:
        self._job, self._ranks = job, ranks
        self._setup = Setup(job, ranks)
        self._loader = self._setup.loader
        chosen = writers(job.watching, Path(job.output).name) if ranks.first else []
        self._meter = Meter(job, ranks, self._setup.model, chosen, report)
        check_places(job, self._setup.model, ranks, self._meter.warn)
        self._keeper = Keeper(job, ranks, self._meter.warn) if job.checkpoints else None
        found = self._keeper.resume(self._setup.tensors()) if self._keeper else None
        self.step = self._resumed_at = found.step if found else 0
        self._seconds = found.seconds if found else 0.0
        self._optimizer_seconds = found.optimizer_seconds if found else 0.0
        self._loss_sum, self._loss_steps = (found.loss_sum, found.loss_steps) if found else (0.0, 0)
        self._curve = list(found.curve) if found else []
        # Of the steps since it was resumed.
        self._times = array("d")
        self._loader.position = found.position if found else job.start_sequence
        # The last step, until all ranks' losses are known, and this rank's part of its loss.
        self._last: Step | None = None
        self.part_of_loss = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.close()
        self._meter.close()

    def agree(self, wants_stop: bool) -> bool:
        """Whether to stop, the same on all ranks. Completes the last step, and saves a checkpoint when one is due.

        One collective carries it all: any rank may stop, rank 0's clock says when to save, losses add up.
        """
        due = self._keeper is not None and self._ranks.first and self._keeper.due()
        stop, save, loss = self._ranks.sum(
            torch.tensor([float(wants_stop), float(due), self.part_of_loss], dtype=torch.float64)
        ).tolist()
        if self._last is not None:
            self._complete(self._last, loss)
            self._last = None
        ended = self.step == self._job.steps
        if (
            self._keeper is not None
            and not stop
            and not ended
            and (save or self._keeper.is_best(self._curve))
        ):
            self._keeper.save(self._progress(), self._setup.tensors())
        return bool(stop) and not ended

    def _complete(self, last: Step, loss: float) -> None:
        """What needs the loss over all ranks: the curve, and the step's figures."""
        self._loss_sum += loss
        self._loss_steps += 1
        if self.step == self._job.steps or self.step % self._point_every == 0:
            self._ranks.at("validating", self.step)
            last.point = self._add_point()
        self._meter.step(last, loss)

    def advance(self) -> None:
        """One step: forward, backward, clip, update. The next `agree` completes it."""
        self._ranks.at("training", self.step + 1)
        begin_step(self._job.seed, self.step, self._setup.distributed.grid.stream)
        started = time.perf_counter()
        position, batch = self._loader.position, self._loader.next()
        loss = self._setup.backward(batch)
        norm = self._setup.clip()
        if not torch.isfinite(norm):
            raise stop_at(
                self._job,
                self._ranks,
                step=self.step + 1,
                position=position,
                batch=batch,
                loss=loss,
                norm=norm.item(),
            )
        before_update = time.perf_counter()
        rate = self._job.learning_rate * self.factor
        self._setup.update(self.factor)
        ended = time.perf_counter()
        self._optimizer_seconds += ended - before_update
        self._seconds += ended - started
        self._times.append(ended - started)
        self.step += 1
        self.part_of_loss = loss
        self._last = Step(
            number=self.step, seconds=ended - started, learning_rate=rate, gradient_norm=norm.item()
        )

    @property
    def factor(self) -> float:
        return rate_factor(self.step, self._job.steps, warmup=self._job.warmup, decay=self._job.decay)

    @property
    def samples(self) -> int:
        return self.step * self._job.batch

    @property
    def tokens(self) -> int:
        return self.samples * self._job.sample_tokens

    @property
    def _point_every(self) -> int:
        return max(1, self._job.steps // max(1, self._job.validation_points))

    def save_now(self) -> None:
        """A checkpoint that is on the disk when this returns. Raises `TrimtabError` if it cannot be written."""
        if self._keeper is None:
            return
        self._keeper.save(self._progress(), self._setup.tensors())
        if fault := self._keeper.finish():
            raise TrimtabError(
                fault, where="checkpoint", remedy="Free space; the same command goes on from there."
            )

    def finish(self) -> None:
        """Save the trained model; before it a checkpoint, from which the same command ends the run if that fails."""
        if self._keeper is not None and self._resumed_at != self.step:
            self._keeper.save(self._progress(), self._setup.tensors())
            if fault := self._keeper.finish():
                self._meter.warn(fault)
        self._setup.save()

    def _progress(self) -> Progress:
        if self._keeper is None:
            raise ValueError("a run without checkpoints has no origin")
        point = self._curve[-1] if self._curve else None
        return Progress(
            origin=self._keeper.origin,
            step=self.step,
            position=self._loader.position,
            seconds=self._seconds,
            optimizer_seconds=self._optimizer_seconds,
            loss_sum=self._loss_sum,
            loss_steps=self._loss_steps,
            curve=tuple(self._curve),
            validation_loss=point.validation_loss if point and point.samples == self.samples else None,
            precision=self._setup.precision,
        )

    def result(self, *, stopped: bool) -> TrainResult:
        last = self._curve[-1] if self._curve else None
        return TrainResult(
            steps=self.step,
            tokens=self.tokens,
            samples=self.samples,
            seconds=self._seconds,
            tokens_per_second=self.tokens / self._seconds if self._seconds else 0.0,
            samples_per_second=self.samples / self._seconds if self._seconds else 0.0,
            loss=last.loss if last else 0.0,
            validation_loss=last.validation_loss if last else None,
            curve=tuple(self._curve),
            next_sequence=self._loader.position,
            precision=self._setup.precision,
            optimizer_share=self._optimizer_seconds / self._seconds if self._seconds else 0.0,
            peak_memory_bytes=fullest(self._ranks),
            step_seconds=median(self._times) if self._times else None,
            stopped=stopped,
        )

    def _add_point(self) -> Point:
        measured = self._setup.held_out.measure()
        point = Point(
            tokens=self.tokens,
            samples=self.samples,
            loss=self._loss_sum / self._loss_steps,
            validation_loss=measured.loss if measured else None,
            validation_accuracy=measured.accuracy if measured else None,
        )
        self._curve.append(point)
        self._loss_sum, self._loss_steps = 0.0, 0
        return point
