"""The shape of a decoder as the cost models see it, and its exact number of parameters.

Two kinds: `gpt` (LayerNorm with bias, biases everywhere, learned positions, two matrices in the FFN) and
`llama` (RMSNorm, no biases but those named, three matrices in the FFN). The families that we train are these
two with switches. A test holds the counts against the real modules.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal, cast, get_args

import msgspec

from trimtab.spec.errors import UsageError

Kind = Literal["gpt", "llama"]
# Keys of `--arch` whose names differ from the record's.
_ALIASES = {"vocab": "vocabulary"}
_REQUIRED = ("family", "layers", "hidden", "heads", "vocabulary")
_SWITCHES = ("tied", "attention_bias", "query_key_norm")
_MAX = 10**9


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Dimensions of a decoder. `ffn` is the width of the FFN's inner layer, `positions` learned ones (gpt).

    `attention_bias`: biases on queries, keys and values (Qwen2). `query_key_norm`: RMSNorm on heads (Qwen3).
    """

    family: Kind
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tied: bool
    positions: int = 0
    attention_bias: bool = False
    query_key_norm: bool = False

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def gates(self) -> int:
        """Matrices of the FFN that read the hidden state: SwiGLU has two."""
        return 2 if self.family == "llama" else 1

    @property
    def layer_matrices(self) -> int:
        """Weights of one layer's matrices, which tensor parallelism shares evenly."""
        attention = self.hidden * (2 * self.query_width + 2 * self.kv_width)
        return attention + (self.gates + 1) * self.hidden * self.ffn

    @property
    def layer_vectors_split(self) -> int:
        """Biases of column-parallel matrices, which tensor parallelism shares too."""
        biases = self.query_width + 2 * self.kv_width if self.attention_bias else 0
        return biases + (self.ffn if self.family == "gpt" else 0)

    @property
    def layer_vectors_whole(self) -> int:
        """Norms and the biases of row-parallel matrices: every tensor-parallel rank has them."""
        if self.family == "gpt":
            return 6 * self.hidden
        return 2 * self.hidden + (2 * self.head_dim if self.query_key_norm else 0)

    @property
    def layer_parameters(self) -> int:
        return self.layer_matrices + self.layer_vectors_split + self.layer_vectors_whole

    @property
    def embedding(self) -> int:
        """Weights of the token embedding, and of an untied head."""
        return self.vocabulary * self.hidden

    @property
    def final_norm(self) -> int:
        return self.hidden * (2 if self.family == "gpt" else 1)

    @property
    def position_parameters(self) -> int:
        return self.positions * self.hidden

    @property
    def parameters(self) -> int:
        """All of them; a tied head counts once."""
        tables = self.embedding * (1 if self.tied else 2) + self.position_parameters
        return self.layers * self.layer_parameters + tables + self.final_norm


def architecture(values: Mapping[str, object], *, sequence_length: int, where: str) -> Architecture:
    """`--arch`'s mapping → Architecture, checked. Raises `UsageError` naming the key.

    Defaults: as many key-value heads as heads, `head_dim` hidden ÷ heads; for `gpt` a FFN of 4 × hidden, a
    tied head, biases, and as many learned positions as the sequence is long; `llama` must name its `ffn`.
    """
    named = {_ALIASES.get(key, key): value for key, value in values.items()}
    _check_names(named, where)
    _check_values(named, where)
    gpt = named["family"] == "gpt"
    hidden, heads = cast("int", named["hidden"]), cast("int", named["heads"])
    if "head_dim" not in named and hidden % heads:
        raise UsageError(
            f"{heads} heads do not divide a hidden size of {hidden}.",
            where=where,
            remedy=f"Nearest that do: {_nearest_divisor(hidden, heads)} heads; or name head_dim.",
        )
    defaults = {
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "ffn": 4 * hidden,
        "tied": gpt,
        "attention_bias": gpt,
        "positions": sequence_length if gpt else 0,
    }
    return check(msgspec.convert(defaults | named, Architecture), where=where)


def _check_names(named: Mapping[str, object], where: str) -> None:
    for key in named:
        if key not in Architecture.__struct_fields__:
            near = difflib.get_close_matches(key, [*Architecture.__struct_fields__, *_ALIASES], n=1)
            raise UsageError(
                f"{key!r} is no key of an architecture.",
                where=where,
                remedy=f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(_spelled())}.",
            )
    for key in _REQUIRED:
        if key not in named:
            raise UsageError(f"the architecture names no {_spelling(key)}.", where=where, remedy="Add it.")
    if named["family"] not in get_args(Kind):
        raise UsageError(
            f"family {named['family']!r} is unknown.",
            where=where,
            remedy=f"Use {' or '.join(get_args(Kind))}.",
        )
    if named["family"] == "llama" and "ffn" not in named:
        raise UsageError("a llama names no ffn.", where=where, remedy="Add the inner width, such as 14336.")


def _check_values(named: Mapping[str, object], where: str) -> None:
    for key, value in named.items():
        if key in _SWITCHES:
            if not isinstance(value, bool):
                raise UsageError(f"{key} is {value!r}.", where=where, remedy="Use true or false.")
        elif key != "family":
            # A model without learned positions has none of them.
            least = 0 if key == "positions" else 1
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX:
                raise UsageError(
                    f"{_spelling(key)} is {value!r}.", where=where, remedy=f"A whole number from {least} up."
                )


def check(shape: Architecture, *, where: str) -> Architecture:
    """Raises `UsageError` for heads that do not share their keys and values evenly."""
    if shape.heads % shape.kv_heads:
        raise UsageError(
            f"{shape.kv_heads} key-value heads do not divide {shape.heads} heads.",
            where=where,
            remedy=f"Nearest that do: {_nearest_divisor(shape.heads, shape.kv_heads)}.",
        )
    return shape


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = [d for d in range(1, min(number, 4096) + 1) if number % d == 0]
    return min(divisors, key=lambda d: (abs(d - wanted), d))


def _spelling(key: str) -> str:
    return {field: alias for alias, field in _ALIASES.items()}.get(key, key)


def _spelled() -> list[str]:
    return [_spelling(field) for field in Architecture.__struct_fields__]
