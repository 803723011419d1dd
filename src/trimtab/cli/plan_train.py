"""`trimtab plan train`: which layout, how long a step, how much memory, and why not another. Without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trimtab.cli.console import emit_json, say
from trimtab.spec.errors import RefusedError, UsageError
from trimtab.spec.layout import Layout, parse_layout

if TYPE_CHECKING:
    from trimtab.parallel.check import Check
    from trimtab.planning.devices.refit import Fitness
    from trimtab.planning.training.advisor import Advice
    from trimtab.planning.training.job import Job
    from trimtab.planning.training.plan import Plan
    from trimtab.planning.training.spending import Spending

Rate = Annotated[str | None, typer.Option(metavar="BYTES", help="A second and direction, such as 450GB.")]


def train(
    model: Annotated[
        str | None, typer.Argument(help="A config.json or its folder, a preset such as llama3-70b.")
    ] = None,
    *,
    devices: Annotated[int | None, typer.Option(help="How many; default: as the layout says.")] = None,
    sequence_length: Annotated[int, typer.Option(help="Tokens of a sequence.")],
    global_batch: Annotated[int, typer.Option(help="Sequences of an optimizer step.")],
    arch: Annotated[
        str | None,
        typer.Option(help='JSON: {"family":"gpt"|"llama","layers":,"hidden":,"heads":,"vocab":,…}'),
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(help="Such as a100-80gb, h100-80gb; or a measured profile; default: this machine's."),
    ] = None,
    per_node: Annotated[
        int | None, typer.Option(help="Devices of a node; default: the accelerator's.")
    ] = None,
    link: Rate = None,
    network: Rate = None,
    layout: Annotated[str | None, typer.Option(help="Score this one: data=8,tensor=8,…")] = None,
    precision: Annotated[
        Literal["bf16", "fp16", "mixed", "fp32"] | None,
        typer.Option(help="Default: bf16; on a measured machine what training takes there, mixed or fp32."),
    ] = None,
    optimizer: Annotated[Literal["adamw", "muon", "sgd"], typer.Option()] = "adamw",
    software: Annotated[
        Literal["classic", "fused", "torch"] | None,
        typer.Option(help="Kernels and overlap; default: what such layouts were published with."),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Tokens to train on, such as 15T: hours and cost.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of a device and hour, with --tokens.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many layouts to show.")] = 10,
    explain: Annotated[bool, typer.Option(help="Every term, and every layout that was refused.")] = False,
    check: Annotated[
        bool, typer.Option(help="Build the real model without memory and compare counts (needs torch).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Rank every layout of a training run by time among those that fit, or score one, with reasons."""
    from trimtab.cli.plan_job import beyond_its_context, read_architecture, read_machine
    from trimtab.planning.training.job import Job, check_job

    asked = parse_layout(layout, where="--layout") if layout is not None else None
    if devices is None and asked is None:
        raise UsageError("how many devices?", where="--devices", remedy="Such as --devices 64.")
    if per_node is not None and per_node < 1:
        raise UsageError("a node has no device.", where="--per-node", remedy="Use 1 or more.")
    target = read_machine(accelerator, precision=precision, per_node=per_node, link=link, network=network)
    job = Job(
        architecture=read_architecture(model, arch, sequence_length),
        machine=target.machine,
        devices=devices if devices is not None else (asked or Layout()).world,
        sequence_length=sequence_length,
        global_batch=global_batch,
        precision=target.precision,
        optimizer=optimizer,
        software=software,
    )
    check_job(job)
    if model is not None and (warning := beyond_its_context(model, sequence_length)):
        say(f"warning: {warning}")
    spending, known = _spending(tokens, price), target.fitness
    if asked is None:
        _advise(job, top=top, explain=explain, check=check, spending=spending, known=known, as_json=as_json)
    else:
        _score(job, asked, check=check, spending=spending, known=known, as_json=as_json)
    if known is not None and not as_json:
        _say_fitness(known)


