"""What the parts of a `tokenizer.json` may do to time and memory. It comes with a model, so it is not trusted.

Parts of known kinds take time in proportion to a text and do not make it much longer; a tokenizer of nothing else
runs in the process that serves. Anything else (a regular expression of nobody we know, a table of replacements,
Unigram) is run in a process of its own, which can be killed: `unbounded` says what it is. What decodes runs in the
service in any case, so decoders of other kinds are refused, and so are lists without measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trimtab.spec.errors import ModelError
from trimtab.text.folder_files import TokenizerFile

MAX_ADDED_TOKENS = 2**16
MAX_ADDED_CHARACTERS = 2**22
_MAX_STEPS = 16
_MAX_WORD = 200  # WordPiece tries every end of a word from every place
_SHORT = 16

# Of GPT-2, GPT-4, Llama 3, Qwen 2 and 3, o200k, Mistral, StarCoder, Falcon, DeepSeek and their kin. Measured: a
# million characters of the worst kinds take no longer than others do.
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MARKED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
KNOWN_PATTERNS = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
        _CL100K % "",
        _CL100K % "{1,3}",
        _MARKED,
        _CASED % ("", "", ""),
        _CASED % ("", "", "{1,3}"),
        _CASED % (_ENDING, _ENDING, "{1,3}"),
        r"\p{N}{1,3}",
        r"\p{N}",
        r"\d",
        r"[0-9]",
        r"[0-9][0-9][0-9]",
        r"[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        r"[一-龥ࠀ-一가-퟿]+",
        " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+",
        r" {2,}",
        r"\s+",
    }
)

Part = Mapping[str, Any]
Check = Callable[[Part], bool]


def _always(_part: Part) -> bool:
    return True


def _pattern(part: Part) -> bool:
    pattern = part["pattern"]
    return len(pattern) == 1 and (bool(pattern.get("String")) or pattern.get("Regex") in KNOWN_PATTERNS)


def _replaces(part: Part) -> bool:
    """By nothing longer: several that make a text longer make it longer without measure."""
    return _pattern(part) and len(part["content"]) <= len(part["pattern"].get("String", " "))


def _replaces_text(part: Part) -> bool:
    return _replaces(part) and "String" in part["pattern"]


def _short(*keys: str) -> Check:
    return lambda part: all(len(part.get(key) or "") <= _SHORT for key in keys)


def _strips_the_front(part: Part) -> bool:
    # The library panics where it strips the end of a text that is too short.
    return len(part["content"]) == 1 and part["stop"] == 0 and 0 <= part["start"] <= _SHORT


def _template(part: Part) -> bool:
    """Adds some tokens to a text, and does not take the text twice."""
    single, ids = part["single"], part["special_tokens"]
    texts = sum("Sequence" in step for step in single)
    longest = max([len(each["ids"]) for each in ids.values()], default=0)
    return isinstance(single, list) and len(single) <= _MAX_STEPS and texts <= 1 and longest <= _SHORT


NORMALIZERS: Mapping[str, Check] = {
    **dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents", "Lowercase", "Strip"), _always),
    **dict.fromkeys(("BertNormalizer", "ByteLevel"), _always),
    "Prepend": _short("prepend"),
    "Replace": _replaces,
}
PRE_TOKENIZERS: Mapping[str, Check] = {
    **dict.fromkeys(("ByteLevel", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Metaspace"), _always),
    **dict.fromkeys(
        ("Digits", "Punctuation", "UnicodeScripts", "CharDelimiterSplit", "FixedLength"), _always
    ),
    "Split": _pattern,
}
POST_PROCESSORS: Mapping[str, Check] = {
    **dict.fromkeys(("ByteLevel", "RobertaProcessing", "BertProcessing"), _always),
    "TemplateProcessing": _template,
}
DECODERS: Mapping[str, Check] = {
    **dict.fromkeys(("ByteLevel", "ByteFallback", "Fuse", "Metaspace"), _always),
    "WordPiece": _short("prefix"),
    "BPEDecoder": _short("suffix"),
    "CTC": _short("pad_token", "word_delimiter_token"),
    "Replace": _replaces_text,
    "Strip": _strips_the_front,
}
# Which key of a Sequence holds its steps.
_STEPS = ("normalizers", "pretokenizers", "processors", "decoders")


def refuse_without_measure(file: TokenizerFile, added: int, where: str) -> None:
    """Raises `ModelError` for a decoder of an unknown kind, and for added tokens without number.

    `added`: how many tokens other files add.
    """
    if (name := _stranger(file.decoder, DECODERS)) is not None:
        raise ModelError(f"The decoder {name} is of a kind that is not served.", where=where)
    count = max(len(file.added_tokens), added)
    characters = sum(len(str(token.get("content"))) for token in file.added_tokens)
    if count > MAX_ADDED_TOKENS or characters > MAX_ADDED_CHARACTERS:
        raise ModelError(f"There are {count} added tokens, more than are served.", where=where)


def unbounded(file: TokenizerFile, *, parts: bool) -> str | None:
    """Names a part that may take more time or memory than its text deserves; None if there is none.

    `parts` False: normalizer and pre-tokenizer are not the file's, but those of a known class.
    """
    kinds = [(file.post_processor, POST_PROCESSORS)]
    if parts:
        kinds += [(file.normalizer, NORMALIZERS), (file.pre_tokenizer, PRE_TOKENIZERS)]
    strangers = (_stranger(part, known) for part, known in kinds)
    return next(filter(None, strangers), None) or _strange_model(file)


def _strange_model(file: TokenizerFile) -> str | None:
    model = file.head
    affixes = (model.continuing_subword_prefix or "") + (model.end_of_word_suffix or "")
    long_words = file.kind == "WordPiece" and model.max_input_chars_per_word > _MAX_WORD
    known = file.kind in ("BPE", "WordPiece", "WordLevel")
    return None if known and not long_words and len(affixes) <= _SHORT else f"model {file.kind}"


def _stranger(part: Part | None, known: Mapping[str, Check], depth: int = 0) -> str | None:
    if part is None:
        return None
    kind = str(part.get("type"))
    if kind != "Sequence":
        check = known.get(kind)
        return None if check is not None and _holds(check, part) else kind
    steps = next((part[key] for key in _STEPS if key in part), [])
    if depth > 1 or not isinstance(steps, list) or len(steps) > _MAX_STEPS:
        return kind
    return next(filter(None, (_stranger(step, known, depth + 1) for step in steps)), None)


def _holds(check: Check, part: Part) -> bool:
    try:
        return check(part)
    except (TypeError, AttributeError, KeyError):  # not what a part of this kind has
        return False
