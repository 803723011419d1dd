"""`trimtab evaluate FOLDER --data text:FILE`: quality of what the folder is served as. Words only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from trimtab.cli.console import emit_json, progress, say, table
from trimtab.cli.sources import text_source
from trimtab.spec.hardware import usable_cores
from trimtab.spec.serving import EngineName, WeightFormat

if TYPE_CHECKING:
    from trimtab.evaluation.folders import Evaluation


def evaluate(
    folder: Annotated[Path, typer.Argument(help="A model's folder.")],
    *,
    data: Annotated[str, typer.Option(help="text:FILE, text the model was not trained on.")],
    against: Annotated[
        Path | None, typer.Option(help="The folder to compare with, in float32; default: the same folder.")
    ] = None,
    weight_format: Annotated[
        WeightFormat | None,
        typer.Option(help="Default: as the folder is served; as it is stored where it does not say."),
    ] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Default: as the folder is served.")] = None,
    window: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a window: the length the model was trained on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure perplexity, divergence, agreement and flips of a build against the model in float32."""
    from trimtab.evaluation.folders import evaluate as run
    from trimtab.models.info import inspect
    from trimtab.store.artifact import as_stored, proven
    from trimtab.store.home import home

    source = text_source(data)
    inspect(folder)
    asked = {"weight_format": weight_format, "engine": engine}
    serving = msgspec.structs.replace(
        proven(folder) or as_stored(folder),
        **{name: value for name, value in asked.items() if value is not None},
    )
    with progress("evaluate") as bar:
        found = run(
            folder,
            source,
            serving=serving,
            home=home(),
            against=against,
            length=window,
            threads=len(usable_cores()),
            on_progress=bar.update,
            on_warning=lambda words: say(f"warning: {words}"),
        )
    if as_json:
        emit_json(found)
    else:
        _show(found)


def _show(found: Evaluation) -> None:
    quality = found.quality
    rows = [
        ("perplexity of the reference", found.reference_perplexity),
        ("perplexity", quality.perplexity),
        ("perplexity ratio", quality.perplexity_ratio),
        ("KL, mean (nats a token)", quality.kl_mean),
        ("KL, 99th percentile", quality.kl_p99),
        ("same first choice", quality.top1_agreement),
        ("right → wrong", quality.flips_worse),
        ("wrong → right", quality.flips_better),
    ]
    table(
        f"{found.folder} on {found.serving.engine} in {found.serving.weight_format}, against {found.reference}",
        ["", "value", "95 % from", "to"],
        [[name, f"{e.value:.4g}", f"{e.low:.4g}", f"{e.high:.4g}"] for name, e in rows],
    )
    print(
        f"{quality.tokens:,} tokens in windows of {found.window_tokens}; intervals resample {found.resampled}; "
        f"{quality.degenerate:.0%} of sample answers empty or looping"
    )
