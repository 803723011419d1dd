"""Sizes in a config held against what the files hold, for models whose parts are not listed one by one.

No axis of a model is longer than the longest of its tensors, and no stack has more layers than the files have
tensors; a config that claims more would have memory taken for it before stock transformers found out. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.spec.errors import ModelError
from trimtab.store.safetensors_header import Tensor

MAX_CLASSES = 100_000
_STACKS = ("num_hidden_layers", "n_layers", "depths")
_AXES = (
    "vocab_size",
    "hidden_size",
    "hidden_sizes",
    "embedding_size",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_channels",
    "num_attention_heads",
    "dim",
    "hidden_dim",
    "n_heads",
)


def check_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raises `ModelError` for a size that is none, or more than the files can hold."""
    longest = max((length for tensor in tensors.values() for length in tensor.shape), default=0)
    for keys, limit, what in (
        (_STACKS, len(tensors), "the weights hold {} tensors"),
        (_AXES, longest, "the longest axis of the weights is {}"),
    ):
        for key in keys:
            values = config.get(key, [])
            for value in values if isinstance(values, list) else [values]:
                if type(value) is not int or not 1 <= value <= limit:
                    raise _refusal(key, value, what.format(limit), where)
    check_classes(config, where)


def check_classes(config: Mapping[str, Any], where: Path) -> None:
    """Of any model: transformers makes a name for each of `num_labels`, also where there is no head for them."""
    value = config.get("num_labels")
    if value is not None and (type(value) is not int or not 0 <= value <= MAX_CLASSES):
        raise _refusal("num_labels", value, f"there may be {MAX_CLASSES}", where)
    for key in ("id2label", "label2id"):
        if not isinstance(config.get(key, {}), dict | None):
            raise _refusal(key, config[key], "it names classes", where)


def _refusal(key: str, value: object, what: str, where: Path) -> ModelError:
    return ModelError(
        f"{key} is {value!r:.40}, and {what}.",
        where=str(where),
        remedy="Use the config that belongs to the weights.",
    )
