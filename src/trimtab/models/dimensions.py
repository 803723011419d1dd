"""What a decoder's `config.json` says, read as stock transformers reads it, or refused. No torch.

An absent key means the config class's default (`Family.defaults`); null means what the class makes of it, and
where that is nothing, it is refused. Values that the class would take and the model could not be built or run
with are refused here, before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.models.families import Family
from trimtab.spec.errors import ModelError

# Positions beyond any model's; what else has a size is held against the weights.
MAX_CONTEXT = 1 << 24
_SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias")
_EPSILONS = ("rms_norm_eps", "layer_norm_epsilon")
_ROPE_TYPES = frozenset({"default", "linear", "dynamic", "yarn", "longrope", "llama3"})
_ROPE_KEYS = ("rope_parameters", "rope_scaling")
_ROPE_NUMBERS = ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")
_DTYPES = frozenset({"float32", "float16", "bfloat16", "float64", "auto"})


class _Reader:
    """Numbers of one config by key, or a sentence that names file and key."""

    def __init__(self, config: Mapping[str, Any], known: Family, where: str) -> None:
        self._config, self._known, self._where = config, known, where

    def value(self, key: str) -> Any:
        other = self._known.aliases.get(key, key)
        if other in self._config and self._config.get(key, self._config[other]) != self._config[other]:
            raise self.refusal(key, f"and {other} differ", "Keep one of the two.")
        return self._config.get(other, self._config.get(key, self._known.defaults.get(key)))

    def number(self, key: str) -> int:
        value = self.value(key)
        if type(value) is not int or value < 1:
            raise self.refusal(key, f"is {value!r}, not a positive whole number")
        return value

    def number_or(self, key: str | None, otherwise: int) -> int:
        """`otherwise` is for a family without the key, for one that is absent, and for null where that is taken."""
        if key is None:
            return otherwise
        if self.value(key) is not None:
            return self.number(key)
        if key in self._config and key in self._known.not_null:
            raise self.refusal(key, "is null", "Name it, or leave the key out.")
        return otherwise

    def refusal(
        self, key: str, what: str, remedy: str = "Use the config that belongs to the weights."
    ) -> ModelError:
        return ModelError(f"{key} {what}.", where=self._where, remedy=remedy)


def dimensions(config: Mapping[str, Any], known: Family, where: Path) -> dict[str, int]:
    """`layers`, `hidden`, … of a config in the file `where`. Raises `ModelError` for what cannot be a model."""
    read, keys = _Reader(config, known, str(where)), known.keys
    hidden, heads = read.number(keys.hidden), read.number(keys.heads)
    names_head_dim = keys.head_dim is not None and read.value(keys.head_dim) is not None
    if hidden % heads and not (names_head_dim and known.free_head_dim):
        raise read.refusal(keys.hidden, f"({hidden}) is no multiple of {keys.heads} ({heads})")
    kv_heads = read.number_or(keys.kv_heads, heads)
    head_dim = read.number_or(keys.head_dim, hidden // heads)
    if heads % kv_heads:
        raise read.refusal(keys.heads, f"({heads}) is no multiple of {keys.kv_heads} ({kv_heads})")
    if known.rotary and head_dim % 2:
        raise read.refusal("head_dim", f"is {head_dim}, and rotary positions turn pairs", "It must be even.")
    if (context := read.number(keys.context)) > MAX_CONTEXT:
        raise read.refusal(keys.context, f"is {context}, more than {MAX_CONTEXT}")
    _check_others(read, config)
    return {
        "layers": read.number(keys.layers),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "ffn": read.number_or(keys.ffn, 4 * hidden),
        "vocabulary": read.number("vocab_size"),
        "context": context,
    }


def says_tied(config: Mapping[str, Any], known: Family) -> bool:
    """What the config says. Files that hold a head of its own have the last word (`models.expected`)."""
    return bool(config.get("tie_word_embeddings", known.tied))


def _check_others(read: _Reader, config: Mapping[str, Any]) -> None:
    """Switches, numbers and words that transformers takes as they come, and fails on later without naming them."""
    for key in _SWITCHES:
        if key in config and not isinstance(config[key], bool):
            raise read.refusal(key, f"is {config[key]!r:.40}", "Use true or false.")
    for key in _EPSILONS:
        if key in config and not _is_number(config[key]):
            raise read.refusal(key, f"is {config[key]!r:.40}, not a number")
    for key in ("dtype", "torch_dtype"):
        if config.get(key) is not None and str(config[key]) not in _DTYPES:
            raise read.refusal(key, f"is {config[key]!r:.40}", f"Use one of {', '.join(sorted(_DTYPES))}.")
    if config.get("rope_theta") is not None and not _is_positive(config["rope_theta"]):
        raise read.refusal("rope_theta", f"is {config['rope_theta']!r:.40}, not a positive number")
    for key in _ROPE_KEYS:
        if config.get(key):
            _check_rope(read, key, config[key])


def _check_rope(read: _Reader, key: str, rope: object) -> None:
    if not isinstance(rope, dict):
        raise read.refusal(key, f"is {rope!r:.40}, not an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPE_TYPES:
        raise read.refusal(
            key, f"has the unknown type {kind!r:.40}", f"Known: {', '.join(sorted(_ROPE_TYPES))}."
        )
    for name in _ROPE_NUMBERS:
        if rope.get(name) is not None and not _is_positive(rope[name]):
            raise read.refusal(f"{key}.{name}", f"is {rope[name]!r:.40}, not a positive number")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and 0 < value < float("inf")
