"""The blocks of a module: what is gathered, recomputed or timed as one."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from trimtab.models.families import FAMILIES
from trimtab.models.stretch import Stretch


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """A decoder's layers, a library model's own choice of what must not be split, else the children with weights.

    Parts that share a weight with what is outside of them (a tied embedding) are no blocks.
    """
    if isinstance(module, Stretch):
        return list(module.layers.values())
    config: Any = getattr(module, "config", None)
    known = FAMILIES.get(str(getattr(config, "model_type", "")))
    if known is not None:
        return list(module.get_submodule(known.layers).children())
    kinds = getattr(module, "_no_split_modules", None)
    parts = (
        [part for part in module.modules() if type(part).__name__ in kinds] if kinds else module.children()
    )
    uses = _uses(module)
    return [part for part in parts if (own := _uses(part)) and all(uses[key] == own[key] for key in own)]


def _uses(module: nn.Module) -> Counter[int]:
    """How often each parameter, by identity, has a place in a module."""
    return Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
