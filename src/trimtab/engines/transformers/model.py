"""An artifact loaded for the transformers engine and scorer: device, dtype, and what is refused."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from trimtab.engines.refusals import refuse_for_any_engine, torch_dtype
from trimtab.models.info import ModelInfo, inspect
from trimtab.models.load import load
from trimtab.spec.serving import WeightFormat


def load_model(artifact: Path, weight_format: WeightFormat) -> tuple[PreTrainedModel, ModelInfo]:
    """The model on this machine's best device. Raises `EngineError` for a weight format torch does not serve."""
    info = inspect(artifact)
    model = load(artifact, torch_dtype(weight_format))
    refuse_for_any_engine(model.config, info, artifact)
    model.set_attn_implementation("sdpa")
    model.to(best_device())  # pyrefly: ignore[bad-argument-type] (a decorated method)
    return model, info


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
