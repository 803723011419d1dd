"""`trimtab optimize RECIPE|FOLDER`: the main job. Exit 0 with a winner, 3 where nothing holds every limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import say, stages, table
from trimtab.cli.output import emit_json
from trimtab.spec.errors import EXIT_REFUSED
from trimtab.spec.units import format_bytes, format_duration

if TYPE_CHECKING:
    from trimtab.spec.verdict import Candidate, Verdict


def optimize(
    source: Annotated[
        Path, typer.Argument(help="A recipe (YAML), or a model's folder together with --data.")
    ],
    data: Annotated[str | None, typer.Option(help="For a folder: text:FILE to measure quality on.")] = None,
    name: Annotated[str | None, typer.Option(help="For a folder: the name to publish under.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the run keeps its files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Search, measure, prove and publish. The same command resumes an interrupted run.

    A folder alone is optimized without training: bits and serving configuration, in minutes.
    """
    from trimtab.optimization.run import optimize as run

    with stages() as progress:
        verdict = run(source, data=data, name=name, output=output, progress=progress)
    if as_json:
        emit_json(verdict)
    else:
        show(verdict)
    if not verdict.feasible:
        raise typer.Exit(EXIT_REFUSED)


def show(verdict: Verdict) -> None:
    """The table, what became of every candidate, the decision, and where the report lies."""
    level = verdict.baseline.speed.loads[-1].concurrency if verdict.baseline.speed else 0
    rows = [_row(c) for c in (verdict.baseline, *verdict.controls, *verdict.candidates)]
    columns = [
        "",
        "parameters",
        "weights",
        "tok/s at 1",
        f"at {level}",
        "first token",
        "memory",
        "perplexity",
    ]
    table(f"{verdict.name}: measured on this machine", columns, rows)
    for candidate in verdict.candidates:
        if candidate.reason:
            say(f"  {candidate.name}: {candidate.reason}")
    winner = verdict.winner
    if winner is None:
        say("infeasible: nothing holds every limit.")
        for reason in verdict.reasons:
            say(f"  {reason}")
        if verdict.nearest:
            say("  nearest level: " + ", ".join(f"{key} {level}" for key, level in verdict.nearest.items()))
    else:
        speedup, quality = winner.speedup[winner.concurrency], winner.quality
        clear = "" if verdict.is_faster else " (not clear of the A/A noise, so not called faster)"
        say(
            f"winner: {winner.candidate}, published as {winner.name}@{winner.version}: {speedup.value:.2f} × "
            f"[{speedup.low:.2f}, {speedup.high:.2f}] the baseline's tokens/s at {winner.concurrency}{clear}, "
            f"{quality.ratio.value:.3f} × its {quality.metric}, {winner.weights_bytes_ratio:.2f} × its bytes, "
            f"{winner.memory_ratio:.2f} × its memory"
        )
    say(f"report: {Path(verdict.run) / 'report.html'}")


def _row(candidate: Candidate) -> list[str]:
    speed, quality = candidate.speed, candidate.quality
    rates = [f"{load.tokens_per_second.value:,.0f}" for load in speed.loads] if speed else ["–", "–"]
    return [
        candidate.name,
        f"{candidate.parameters / 1e6:.2f} M",
        format_bytes(candidate.weights_bytes),
        rates[0],
        rates[-1],
        format_duration(speed.loads[-1].ttft_p50) if speed else "–",
        format_bytes(speed.memory_bytes) if speed else "–",
        f"{quality.perplexity.value:.2f}" if quality else "–",
    ]
