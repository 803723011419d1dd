"""Trimtab: turns a large model into a fast, small, proven, secured service.

The names below are imported when first used, so `import trimtab` costs nothing and never brings torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from trimtab.spec.version import __version__

if TYPE_CHECKING:
    from trimtab.compression.run import compress as compress
    from trimtab.evaluation.run import evaluate as evaluate
    from trimtab.models.served import serve as serve
    from trimtab.optimization.plans import plan_compression as plan_compression
    from trimtab.optimization.plans import plan_serving as plan_serving
    from trimtab.optimization.run import optimize as optimize
    from trimtab.optimization.train import train as train
    from trimtab.parallel.plan import plan_training as plan_training
    from trimtab.spec.layout import Layout as Layout
    from trimtab.spec.recipe import Recipe as Recipe
    from trimtab.spec.verdict import Verdict as Verdict
    from trimtab.store.artifact import Artifact as Artifact
    from trimtab.store.artifact import load as load

_HOMES = {
    "Artifact": "trimtab.store.artifact",
    "Layout": "trimtab.spec.layout",
    "Recipe": "trimtab.spec.recipe",
    "Verdict": "trimtab.spec.verdict",
    "compress": "trimtab.compression.run",
    "evaluate": "trimtab.evaluation.run",
    "load": "trimtab.store.artifact",
    "optimize": "trimtab.optimization.run",
    "plan_compression": "trimtab.optimization.plans",
    "plan_serving": "trimtab.optimization.plans",
    "plan_training": "trimtab.parallel.plan",
    "serve": "trimtab.models.served",
    "train": "trimtab.optimization.train",
}
__all__ = [
    "Artifact",
    "Layout",
    "Recipe",
    "Verdict",
    "__version__",
    "compress",
    "evaluate",
    "load",
    "optimize",
    "plan_compression",
    "plan_serving",
    "plan_training",
    "serve",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trimtab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
