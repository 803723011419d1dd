"""What a model folder holds: its `config.json` and safetensors headers, in milliseconds, without torch.

Nothing in a folder is ever run: pickles, code that a config points to, and unknown architectures are refused,
with the file named. Whoever takes a folder from outside calls `inspect` first.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from trimtab.models.families import Family, family
from trimtab.spec.artifact import PICKLES
from trimtab.spec.errors import ModelError
from trimtab.text.end_tokens import eos_ids_of

StoredDtype = Literal["float32", "bfloat16", "float16"]

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
# A safetensors header larger than this is not one (the format's own limit).
_MAX_HEADER_BYTES = 100_000_000
_DTYPES: Mapping[str, StoredDtype] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_INTEGERS = frozenset({"I8", "U8", "I16", "I32", "I64", "BOOL"})
_HOW_TO_CONVERT = "Save the model as safetensors first."


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
    folder = Path(folder)
    config = read_config(folder)
    refuse_code(folder)
    known = family(str(config.get("model_type")), where=str(folder / CONFIG))
    if config.get("quantization_config"):
        raise ModelError(
            "the weights are quantized already.",
            where=str(folder / CONFIG),
            remedy="Give the unquantized model.",
        )
    headers = [_header(path) for path in weight_files(folder)]
    parameters, weights_bytes = _count(
        headers, known, tied := bool(config.get("tie_word_embeddings", known.tied))
    )
    return ModelInfo(
        family=known.name,
        architecture=known.architecture,
        **_dimensions(config, known, folder),
        tied=tied,
        eos_ids=eos_ids_of(folder),
        parameters=parameters,
        weights_bytes=weights_bytes,
    )


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
    config = _read_json(config_file)
    known = family(str(config.get("model_type")), where=str(config_file))
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key) and known.name == "llama":
            raise ModelError(
                f"{key} is not planned for.", where=str(config_file), remedy="Describe it: --arch."
            )
    return Shape(
        family=known.name,
        **_dimensions(config, known, config_file.parent),
        tied=bool(config.get("tie_word_embeddings", known.tied)),
        attention_bias=known.name in ("qwen2", "gpt2") or bool(config.get("attention_bias")),
        query_key_norm=known.name == "qwen3",
    )


def refuse_code(folder: Path) -> None:
    """Raises `ModelError` for a file that could run code when loaded, and for configs that point to code."""
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLES and path.is_file():
            raise ModelError(
                f"{path.name} may run code when loaded.", where=str(path), remedy=_HOW_TO_CONVERT
            )
        if path.suffix == ".json" and path.name.endswith("config.json") and "auto_map" in _read_json(path):
            raise ModelError(
                "the model brings its own code (auto_map), which is never run.",
                where=str(path),
                remedy="Use a model whose architecture is part of transformers.",
            )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, sharded or not. Raises `ModelError` if one is missing."""
    if not (folder / INDEX).is_file():
        names = [WEIGHTS]
    else:
        weight_map = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError("the index of weights has no weight_map.", where=str(folder / INDEX))
        names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"the index points outside of the folder: {name!r}.", where=str(folder / INDEX))
        if not (folder / name).is_file():
            raise ModelError(f"the folder has no {name}.", where=str(folder), remedy=_HOW_TO_CONVERT)
    return [folder / name for name in names]


def stored_dtype(folder: Path) -> StoredDtype:
    """The one type of all weights in the files, whatever the config says; of mixed and rarer ones float32."""
    found = {entry["dtype"] for path in weight_files(folder) for entry in _header(path).values()}
    floats = found - _INTEGERS
    return _DTYPES.get(floats.pop(), "float32") if len(floats) == 1 else "float32"


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """A JSON object of a model's folder. Raises `ModelError` if there is none."""
    if not (folder / name).is_file():
        raise ModelError(
            f"the folder has no {name}." if folder.is_dir() else "there is no such folder.",
            where=str(folder),
            remedy="Give a Hugging Face model folder: config.json, *.safetensors and the tokenizer's files.",
        )
    return _read_json(folder / name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError("the file is not JSON.", where=str(path)) from error
    if not isinstance(value, dict):
        raise ModelError("the file is not a JSON object.", where=str(path))
    return value


def _dimensions(config: dict[str, Any], known: Family, folder: Path) -> dict[str, int]:
    def number(key: str) -> int:
        value = config.get(key, known.defaults.get(key))
        if not isinstance(value, int) or value < 1:
            raise ModelError(f"{key} is {value!r}, not a positive whole number.", where=str(folder / CONFIG))
        return value

    def number_or(key: str | None, otherwise: int) -> int:
        absent = key is None or config.get(key, known.defaults.get(key)) is None
        return otherwise if absent or key is None else number(key)

    keys = known.keys
    hidden, heads = number(keys.hidden), number(keys.heads)
    return {
        "layers": number(keys.layers),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": number_or(keys.kv_heads, heads),
        "head_dim": number_or(keys.head_dim, hidden // heads),
        "ffn": number_or(keys.ffn, 4 * hidden),
        "vocabulary": number("vocab_size"),
        "context": number(keys.context),
    }


def _header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: name → {dtype, shape, data_offsets}."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER_BYTES + 1
        try:
            header = json.loads(file.read(length)) if length <= _MAX_HEADER_BYTES else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise ModelError("the file is not safetensors, or it is cut short.", where=str(path))
    header.pop("__metadata__", None)
    return header


def _count(headers: list[dict[str, Any]], known: Family, tied: bool) -> tuple[int, int]:
    """Number of weights and their bytes; a tied head that is stored all the same counts once."""
    parameters = weights_bytes = 0
    for header in headers:
        for name, entry in header.items():
            if tied and name == known.head:
                continue
            parameters += math.prod(entry["shape"])
            weights_bytes += entry["data_offsets"][1] - entry["data_offsets"][0]
    return parameters, weights_bytes
