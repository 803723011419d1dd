"""What a model folder holds: its `config.json` and safetensors headers, in milliseconds, without torch.

Nothing in a folder is ever run: pickles, code that a config points to, and unknown architectures are refused,
with the file named. Whoever takes a folder from outside calls `inspect` first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trimtab.models.bounds import check_classes
from trimtab.models.dimensions import dimensions, says_tied
from trimtab.models.expected import hold_against
from trimtab.models.families import FAMILIES, family
from trimtab.spec.artifact import CONFIG, deciding_files
from trimtab.spec.errors import ModelError
from trimtab.spec.json_file import read_object
from trimtab.store import tensor_names
from trimtab.store.intake import examine
from trimtab.store.tensor_names import StoredDtype
from trimtab.text.end_tokens import eos_ids_of

__all__ = ["CONFIG", "ModelInfo", "Shape", "StoredDtype", "inspect", "stored_dtype"]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Dimensions of a decoder. `parameters` counts a tied head once. `context` is in tokens."""

    family: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    context: int
    tied: bool
    eos_ids: tuple[int, ...]
    parameters: int
    weights_bytes: int


def inspect(folder: Path) -> ModelInfo:
    """Raises `ModelError` for a folder that cannot be taken: it names the file and says what to do."""
    admitted = examine(Path(folder))
    config, folder = admitted.config, admitted.folder
    known = family(str(config.get("model_type")), where=str(folder / CONFIG))
    sizes = dimensions(config, known, folder / CONFIG)
    check_classes(config, folder / CONFIG)
    held = hold_against(admitted.tensors, known, sizes, config, tied=says_tied(config, known), folder=folder)
    return ModelInfo(
        family=known.name,
        architecture=known.architecture,
        **sizes,
        tied=held.tied,
        eos_ids=eos_ids_of(folder),
        parameters=held.parameters,
        weights_bytes=held.weights_bytes,
    )


def check_folder(folder: Path) -> int:
    """The number of parameters of any folder that may come in; a decoder that we know is checked as `inspect` does.

    The store also keeps models that we cannot serve.
    """
    admitted = examine(Path(folder))
    if str(admitted.config.get("model_type")) in FAMILIES:
        return inspect(folder).parameters
    return admitted.parameters


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a `config.json` alone says. `attention_bias`: on queries, keys and values; `query_key_norm`: on heads."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    context: int
    tied: bool
    attention_bias: bool
    query_key_norm: bool


def read_shape(config_file: Path) -> Shape:
    """The dimensions of a model without its weights. Raises `ModelError` as `inspect` does."""
    if not config_file.is_file():
        raise ModelError("there is no such file.", where=str(config_file), remedy="Give a config.json.")
    config = read_object(config_file)
    known = family(str(config.get("model_type")), where=str(config_file))
    sizes = dimensions(config, known, config_file)
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key) and known.name == "llama":
            raise ModelError(
                f"{key} is not planned for.", where=str(config_file), remedy="Describe it: --arch."
            )
    return Shape(
        family=known.name,
        **sizes,
        tied=_tied_beside(config_file, says=says_tied(config, known)),
        attention_bias=known.name in ("qwen2", "gpt2") or bool(config.get("attention_bias")),
        query_key_norm=known.name == "qwen3",
    )


def _tied_beside(config_file: Path, *, says: bool) -> bool:
    """As the weights beside a config have it; as it says itself where there are none."""
    beside = config_file.name == CONFIG and any(config_file.parent.glob("*.safetensors"))
    return inspect(config_file.parent).tied if says and beside else says


def stored_dtype(folder: Path) -> StoredDtype:
    """The one type of all weights in the files, whatever the config says; of mixed and rarer ones float32."""
    return tensor_names.stored_dtype(examine(folder).tensors)


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """A JSON object of a model's folder. Raises `ModelError` if there is none."""
    files = deciding_files(folder)
    if name not in files:
        raise ModelError(
            f"the folder has no {name}.",
            where=str(folder),
            remedy="Give a Hugging Face model folder: config.json, *.safetensors and the tokenizer's files.",
        )
    return read_object(files[name], folder / name)
