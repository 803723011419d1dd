"""The ids that end a text, from all files of a folder that name some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.spec.errors import ModelError
from trimtab.text.folder_files import CONFIG, GENERATION, TOKENIZER, read_object
from trimtab.text.stock_class import GENERIC
from trimtab.text.stock_tokenizer import build, read_folder

# What an absent `eos_token_id` of `config.json` means, by model type; for other types: none.
CLASS_DEFAULTS: Mapping[str, int] = {"llama": 2, "mistral": 2, "gpt2": 50256, "roberta": 2}


def eos_ids_of(folder: Path) -> tuple[int, ...]:
    """Those of `generation_config.json`, those of `config.json`, and the tokenizer's eos token, in this order.

    A fine-tuned folder often names the end of a turn (`<|im_end|>`) in one of the three alone. null means none. A
    `config.json` that does not speak of it means the default of its class, unless `generation_config.json` names
    one. What comes by default, or from the tokenizer, counts only where the model has a row for it.
    """
    config, generation = read_object(folder / CONFIG), read_object(folder / GENERATION)
    found = _ids(generation, folder / GENERATION)
    said = _ids(config, folder / CONFIG)
    rows = config.get("vocab_size")
    rows = rows if isinstance(rows, int) else 2**31
    implied = [_of_tokenizer(folder)]
    if "eos_token_id" not in config and not found:
        implied.insert(0, CLASS_DEFAULTS.get(str(config.get("model_type"))))
    return tuple(dict.fromkeys([*found, *said, *(n for n in implied if n is not None and n < rows)]))


def _ids(settings: Mapping[str, Any], path: Path) -> list[int]:
    value = settings.get("eos_token_id")
    if value is None:
        return []
    ids = value if isinstance(value, list) else [value]
    for number in ids:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
            raise ModelError(
                f"eos_token_id is {value!r}, neither a token's id nor a list of them.",
                where=str(path),
                remedy="Give whole numbers from 0 on, or null for none.",
            )
    return ids


def _of_tokenizer(folder: Path) -> int | None:
    """Without building the tokenizer where it can be helped: that takes long for a large vocabulary."""
    if not (folder / TOKENIZER).is_file():
        return None
    found = read_folder(folder)
    text = found.tokens.text("eos_token")
    if text is None:
        return None
    if found.name == GENERIC:
        for record in found.file.added_tokens:
            if record.get("content") == text:
                return record["id"]
    return build(found, decodes_only=True).token_to_id(text)
