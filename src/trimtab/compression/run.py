"""`compress`: a folder and some text in, a smaller folder out."""

from __future__ import annotations

from pathlib import Path

from trimtab.compression.candidates import keep_layers
from trimtab.compression.pipeline import PruneReport, prune, removal_order
from trimtab.compression.shapes import Shape, check, whole
from trimtab.evaluation.windows import windows_of
from trimtab.models.info import inspect
from trimtab.spec.checks import check_between
from trimtab.spec.errors import UsageError
from trimtab.spec.progress import Event, OnEvent, silent
from trimtab.spec.recipe_data import Source, named_text
from trimtab.store.durable import check_writable

CALIBRATION_TOKENS = 16_384
STAGE = "compress"


def compress(
    folder: Path | str,
    *,
    data: Source | Path | str,
    output: Path | str,
    layers: int | None = None,
    ffn: int | None = None,
    kv_heads: int | None = None,
    progress: OnEvent = silent,
) -> PruneReport:
    """Remove layers, FFN neurons and head groups that matter least, then refit the rest in closed form.

    `data`: text like what will be served, a file or `"text:FILE"`; 16,384 tokens of it are used. `output` must not
    exist. Of `layers`, `ffn` (width, a multiple of 16) and `kv_heads` (query heads follow) at least one says how many
    to keep. The report's perplexities are of windows that were held out.
    Raises `UsageError` for a shape that cannot be cut, `ModelError` and `DataError` for what cannot be read.
    """
    source, target = Path(folder), Path(output)
    if target.exists():
        raise UsageError("the output exists already.", where=str(output), remedy="Name a new folder.")
    check_writable(target.parent)
    for value, where in ((layers, "--layers"), (ffn, "--ffn"), (kv_heads, "--kv-heads")):
        check_between(value, 1, 10**9, where)
    info = inspect(source)
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
    windows, _ = windows_of(named_text(data), source, tokens=CALIBRATION_TOKENS)
    progress(Event(stage=STAGE, fraction=0.0))
    order = removal_order(source, windows) if len(asked.layers) < info.layers else range(info.layers)
    shape = Shape(layers=keep_layers(len(asked.layers), order), ffn=asked.ffn, kv_heads=asked.kv_heads)
    return prune(
        source,
        shape,
        windows,
        target,
        on_progress=lambda fraction: progress(Event(stage=STAGE, fraction=fraction)),
    )
