"""Model folder → torch model and back, always in the ecosystem's own format with weights in safetensors.

Loading refuses what `tasks.check_model` refuses, and weights that do not fit the model. Saving is whole or
not at all: a temporary folder beside the target, then a rename.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trimtab.models.info import StoredDtype, stored_dtype
from trimtab.models.tasks import AUTO_CLASSES, check_model
from trimtab.spec.artifact import COMPANIONS, copy_files
from trimtab.spec.errors import ModelError
from trimtab.spec.tasks import Task
from trimtab.store.tensor_names import is_constant

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DtypeName = StoredDtype | Literal["float64"]


def load(
    folder: Path, dtype: DtypeName | Literal["stored"] = "float32", task: Task = "text-generation"
) -> PreTrainedModel:
    """The model in evaluation mode, on the CPU. Raises `ModelError` naming missing or surplus weights.

    Weights that keep the type they are `stored` in are mapped, not read: they take memory where they are touched.
    """
    import torch
    import transformers

    check_model(folder, task)
    if dtype == "stored":
        dtype = stored_dtype(folder)
    with no_progress_bars():
        model, report = getattr(transformers, AUTO_CLASSES[task]).from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # A mask in the files is no parameter, whatever stock transformers still knows of it.
        if faults := [str(key) for key in report.get(kind) or () if not is_constant(str(key))]:
            names = ", ".join(sorted(faults)[:3])
            raise ModelError(
                f"the weights do not fit the config: {kind.replace('_', ' ')} {names}.", where=str(folder)
            )
    return model.eval()


def import_libraries() -> None:
    """Pay now for the imports that `load` needs, seconds that a process can spend while it waits for work."""
    importlib.import_module("transformers.models.auto.modeling_auto")
    # One family brings in what they share.
    importlib.import_module("transformers.models.llama.modeling_llama")


def save(model: PreTrainedModel, folder: Path, source: Path) -> Path:
    """Write a Hugging Face folder with the weights as they are, and tokenizer and licence files of `source`.

    Replaces `folder`. Returns it.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with no_progress_bars():
            model.save_pretrained(temporary)
        copy_files(Path(source), temporary, COMPANIONS)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """The command line has its own; a library that draws over it helps nobody."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
