"""The JSON files that a tokenizer's folder is made of, read within bounds; a fault is a sentence with the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from trimtab.spec.errors import ModelError

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
SPECIAL_MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
CONFIG, GENERATION = "config.json", "generation_config.json"
# Those of the largest vocabularies (256,000 pieces) have 35 MB.
MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_SETTINGS_BYTES = 16 * 2**20

Part = dict[str, Any] | None


class ModelHead(msgspec.Struct, kw_only=True):
    """What `model` says beside its vocabulary."""

    type: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    max_input_chars_per_word: int = 100
    merges: msgspec.Raw = msgspec.Raw()


class TokenizerFile(msgspec.Struct, kw_only=True):
    """`tokenizer.json`. The vocabulary stays as it was written; what texts are cut and padded to is left out."""

    model: msgspec.Raw
    version: str = "1.0"
    added_tokens: list[dict[str, Any]] = []
    normalizer: Part = None
    pre_tokenizer: Part = None
    post_processor: Part = None
    decoder: Part = None

    @property
    def head(self) -> ModelHead:
        return msgspec.json.decode(self.model, type=ModelHead)

    @property
    def kind(self) -> str | None:
        """`BPE` and the like. GPT-2's own file does not say it; None: it cannot be told."""
        head = self.head
        return head.type or ("BPE" if bytes(head.merges) else None)


def read_tokenizer_file(folder: Path) -> TokenizerFile:
    """Raises `ModelError` when it is missing, too large, or not one."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise ModelError(
            "The model has no tokenizer.json.",
            where=str(path),
            remedy="Save one beside the model: AutoTokenizer.from_pretrained(…).save_pretrained(…).",
        )
    data = _read(path, MAX_TOKENIZER_BYTES)
    try:
        file = msgspec.json.decode(data, type=TokenizerFile)
        msgspec.json.decode(file.model, type=ModelHead)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"Not a tokenizer: {error}.", where=str(path)) from error
    return file


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty for a file that is not there. NaN is taken, as transformers takes it."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path, MAX_SETTINGS_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The file is not JSON: {error}.", where=str(path)) from error
    if not isinstance(value, dict):
        raise ModelError("The file is not a JSON object.", where=str(path))
    return value


def _read(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise ModelError(f"The file has more than {limit} bytes.", where=str(path))
    return path.read_bytes()
