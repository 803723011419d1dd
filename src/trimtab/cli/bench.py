"""`trimtab bench`: how fast a service is under load, and what the gateway itself costs. Words only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from trimtab.cli.console import progress, say, table
from trimtab.cli.output import emit_json
from trimtab.spec.errors import UsageError
from trimtab.spec.hardware import Hardware, this_machine
from trimtab.spec.measures import Estimate, Load
from trimtab.spec.serving import MockSettings, ServingConfiguration
from trimtab.spec.units import format_bytes, format_duration, parse_duration

if TYPE_CHECKING:
    from trimtab.bench.load import Measured, Target

app = typer.Typer(help="Load a service and measure it.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Concurrency = Annotated[list[int] | None, typer.Option(min=1, max=1024, help="May be repeated.")]
PromptTokens = Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")]
OutputTokens = Annotated[int, typer.Option(min=1, help="Tokens of each answer.")]
Rounds = Annotated[int, typer.Option(min=2, help="Loads at each concurrency; 9 or more for a claim.")]


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. By concurrency: `noise` is the A/A gate's ratio, `efficiency` the output tokens/s
    ÷ what the mock engine alone would give.
    """

    hardware: Hardware
    target: str
    model: str
    rounds: int
    loads: tuple[Load, ...]
    memory_bytes: int | None
    client_seconds_per_event: float
    noise: dict[int, Estimate] = {}
    efficiency: dict[int, float] = {}


@app.command("service")
def service(
    url: Annotated[str, typer.Argument(help="Such as http://127.0.0.1:8000.")],
    *,
    model: Annotated[str, typer.Option(help="The model's name in the service.")],
    key_env: Annotated[
        str, typer.Option(help="The environment variable that holds the key.")
    ] = "TRIMTAB_KEY",
    concurrency: Concurrency = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests in a round.")] = None,
    prompt_tokens: PromptTokens = 64,
    output_tokens: OutputTokens = 64,
    vocabulary: Annotated[int, typer.Option(min=1, help="Prompts hold token ids below this.")] = 256,
    rounds: Rounds = 9,
    noise: Annotated[
        bool, typer.Option("--noise", help="Also the A/A gate: each round loads twice.")
    ] = False,
    json: Json = False,
) -> None:
    """Load a running service with fixed-size requests and measure it."""
    from trimtab.bench.load import Target
    from trimtab.stats import paired

    key = os.environ.get(key_env)
    if not key:
        raise UsageError(
            f"the environment variable {key_env} holds no key.",
            where="--key-env",
            remedy="Make one with 'trimtab keys create --name bench' and export it.",
        )
    target = Target(url=url, key=key, model=model)
    targets = {model: target, "again": target} if noise else {model: target}
    levels = concurrency or [1, 16]
    found = _measure(
        targets,
        levels,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        vocabulary_size=vocabulary,
        rounds=rounds,
        requests=dict.fromkeys(levels, requests) if requests else None,
    )
    gate = {}
    if noise:
        gate = {
            level: paired.noise(found[model].rates(level), found["again"].rates(level)).ratio
            for level in levels
        }
    _show(_report(found[model], url, model, rounds, noise=gate), json=json)


@app.command("gateway")
def gateway(
    *,
    concurrency: Concurrency = None,
    step: Annotated[str, typer.Option(help="Time of one step of the mock engine.")] = "1ms",
    prompt_tokens: PromptTokens = 64,
    output_tokens: OutputTokens = 64,
    rounds: Rounds = 9,
    json: Json = False,
) -> None:
    """Serve the mock engine and measure what everything around an engine costs."""
    from trimtab.bench.load import Target
    from trimtab.service.launch import ServedModel, start

    settings = MockSettings(step_seconds=_seconds(step))
    levels = concurrency or [1, 16]
    serving = ServingConfiguration(engine="mock", mock=settings, max_batch=max(64, *levels))
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as folder:
        say("Starting the gateway and a mock engine …")
        with start([ServedModel(name="mock", serving=serving)], home=Path(folder), port=0) as running:
            target = Target(
                url=running.url, key=running.create_key("bench"), model="mock", pids=tuple(running.pids())
            )
            found = _measure(
                {"mock": target},
                levels,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                vocabulary_size=settings.vocabulary_size,
                rounds=rounds,
                requests={level: max(8, 4 * level) for level in levels},
            )["mock"]
    alone = {level: level / settings.step_seconds for level in levels}
    efficiency = {
        load.concurrency: load.tokens_per_second.value / alone[load.concurrency] for load in found.loads
    }
    _show(_report(found, "gateway", "mock", rounds, efficiency=efficiency), json=json)


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{error}.", where="--step") from error
    if seconds <= 0:
        raise UsageError("a step takes some time.", where="--step", remedy="Such as 1ms.")
    return seconds


def _measure(targets: dict[str, Target], levels: list[int], **sizes: object) -> dict[str, Measured]:
    from trimtab.bench.load import Event, measure

    with progress("Measuring") as bar:

        def show(event: Event) -> None:
            bar.update(event.fraction, f"{event.tokens_per_second:,.0f} tokens/s at {event.concurrency}")

        return measure(targets, concurrencies=levels, on_event=show, **sizes)  # pyrefly: ignore[bad-argument-type]


def _report(
    found: Measured,
    target: str,
    model: str,
    rounds: int,
    *,
    noise: dict[int, Estimate] | None = None,
    efficiency: dict[int, float] | None = None,
) -> Bench:
    costs = [round_.client_seconds_per_event for played in found.rounds.values() for round_ in played]
    return Bench(
        hardware=this_machine(),
        target=target,
        model=model,
        rounds=rounds,
        loads=found.loads,
        memory_bytes=found.memory_bytes or None,
        client_seconds_per_event=sorted(costs)[len(costs) // 2],
        noise=noise or {},
        efficiency=efficiency or {},
    )


def _show(bench: Bench, *, json: bool) -> None:
    if json:
        emit_json(bench)
        return
    columns = ["at once", "tokens/s", "95 % interval", "ttft p50", "p95", "tpot p50", "p95"]
    rows = [_row(load) for load in bench.loads]
    if bench.efficiency:
        columns.append("of ideal")
        rows = [
            [*row, f"{bench.efficiency[load.concurrency]:.1%}"]
            for row, load in zip(rows, bench.loads, strict=True)
        ]
    if bench.noise:
        columns.append("A/A ratio")
        for row, load in zip(rows, bench.loads, strict=True):
            gate = bench.noise[load.concurrency]
            row.append(f"{gate.low:.3f} to {gate.high:.3f}")
    table(f"{bench.model} at {bench.target}", columns, rows)
    say(f"{bench.hardware}; {bench.rounds} rounds; ttft: to the first token, tpot: per token after it.")
    if bench.memory_bytes:
        say(f"Memory of the service's processes: {format_bytes(bench.memory_bytes)} (peak PSS).")
    say(f"The client took {bench.client_seconds_per_event * 1e6:.1f} µs of CPU time an event.")


def _row(load: Load) -> list[str]:
    rate = load.tokens_per_second
    times = (load.ttft_p50, load.ttft_p95, load.tpot_p50, load.tpot_p95)
    interval = f"{rate.low:,.0f} to {rate.high:,.0f}"
    return [str(load.concurrency), f"{rate.value:,.0f}", interval, *map(format_duration, times)]
