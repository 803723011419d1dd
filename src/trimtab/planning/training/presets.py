"""Models by name, as their makers published them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from trimtab.planning.training.architecture import Architecture, architecture
from trimtab.spec.errors import UsageError

_LLAMA3 = {"family": "llama", "kv_heads": 8, "vocab": 128256}
_LLAMA2 = {"family": "llama", "vocab": 32000}
_GPT2 = {"family": "gpt", "vocab": 50257, "positions": 1024}
_GPT3 = {"family": "gpt", "vocab": 50257, "positions": 2048}
PRESETS: Mapping[str, Mapping[str, object]] = {
    "llama3-8b": _LLAMA3 | {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 14336},
    "llama3-70b": _LLAMA3 | {"layers": 80, "hidden": 8192, "heads": 64, "ffn": 28672},
    "llama3-405b": _LLAMA3 | {"layers": 126, "hidden": 16384, "heads": 128, "ffn": 53248},
    "llama2-7b": _LLAMA2 | {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 11008},
    "llama2-13b": _LLAMA2 | {"layers": 40, "hidden": 5120, "heads": 40, "ffn": 13824},
    "llama2-70b": _LLAMA2 | {"layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "ffn": 28672},
    "gpt2": _GPT2 | {"layers": 12, "hidden": 768, "heads": 12},
    "gpt2-medium": _GPT2 | {"layers": 24, "hidden": 1024, "heads": 16},
    "gpt2-large": _GPT2 | {"layers": 36, "hidden": 1280, "heads": 20},
    "gpt2-xl": _GPT2 | {"layers": 48, "hidden": 1600, "heads": 25},
    "gpt3-6.7b": _GPT3 | {"layers": 32, "hidden": 4096, "heads": 32},
    "gpt3-13b": _GPT3 | {"layers": 40, "hidden": 5120, "heads": 40},
    "gpt3-175b": _GPT3 | {"layers": 96, "hidden": 12288, "heads": 96},
}


def preset(name: str, *, where: str) -> Architecture:
    """Raises `UsageError` with the nearest name."""
    known = PRESETS.get(name.lower())
    if known is None:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
        raise UsageError(
            f"{name!r} is no model that is known by name.",
            where=where,
            remedy=f"Did you mean {near[0]!r}?"
            if near
            else f"Known: {', '.join(PRESETS)}; or give a config.json, or --arch.",
        )
    return architecture(known, sequence_length=0, where=where)
