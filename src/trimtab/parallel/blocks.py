"""The blocks of a module: what is gathered, recomputed or timed as one."""

from __future__ import annotations

from typing import Any

from torch import nn

from trimtab.models.families import FAMILIES
from trimtab.models.stretch import Stretch


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """A decoder's layers, a library model's own choice of what must not be split, else the children with weights."""
    if isinstance(module, Stretch):
        return list(module.layers.values())
    config: Any = getattr(module, "config", None)
    known = FAMILIES.get(str(getattr(config, "model_type", "")))
    if known is not None:
        return list(module.get_submodule(known.layers).children())
    kinds = getattr(module, "_no_split_modules", None)
    if kinds:
        return [part for part in module.modules() if type(part).__name__ in kinds]
    return [child for child in module.children() if any(True for _ in child.parameters())]
