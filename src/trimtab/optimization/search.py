"""What a search came to."""

from __future__ import annotations

from typing import Any

import msgspec

from trimtab.optimization.baseline import Baseline
from trimtab.optimization.recovery import Recovery
from trimtab.optimization.shaping import Shaped


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Every shape that was tried, those that were trained, and their training. Empty in the tier without training."""

    tried: tuple[Shaped, ...] = ()
    finalists: tuple[Shaped, ...] = ()
    recovery: Recovery | None = None


def curves(baseline: Baseline, search: Search) -> dict[str, list[dict[str, Any]]]:
    """Training curves by row, for the report: `{tokens, loss, validation_loss}` a point."""
    trained = {"baseline": baseline.trained}
    if search.recovery:
        trained["control"] = search.recovery.control.trained
        trained |= {student.name: student.trained for student in search.recovery.students}
        if search.recovery.from_scratch:
            trained["from scratch"] = search.recovery.from_scratch.trained
    return {
        name: [msgspec.to_builtins(point) for point in training.curve]
        for name, training in trained.items()
        if training is not None
    }
