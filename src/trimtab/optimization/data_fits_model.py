"""Does the data fit the model, and is there enough of it? Asked before anything is trained; answered in a sentence."""

from __future__ import annotations

from pathlib import Path

from trimtab.data.packing import count_windows
from trimtab.data.prepared import Prepared, no_split
from trimtab.data.prepared_images import PreparedImages
from trimtab.data.samples.windows import too_short
from trimtab.data.tokenizer import needed_ids
from trimtab.models.tables import beyond_context, check_highest, check_ids, check_length, tables_of
from trimtab.spec.architectures import Architecture
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.recipe import Recipe

_LENGTH = "training.sequence_length"


def check_tables(recipe: Recipe, ready: Path | None, on_event: OnEvent) -> None:
    """Ids and positions that a ready model has no place for: raises `ModelError`, or warns of what stock computes all
    the same.
    """
    length, warning = recipe.training.sequence_length, None
    if recipe.task == "image-classification":
        return
    if ready is not None:
        check_ids(ready, needed_ids(ready, framed=recipe.task != "text-generation"))
        warning = check_length(ready, length, where=_LENGTH)
    elif isinstance(recipe.model, Architecture) and length > recipe.model.context:
        warning = beyond_context(length, recipe.model.context, _LENGTH)
    if warning:
        on_event(Event(stage="prepare the data", fraction=1.0, warning=warning))


def check_amounts(
    recipe: Recipe,
    data: Prepared | PreparedImages,
    ready: Path | None,
    on_event: OnEvent,
    *,
    trains: bool = True,
    measures: bool = False,
) -> None:
    """Whether every split that is used holds a sample: `trains` uses train, and validation if there is some; `measures`
    the test split. Raises `DataError`, and `ModelError` for ids that the model has no row for; warns where nothing is
    held out while training.
    """
    length = recipe.training.sequence_length
    if ready is not None and isinstance(data, Prepared):
        check_highest(ready, data.record.highest_id)
    if isinstance(data, PreparedImages):
        held_out = data.record.images["validation"]
    elif data.classes:
        held_out = data.record.documents["validation"]
    else:
        held_out = data.record.tokens["validation"] // (length + 1)
        train = data.record.tokens["train"]
        if trains and not train:
            raise no_split("train")
        if trains and recipe.task != "fill-mask" and not count_windows(train, length, extra=1):
            raise too_short(train, length)
        if measures:
            data.check_windows("test", min(length, _context(recipe, ready) or length))
    if trains and not held_out:
        words = "no loss is measured on held-out data while training: the validation split holds less than a sample."
        on_event(Event(stage="prepare the data", fraction=1.0, warning=words))


def _context(recipe: Recipe, ready: Path | None) -> int | None:
    if ready is None:
        return recipe.model.context if isinstance(recipe.model, Architecture) else None
    tables = tables_of(ready)
    return tables.places or tables.context
