"""The parts that transformers' tokenizer classes build in code, around the vocabulary of a `tokenizer.json`.

One function a class, as its `__init__` in transformers 5 does it. Tests hold them equal to `AutoTokenizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

Options = Mapping[str, Any]  # of tokenizer_config.json
Model = Mapping[str, Any]  # of tokenizer.json
_END = "<|endoftext|>"

# The special tokens that a class has even where no file names them.
# None: it has none, whatever tokenizer.json pads with.
DEFAULTS: Mapping[str, Mapping[str, str | None]] = {
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "Qwen2Tokenizer": {"unk_token": _END, "eos_token": _END, "pad_token": _END},
    "GPT2Tokenizer": {"unk_token": _END, "bos_token": _END, "eos_token": _END, "pad_token": None},
    "GPTNeoXTokenizer": {
        "unk_token": _END,
        "bos_token": _END,
        "eos_token": _END,
        "pad_token": "<|padding|>",
    },
    "GemmaTokenizer": {
        "unk_token": "<unk>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    "BertTokenizer": {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    "RobertaTokenizer": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
}
MODEL_KINDS: Mapping[str, str] = {
    name: "WordPiece" if name == "BertTokenizer" else "BPE" for name in DEFAULTS
}

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build(name: str, model: Model, options: Options, unknown: str) -> Tokenizer:
    """A tokenizer without its added tokens and post-processor. `unknown` is its unknown token's text."""
    return _BUILDERS[name](model, options, unknown)


def _bpe(model: Model, **options: Any) -> models.BPE:
    merges: list[tuple[str, str]] = []
    for pair in model["merges"]:
        first, second = pair.split(" ") if isinstance(pair, str) else pair
        merges.append((first, second))
    return models.BPE(vocab=dict(model["vocab"]), merges=merges, **options)


def _byte_bpe(model: Model) -> Tokenizer:
    rust = Tokenizer(_bpe(model, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False))
    rust.decoder = decoders.ByteLevel()
    return rust


def _llama(model: Model, options: Options, _unknown: str) -> Tokenizer:
    rust = Tokenizer(_bpe(model, fuse_unk=True, byte_fallback=True))
    prefix = options.get("add_prefix_space")
    prefix = True if prefix is None else prefix
    scheme = ("always" if options.get("legacy", False) else "first") if prefix else "never"
    rust.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps: list[decoders.Decoder] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    rust.decoder = decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)] if prefix else steps)
    return rust


def _gemma(model: Model, _options: Options, unknown: str) -> Tokenizer:
    rust = Tokenizer(_bpe(model, fuse_unk=True, unk_token=unknown, byte_fallback=True))
    rust.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    rust.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    rust.normalizer = normalizers.Replace(" ", "▁")
    return rust


def _qwen2(model: Model, options: Options, _unknown: str) -> Tokenizer:
    rust = _byte_bpe(model)
    rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=bool(options.get("add_prefix_space")), use_regex=False),
        ]
    )
    return rust


def _gpt2(model: Model, options: Options, _unknown: str) -> Tokenizer:
    rust = _byte_bpe(model)
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=options.get("add_prefix_space", False))
    return rust


def _gpt_neox(model: Model, options: Options, _unknown: str) -> Tokenizer:
    rust = _byte_bpe(model)
    rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=options.get("add_prefix_space", False),
        trim_offsets=options.get("trim_offsets", True),
    )
    return rust


def _bert(model: Model, options: Options, unknown: str) -> Tokenizer:
    rust = Tokenizer(models.WordPiece(vocab=dict(model["vocab"]), unk_token=unknown))
    rust.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece(prefix="##")
    return rust


_BUILDERS: Mapping[str, Callable[[Model, Options, str], Tokenizer]] = {
    "LlamaTokenizer": _llama,
    "Qwen2Tokenizer": _qwen2,
    "GPT2Tokenizer": _gpt2,
    "GPTNeoXTokenizer": _gpt_neox,
    "GemmaTokenizer": _gemma,
    "BertTokenizer": _bert,
    "RobertaTokenizer": _gpt2,
}
