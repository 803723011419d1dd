"""Tokenizers for data: train a byte-level BPE that stock `AutoTokenizer` loads, and load any.

No torch, no transformers: only the Rust `tokenizers` library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.data.chat import PLAIN_TEMPLATE
from trimtab.spec.errors import DataError, ModelError
from trimtab.text.end_tokens import eos_ids_of
from trimtab.text.stock_tokenizer import Folder, build, read_folder
from trimtab.text.template_files import find_template

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Named tokens that encoders put around a text, and mask and pad it with.
_FRAME = ("cls_token", "sep_token", "mask_token", "pad_token")
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
    # Not `save`, which raises what tells a full disk from nothing else.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
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
        tokenizer = build(_read(folder))
    except ModelError as error:
        raise DataError(error.message, where=error.where, remedy=error.remedy) from error
    # Some folders keep what their authors cut and padded texts to.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read(folder: Path) -> Folder:
    try:
        return read_folder(folder)
    except ModelError as error:
        raise DataError(error.message, where=error.where, remedy=error.remedy) from error


def end_of_text_id(folder: Path, tokenizer: Tokenizer) -> int:
    """The id that separates documents: the tokenizer's eos token, else the model config's first eos id, else the
    separator of an encoder, or what it puts at the end of a text.
    """
    number = named_token(folder, tokenizer, "eos_token")
    ids = [number] if number is not None else eos_ids_of(folder)
    if not ids and (separator := named_token(folder, tokenizer, "sep_token")) is not None:
        ids = [separator]
    if not ids:
        encoding = tokenizer.encode("a")
        ids = encoding.ids[-1:] if encoding.special_tokens_mask[-1:] == [1] else []
    if not ids:
        raise DataError(
            "neither the tokenizer nor the config names an end-of-text token.",
            where=str(folder),
            remedy="Name one in tokenizer_config.json, as eos_token.",
        )
    return ids[0]


def needed_ids(folder: Path, *, framed: bool = False) -> dict[str, int]:
    """The ids that a model must have a row for, by the tokens' texts: those of ordinary text, of its end, of what the
    chat template writes, and of what is put around a `framed` text, and masks and pads it. Not those of other tokens
    that were only added: many folders have some that nothing ever comes to. Raises `DataError`.
    """
    tokenizer, template = load_tokenizer(folder), find_template(folder)
    written = template.source if template is not None else ""
    tokens = _read(folder).tokens
    named = {tokens.text(name) for name in ("eos_token", *(_FRAME if framed else ()))}
    if "bos_token" in written:
        named.add(tokens.text("bos_token"))
    needed = tokenizer.get_vocab(with_added_tokens=False)
    for number, added in tokenizer.get_added_tokens_decoder().items():
        if added.content in named or added.content in written:
            needed[added.content] = number
    known = set(needed.values())
    return needed | {f"end of text {n}": n for n in end_ids(folder, tokenizer) if n not in known}


def end_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """All ids that end a text or a turn of a chat."""
    return frozenset({end_of_text_id(folder, tokenizer), *eos_ids_of(folder)})


def named_token(folder: Path, tokenizer: Tokenizer, name: str) -> int | None:
    """The id of a token such as `mask_token`, which a file of the folder names or the tokenizer's class; else None."""
    text = _read(folder).tokens.text(name)
    return tokenizer.token_to_id(text) if text is not None else None
