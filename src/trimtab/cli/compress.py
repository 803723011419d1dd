"""`trimtab compress FOLDER --data text:FILE --output DIR`: a smaller model by pruning and refit. Words only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import say, stages, table
from trimtab.cli.output import emit_json
from trimtab.spec.units import format_duration


def compress(
    folder: Annotated[Path, typer.Argument(help="A model's folder.")],
    *,
    data: Annotated[str, typer.Option(help="text:FILE to calibrate on, like what will be served.")],
    output: Annotated[Path, typer.Option(help="Where to write the smaller model; must not exist.")],
    layers: Annotated[int | None, typer.Option(min=1, help="How many layers to keep.")] = None,
    ffn: Annotated[int | None, typer.Option(min=1, help="FFN width to keep, a multiple of 16.")] = None,
    kv_heads: Annotated[int | None, typer.Option(min=1, help="KV heads to keep; query heads follow.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Remove layers, FFN neurons and head groups that matter least, then refit the rest in closed form."""
    from trimtab.compression.run import compress as run

    with stages() as show:
        report = run(
            folder,
            data=data,
            output=output,
            layers=layers,
            ffn=ffn,
            kv_heads=kv_heads,
            progress=show,
        )
    for warning in report.warnings:
        say(f"warning: {warning}")
    if as_json:
        emit_json(report)
        return
    rows = [
        ["parameters", f"{report.source_parameters:,}", f"{report.parameters:,}"],
        ["perplexity, held out", f"{report.source_perplexity:.4g}", f"{report.perplexity:.4g}"],
    ]
    table(f"{output}, in {format_duration(report.seconds)}", ["", "before", "after"], rows)
    print("; ".join(report.steps))
