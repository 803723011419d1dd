"""A ready encoder or image model made fit for a task: its own head where that serves, else a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import transformers

from trimtab.models.load import no_progress_bars, save
from trimtab.models.seeded import seeded
from trimtab.models.tasks import AUTO_CLASSES, check_model, class_names
from trimtab.spec.artifact import COMPANIONS, copy_files
from trimtab.spec.errors import ModelError
from trimtab.spec.tasks import Task


def with_head(
    source: Path, task: Task, folder: Path, *, classes: Sequence[str], companions: Path, seed: int
) -> bool:
    """Write the model of `source` with a head for `task` (of `classes`, if it classifies) and the files of
    `companions`. Equal seeds, equal heads.

    Returns whether the head is new. Raises `ModelError` where more than a head is missing.
    """
    check_model(source, task)
    with no_progress_bars(), seeded(seed):
        model, report = getattr(transformers, AUTO_CLASSES[task]).from_pretrained(
            source,
            dtype="float32",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **class_names(classes),
        )
    # Mismatched ones are given with their two shapes.
    drawn = {str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"]}
    drawn |= set(report["missing_keys"])
    inside = sorted(name for name in drawn if _is_body(name, model.base_model_prefix))
    if inside:
        raise ModelError(
            f"the weights do not fit the config: missing or of another shape {', '.join(inside[:3])}.",
            where=str(source),
        )
    save(model, folder, source)
    copy_files(companions, folder, COMPANIONS)
    return bool(drawn)


def _is_body(name: str, prefix: str) -> bool:
    """Whether a weight belongs to the model itself. The pooler of an encoder serves classifiers alone."""
    return name.startswith(f"{prefix}.") and ".pooler." not in name
