"""What `optimize` is asked: a recipe, its file, or a model's folder with text to measure on; and how long it takes."""

from __future__ import annotations

from pathlib import Path

from trimtab.models.info import inspect
from trimtab.optimization.forecast import forecast, matrix_rate, parameters
from trimtab.spec.architectures import Architecture
from trimtab.spec.errors import UsageError
from trimtab.spec.folder import store_name
from trimtab.spec.recipe import Recipe
from trimtab.spec.recipe_data import Source, named_text
from trimtab.spec.units import format_duration


def recipe_of(asked: Recipe | Path | str, data: Source | Path | str | None, name: str | None) -> Recipe:
    """The recipe, that in a file, or the one that stands for a folder and `data`. Raises `UsageError`."""
    if isinstance(asked, Recipe) or not Path(asked).is_dir():
        if data or name:
            where = "recipe" if isinstance(asked, Recipe) else str(asked)
            raise UsageError("--data and --name go with a model's folder.", where=where)
        return asked if isinstance(asked, Recipe) else Recipe.load(asked)
    folder = Path(asked)
    if data is None:
        raise UsageError("a folder needs text to measure on.", where="--data", remedy="Add --data text:FILE.")
    return Recipe.model_validate(
        {
            "version": 1,
            "name": name or store_name(folder),
            "model": str(folder.resolve()),
            "data": {"test": named_text(data).model_dump(exclude_none=True)},
            "search": {"distill_tokens": 0},
        }
    )


def expected_time(recipe: Recipe) -> str:
    """How long the run will take, in a sentence. Measures this machine for a third of a second."""
    if isinstance(recipe.model, Architecture):
        weights = parameters(recipe.model)
    else:
        weights, model = 0, Path(str(recipe.model))
        if recipe.search.distill_tokens != 0 and model.is_dir():
            weights = inspect(model).parameters
    stages = forecast(recipe, weights or 1, matrix_rate())
    total = format_duration(sum(stage.seconds for stage in stages))
    return f"forecast: about {total} ({', '.join(f'{s.name} {format_duration(s.seconds)}' for s in stages)})"
