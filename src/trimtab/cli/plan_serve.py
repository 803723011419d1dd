"""`trimtab plan serve`: how many workers, bounds and bytes a service level takes, from a measured profile. Words
only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import say, stages, table
from trimtab.cli.output import emit_json
from trimtab.spec.errors import RefusedError
from trimtab.spec.serving import EngineName, WeightFormat
from trimtab.spec.units import format_bytes, format_duration

if TYPE_CHECKING:
    from trimtab.planning.serving.plan import ServingPlan
    from trimtab.planning.serving.replay import Replayed
    from trimtab.spec.engine_profile import EngineProfile


def serve(
    model: Annotated[str, typer.Argument(metavar="NAME|FOLDER|mock", help="As `trimtab serve` takes it.")],
    *,
    rate: Annotated[float | None, typer.Option(help="Requests per second, at random moments.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Or: clients that ask one after the other.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 64,
    output_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 64,
    ttft_p95: Annotated[str | None, typer.Option(help="Limit of the time to first token: 300ms.")] = None,
    tpot_p95: Annotated[str | None, typer.Option(help="Limit per output token after it: 40ms.")] = None,
    memory: Annotated[str | None, typer.Option(help="Limit of a machine's memory: 2GiB.")] = None,
    tokens_per_second: Annotated[float | None, typer.Option(help="Output tokens/s that are needed.")] = None,
    price: Annotated[float | None, typer.Option(help="Of one machine and hour, in any currency.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Instead of the proven engine.")] = None,
    weight_format: Annotated[WeightFormat | None, typer.Option(help="Instead of the proven format.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, max=64, help="Workers on one machine.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="Threads of each worker.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the engine here first (about a minute), and keep it.")
    ] = False,
    profile: Annotated[Path | None, typer.Option(help="A profile measured elsewhere, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Predict replicas, bounds, memory, latencies and cost of serving MODEL under a traffic."""
    from trimtab.optimization.plans import plan_serving

    with stages() as show:
        found = plan_serving(
            model,
            rate=rate,
            concurrency=concurrency,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            ttft_p95=ttft_p95,
            tpot_p95=tpot_p95,
            memory=memory,
            tokens_per_second=tokens_per_second,
            price=price,
            engine=engine,
            weight_format=weight_format,
            replicas=replicas,
            threads=threads,
            measure=measure,
            profile=profile,
            progress=show,
        )
    if as_json:
        emit_json(found)
    else:
        _show(found.profile, found.plan)
    if not found.plan.feasible:
        raise RefusedError(" ".join(found.plan.reasons), where=model, remedy=found.plan.nearest)


def _show(profile: EngineProfile, plan: ServingPlan) -> None:
    expected, traffic, serving = plan.expected, plan.traffic, plan.serving
    load = f"{traffic.rate:g} requests/s" if traffic.rate else f"{traffic.concurrency} clients"
    rows = [
        ["workers", f"{plan.workers} on {plan.machines} machine{'s' if plan.machines > 1 else ''}"],
        ["max_batch, max_queue of a worker", f"{serving.max_batch}, {serving.max_queue}"],
        ["output tokens/s", f"{expected.tokens_per_second:,.0f}"],
        ["time to first token, p50 and p95", _pair(expected.ttft_p50, expected.ttft_p95)],
        ["time per output token, p50 and p95", _pair(expected.tpot_p50, expected.tpot_p95)],
        ["whole answer, p50 and p95", _pair(expected.latency_p50, expected.latency_p95)],
        ["running together, all workers", f"{expected.running:.1f}"],
        ["refused", f"{expected.refused:.1%}"],
        ["memory of a machine", format_bytes(plan.memory_bytes)],
        ["KV cache of a full batch", format_bytes(plan.cache_bytes)],
    ]
    if plan.queue is not None:
        share = plan.queue.offered / plan.queue.capacity
        rows.insert(2, ["load of a worker", f"{share:.0%} of {plan.queue.capacity:.3g} requests/s"])
    if plan.cost_per_million_tokens is not None:
        rows.append(["cost of a million output tokens", f"{plan.cost_per_million_tokens:.4g}"])
    title = f"{profile.name}: {load}, {traffic.prompt_tokens} tokens in, {traffic.output_tokens} out"
    table(title, ["", "predicted"], rows)
    tried = [
        [str(option.workers), *_figures(option.expected), option.reason or "holds every limit"]
        for option in plan.tried
    ]
    if len(tried) > 1:
        table("Tried", ["workers", "tokens/s", "ttft p95", "tpot p95", ""], tried)
    say(
        f"Measured {profile.created} on {profile.hardware}: {profile.serving.engine} "
        f"{profile.serving.weight_format}, {profile.serving.replicas} × {profile.serving.threads} threads."
    )


def _figures(expected: Replayed) -> list[str]:
    times = (expected.ttft_p95, expected.tpot_p95)
    return [f"{expected.tokens_per_second:,.0f}", *map(format_duration, times)]


def _pair(middle: float, high: float) -> str:
    return f"{format_duration(middle)}, {format_duration(high)}"
