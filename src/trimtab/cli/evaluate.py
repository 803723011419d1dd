"""`trimtab evaluate FOLDER --data text:FILE`: quality of what the folder is served as. Words only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import stages, table
from trimtab.cli.output import emit_json
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
    from trimtab.evaluation.run import evaluate as run

    with stages() as show:
        found = run(
            folder,
            data=data,
            against=against,
            weight_format=weight_format,
            engine=engine,
            window=window,
            progress=show,
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
