"""What training begins with: the task settled, the data for it, and a model that has the head for it."""

from __future__ import annotations

from pathlib import Path

from trimtab.data.prepare import prepare
from trimtab.data.prepare_images import Scale, prepare_images
from trimtab.data.prepared import Prepared
from trimtab.data.prepared_images import PreparedImages
from trimtab.models.create import create, create_encoder, create_image_model
from trimtab.models.info import CONFIG, read_config
from trimtab.models.layouts import refuse_layout
from trimtab.models.tasks import check_model, classes_of, scale_of, task_of
from trimtab.optimization.workspace import Workspace
from trimtab.spec.architectures import Architecture, BertArchitecture, ResNetArchitecture
from trimtab.spec.errors import ModelError, UsageError
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.recipe import Recipe
from trimtab.store.store import Store


def locate(recipe: Recipe, store: Store) -> Path | None:
    """The folder of a model that comes in ready; None for one that is to be trained.

    Raises `ModelError` for a hub reference, `NotFoundError` for an unknown one, `IntegrityError` for a changed one.
    """
    if not isinstance(recipe.model, str):
        return None
    if recipe.model.startswith("hf://"):
        raise ModelError(
            "models are not fetched from a hub.",
            where="model",
            remedy="Download the folder at a pinned commit and give its path.",
        )
    if folder := folder_named(recipe):
        return folder
    with store.open(recipe.model) as folder:
        return folder


def folder_named(recipe: Recipe) -> Path | None:
    """The model's folder, if the recipe names one by its path."""
    named = recipe.model
    return Path(named) if isinstance(named, str) and named.startswith(("/", "./", "../")) else None


def settle(recipe: Recipe, ready: Path | None) -> Recipe:
    """The recipe with its task, which the rest of it and the model in a folder were checked for.

    Raises `RecipeError`, `ModelError`, and `UsageError` for a layout or an optimizer that its training does not run.
    """
    settled = recipe.for_model(task_of(ready) if ready else None)
    if settled.task is None:
        raise TypeError("a recipe for a model has a task")
    if ready is not None:
        check_model(ready, settled.task)
    if settled.parallel != "auto":
        refuse_layout(_kind(settled, ready), settled.parallel, called=f"a model for {settled.task}")
    if settled.task != "text-generation" and settled.training.optimizer == "muon":
        raise UsageError(
            f"Muon is for the matrices of decoders, and a model for {settled.task} is none.",
            where="training.optimizer",
            remedy="Use adamw, or auto.",
        )
    return settled


def _kind(recipe: Recipe, ready: Path | None) -> str:
    """The model's `model_type`; architectures are called alike."""
    if ready is not None:
        return str(read_config(ready).get("model_type"))
    return recipe.model.architecture if not isinstance(recipe.model, str) else ""


def refuse_other_tasks(recipe: Recipe, ready: Path | None) -> None:
    """Raises `UsageError` for models that are trained, and not yet compressed, optimized or served."""
    task = settle(recipe, ready).task
    if task != "text-generation":
        raise UsageError(
            f"models for {task} are trained, and not yet compressed, optimized or served.",
            where="recipe task",
            remedy="Use `trimtab train`.",
        )


def prepare_data(recipe: Recipe, workspace: Workspace, ready: Path | None) -> Prepared:
    """Tokens of every split, with the model's own tokenizer or a new one, and classes if texts have labels."""
    architecture = recipe.model
    scratch = isinstance(architecture, Architecture | BertArchitecture)
    return prepare(
        recipe.data,
        workspace.folder / "data",
        tokenizer=ready,
        vocabulary=architecture.vocabulary if scratch else None,
        encoder=isinstance(architecture, BertArchitecture),
        known_classes=classes_of(ready) if ready and recipe.task == "text-classification" else (),
    )


def prepare_pictures(recipe: Recipe, workspace: Workspace, ready: Path | None) -> PreparedImages:
    """Pixels of every split, on the scale that the model knows or on their own."""
    scale = scale_of(ready) if ready else None
    return prepare_images(
        recipe.data,
        workspace.folder / "data",
        known_classes=classes_of(ready) if ready else (),
        scale=Scale(*scale) if scale else None,
    )


def untrained(recipe: Recipe, workspace: Workspace, data: Prepared | PreparedImages) -> Path:
    """The folder of a new model of the recipe's architecture; equal recipes, equal weights."""
    fresh, seed = workspace.folder / "models" / "untrained", recipe.training.seed
    match recipe.model:
        case Architecture():
            return create(recipe.model, data.companions, fresh, seed)
        case BertArchitecture():
            task = recipe.task or "fill-mask"
            return create_encoder(recipe.model, task, data.companions, fresh, classes=data.classes, seed=seed)
        case ResNetArchitecture() if isinstance(data, PreparedImages):
            channels = data.record.shape[0]
            return create_image_model(
                recipe.model, data.companions, fresh, channels=channels, classes=data.classes, seed=seed
            )
    raise TypeError("a model that is not ready has an architecture, and data of its kind")


def fitted(
    recipe: Recipe, workspace: Workspace, data: Prepared | PreparedImages, ready: Path, on_event: OnEvent
) -> Path:
    """A ready model as training takes it: a decoder as it is, another with the head that its task needs.

    Raises `ModelError` for a model that the data does not fit.
    """
    if recipe.task is None or recipe.task == "text-generation":
        return ready
    from trimtab.models.heads import with_head

    _check_channels(data, ready)
    folder = workspace.folder / "models" / "begun"
    new = with_head(
        ready,
        recipe.task,
        folder,
        classes=data.classes,
        companions=data.companions,
        seed=recipe.training.seed,
    )
    if new:
        of = f" of {len(data.classes)} classes" if data.classes else ""
        words = f"the model has no head for {recipe.task}{of}; it begins with a new one."
        on_event(Event(stage="take the model", fraction=1.0, warning=words))
    return folder


def _check_channels(data: Prepared | PreparedImages, ready: Path) -> None:
    if not isinstance(data, PreparedImages):
        return
    channels, known = data.record.shape[0], read_config(ready).get("num_channels", 3)
    if channels != known:
        raise ModelError(
            f"the model takes images of {known} channels, and these have {channels}.",
            where=str(ready / CONFIG),
            remedy="Store the images with as many channels as the model has.",
        )
