"""`trimtab plan compress`: which cuts and bits can meet a service level on an engine, and which gain nothing. Words
only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import say, stages, table
from trimtab.cli.output import emit_json
from trimtab.spec.errors import RefusedError
from trimtab.spec.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from trimtab.optimization.plans import PlannedCompression
    from trimtab.planning.compression.plan import Option

AUTO = "depth,width,kv_groups,int8"


def compress(
    model: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="As `trimtab serve` takes it.")],
    *,
    engine: Annotated[
        str, typer.Option(help="openvino, transformers, onnxruntime, vllm or llama.cpp.")
    ] = "openvino",
    steps: Annotated[
        str, typer.Option(help="Of depth, width, kv_groups, bf16, int8, int4, unstructured, 2:4, …")
    ] = AUTO,
    speedup: Annotated[float | None, typer.Option(help="Output tokens/s, times the model's own.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Clients; default 16.")] = None,
    rate: Annotated[float | None, typer.Option(help="Or: requests per second.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 64,
    output_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 64,
    ttft_p95: Annotated[str | None, typer.Option(help="Limit of the time to first token: 300ms.")] = None,
    tpot_p95: Annotated[str | None, typer.Option(help="Limit per output token after it: 40ms.")] = None,
    memory: Annotated[str | None, typer.Option(help="Limit of the service's memory: 2GiB.")] = None,
    tokens_per_second: Annotated[float | None, typer.Option(help="Output tokens/s that are needed.")] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure shapes and formats here first (minutes), and keep that."),
    ] = False,
    profile: Annotated[Path | None, typer.Option(help="A profile measured elsewhere, as JSON.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many options to show.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Predict what compression can do for MODEL on an engine: size, speed-up, risk; and refuse what cannot help."""
    from trimtab.optimization.plans import NothingGainsError, plan_compression

    try:
        with stages() as show:
            plan = plan_compression(
                model,
                engine=engine,  # pyrefly: ignore[bad-argument-type]
                steps=steps,
                speedup=speedup,
                concurrency=concurrency,
                rate=rate,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                ttft_p95=ttft_p95,
                tpot_p95=tpot_p95,
                memory=memory,
                tokens_per_second=tokens_per_second,
                measure=measure,
                profile=profile,
                top=top,
                progress=show,
            )
    except NothingGainsError as error:
        if as_json:
            emit_json({"feasible": False, "refused": error.refused, "options": []})
        raise
    if as_json:
        emit_json(plan)
    else:
        _show(plan)
    if not plan.feasible:
        raise RefusedError(plan.reason or "", where=model, remedy=plan.nearest)


def _show(plan: PlannedCompression) -> None:
    columns = [
        "",
        "weights",
        "memory",
        "faster",
        "alone",
        "ttft p95",
        "tpot p95",
        "risk",
        "distil tokens",
        "",
    ]
    base = plan.baseline
    rows = [
        _row("as it is", base),
        *(_row(", ".join(o.steps), o) for o in plan.options if o.steps != base.steps),
    ]
    load = f"{plan.traffic.concurrency} clients" if plan.traffic.concurrency else f"{plan.traffic.rate:g}/s"
    table(f"{plan.name} on {plan.engine}, {load}", columns, rows)
    for evidence in dict.fromkeys(line for option in plan.options for line in option.evidence):
        say(f"risk: {evidence}")
    for one in plan.refused:
        say(f"refused: {one.step} on {plan.engine}: {one.reason} ({one.source})")
    say(f"Measured {plan.measured} on {plan.hardware}; {plan.measurements} shapes and formats.")


def _row(name: str, option: Option) -> list[str]:
    tokens = option.distill_tokens
    return [
        name,
        format_bytes(option.weights_bytes),
        format_bytes(option.memory_bytes),
        f"{option.speedup:.2f} ×",
        f"{option.speedup_alone:.2f} ×",
        format_duration(option.expected.ttft_p95),
        format_duration(option.expected.tpot_p95),
        option.risk,
        " to ".join(dict.fromkeys(map(format_count, tokens))) if tokens else "–",
        option.reason or "holds every limit",
    ]
