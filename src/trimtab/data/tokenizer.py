"""Tokenizers for data: train a byte-level BPE that stock `AutoTokenizer` loads, and load any.

No torch, no transformers: only the Rust `tokenizers` library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.data.chat import PLAIN_TEMPLATE
from trimtab.spec.errors import DataError, ModelError
from trimtab.text.end_tokens import eos_ids_of
from trimtab.text.stock_tokenizer import build, read_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
PAD, UNKNOWN, START, SEPARATOR, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"

_ENCODER_TOKENS = {
    "pad_token": PAD,
    "unk_token": UNKNOWN,
    "cls_token": START,
    "sep_token": SEPARATOR,
    "mask_token": MASK,
}


def train_bpe(texts: Iterable[str], vocabulary: int, folder: Path, *, encoder: bool = False) -> Path:
    """Train a byte-level BPE of at most `vocabulary` ids and write it to `folder`.

    Its special tokens, which come first, are a decoder's end of text, or those of an `encoder`: padding, unknown,
    start, separator and mask. Deterministic for equal texts. Returns `folder`, which it creates.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    # A word takes its leading space along; so a mask that stands for a word must.
    mask = AddedToken(MASK, lstrip=True, special=True)
    special = [PAD, UNKNOWN, START, SEPARATOR, mask] if encoder else [END_OF_TEXT]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if encoder:
        ends = [(name, tokenizer.token_to_id(name)) for name in (START, SEPARATOR)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {SEPARATOR}",
            pair=f"{START} $A {SEPARATOR} $B:1 {SEPARATOR}:1",
            special_tokens=ends,
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = _ENCODER_TOKENS if encoder else {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    if not encoder:
        (folder / "chat_template.jinja").write_text(PLAIN_TEMPLATE, encoding="utf-8")
    return folder


def load_tokenizer(folder: Path) -> Tokenizer:
    """The one that is served, and `AutoTokenizer`'s. It neither cuts nor pads.

    Raises `DataError` for a folder without a readable `tokenizer.json`.
    """
    try:
        tokenizer = build(read_folder(folder))
    except ModelError as error:
        raise DataError(error.message, where=error.where, remedy=error.remedy) from error
    # Some folders keep what their authors cut and padded texts to.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_of_text_id(folder: Path, tokenizer: Tokenizer) -> int:
    """The id that separates documents: the tokenizer's eos token, else the model config's first eos id, else the
    separator of an encoder.
    """
    number = named_token(folder, tokenizer, "eos_token")
    ids = [number] if number is not None else eos_ids_of(folder)
    if not ids and (separator := named_token(folder, tokenizer, "sep_token")) is not None:
        ids = [separator]
    if not ids:
        raise DataError("neither the tokenizer nor the config names an end-of-text token.", where=str(folder))
    return ids[0]


def named_token(folder: Path, tokenizer: Tokenizer, name: str) -> int | None:
    """The id of a token that `tokenizer_config.json` names, such as `mask_token`; None if it names none."""
    named = _setting(folder / "tokenizer_config.json", name)
    if isinstance(named, dict):
        named = named.get("content")
    return tokenizer.token_to_id(named) if isinstance(named, str) else None


def _setting(path: Path, key: str) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes()).get(key)
    except (ValueError, AttributeError) as error:
        raise DataError("the file is not a JSON object.", where=str(path)) from error
