"""All training of a run, in one group of processes: baseline, controls, distillation. Started when first needed.

Every job takes the next stretch of one endless data order, so later jobs see text that earlier ones did not; jobs
that are to be compared are given the same stretch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from trimtab.data.loader import Loader
from trimtab.data.prepared import Prepared
from trimtab.data.prepared_images import PreparedImages
from trimtab.optimization.expectation import calibration, expect, remember
from trimtab.optimization.workspace import OPTIMIZER, Workspace
from trimtab.parallel.launching.choice import Launch
from trimtab.parallel.launching.start import RankGroup, start
from trimtab.spec.errors import TrimtabError, UsageError
from trimtab.spec.hardware import usable_cores
from trimtab.spec.layout import Layout
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.recipe import Recipe
from trimtab.spec.tasks import Task, classifies
from trimtab.spec.units import format_count
from trimtab.training.job import TASKS, Objective, OptimizerName, Point, Rate, TrainJob, TrainResult, Watching
from trimtab.training.samples import train_samples

# Where the recipe names neither time nor amount: what a first look is worth, not what a good model needs.
DEFAULT_SECONDS = 600.0
# Peak rates, of matrices and of embeddings, that trained small decoders best at equal time (docs/log.md).
LEARNING_RATES = {"muon": (0.012, 0.02), "adamw": (3e-3, 3e-3)}
# AdamW's for encoders and image models, as their authors and others have it for small ones.
OTHER_LEARNING_RATE = 1e-3
# How many samples the held-out loss is measured on; a decoder's has a target at every token.
HELD_OUT: Mapping[Task, int] = {
    "text-generation": 8,
    "fill-mask": 64,
    "text-classification": 512,
    "image-classification": 512,
}
OBJECTIVES: Mapping[Task, Objective] = {task: name for name, task in TASKS.items() if name != "distillation"}

_PROBE_LENGTH = 1_000_000


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Peak rates as multiples of those for a model trained from nothing, and the part of the steps that decays."""

    matrices: float = 1.0
    embeddings: float = 1.0
    decay: float = 0.5


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How training runs are kept and watched; decides nothing about the weights. Fields as in `TrainJob`."""

    keep: int = 2
    keep_best: bool = False
    accept_changes: bool = False
    watching: Watching = Watching()


FROM_NOTHING = Schedule()
# A trained model is hurt by the rates it began with; of those tried, this was best for training on (docs/log.md).
TRAINED_ALREADY = Schedule(matrices=0.4, embeddings=0.15, decay=1.0)
# Encoders are fine-tuned at 5e-5 (Devlin et al. 2019).
FINE_TUNED = Schedule(matrices=0.05, decay=1.0)


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What a training job did, as the run remembers it. The prediction is the planner's, on a calibrated machine."""

    tokens: int
    samples: int
    seconds: float
    tokens_per_second: float
    samples_per_second: float
    curve: tuple[Point, ...]
    next_sequence: int
    precision: str
    optimizer: str
    step_seconds: float | None = None
    predicted_step_seconds: float | None = None


class Measured(NamedTuple):
    """How fast a model trains; the prediction is the planner's, on a calibrated machine."""

    rate: Rate
    predicted_step_seconds: float | None


def layout_of(recipe: Recipe) -> Layout:
    """The recipe's, or one process a core that may be used, two at most: beyond that a planner must choose."""
    if recipe.parallel == "auto":
        return Layout(data=min(2, len(usable_cores())))
    return recipe.parallel