def _spending(tokens: str | None, price: float | None) -> Spending | None:
    from trimtab.planning.training.spending import Spending
    from trimtab.spec.units import parse_count

    if tokens is None:
        if price is not None:
            raise UsageError(
                "a price needs a number of tokens.", where="--price", remedy="Add --tokens, such as 1T."
            )
        return None
    try:
        return Spending(tokens=parse_count(tokens), price=price)
    except ValueError as error:
        raise UsageError(f"{error}.", where="--tokens") from error


def _say_fitness(known: list[Fitness]) -> None:
    """The planner's own error on this machine."""
    from trimtab.planning.devices.refit import NOTHING_COMPARED

    for sentence in [str(one) for one in known] or [NOTHING_COMPARED]:
        say(sentence)


def _score(
    job: Job,
    layout: Layout,
    *,
    check: bool,
    spending: Spending | None,
    known: list[Fitness] | None,
    as_json: bool,
) -> None:
    """One layout. One that is not feasible is shown all the same, and the command leaves with 3."""
    from trimtab.cli.plan_table import document, show_plan
    from trimtab.planning.training.advisor import nearest, plan_training
    from trimtab.planning.training.plan import Scorer

    plan = Scorer(job).plan(layout)
    other = None if plan.feasible else nearest(plan_training(job), plan.layout)
    checked = _check(job, plan) if check else None
    if as_json:
        shown = document(job, [plan], spending, known)
        emit_json(shown | {"alternative": other} | ({} if checked is None else {"check": checked}))
    else:
        show_plan(job, plan, spending, checked)
    if not plan.feasible:
        raise RefusedError(plan.reason or "", where=str(plan.layout), remedy=_remedy(job, other))
    _fail_if_wrong(checked)


def _advise(
    job: Job,
    *,
    top: int,
    explain: bool,
    check: bool,
    spending: Spending | None,
    known: list[Fitness] | None,
    as_json: bool,
) -> None:
    from trimtab.cli.plan_table import document, show_advice, show_plan
    from trimtab.planning.training.advisor import plan_training

    advice = plan_training(job)
    best = advice.layouts[:top]
    checked = _check(job, best[0]) if check and best else None
    if as_json:
        shown = document(job, best, spending, known)
        refused = advice.rejected if explain else advice.rejected[:top]
        counts = {"considered": advice.considered, "fitting": len(advice.layouts), "rejected": refused}
        emit_json(shown | counts | ({} if checked is None else {"check": checked}))
    else:
        show_advice(job, advice, top, spending, explain=explain)
        if explain and best:
            show_plan(job, best[0], spending, checked)
    if not best:
        raise _nothing_fits(job, advice)
    _fail_if_wrong(checked)
    if checked is not None and not as_json:
        say(checked.sentence)


def _nothing_fits(job: Job, advice: Advice) -> RefusedError:
    if not advice.rejected:
        return RefusedError(
            f"no layout divides {job.global_batch:,} sequences and this model over {job.devices:,} devices.",
            where="--global-batch",
            remedy=_remedy(job, None),
        )
    closest = advice.rejected[0]
    return RefusedError(
        f"no layout fits; the nearest, {closest.layout}, {closest.reason}", remedy=_remedy(job, None)
    )


def _remedy(job: Job, other: Plan | None) -> str:
    """The nearest feasible alternative in a sentence."""
    from trimtab.planning.training.advisor import devices_that_fit

    if other is not None:
        return f"The nearest that is feasible: --layout {other.layout}"
    found = devices_that_fit(job)
    if found is None:
        return "Use devices with more memory, a shorter sequence, or a smaller model."
    devices, plan = found
    batch = max(job.global_batch, devices)
    grown = f" --global-batch {batch}" if batch != job.global_batch else ""
    return f"The nearest that is feasible: --devices {devices}{grown} --layout {plan.layout}"


def _check(job: Job, plan: Plan) -> Check | None:
    """The real modules, without memory, against the prediction."""
    if plan.memory_bytes is None:
        return None
    from trimtab.parallel.check import check

    return check(job, plan.layout)


def _fail_if_wrong(checked: Check | None) -> None:
    if checked is not None and not checked.agrees:
        raise RefusedError(checked.sentence, where="--check")
