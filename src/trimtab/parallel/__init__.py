"""Training over several processes: strategies, the groups of ranks that run them, and how ranks are started.

The names below are imported when first used: starting ranks must not bring torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.parallel.compose import parallelize as parallelize
    from trimtab.parallel.launching.script import spawn as spawn

_HOMES = {"parallelize": "trimtab.parallel.compose", "spawn": "trimtab.parallel.launching.script"}
__all__ = ["parallelize", "spawn"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trimtab.parallel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
