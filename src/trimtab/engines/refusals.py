"""What engines refuse to serve, in a sentence, because it would be served wrongly. No torch.

`config` is a transformers configuration of one of the known families.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.models.info import CONFIG, ModelInfo
from trimtab.models.load import DtypeName
from trimtab.spec.errors import EngineError, ModelError
from trimtab.spec.serving import WeightFormat

# Positions whose scale depends on the length of the text: neither a fixed graph nor one batch of texts of
# several lengths can follow that.
_LENGTH_DEPENDENT = frozenset({"dynamic", "longrope"})
_TORCH_DTYPES: dict[WeightFormat, DtypeName] = {"float32": "float32", "bf16": "bfloat16"}


def torch_dtype(weight_format: WeightFormat) -> DtypeName:
    """The dtype that the transformers engine loads a format as. Raises `EngineError` for formats it has not."""
    if weight_format not in _TORCH_DTYPES:
        raise EngineError(
            f"the transformers engine does not serve {weight_format} weights.",
            where="weight_format",
            remedy=f"Use one of {', '.join(_TORCH_DTYPES)}.",
        )
    return _TORCH_DTYPES[weight_format]


def refuse_for_any_engine(config: Any, info: ModelInfo, artifact: Path) -> None:
    """Raises `ModelError` for end tokens outside of the vocabulary and positions that depend on the length."""
    for token in info.eos_ids:
        if not 0 <= token < info.vocabulary:
            raise ModelError(
                f"the end token {token} is not in the vocabulary of {info.vocabulary}.",
                where=f"{artifact / CONFIG} eos_token_id",
                remedy="Name a token of the vocabulary, or null for none.",
            )
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind in _LENGTH_DEPENDENT:
        raise ModelError(
            f"positions of type {kind!r} change with the length of the text, which no engine here serves right.",
            where=f"{artifact / CONFIG} rope_parameters",
        )


def refuse_window(config: Any, info: ModelInfo, artifact: Path) -> None:
    """Raises `ModelError` for a model some of whose layers attend to less than its context."""
    window = attention_window(config)
    if window is not None and window < info.context:
        raise ModelError(
            f"the model attends to {window} tokens of a context of {info.context}; the exported graph would "
            "attend to all.",
            where=f"{artifact / CONFIG} sliding_window",
            remedy=f"Use the transformers engine, or set max_position_embeddings to {window}.",
        )


def attention_window(config: Any) -> int | None:
    """Tokens that a layer with a sliding window attends to; None where no layer has one."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)
