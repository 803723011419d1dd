"""Which layouts our own training runs with which models: the one place that says so, to those who train and to those
who plan. Reads nothing but names; no torch.
"""

from __future__ import annotations

from trimtab.models.families import FAMILIES, IMAGE_MODELS
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, refuse_muon, refuse_unrun


def refuse_layout(kind: str, layout: Layout, *, optimizer: str | None = None, called: str = "") -> None:
    """Raises `UsageError` for what our training does not run with a model of this kind (its `model_type`), whatever its
    sizes, or under this optimizer. What does not divide is another matter (`planning/training/division.py`).
    A model that is no decoder is `called` so, or as its kind.
    """
    refuse_unrun(layout)
    if kind in FAMILIES:
        if layout.tensor > 1 and not FAMILIES[kind].columns:
            raise UsageError(
                f"the layers of {kind} cannot be split: it keeps queries, keys and values in one matrix.",
                where="parallel.tensor",
                remedy="Use data, shard, pipeline or context.",
            )
    else:
        _refuse_what_is_for_decoders(kind, layout, called or kind)
    if optimizer == "muon":
        refuse_muon(layout)
    elif optimizer not in (None, "adamw"):
        raise UsageError(
            f"{optimizer} is planned for, not run.",
            where="training.optimizer",
            remedy="Use adamw or muon.",
        )


def _refuse_what_is_for_decoders(kind: str, layout: Layout, called: str) -> None:
    if layout.tensor * layout.pipeline * layout.context > 1:
        raise UsageError(
            f"{layout} cuts the layers or sequences of decoders, and {called} is none.",
            where="parallel",
            remedy="Use data, shard or both, such as data=2,shard=2.",
        )
    if kind in IMAGE_MODELS and layout.recompute != "none":
        refuse_recompute()


def refuse_recompute() -> None:
    """Raises the `UsageError` of a model with batch norms."""
    raise UsageError(
        "batch norms would count every batch twice if it were computed again.",
        where="parallel.recompute",
        remedy="Use recompute=none.",
    )


def refused_layout(kind: str, layout: Layout, *, optimizer: str | None = None) -> str | None:
    """The sentence of `refuse_layout`, or None where our training runs it."""
    try:
        refuse_layout(kind, layout, optimizer=optimizer)
    except UsageError as error:
        return error.message
    return None
