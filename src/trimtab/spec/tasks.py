"""What a model is for, in Hugging Face's names, and what kind of data each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Task = Literal["text-generation", "fill-mask", "text-classification", "image-classification"]
DataKind = Literal["text", "labelled text", "images"]

DATA_OF: Mapping[Task, DataKind] = {
    "text-generation": "text",
    "fill-mask": "text",
    "text-classification": "labelled text",
    "image-classification": "images",
}
TASKS_OF: Mapping[str, tuple[Task, ...]] = {
    "llama": ("text-generation",),
    "bert": ("fill-mask", "text-classification"),
    "resnet": ("image-classification",),
}
_HOW: Mapping[DataKind, str] = {
    "text": "{text: FILE}, {jsonl: FILE, text: FIELD} or {stdlib: python}",
    "labelled text": "{jsonl: FILE, text: FIELD, label: FIELD}",
    "images": "{images: FOLDER} or {npz: FILE}",
}


def classifies(task: Task) -> bool:
    return task.endswith("classification")


def only_task_of(kind: DataKind) -> Task | None:
    """Labels and images are for one task alone; plain text is not."""
    fitting = [task for task, wanted in DATA_OF.items() if wanted == kind]
    return fitting[0] if len(fitting) == 1 else None


def data_fault(task: Task, kind: DataKind) -> str | None:
    """Why this data is none for the task, or None."""
    wanted = DATA_OF[task]
    return None if kind == wanted else f"{task} takes {wanted}, {_HOW[wanted]}, and the data is {kind}"
