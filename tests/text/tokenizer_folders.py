"""Tokenizers of every kind, small, and the folders that hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "def read(self):\n    return self.ok",
    "größer als 5 €",
    "日本語のテキスト",
    "a 🎉 b",
    "x = 'é'",
    "Hello world and again, I'm here.",
] * 3
SAMPLES = [
    "",
    " ",
    "Hello world and again",
    "  two  spaces, I'm 123456 years\n\n old ",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|> assistant",
    "größer 日本語 🎉 e\u0301 ﬁ",
    "<s>a</s> b<unk>[CLS] x [SEP] <|endoftext|>y",
    "x<extra> <extra>y<EXTRA>",
]


def byte_level(*special: str, size: int = 340, prefix: bool = False) -> Tokenizer:
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special or ("<|endoftext|>",)),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(TEXTS, trainer)
    return rust


def sentencepiece(*, scheme: str | None = None, strip: bool = True, bos: bool = True) -> Tokenizer:
    """Byte fallback and ▁. `scheme`: Metaspace as Llama's class builds it; None: as older files have it."""
    vocabulary = {text: place for place, text in enumerate(["<unk>", "<s>", "</s>"])}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    for piece in "▁abcdefghijklmnopqrstuvwxyzHW,.é日":
        vocabulary.setdefault(piece, len(vocabulary))
    merges = []
    for word in ("▁Hello", "▁world", "▁and", "▁again", "▁▁"):
        for end in range(1, len(word)):
            if word[: end + 1] not in vocabulary:
                vocabulary[word[: end + 1]] = len(vocabulary)
                merges.append((word[:end], word[end]))
    rust = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    rust.add_special_tokens(["<unk>", "<s>", "</s>"])
    if scheme is None:
        rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    rust.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    if bos:
        rust.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    return rust


def metaspace(scheme: str) -> Tokenizer:
    """The decoder of T5's kind, without bytes."""
    rust = sentencepiece(scheme=scheme, bos=False)
    rust.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return rust


def wordpiece() -> Tokenizer:
    words = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[MASK]",
        "hello",
        "##ly",
        "world",
        ",",
        "##s",
        "'",
        "t",
        ".",
    ]
    rust = Tokenizer(models.WordPiece(vocab={word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer()
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece()
    rust.add_special_tokens(words[:5])
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return rust


def unigram() -> Tokenizer:
    pieces = [
        ("<unk>", 0.0),
        ("▁", -2.0),
        ("▁hello", -3.0),
        ("▁wor", -4.0),
        ("ld", -4.0),
        ("s", -3.0),
        ("é", -5.0),
    ]
    rust = Tokenizer(models.Unigram([*pieces, *((c, -9.0) for c in "abcdefghijklmnopqrtuvwxyz")], unk_id=0))
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.decoder = decoders.Metaspace()
    return rust


def word_ends() -> Tokenizer:
    """Words end in a mark of their own, as CTRL's and CLIP's do."""
    words = ["<unk>", "a", "b</w>", "cat</w>", "s</w>", "-"]
    rust = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[], unk_token="<unk>"))
    rust.decoder = decoders.BPEDecoder()
    return rust


def record(content: str, **flags: bool) -> dict[str, Any]:
    usual = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **usual, **flags}


def write(folder: Path, rust: Tokenizer, settings: dict[str, Any] | None = None, **files: Any) -> Path:
    """`settings` are tokenizer_config.json; `files` are others, by stem (`config`: the model's own)."""
    folder.mkdir(parents=True, exist_ok=True)
    rust.save(str(folder / "tokenizer.json"))
    if settings is not None:
        files["tokenizer_config"] = settings
    for stem, value in {"config": {"model_type": "llama"}, **files}.items():
        if value is not None:
            (folder / f"{stem}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder
