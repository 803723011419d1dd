"""How plans are shown: tables for people, one document for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trimtab.cli.console import say, table
from trimtab.spec.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from trimtab.parallel.check import Check
    from trimtab.planning.devices.refit import Fitness
    from trimtab.planning.training.advisor import Advice
    from trimtab.planning.training.job import Job
    from trimtab.planning.training.plan import Plan
    from trimtab.planning.training.spending import Spending

_SECONDS_PER_HOUR = 3600


def document(
    job: Job, plans: list[Plan], spending: Spending | None, known: list[Fitness] | None
) -> dict[str, object]:
    """What `--json` prints of plans, beside what each command adds. `known`: the planner's own error."""
    from trimtab.planning.training.software import software_of

    return {
        "model": {"parameters": job.architecture.parameters, "architecture": job.architecture},
        "accelerator": job.machine.name,
        "devices": job.devices,
        "fitness": known,
        "layouts": [
            msgspec.to_builtins(plan)
            | {"software": software_of(job, plan.layout)}
            | _costs(job, plan, spending)
            for plan in plans
        ],
    }


def _costs(job: Job, plan: Plan, spending: Spending | None) -> dict[str, float]:
    if spending is None or plan.tokens_per_second is None:
        return {}
    cost = spending.cost(plan.tokens_per_second, job.devices)
    return {"hours": spending.hours(plan.tokens_per_second)} | ({} if cost is None else {"cost": cost})


def _money(job: Job, plan: Plan, spending: Spending | None) -> list[str]:
    costs = _costs(job, plan, spending)
    shown = []
    if "hours" in costs:
        shown.append(format_duration(costs["hours"] * _SECONDS_PER_HOUR))
    if "cost" in costs:
        shown.append(f"{costs['cost']:,.0f}")
    return shown


def show_advice(job: Job, advice: Advice, top: int, spending: Spending | None, *, explain: bool) -> None:
    best = advice.layouts[:top]
    if best:
        money = ["time", "cost"][: len(_money(job, best[0], spending))]
        columns = ["layout", "step", "MFU", "tokens/s", "memory", "compute", "exposed", "bubble", *money]
        table(
            f"{format_count(job.architecture.parameters)} parameters on {job.devices:,} × {job.machine.name}",
            columns,
            [_row(job, plan, spending) for plan in best],
        )
    refused = sum(1 + found.larger for found in advice.rejected)
    say(f"{advice.considered:,} layouts: {advice.considered - refused:,} fit, {refused:,} do not.")
    shown = advice.rejected if explain else advice.rejected[:1]
    for found in shown:
        more = f" ({found.larger} larger micro-batches need more)" if found.larger else ""
        say(f"  {found.layout}: {found.reason}{more}")


def _row(job: Job, plan: Plan, spending: Spending | None) -> list[str]:
    if plan.seconds is None or plan.memory_bytes is None or plan.step_seconds is None:
        return [str(plan.layout)]
    seconds = plan.seconds
    exposed = seconds.tensor + seconds.context + seconds.pipeline + seconds.shard + seconds.data
    total = plan.step_seconds
    return [
        str(plan.layout),
        format_duration(total),
        f"{plan.mfu:.1%}",
        format_count(plan.tokens_per_second or 0),
        format_bytes(plan.memory_bytes.total),
        f"{(seconds.compute + seconds.recompute) / total:.0%}",
        f"{exposed / total:.0%}",
        f"{seconds.bubble / total:.0%}",
        *_money(job, plan, spending),
    ]


def show_plan(job: Job, plan: Plan, spending: Spending | None, checked: Check | None) -> None:
    """One layout with every term."""
    from trimtab.planning.training.software import software_of

    if plan.seconds is None or plan.memory_bytes is None or plan.step_seconds is None:
        return
    rows = [
        [name, format_duration(value), f"{value / plan.step_seconds:.1%}"]
        for name in plan.seconds.__struct_fields__
        if (value := getattr(plan.seconds, name))
    ]
    rows.append(["step", format_duration(plan.step_seconds), f"MFU {plan.mfu:.1%}, HFU {plan.hfu:.1%}"])
    table(f"{plan.layout}, {software_of(job, plan.layout)} software", ["time", "", "share"], rows)
    memory = [
        [name, format_bytes(getattr(plan.memory_bytes, name))] for name in plan.memory_bytes.__struct_fields__
    ]
    table(f"of {format_bytes(job.machine.memory_bytes)} a device", ["memory", ""], memory)
    say(
        f"{format_count(plan.tokens_per_second or 0)} tokens/s, {plan.tflops_per_device:.1f} TFLOPS a device"
        + "".join(f", {text}" for text in _money(job, plan, spending))
    )
    if checked is not None:
        say(checked.sentence)
