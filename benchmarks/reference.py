"""The reference run: optimizes `recipes/reference.yaml` and keeps its verdict, with machine and date.

    make reference          # at most 40 minutes on 2 cores

Writes `benchmarks/results/reference.json` (the verdict) and `reference.html` (the report). Runs in a home of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from trimtab.cli.console import stages
from trimtab.cli.optimize import show
from trimtab.optimization.run import optimize
from trimtab.spec.errors import EXIT_REFUSED
from trimtab.spec.recipe import Recipe
from trimtab.spec.units import format_duration

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    recipe = Recipe.load(ROOT / "recipes" / "reference.yaml")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trimtab-reference-") as home:
        os.environ["TRIMTAB_HOME"] = home
        with stages() as progress:
            verdict = optimize(recipe, progress=progress)
        run = Path(verdict.run)
        RESULTS.mkdir(parents=True, exist_ok=True)
        # The run's folder is gone afterwards, and a machine's paths are nobody's business.
        msgspec.structs.replace(verdict, run="").save(RESULTS / "reference.json")
        shutil.copy(run / "report.html", RESULTS / "reference.html")
        show(verdict)
    print(
        f"took {format_duration(time.monotonic() - began)}; kept in {RESULTS.relative_to(ROOT)}/",
        file=sys.stderr,
    )
    return 0 if verdict.feasible else EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
