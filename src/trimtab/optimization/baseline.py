"""The baseline: trained from scratch with its tokenizer, or taken from a folder or the store."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.data.prepare import prepare
from trimtab.data.prepared import Prepared
from trimtab.models.create import create
from trimtab.models.info import ModelInfo, inspect
from trimtab.optimization.training import Trainer, Training
from trimtab.optimization.workspace import OnEvent, Workspace
from trimtab.spec.architectures import Architecture
from trimtab.spec.artifact import content_digest
from trimtab.spec.errors import ModelError
from trimtab.spec.recipe import Recipe
from trimtab.store.store import Store


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """`trained` is None for a model that came in ready. `reference` is where it came from, in words."""

    folder: str
    content_digest: str
    origin: str
    trained: Training | None = None

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def info(self) -> ModelInfo:
        return inspect(self.path)


def prepare_data(recipe: Recipe, workspace: Workspace, model: Path | None) -> Prepared:
    """Tokens of every split, with the model's own tokenizer or a new one."""
    architecture = recipe.model if isinstance(recipe.model, Architecture) else None
    return prepare(
        recipe.data,
        workspace.folder / "data",
        tokenizer=model,
        vocabulary=architecture.vocabulary if architecture else None,
    )


def locate(recipe: Recipe, store: Store) -> Path | None:
    """The folder of a model that comes in ready; None for one that is to be trained.

    Raises `ModelError` for a hub reference, `NotFoundError` for an unknown one, `IntegrityError` for a changed one.
    """
    if isinstance(recipe.model, Architecture):
        return None
    if recipe.model.startswith("hf://"):
        raise ModelError(
            "models are not fetched from a hub.",
            where="model",
            remedy="Download the folder at a pinned commit and give its path.",
        )
    if recipe.model.startswith(("/", "./", "../")):
        folder = Path(recipe.model)
        inspect(folder)
        return folder
    with store.open(recipe.model) as folder:
        return folder


def untrained(recipe: Recipe, workspace: Workspace, data: Prepared) -> Path:
    """The folder of a new model of the recipe's architecture; equal recipes, equal weights."""
    if not isinstance(recipe.model, Architecture):
        raise TypeError("a model that is not ready has an architecture")
    fresh = workspace.folder / "models" / "untrained"
    return create(recipe.model, data.tokenizer_folder, fresh, recipe.training.seed)


def take_baseline(
    recipe: Recipe,
    workspace: Workspace,
    data: Prepared,
    ready: Path | None,
    trainer: Trainer,
    on_event: OnEvent,
) -> Baseline:
    """The ready model as it is, or one trained as the recipe says."""
    if ready is not None:
        return workspace.step(
            "baseline",
            Baseline,
            lambda: Baseline(
                folder=str(ready), content_digest=content_digest(ready), origin=str(recipe.model)
            ),
        )

    def train() -> Baseline:
        fresh, folder = untrained(recipe, workspace, data), workspace.folder / "models" / "baseline"
        trained = trainer.train("baseline", trainer.job(fresh, folder, trainer.length(fresh)), on_event)
        return Baseline(
            folder=str(folder),
            content_digest=content_digest(folder),
            origin="trained from the recipe",
            trained=trained,
        )

    return workspace.step("baseline", Baseline, train)
