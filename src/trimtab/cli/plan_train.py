"""`trimtab plan train`: which layout, how long a step, how much memory, and why not another. Words only."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from trimtab.cli.console import say
from trimtab.cli.output import emit_json
from trimtab.spec.errors import RefusedError

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
    from trimtab.parallel.plan import plan_training

    plan = plan_training(
        model,
        devices=devices,
        sequence_length=sequence_length,
        global_batch=global_batch,
        arch=arch,
        accelerator=accelerator,
        per_node=per_node,
        link=link,
        network=network,
        layout=layout,
        precision=precision,
        optimizer=optimizer,
        software=software,
        tokens=tokens,
        price=price,
        top=top,
        explain=explain,
        check=check,
    )
    for warning in plan.warnings:
        say(f"warning: {warning}")
    if as_json:
        emit_json(plan)
    else:
        from trimtab.cli.plan_table import show_advice, show_fitness, show_plan

        if layout is None:
            show_advice(plan, explain=explain)
        else:
            show_plan(plan)
        show_fitness(plan)
    if not plan.feasible:
        where = str(plan.layouts[0].layout) if layout is not None else None
        raise RefusedError(plan.reason or "", where=where, remedy=plan.remedy)
    if plan.check is not None and not plan.check.agrees:
        raise RefusedError(plan.check.sentence, where="--check")
