"""`parallel: auto`: the planner's fastest layouts for this machine, each run for a few steps; the fastest stays.

A prediction ranks thousands of layouts in a second and is not exact; a trial is right and takes seconds. So
the first chooses what is tried. Without a calibration nothing can be ranked, and one process a core, two at most,
is the choice.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean

import msgspec

from trimtab.data.prepared import Prepared
from trimtab.data.prepared_images import PreparedImages
from trimtab.models.info import read_config
from trimtab.models.layouts import refused_layout
from trimtab.optimization.beginning import untrained
from trimtab.optimization.expectation import calibration, planning_job
from trimtab.optimization.training import Trainer
from trimtab.optimization.workspace import Workspace
from trimtab.planning.devices.profiles import is_faster_in_16_bits
from trimtab.planning.training.advisor import advise
from trimtab.spec.errors import TrimtabError
from trimtab.spec.layout import Layout
from trimtab.spec.profile import Profile
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.recipe import Recipe
from trimtab.spec.units import format_duration
from trimtab.training.job import TrainJob

MOST_TRIED, FINALISTS = 4, 2
STAGE = "choose the layout"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A layout that was run. Seconds are of a step; None was not predicted."""

    layout: Layout
    predicted_seconds: float | None
    step_seconds: float


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The fastest of what was tried, and what it cost to find out."""

    layout: Layout
    trials: tuple[Trial, ...]
    seconds: float

    def __str__(self) -> str:
        tried = ", ".join(f"{t.layout}: {format_duration(t.step_seconds)} a step" for t in self.trials)
        return f"{self.layout} ({tried}); finding out took {format_duration(self.seconds)}"


def choose_layout(
    recipe: Recipe,
    workspace: Workspace,
    data: Prepared | PreparedImages,
    ready: Path | None,
    home: Path,
    on_event: OnEvent,
    *,
    cut: bool = False,
) -> Recipe:
    """The recipe with its layout chosen: as it says, or for `auto` on a calibrated machine by trial, once a run.

    What the planner does not know, encoders and image models, is trained data-parallel.
    """
    planned = recipe.parallel == "auto" and recipe.task in (None, "text-generation")
    profile = calibration(home) if planned else None
    if profile is None:
        return recipe
    choice = workspace.step(
        "layout",
        Choice,
        lambda: _choose(
            recipe,
            workspace,
            data,
            ready or untrained(recipe, workspace, data),
            home,
            profile,
            on_event,
            cut=cut,
        ),
    )
    on_event(Event(stage=STAGE, fraction=1.0, note=str(choice)))
    return recipe.model_copy(update={"parallel": choice.layout})


def _choose(
    recipe: Recipe,
    workspace: Workspace,
    data: Prepared | PreparedImages,
    model: Path,
    home: Path,
    profile: Profile,
    on_event: OnEvent,
    *,
    cut: bool,
) -> Choice:
    began = time.monotonic()
    trials: dict[Layout, list[Trial]] = {}
    faults: list[TrimtabError] = []
    layouts = candidates(Trainer(recipe, workspace, data).probe(model), profile, cut=cut)

    def try_out(layout: Layout, fraction: float) -> None:
        on_event(Event(stage=STAGE, fraction=fraction, note=str(layout)))
        laid_out = recipe.model_copy(update={"parallel": layout})
        try:
            with Trainer(laid_out, workspace, data, home=home) as trainer:
                rate, predicted = trainer.measure(model)
        except TrimtabError as error:
            # What the planner could not know, memory that was not there: the others are tried all the same.
            faults.append(error)
            on_event(Event(stage=STAGE, fraction=0.0, warning=f"{layout}: {error.message}"))
            return
        trial = Trial(layout=layout, predicted_seconds=predicted, step_seconds=rate.step_seconds)
        trials.setdefault(layout, []).append(trial)

    for number, layout in enumerate(layouts):
        try_out(layout, number / (len(layouts) + FINALISTS))
    # A machine may have had a slow moment, so the first are run once more, the other way round.
    first = sorted(trials, key=lambda layout: trials[layout][0].step_seconds)[:FINALISTS]
    for number, layout in enumerate(reversed(first) if len(first) > 1 else ()):
        try_out(layout, (len(layouts) + number) / (len(layouts) + FINALISTS))
    if not trials:
        raise faults[0]
    best = min(first, key=lambda layout: fmean(trial.step_seconds for trial in trials[layout]))
    told = tuple(trial for runs in trials.values() for trial in runs)
    return Choice(layout=best, trials=told, seconds=time.monotonic() - began)


def _strategy(layout: Layout) -> tuple[object, ...]:
    """What sets layouts apart by far; of those alike the planner's best stands for the others."""
    return layout.data, layout.shard, layout.tensor, layout.pipeline, layout.zero


def candidates(job: TrainJob, profile: Profile, *, cut: bool = False) -> list[Layout]:
    """What is worth a trial: one process, plain replicas, and the planner's best of those that can do this job. Pure.

    What training would refuse of this kind of model, or under this optimizer, is not tried. `cut`: smaller models will
    be made of this one, whose heads may not divide over ranks.
    """
    devices = profile.per_node
    named = [Layout()] + ([Layout(data=devices)] if job.batch % devices == 0 else [])
    precision = job.precision
    if precision == "auto":
        precision = "bf16" if is_faster_in_16_bits(profile) else "float32"
    try:
        kind = str(read_config(Path(job.model)).get("model_type"))
        plans = advise(planning_job(job, profile, devices=devices, precision=precision)).layouts
    except TrimtabError:
        kind, plans = "", []
    # A teacher needs whole sequences.
    possible = [
        plan.layout
        for plan in plans
        if plan.layout.context == 1
        and (plan.layout.tensor == 1 or not cut)
        and refused_layout(kind, plan.layout, optimizer=job.optimizer) is None
    ]
    known = {_strategy(layout) for layout in named}
    for layout in possible:
        if _strategy(layout) not in known and len(named) < MOST_TRIED:
            known.add(_strategy(layout))
            named.append(layout)
    return named
