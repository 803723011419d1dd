"""How plans of training are shown to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.cli.console import say, table
from trimtab.spec.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from trimtab.parallel.plan import PlannedLayout, TrainingPlan

_SECONDS_PER_HOUR = 3600
# Behind a layout that our own training does not run.
_MARK = " *"


def show_advice(plan: TrainingPlan, *, explain: bool) -> None:
    best = plan.layouts
    if best:
        money = ["time", "cost"][: len(_money(best[0]))]
        columns = ["layout", "step", "MFU", "tokens/s", "memory", "compute", "exposed", "bubble", *money]
        table(
            f"{format_count(plan.model.parameters)} parameters on {plan.devices:,} × {plan.accelerator}",
            columns,
            [_row(found) for found in best],
        )
        _say_what_is_not_trained(plan)
    say(f"{plan.considered:,} layouts: {plan.fitting:,} fit, {plan.considered - plan.fitting:,} do not.")
    for found in plan.rejected if explain else plan.rejected[:1]:
        more = f" ({found.larger} larger micro-batches need more)" if found.larger else ""
        say(f"  {found.layout}: {found.reason}{more}")
    if explain and best:
        show_plan(plan)
    elif plan.check is not None:
        say(plan.check.sentence)


def _say_what_is_not_trained(plan: TrainingPlan) -> None:
    """Which of them are for other software, why, and what to use instead."""
    reasons = dict.fromkeys(found.not_trained for found in plan.layouts if found.not_trained)
    for reason in reasons:
        say(f"*: `trimtab train` does not run it: {reason}")
    if plan.layouts[0].not_trained is None:
        return
    if plan.trained is None:
        say("`trimtab train` runs none of those that fit.")
    elif plan.trained.step_seconds is not None:
        step = format_duration(plan.trained.step_seconds)
        say(f"The fastest that `trimtab train` runs: --layout {plan.trained.layout}, {step} a step.")


def _money(found: PlannedLayout) -> list[str]:
    shown = []
    if found.hours is not None:
        shown.append(format_duration(found.hours * _SECONDS_PER_HOUR))
    if found.cost is not None:
        shown.append(f"{found.cost:,.0f}")
    return shown


def _row(found: PlannedLayout) -> list[str]:
    name = f"{found.layout}{_MARK if found.not_trained else ''}"
    if found.seconds is None or found.memory_bytes is None or found.step_seconds is None:
        return [name]
    seconds = found.seconds
    exposed = seconds.tensor + seconds.context + seconds.pipeline + seconds.shard + seconds.data
    total = found.step_seconds
    return [
        name,
        format_duration(total),
        f"{found.mfu:.1%}",
        format_count(found.tokens_per_second or 0),
        format_bytes(found.memory_bytes.total),
        f"{(seconds.compute + seconds.recompute) / total:.0%}",
        f"{exposed / total:.0%}",
        f"{seconds.bubble / total:.0%}",
        *_money(found),
    ]


def show_plan(plan: TrainingPlan) -> None:
    """The first layout with every term."""
    found = plan.layouts[0]
    if found.seconds is None or found.memory_bytes is None or found.step_seconds is None:
        return
    rows = [
        [name, format_duration(value), f"{value / found.step_seconds:.1%}"]
        for name in found.seconds.__struct_fields__
        if (value := getattr(found.seconds, name))
    ]
    rows.append(["step", format_duration(found.step_seconds), f"MFU {found.mfu:.1%}, HFU {found.hfu:.1%}"])
    table(f"{found.layout}, {found.software} software", ["time", "", "share"], rows)
    memory = [
        [name, format_bytes(getattr(found.memory_bytes, name))]
        for name in found.memory_bytes.__struct_fields__
    ]
    table(f"of {format_bytes(plan.device_memory_bytes)} a device", ["memory", ""], memory)
    say(
        f"{format_count(found.tokens_per_second or 0)} tokens/s, {found.tflops_per_device:.1f} TFLOPS a device"
        + "".join(f", {text}" for text in _money(found))
    )
    if found.not_trained:
        say(f"`trimtab train` does not run this layout: {found.not_trained}")
    if plan.check is not None:
        say(plan.check.sentence)


def show_fitness(plan: TrainingPlan) -> None:
    """The planner's own error on this machine."""
    if plan.fitness is None:
        return
    from trimtab.planning.devices.refit import NOTHING_COMPARED

    for sentence in [str(one) for one in plan.fitness] or [NOTHING_COMPARED]:
        say(sentence)
