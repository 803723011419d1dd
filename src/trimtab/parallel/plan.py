"""`plan_training`: which layout, how long a step, how much memory, and why not another. Without torch.

What planning knows of any software's layouts meets here what our own training takes of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import msgspec

from trimtab.models.layouts import refused_layout
from trimtab.parallel.check import Check
from trimtab.parallel.check import check as check_counts
from trimtab.parallel.planned_job import Model, read_machine, read_model
from trimtab.planning.devices.refit import Fitness
from trimtab.planning.training.advisor import Rejected, advise, devices_that_fit, nearest
from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.job import Job, Optimizer, Precision, Software, check_job
from trimtab.planning.training.plan import Plan, Scorer
from trimtab.planning.training.software import software_of
from trimtab.planning.training.spending import Spending
from trimtab.spec.checks import check_between, check_one_of
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, check_layout, parse_layout
from trimtab.spec.units import parse_count
from trimtab.store.home import home as default_home


class PlannedModel(msgspec.Struct, frozen=True, kw_only=True):
    parameters: int
    architecture: Architecture


class PlannedLayout(Plan, frozen=True, kw_only=True):
    """A plan, the software that it assumes, and hours and cost where `tokens` and `price` are given. `not_trained`: why
    `trimtab train` does not run this layout of this model; None where it does.
    """

    software: Software
    not_trained: str | None = None
    hours: float | None = None
    cost: float | None = None


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`layouts` that fit, fastest first, or the one that was asked for; `trained` is the fastest that `trimtab train`
    runs. Of `considered` layouts `fitting` fit; `rejected` are the nearest to fitting.

    What is not feasible has a `reason`, a `remedy` in words, and for a layout the nearest `alternative`. `fitness` is
    the planner's own error on a measured machine; None for a datasheet's. Memory in bytes, of a device.
    """

    model: PlannedModel
    accelerator: str
    device_memory_bytes: int
    devices: int
    feasible: bool
    layouts: tuple[PlannedLayout, ...]
    trained: PlannedLayout | None
    considered: int
    fitting: int
    rejected: tuple[Rejected, ...]
    fitness: list[Fitness] | None
    reason: str | None = None
    remedy: str | None = None
    alternative: PlannedLayout | None = None
    check: Check | None = None
    warnings: tuple[str, ...] = ()


def plan_training(
    model: str | Path | None = None,
    *,
    sequence_length: int,
    global_batch: int,
    devices: int | None = None,
    arch: str | Mapping[str, object] | None = None,
    accelerator: str | Path | None = None,
    per_node: int | None = None,
    link: str | float | None = None,
    network: str | float | None = None,
    layout: Layout | str | None = None,
    precision: Precision | None = None,
    optimizer: Optimizer = "adamw",
    software: Software | None = None,
    tokens: str | float | None = None,
    price: float | None = None,
    top: int = 10,
    explain: bool = False,
    check: bool = False,
    home: Path | None = None,
) -> TrainingPlan:
    """Rank every layout of a training run by time among those that fit, or score `layout`. Nothing is run or fetched.

    `model`: a config.json, its folder, or a preset such as `llama3-70b`; or `arch`, a mapping or JSON
    (`{"family": "gpt", "layers": …, "hidden": …, "heads": …, "vocab": …}`). `sequence_length` in tokens, `global_batch`
    in sequences of an optimizer step, `link` and `network` in bytes a second and direction, `tokens` to train on,
    `price` of a device and hour. `accelerator` names a datasheet or a measured profile; default: this machine's own.
    `top` bounds what is listed; `explain` lists every layout that was refused; `check` builds the real model without
    memory and compares counts, which needs torch.
    Raises `UsageError` for what cannot be planned and `ModelError` for a config that cannot be read. What does not fit
    is no error: the plan says so (`feasible`). Formulas and their sources: docs/planning.md.
    """
    asked = _asked(layout)
    if devices is None and asked is None:
        raise UsageError("how many devices?", where="--devices", remedy="Such as --devices 64.")
    check_between(per_node, 1, 10**9, "--per-node")
    check_between(top, 1, 10**9, "--top")
    check_one_of(precision, get_args(Precision), "--precision")
    target = read_machine(
        accelerator,
        precision=precision,
        per_node=per_node,
        link=link,
        network=network,
        home=home or default_home(),
    )
    read = read_model(model, arch, sequence_length)
    job = check_job(
        Job(
            architecture=read.architecture,
            machine=target.machine,
            devices=devices if devices is not None else (asked or Layout()).world,
            sequence_length=sequence_length,
            global_batch=global_batch,
            precision=target.precision,
            optimizer=optimizer,
            software=software,
        )
    )
    planning = _Planning(job, read, _spending(tokens, price), target.fitness)
    if asked is None:
        return planning.advice(top=top, explain=explain, check=check)
    return planning.score(asked, check=check)


def _asked(layout: Layout | str | None) -> Layout | None:
    if isinstance(layout, str):
        return parse_layout(layout, where="--layout")
    return layout if layout is None else check_layout(layout, where="--layout")


