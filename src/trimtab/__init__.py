"""Trimtab: turns a large model into a fast, small, proven, secured service.

The names below are imported when first used, so `import trimtab` costs nothing and never brings torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from trimtab.spec.version import __version__

if TYPE_CHECKING:
    from trimtab.optimization.run import optimize as optimize
    from trimtab.planning.compression.plan import plan_compression as plan_compression
    from trimtab.planning.serving.plan import plan_serving as plan_serving
    from trimtab.planning.training.advisor import plan_training as plan_training
    from trimtab.service.serve import serve as serve
    from trimtab.spec.recipe import Recipe as Recipe
    from trimtab.spec.verdict import Verdict as Verdict
    from trimtab.store.artifact import Artifact as Artifact
    from trimtab.store.artifact import load as load

_HOMES = {
    "Artifact": "trimtab.store.artifact",
    "Recipe": "trimtab.spec.recipe",
    "Verdict": "trimtab.spec.verdict",
    "load": "trimtab.store.artifact",
    "optimize": "trimtab.optimization.run",
    "plan_compression": "trimtab.planning.compression.plan",
    "plan_serving": "trimtab.planning.serving.plan",
    "plan_training": "trimtab.planning.training.advisor",
    "serve": "trimtab.service.serve",
}
__all__ = [
    "Artifact",
    "Recipe",
    "Verdict",
    "__version__",
    "load",
    "optimize",
    "plan_compression",
    "plan_serving",
    "plan_training",
    "serve",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trimtab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
