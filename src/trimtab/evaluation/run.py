"""`evaluate`: quality of what a folder is served as."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec

from trimtab.evaluation.folders import Evaluation
from trimtab.evaluation.folders import evaluate as compare
from trimtab.models.info import inspect
from trimtab.spec.checks import check_between, check_one_of
from trimtab.spec.hardware import usable_cores
from trimtab.spec.progress import Event, OnEvent, silent
from trimtab.spec.recipe_data import Source, named_text
from trimtab.spec.serving import EngineName, WeightFormat
from trimtab.store.artifact import as_stored, proven
from trimtab.store.home import home as default_home

STAGE = "evaluate"
MOST_WINDOW = 1 << 24


def evaluate(
    folder: Path | str,
    *,
    data: Source | Path | str,
    against: Path | str | None = None,
    weight_format: WeightFormat | None = None,
    engine: EngineName | None = None,
    window: int | None = None,
    home: Path | None = None,
    progress: OnEvent = silent,
) -> Evaluation:
    """Measure perplexity, divergence (nats a token), agreement and flips of a build against the model in float32.

    `data`: text the model was not trained on, a file or `"text:FILE"`. `against`: the folder to compare with; default
    the same one. `weight_format` and `engine`: as the folder is served, or stored, where they are not named. `window`
    in tokens: the length that the model was trained on. Every figure comes with its 95 % interval.
    Raises `ModelError` and `DataError` for what cannot be read, `UsageError`, and `EngineError` for a build that an
    engine does not load.
    """
    check_between(window, 2, MOST_WINDOW, "--window")
    check_one_of(engine, get_args(EngineName), "--engine")
    check_one_of(weight_format, get_args(WeightFormat), "--weight-format")
    source, place = named_text(data), Path(folder)
    inspect(place)
    asked = {"weight_format": weight_format, "engine": engine}
    serving = msgspec.structs.replace(
        proven(place) or as_stored(place),
        **{name: value for name, value in asked.items() if value is not None},
    )
    progress(Event(stage=STAGE, fraction=0.0))
    return compare(
        place,
        source,
        serving=serving,
        home=home or default_home(),
        against=None if against is None else Path(against),
        length=window,
        threads=len(usable_cores()),
        on_progress=lambda fraction: progress(Event(stage=STAGE, fraction=fraction)),
        on_warning=lambda words: progress(Event(stage=STAGE, fraction=0.0, warning=words)),
    )