class Trainer:
    """Runs training jobs of one run; a job that was cut off goes on from its last checkpoint."""

    def __init__(
        self,
        recipe: Recipe,
        workspace: Workspace,
        data: Prepared | PreparedImages,
        *,
        launch: Launch | None = None,
        options: RunOptions | None = None,
        home: Path | None = None,
    ) -> None:
        """With a `home`, what its calibration made the planner expect is kept beside what was measured."""
        self._recipe, self._workspace, self._data = recipe, workspace, data
        self._launch, self._options = launch or Launch(), options or RunOptions()
        # A calibration describes this machine alone.
        self._home = home if self._launch.on == "local" else None
        self._group: RankGroup | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
            self._group = None

    @property
    def task(self) -> Task:
        return self._recipe.task or "text-generation"

    def _started(self, job: TrainJob) -> tuple[RankGroup, bool]:
        """The processes for a job, and whether they have done nothing else before.

        What they would find wrong with its data is found before they start. Raises `DataError`.
        """
        layout = layout_of(self._recipe)
        Loader(train_samples(job), batch=job.batch, seed=job.seed, world=layout.data * layout.shard)
        fresh = self._group is None
        if self._group is None:
            self._group = start(self._launch, layout, self._workspace.folder)
        return self._group, fresh

    def job(
        self,
        model: Path,
        output: Path,
        amount: int,
        *,
        start_sequence: int = 0,
        teacher: Path | None = None,
        cross_entropy_weight: float = 0.0,
        schedule: Schedule = FROM_NOTHING,
    ) -> TrainJob:
        """The recipe's way of training, applied to `model` for an `amount` of tokens, or of a classifier's samples; a
        `teacher` makes it distillation.
        """
        training, layout = self._recipe.training, layout_of(self._recipe)
        optimizer = self._optimizer(layout)
        rate, embedding_rate = LEARNING_RATES[optimizer]
        if self.task != "text-generation":
            rate = OTHER_LEARNING_RATE
        if training.learning_rate != "auto":
            rate = training.learning_rate
        return TrainJob(
            model=str(model),
            output=str(output),
            data=str(self._data.folder),
            checkpoints=str(self._workspace.folder / "checkpoints" / output.name),
            tokens=0 if classifies(self.task) else amount,
            samples=amount if classifies(self.task) else 0,
            objective="distillation" if teacher else OBJECTIVES[self.task],
            teacher=str(teacher) if teacher else None,
            cross_entropy_weight=cross_entropy_weight,
            optimizer=optimizer,
            learning_rate=rate * schedule.matrices,
            embedding_learning_rate=embedding_rate * schedule.embeddings,
            decay=schedule.decay,
            layout=layout,
            batch=training.batch,
            sequence_length=training.sequence_length,
            precision=training.precision,
            compile=training.compile,
            offload=training.offload,
            seed=training.seed,
            start_sequence=start_sequence,
            validation_samples=HELD_OUT[self.task],
            resume=True,
            keep=self._options.keep,
            keep_best=self._options.keep_best,
            accept_changes=self._options.accept_changes,
            watching=self._options.watching,
        )

    def _optimizer(self, layout: Layout) -> OptimizerName:
        """The recipe's, or for `auto` the one that this run began with: its state lies in the checkpoints."""
        wanted = self._recipe.training.optimizer
        if self.task != "text-generation":
            return "adamw"
        if wanted != "auto":
            return wanted
        # Muon trains better, and needs whole matrices on every rank.
        begun = self._workspace.step(OPTIMIZER, str, lambda: "muon" if layout.whole else "adamw")
        if begun == "muon" and not layout.whole:
            raise UsageError(
                f"this run was begun with Muon, which needs whole matrices, and {layout} cuts them or their state.",
                where="training.optimizer",
                remedy="Go on under data and context alone, or begin anew with --fresh.",
            )
        return "muon" if begun == "muon" else "adamw"

    def probe(self, model: Path) -> TrainJob:
        """A job to be measured: its length does not matter, and it leaves nothing."""
        return self.job(model, self._workspace.folder / "models" / "probe", _PROBE_LENGTH)

    def measure(self, model: Path) -> Measured:
        """How fast `model` trains, from a few steps."""
        job = self.probe(model)
        group, fresh = self._started(job)
        rate = msgspec.convert(group.run("rate", msgspec.to_builtins(job)), Rate)
        peak = rate.peak_memory_bytes if fresh else None
        return Measured(rate, self._compare(job, rate.precision, rate.step_seconds, peak))

    def train(self, label: str, job: TrainJob, on_event: OnEvent) -> Training:
        """Train as the job says, into its output folder."""

        def pass_on(event: dict[str, Any]) -> None:
            if (news := _event(label, event)) is not None:
                on_event(news)

        group, fresh = self._started(job)
        answer = group.run("train", msgspec.to_builtins(job), pass_on)
        result = msgspec.convert(answer, TrainResult)
        if result.stopped:
            raise KeyboardInterrupt
        peak = result.peak_memory_bytes if fresh else None
        predicted = None
        if result.step_seconds is not None:
            predicted = self._compare(job, result.precision, result.step_seconds, peak, on_event)
        return Training(
            tokens=result.tokens,
            samples=result.samples,
            seconds=result.seconds,
            tokens_per_second=result.tokens_per_second,
            samples_per_second=result.samples_per_second,
            curve=result.curve,
            next_sequence=result.next_sequence,
            precision=result.precision,
            optimizer=job.optimizer,
            step_seconds=result.step_seconds,
            predicted_step_seconds=predicted,
        )

    @property
    def schedule_of_ready(self) -> Schedule:
        """For training a ready model on. A rate that the recipe names is a fine-tuned model's own."""
        if self.task == "text-generation":
            return TRAINED_ALREADY
        return (
            FINE_TUNED if self._recipe.training.learning_rate == "auto" else Schedule(decay=FINE_TUNED.decay)
        )

    def _compare(
        self,
        job: TrainJob,
        precision: str,
        step_seconds: float,
        peak_memory_bytes: int | None,
        on_event: OnEvent = lambda _: None,
    ) -> float | None:
        """The predicted seconds of a step, kept beside the measured ones. A process that has done other jobs before
        says nothing of the memory of this one. What was trained is not lost over a note that cannot be kept.
        """
        if self._home is None:
            return None
        try:
            profile = calibration(self._home)
            plan = expect(job, profile, precision=precision) if profile else None
            if plan is not None:
                remember(
                    self._home,
                    job.model,
                    plan,
                    step_seconds=step_seconds,
                    peak_memory_bytes=peak_memory_bytes,
                )
        except (OSError, TrimtabError) as error:
            message = f"the prediction was not kept beside what was measured: {error}"
            on_event(Event(stage="compare", fraction=0.0, warning=message))
            return None
        return plan.step_seconds if plan else None

    def length(self, model: Path) -> int:
        """Tokens or samples to train a model for, as the recipe says; a time is turned into them once, and kept."""
        training = self._recipe.training
        if named := training.tokens or training.samples:
            return named
        if training.epochs:
            return training.epochs * self._data.train_samples

        def measured() -> float:
            rate = self.measure(model).rate
            return rate.samples_per_second if classifies(self.task) else rate.tokens_per_second

        rate = self._workspace.step("training-rate", float, measured)
        return int(rate * (training.time or DEFAULT_SECONDS))


def _event(label: str, event: dict[str, Any]) -> Event | None:
    """News of a step as news of a run; held-out losses come with the curve."""
    if event.get("kind") == "warning":
        return Event(stage=f"train {label}", fraction=0.0, warning=event["message"])
    if not event.get("total"):
        return None
    unit = event["unit"]
    note = f"loss {event['loss']:.3f} · {format_count(event[f'{unit}_per_second'])} {unit}/s"
    return Event(stage=f"train {label}", fraction=event[unit] / event["total"], note=note)
