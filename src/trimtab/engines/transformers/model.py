"""An artifact loaded for the transformers engine and scorer: device, dtype, and what is refused."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from trimtab.engines.refusals import refuse_for_any_engine
from trimtab.models.info import ModelInfo, inspect
from trimtab.models.load import DtypeName, load
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import WeightFormat

_DTYPES: dict[WeightFormat, DtypeName] = {"float32": "float32", "bf16": "bfloat16"}


def load_model(artifact: Path, weight_format: WeightFormat) -> tuple[PreTrainedModel, ModelInfo]:
    """The model on this machine's best device. Raises `EngineError` for a weight format torch does not serve."""
    if weight_format not in _DTYPES:
        raise EngineError(
            f"the transformers engine does not serve {weight_format} weights.",
            where="weight_format",
            remedy=f"Use one of {', '.join(_DTYPES)}.",
        )
    info = inspect(artifact)
    model = load(artifact, _DTYPES[weight_format])
    refuse_for_any_engine(model.config, info, artifact)
    model.set_attn_implementation("sdpa")
    model.to(best_device())  # pyrefly: ignore[bad-argument-type] (a decorated method)
    return model, info


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
