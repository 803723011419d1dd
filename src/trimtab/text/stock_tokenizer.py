"""A folder's tokenizer on the Rust library, equal to what `AutoTokenizer.from_pretrained` makes of the folder.

Without transformers, which costs seconds and torch. What cannot be made equal is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tokenizers import AddedToken, Tokenizer, processors

from trimtab.spec.errors import ModelError
from trimtab.text import stock_parts
from trimtab.text.components import refuse_without_measure, unbounded
from trimtab.text.folder_files import (
    CONFIG,
    SETTINGS,
    TOKENIZER,
    TokenizerFile,
    read_object,
    read_tokenizer_file,
)
from trimtab.text.library import faults_as
from trimtab.text.special_tokens import SpecialTokens, add_special_tokens, read_special_tokens
from trimtab.text.stock_class import GENERIC, OTHERS, stock_class

_SAVE_AGAIN = (
    "Save it again with AutoTokenizer.from_pretrained(…).save_pretrained(…), and set tokenizer_class to "
    "TokenizersBackend."
)
# Of tokenizer_config.json: what changes the tokenizer in ways that only transformers itself can follow.
_NOT_FOLLOWED = ("auto_map", "init_inputs", "fast_tokenizer_files", "fix_mistral_regex")


class Folder(NamedTuple):
    """What a folder's files say of its tokenizer, before it is built."""

    path: Path
    file: TokenizerFile
    name: str  # of the class
    tokens: SpecialTokens

    @property
    def cleans_up(self) -> bool:
        """Whether decoded text loses the spaces before punctuation."""
        options = self.tokens.options
        if not options.get("clean_up_tokenization_spaces"):
            return False
        despite = options.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
        return bool(despite) or self.file.kind != "BPE"

    @property
    def unbounded(self) -> str | None:
        """A part that may take more time or memory than its text deserves; None if there is none."""
        return unbounded(self.file, parts=self.name == GENERIC)


def read_folder(path: Path) -> Folder:
    """Raises `ModelError` for files that are missing or broken, and for a tokenizer that stock alone can build."""
    file = read_tokenizer_file(path)
    settings, config = read_object(path / SETTINGS), read_object(path / CONFIG)
    for key in _NOT_FOLLOWED:
        if settings.get(key):
            raise ModelError(f"{key} is not served.", where=str(path / SETTINGS), remedy=_SAVE_AGAIN)
    name = stock_class(
        _text(config.get("model_type")),
        _text(settings.get("tokenizer_class")) or _text(config.get("tokenizer_class")),
        byte_level=b'"ByteLevel"' in msgspec.json.encode(file),
    )
    if name in OTHERS:
        raise ModelError(
            f"The tokenizer's class is {name}, which builds parts of its own that are not known here.",
            where=str(path / SETTINGS),
            remedy=_SAVE_AGAIN,
        )
    tokens = read_special_tokens(path, file, stock_parts.DEFAULTS.get(name, {}))
    refuse_without_measure(file, len(tokens.listed) + len(tokens.every()), str(path / TOKENIZER))
    return Folder(path, file, name, tokens)


def read_named_tokens(path: Path) -> SpecialTokens:
    """Of a folder whose tokenizer is not built; those that its other files name, where it has none."""
    if (path / TOKENIZER).is_file():
        return read_folder(path).tokens
    return read_special_tokens(path, TokenizerFile(model=msgspec.Raw(b"{}")), {})


def build(folder: Folder, *, decodes_only: bool = False) -> Tokenizer:
    """Raises `ModelError` for what the library does not take.

    `decodes_only`: without the parts that can be `unbounded`, so that ids and texts of tokens are safe to have.
    """
    if decodes_only and folder.name == GENERIC:
        bare = msgspec.structs.replace(folder.file, normalizer=None, pre_tokenizer=None, post_processor=None)
        folder = folder._replace(file=bare)
    path = folder.path / TOKENIZER
    # What was read is what is built, whatever a file has twice.
    with faults_as(lambda fault: ModelError(f"Not a tokenizer: {fault}.", where=str(path))):
        return _generic(folder) if folder.name == GENERIC else _class(folder)


def _generic(folder: Folder) -> Tokenizer:
    rust = Tokenizer.from_str(msgspec.json.encode(folder.file).decode())
    rust.encode_special_tokens = bool(folder.tokens.options.get("split_special_tokens"))
    add_special_tokens(rust, folder.tokens)
    if rust.post_processor is None:
        rust.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1")
    return rust


def _class(folder: Folder) -> Tokenizer:
    name, tokens, kind = folder.name, folder.tokens, folder.file.kind
    if kind not in (stock_parts.MODEL_KINDS[name], None):
        raise ModelError(
            f"The class {name} is for a {stock_parts.MODEL_KINDS[name]} vocabulary, and this is one of {kind}.",
            where=str(folder.path / TOKENIZER),
            remedy=_SAVE_AGAIN,
        )
    model: Mapping[str, Any] = msgspec.json.decode(folder.file.model)
    rust = stock_parts.build(name, model, tokens.options, tokens.text("unk_token") or "None")
    if folder.file.post_processor is not None:
        rust.post_processor = _post_processor(folder.file)
    rust.encode_special_tokens = bool(tokens.options.get("split_special_tokens"))
    add_special_tokens(rust, tokens)
    _finish(rust, name, tokens)
    return rust


def _post_processor(file: TokenizerFile) -> processors.PostProcessor:
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    bare = {"version": "1.0", "model": empty, "added_tokens": [], "post_processor": file.post_processor}
    return Tokenizer.from_str(msgspec.json.encode(bare).decode()).post_processor


def _finish(rust: Tokenizer, name: str, tokens: SpecialTokens) -> None:
    """What a class does after its tokens are added."""
    if name == "Qwen2Tokenizer":
        rust.add_tokens([AddedToken(text, special=True) for text in dict.fromkeys(tokens.every())])
    if name in ("BertTokenizer", "RobertaTokenizer"):
        start, end = (tokens.text(key) or "None" for key in ("cls_token", "sep_token"))
        ids = [rust.token_to_id(text) for text in (start, end)]
        first, last = (start, ids[0] or 0), (end, ids[1] or 0)  # both were just added
        if name == "RobertaTokenizer":
            trims = (tokens.options.get("trim_offsets", True), tokens.options.get("add_prefix_space", False))
            rust.post_processor = processors.RobertaProcessing(last, first, *trims)
        else:
            rust.post_processor = processors.TemplateProcessing(
                single=f"{start}:0 $A:0 {end}:0",
                pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
                special_tokens=[first, last],
            )
    elif name == "GPTNeoXTokenizer" or rust.post_processor is None:
        rust.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
