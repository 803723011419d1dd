"""The baseline: trained from scratch with its tokenizer, or taken from a folder or the store."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.data.prepared import Prepared
from trimtab.data.prepared_images import PreparedImages
from trimtab.models.info import ModelInfo, inspect
from trimtab.optimization.beginning import untrained
from trimtab.optimization.training import Trainer, Training
from trimtab.optimization.workspace import Workspace
from trimtab.spec.artifact import content_digest
from trimtab.spec.progress import OnEvent
from trimtab.spec.recipe import Recipe


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


def take_baseline(
    recipe: Recipe,
    workspace: Workspace,
    data: Prepared | PreparedImages,
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