def _spending(tokens: str | float | None, price: float | None) -> Spending | None:
    if tokens is None:
        if price is not None:
            raise UsageError(
                "a price needs a number of tokens.", where="--price", remedy="Add --tokens, such as 1T."
            )
        return None
    check_between(price, 0, float("inf"), "--price")
    try:
        count = parse_count(tokens) if isinstance(tokens, str) else float(tokens)
    except ValueError as error:
        raise UsageError(f"{error}.", where="--tokens") from error
    check_between(count, 1, 1e30, "--tokens")
    return Spending(tokens=count, price=price)


class _Planning:
    """One job, and what is said of every plan of it."""

    def __init__(
        self, job: Job, model: Model, spending: Spending | None, fitness: list[Fitness] | None
    ) -> None:
        self._job, self._kind, self._spending, self._fitness = job, model.kind, spending, fitness
        self._warnings: tuple[str, ...] = ()
        if model.context is not None and job.sequence_length > model.context:
            self._warnings = (
                f"sequences have {job.sequence_length:,} tokens, and the model was made for {model.context:,}.",
            )

    def score(self, layout: Layout, *, check: bool) -> TrainingPlan:
        """One layout, feasible or not."""
        job = self._job
        plan = Scorer(job).plan(layout)
        other = None if plan.feasible else nearest(advise(job), plan.layout)
        found = self._told(plan)
        refused = None if plan.feasible else plan.reason
        return self._record(
            [found],
            trained=found if plan.feasible and found.not_trained is None else None,
            considered=1,
            fitting=int(plan.feasible),
            reason=refused,
            remedy=None if plan.feasible else self._remedy(other),
            alternative=self._told(other) if other else None,
            check=self._check(plan) if check else None,
        )

    def advice(self, *, top: int, explain: bool, check: bool) -> TrainingPlan:
        """The whole grid."""
        found = advise(self._job)
        best = [self._told(plan) for plan in found.layouts[:top]]
        ours = (plan for plan in found.layouts if self._refused(plan.layout) is None)
        fastest = next(ours, None)
        return self._record(
            best,
            trained=self._told(fastest) if fastest else None,
            considered=found.considered,
            fitting=len(found.layouts),
            rejected=found.rejected if explain else found.rejected[:top],
            reason=None if best else self._nothing_fits(found.rejected),
            remedy=None if best else self._remedy(None),
            check=self._check(best[0]) if check and best else None,
        )

    def _record(
        self,
        layouts: Sequence[PlannedLayout],
        *,
        trained: PlannedLayout | None,
        considered: int,
        fitting: int,
        reason: str | None,
        remedy: str | None,
        check: Check | None,
        rejected: Sequence[Rejected] = (),
        alternative: PlannedLayout | None = None,
    ) -> TrainingPlan:
        job = self._job
        return TrainingPlan(
            model=PlannedModel(parameters=job.architecture.parameters, architecture=job.architecture),
            accelerator=job.machine.name,
            device_memory_bytes=int(job.machine.memory_bytes),
            devices=job.devices,
            feasible=reason is None,
            layouts=tuple(layouts),
            trained=trained,
            considered=considered,
            fitting=fitting,
            rejected=tuple(rejected),
            fitness=self._fitness,
            reason=reason,
            remedy=remedy,
            alternative=alternative,
            check=check,
            warnings=self._warnings,
        )

    def _refused(self, layout: Layout) -> str | None:
        return refused_layout(self._kind, layout, optimizer=self._job.optimizer)

    def _told(self, plan: Plan) -> PlannedLayout:
        hours = cost = None
        if self._spending is not None and plan.tokens_per_second is not None:
            hours = self._spending.hours(plan.tokens_per_second)
            cost = self._spending.cost(plan.tokens_per_second, self._job.devices)
        return PlannedLayout(
            **{name: getattr(plan, name) for name in Plan.__struct_fields__},
            software=software_of(self._job, plan.layout),
            not_trained=self._refused(plan.layout),
            hours=hours,
            cost=cost,
        )

    def _nothing_fits(self, rejected: Sequence[Rejected]) -> str:
        job = self._job
        if not rejected:
            return f"no layout divides {job.global_batch:,} sequences and this model over {job.devices:,} devices."
        return f"no layout fits; the nearest, {rejected[0].layout}, {rejected[0].reason}"

    def _remedy(self, other: Plan | None) -> str:
        """The nearest feasible alternative in a sentence, and whether our training runs it."""
        job, flags = self._job, ""
        if other is None:
            found = devices_that_fit(job)
            if found is None:
                return "Use devices with more memory, a shorter sequence, or a smaller model."
            devices, other = found
            batch = max(job.global_batch, devices)
            grown = f" --global-batch {batch}" if batch != job.global_batch else ""
            flags = f"--devices {devices}{grown} "
        refused = self._refused(other.layout)
        but = f" (`trimtab train` does not run it: {refused})" if refused else ""
        return f"The nearest that is feasible: {flags}--layout {other.layout}{but}"

    def _check(self, plan: Plan) -> Check | None:
        """The real modules, without memory, against the prediction."""
        if plan.memory_bytes is None:
            return None
        return check_counts(self._job, plan.layout)
