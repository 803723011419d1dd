"""A model's tokenizer, on the Rust `tokenizers` library: text to ids, ids to text, and each id's own bytes.

Torch-free and thread-safe. Knows nothing of requests or engines. `pieces` gives the bytes that a token adds
to the text, which is what incremental decoding and log-probability reports are made of.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from trimtab.spec.errors import EngineError, UsageError
from trimtab.text.end_tokens import eos_ids_of
from trimtab.text.guarded import GuardedEncoder
from trimtab.text.library import faults_as
from trimtab.text.stock_tokenizer import build, read_folder

Kind = Literal["bytes", "pieces", "other"]
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
# What transformers' `clean_up_tokenization_spaces` draws near, in its order.
_CLEANED_UP = (".", "?", "!", ",", "' ", "n't", "'m", "'s", "'ve", "'re")
_UNDERLINE = "▁"  # stands for a space in vocabularies that come from sentencepiece


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: every byte has a printable character, if need be one from 256 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Pieces(dict[int, bytes]):
    """id → the bytes it adds to the text, filled in when first asked for. Unknown ids add nothing."""

    def __init__(self, rust: tokenizers.Tokenizer, kind: Kind) -> None:
        super().__init__()
        self._rust, self._kind, self._bytes = rust, kind, _byte_of_character()

    def __missing__(self, token: int) -> bytes:
        self[token] = piece = self._make(token)
        return piece

    def _make(self, token: int) -> bytes:
        written = self._rust.id_to_token(token) if 0 <= token < 2**31 else None
        if written is None:
            return b""
        if self._kind == "bytes":
            found = [self._bytes.get(character) for character in written]
            # The library keeps a token as it stands when one of its characters is outside the table.
            return written.encode() if None in found else bytes(byte for byte in found if byte is not None)
        if self._kind == "pieces":
            byte = _BYTE_TOKEN.fullmatch(written)
            return bytes((int(byte[1], 16),)) if byte else written.replace(_UNDERLINE, " ").encode()
        # Behind itself, for some decoders strip the first space of a text, which then is no part of the token.
        alone, twice = (self._rust.decode([token] * times, skip_special_tokens=False) for times in (1, 2))
        return (twice.removeprefix(alone) if twice != alone else alone).encode()


class Texts(dict[int, str | None]):
    """id → the text it adds if nothing is held back, None for a part of a character."""

    def __init__(self, pieces: Pieces) -> None:
        super().__init__()
        self._pieces = pieces

    def __missing__(self, token: int) -> str | None:
        try:
            text = self._pieces[token].decode()
        except UnicodeDecodeError:
            text = None
        self[token] = text
        return text


def _refused(fault: str) -> UsageError:
    return UsageError(f"The model's tokenizer cannot encode the text: {fault}.", where="prompt")


def _undecodable(fault: str) -> EngineError:
    return EngineError(f"The model's tokenizer cannot decode what was generated: {fault}.")


class Tokenizer:
    """`eos_ids` end a text. `special_ids` never show in decoded text. `kind` says how ids become bytes.

    `added`: the tokens that are found in a text before all else. `guarded`: texts are encoded in another process,
    because the tokenizer may take more time or memory than they deserve.
    """

    def __init__(
        self,
        rust: tokenizers.Tokenizer,
        eos_ids: tuple[int, ...] = (),
        *,
        cleans_up: bool = False,
        guard: GuardedEncoder | None = None,
    ) -> None:
        """`cleans_up`: decoded text loses the spaces before punctuation."""
        rust.no_truncation()
        rust.no_padding()
        self._rust, self.cleans_up, self._guard = rust, cleans_up, guard
        self.guarded = guard is not None
        self.eos_ids = eos_ids
        self.vocabulary_size = rust.get_vocab_size(with_added_tokens=True)
        self.added: dict[int, tokenizers.AddedToken] = rust.get_added_tokens_decoder()
        self.special_ids = frozenset(token for token, added in self.added.items() if added.special)
        self.kind, self.strips_space = ("other", False) if cleans_up else _decoder_kind(rust)
        self.pieces = Pieces(rust, self.kind)
        self.texts = Texts(self.pieces)

    @classmethod
    def load(cls, folder: Path, *, guard: bool = True) -> Tokenizer:
        """Equal to transformers' `AutoTokenizer.from_pretrained(folder)`. Raises `ModelError` where it cannot be.

        `guard` False: here, whatever its parts may take.
        """
        found = read_folder(folder)
        guard = guard and found.unbounded is not None
        rust = build(found, decodes_only=guard)
        return cls(
            rust,
            eos_ids_of(folder),
            cleans_up=found.cleans_up,
            guard=GuardedEncoder(folder) if guard else None,
        )

    @classmethod
    def of_bytes(cls) -> Tokenizer:
        """256 ids, one a byte: what a service without a model speaks."""
        rust = tokenizers.Tokenizer(models.BPE(vocab=_byte_of_character(), merges=[]))
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        rust.decoder = decoders.ByteLevel()
        return cls(rust)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Raises `UsageError` for a text that the tokenizer does not take."""
        return self.encode_many([text], add_special_tokens=add_special_tokens)[0]

    def encode_many(self, texts: list[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """All at once, over the library's own threads."""
        if self._guard is not None:
            return self._guard.encode(texts, add_special_tokens=add_special_tokens)
        with faults_as(_refused):
            # Without places in the text, which nobody asks for: a fourth of the time for a long one.
            found = self._rust.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [each.ids for each in found]

    def encode_plain(self, text: str) -> list[int]:
        """As if no token had been added: whatever the text spells, it is cut into the pieces of a text."""
        if self._guard is not None:
            return self._guard.encode([text], add_special_tokens=False, plain=True)[0]
        rust = self._rust
        with faults_as(_refused):
            text = self.normalize(text)
            words = [text]
            if rust.pre_tokenizer is not None:
                words = [word for word, _ in rust.pre_tokenizer.pre_tokenize_str(text)]
            return [token.id for word in words for token in rust.model.tokenize(word)]

    def normalize(self, text: str) -> str:
        """As tokens see it that are looked for in normalized text. Not known of a guarded one."""
        return text if self._rust.normalizer is None else self._rust.normalizer.normalize_str(text)

    def close(self) -> None:
        if self._guard is not None:
            self._guard.close()

    def written(self, token: int) -> str | None:
        """A token as the vocabulary has it (a special one's markup); None for an id outside of it."""
        return self._rust.id_to_token(token) if 0 <= token < 2**31 else None

    def decode(self, ids: list[int]) -> str:
        """Special tokens and ids outside the vocabulary leave no trace."""
        return self._decode(ids, skip_special_tokens=True)

    def decode_all(self, ids: list[int]) -> str:
        """With the special tokens."""
        return self._decode(ids, skip_special_tokens=False)

    def every_token(self) -> dict[int, str]:
        """All ids, and how the vocabulary writes them. Takes long."""
        return {token: text for text, token in self._rust.get_vocab(with_added_tokens=True).items()}

    def knows(self, token: int) -> bool:
        """Whether an id stands for something."""
        return 0 <= token < 2**31 and self._rust.id_to_token(token) is not None

    def _decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        with faults_as(_undecodable):
            text = self._rust.decode(ids, skip_special_tokens=skip_special_tokens)
        if self.cleans_up:
            for ending in _CLEANED_UP:
                text = text.replace(" " + ending, ending.rstrip())
        return text


def _decoder_kind(rust: tokenizers.Tokenizer) -> tuple[Kind, bool]:
    """How tokens turn into bytes, and whether the very first space of a text is dropped."""
    decoder = rust.decoder
    if decoder is None:
        return "other", False
    state = msgspec.json.decode(decoder.__getstate__())
    steps = state.get("decoders", [state])
    names = [step["type"] for step in steps]
    if names == ["ByteLevel"]:
        return "bytes", False
    replaces = bool(names) and names[0] == "Replace" and steps[0].get("pattern") == {"String": _UNDERLINE}
    if replaces and steps[0].get("content") == " " and names[1:3] == ["ByteFallback", "Fuse"]:
        if len(steps) == 3:
            return "pieces", False
        strip = steps[3]
        if (
            len(steps) == 4
            and strip["type"] == "Strip"
            and (strip["content"], strip["start"], strip["stop"]) == (" ", 1, 0)
        ):
            return "pieces", True
    return "other", False
