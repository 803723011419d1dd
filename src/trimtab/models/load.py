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
from typing import TYPE_CHECKING, Any, Literal

from trimtab.models.info import StoredDtype, stored_dtype
from trimtab.models.tasks import AUTO_CLASSES, check_model
from trimtab.models.tying import say_what_is_tied
from trimtab.spec.artifact import COMPANIONS, CONFIG, copy_files
from trimtab.spec.errors import ModelError
from trimtab.spec.tasks import Task
from trimtab.store.tensor_names import is_constant

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DtypeName = StoredDtype | Literal["float64"]


def load(
    folder: Path, dtype: DtypeName | Literal["stored"] = "float32", task: Task = "text-generation"
) -> PreTrainedModel:
    """The model in evaluation mode, on the CPU. Raises `ModelError` naming missing or surplus weights, weights that
    are no numbers, and a config that transformers does not take.

    Weights that keep the type they are `stored` in are mapped, not read: they take memory where they are touched.
    """
    check_model(folder, task)
    model, report = _from_pretrained(folder, stored_dtype(folder) if dtype == "stored" else dtype, task)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # A mask in the files is no parameter, whatever stock transformers still knows of it.
        if faults := [str(key) for key in report.get(kind) or () if not is_constant(str(key))]:
            names = ", ".join(sorted(faults)[:3])
            raise ModelError(
                f"the weights do not fit the config: {kind.replace('_', ' ')} {names}.", where=str(folder)
            )
    if dtype != "stored":
        _refuse_what_is_no_number(model, folder)
    say_what_is_tied(model)
    return model.eval()


def _from_pretrained(folder: Path, dtype: DtypeName, task: Task) -> tuple[PreTrainedModel, dict[str, Any]]:
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    # What its config classes and modules raise for values they were not made for; the gate names the usual ones.
    faults = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
    try:
        with no_progress_bars():
            return getattr(transformers, AUTO_CLASSES[task]).from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (StrictDataclassError, *faults) as error:
        words = " ".join(str(error).split())
        raise ModelError(
            f"transformers does not take this config: {type(error).__name__}: {words:.300}.",
            where=str(folder / CONFIG),
            remedy="Use the config that belongs to the weights.",
        ) from error


def _refuse_what_is_no_number(model: PreTrainedModel, folder: Path) -> None:
    """Raises `ModelError` for weights with NaN or infinities, which every figure of the model would inherit."""
    import torch

    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        # One pass without a copy: a sum is finite if all are, and what overflows is looked at once more.
        if not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
            raise ModelError(
                f"the weights hold values that are not finite (NaN or infinite), in {name}.",
                where=str(folder),
                remedy="Fetch the model again, or give an earlier checkpoint of it.",
            )


def import_libraries() -> None:
    """Pay now for the imports that `load` needs, seconds that a process can spend while it waits for work."""
    importlib.import_module("transformers.models.auto.modeling_auto")
    # One family brings in what they share.
    importlib.import_module("transformers.models.llama.modeling_llama")


def save(model: PreTrainedModel, folder: Path, source: Path) -> Path:
    """Write a Hugging Face folder with the weights as they are, and tokenizer and licence files of `source`.

    Replaces `folder`. Returns it.
    """
    say_what_is_tied(model)
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
