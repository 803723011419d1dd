"""Tokenizers for data: train a byte-level BPE that stock `AutoTokenizer` loads, and load any.

No torch, no transformers: only the Rust `tokenizers` library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.data.chat import PLAIN_TEMPLATE
from trimtab.spec.errors import DataError
from trimtab.text.tokenizer import eos_ids_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"


def train_bpe(texts: Iterable[str], vocabulary: int, folder: Path) -> Path:
    """Train a byte-level BPE of at most `vocabulary` ids (end-of-text is id 0) and write it to `folder`.

    Deterministic for equal texts. Returns `folder`, which it creates.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(PLAIN_TEMPLATE, encoding="utf-8")
    return folder


def load_tokenizer(folder: Path) -> Tokenizer:
    """Raises `DataError` for a folder without a readable `tokenizer.json`."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            "the folder has no tokenizer.json.",
            where=str(folder),
            remedy="Save the tokenizer with transformers' AutoTokenizer first.",
        )
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"the tokenizer cannot be read: {error}.", where=str(path)) from error


def end_of_text_id(folder: Path, tokenizer: Tokenizer) -> int:
    """The id that separates documents: the tokenizer's eos token, else the model config's first eos id."""
    named = _setting(folder / "tokenizer_config.json", "eos_token")
    if isinstance(named, dict):
        named = named.get("content")
    if isinstance(named, str) and (number := tokenizer.token_to_id(named)) is not None:
        return number
    if ids := eos_ids_of(folder):
        return ids[0]
    raise DataError("neither the tokenizer nor the config names an end-of-text token.", where=str(folder))


def _setting(path: Path, key: str) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes()).get(key)
    except (ValueError, AttributeError) as error:
        raise DataError("the file is not a JSON object.", where=str(path)) from error
