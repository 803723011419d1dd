"""`trimtab compress FOLDER --data text:FILE --output DIR`: a smaller model by pruning and refit. Words only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.console import emit_json, progress, say, table
from trimtab.cli.sources import text_source
from trimtab.spec.errors import UsageError
from trimtab.spec.units import format_duration

CALIBRATION_TOKENS = 16_384


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
    from trimtab.compression.candidates import keep_layers
    from trimtab.compression.pipeline import prune, removal_order
    from trimtab.compression.shapes import Shape, check, whole
    from trimtab.evaluation.windows import windows_of
    from trimtab.models.info import inspect
    from trimtab.store.durable import check_writable

    if output.exists():
        raise UsageError("the output exists already.", where=str(output), remedy="Name a new folder.")
    check_writable(output.parent)
    info = inspect(folder)
    if layers is not None and layers > info.layers:
        raise UsageError(f"the model has {info.layers} layers, not {layers}.", where="--layers")
    asked = Shape(
        layers=tuple(range(layers or info.layers)),
        ffn=ffn or info.ffn,
        kv_heads=kv_heads or info.kv_heads,
    )
    if check(asked, info) == whole(info):
        raise UsageError(
            "nothing is to be removed.", where="compress", remedy="Give --layers, --ffn or --kv-heads."
        )
    windows, _ = windows_of(text_source(data), folder, tokens=CALIBRATION_TOKENS)
    with progress("compress") as bar:
        order = removal_order(folder, windows) if len(asked.layers) < info.layers else range(info.layers)
        shape = Shape(layers=keep_layers(len(asked.layers), order), ffn=asked.ffn, kv_heads=asked.kv_heads)
        report = prune(folder, shape, windows, output, on_progress=bar.update)
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
