"""Which models can do which task, and what a folder says of its own. Reads `config.json` alone; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.models.bounds import check_sizes
from trimtab.models.families import ENCODERS, FAMILIES, IMAGE_MODELS
from trimtab.models.info import CONFIG, inspect, read_config
from trimtab.models.tables import tables_of
from trimtab.spec.artifact import PREPROCESSOR
from trimtab.spec.errors import ModelError
from trimtab.spec.tasks import Task
from trimtab.store.intake import examine

# The stock class that loads a model for a task.
AUTO_CLASSES: Mapping[Task, str] = {
    "text-generation": "AutoModelForCausalLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
}
MODELS: Mapping[Task, tuple[str, ...]] = {
    "text-generation": tuple(FAMILIES),
    "fill-mask": ENCODERS,
    "text-classification": ENCODERS,
    "image-classification": IMAGE_MODELS,
}
_HEADS: Mapping[str, Task] = {
    "ForCausalLM": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
}


def check_model(folder: Path, task: Task) -> None:
    """Raises `ModelError` for a folder that cannot be taken, or not for this task."""
    folder = Path(folder)
    kind = str(read_config(folder).get("model_type"))
    able = [name for name, models in MODELS.items() if kind in models]
    if able and task not in able:
        raise ModelError(
            f"a {kind} model is for {' or '.join(able)}, not for {task}.",
            where=str(folder / CONFIG),
            remedy=f"For {task} use one of: {', '.join(MODELS[task])}.",
        )
    if task == "text-generation":
        inspect(folder)
        return
    if not able:
        raise ModelError(
            f"the architecture {kind!r} is not one of those that are known for {task}.",
            where=str(folder / CONFIG),
            remedy=f"Known: {', '.join(MODELS[task])}.",
        )
    admitted = examine(folder)
    check_sizes(admitted.config, admitted.tensors, folder / CONFIG)


def class_names(classes: Sequence[str]) -> dict[str, Any]:
    """As a config names them; nothing for a model that does not classify."""
    if not classes:
        return {}
    return {"id2label": dict(enumerate(classes)), "label2id": {name: at for at, name in enumerate(classes)}}


def task_of(folder: Path) -> Task | None:
    """What the folder's model has a head for; None for one without, or with another."""
    return next((task for end, task in _HEADS.items() if _architecture(folder).endswith(end)), None)


def classes_of(folder: Path) -> tuple[str, ...]:
    """The classes that a classifier in a folder was taught, in its order; none for other models."""
    labels = read_config(folder).get("id2label")
    if not _architecture(folder).endswith(("ForSequenceClassification", "ForImageClassification")):
        return ()
    if not isinstance(labels, dict) or set(labels) != {str(number) for number in range(len(labels))}:
        return ()
    return tuple(str(labels[str(number)]) for number in range(len(labels)))


def longest_sequence(folder: Path) -> int | None:
    """Tokens that an encoder has positions for; None for a model that learns none."""
    return tables_of(folder).places


def scale_of(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the pixels that an image model was trained on; None if its folder has none."""
    path = folder / PREPROCESSOR
    settings: dict[str, Any] = read_config(folder, PREPROCESSOR) if path.is_file() else {}
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if not (isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std)):
        return None
    return tuple(map(float, mean)), tuple(map(float, std))


def _architecture(folder: Path) -> str:
    named = read_config(folder).get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""
