"""What `trimtab train --emit` prints: the same command as a job of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout

if TYPE_CHECKING:
    from trimtab.spec.recipe import Recipe


def job_file(
    kind: Literal["slurm", "kubernetes"],
    path: Path,
    recipe: Recipe,
    *,
    processes: int | None,
    arguments: Sequence[str],
    nodes: int,
    gpus: int,
    cores: int,
    restarts: int,
    image: str,
    claim: str,
) -> str:
    """The text. `arguments` follow the recipe. Raises `UsageError` where the number of processes is not given or does
    not divide over nodes.
    """
    from trimtab.parallel.launching.jobfiles import JobFile, kubernetes, slurm

    if processes:
        world = processes
    elif isinstance(recipe.parallel, Layout):
        world = recipe.parallel.world
    else:
        raise UsageError(
            "a job file needs a number of processes.", where="--emit", remedy="Add --processes N."
        )
    cluster_name = recipe.name.replace("_", "-").replace(".", "-").strip("-")
    job = JobFile(
        name=cluster_name,
        recipe=path,
        processes=world,
        nodes=nodes,
        gpus=gpus,
        cores=cores,
        restarts=restarts,
        arguments=tuple(arguments),
    )
    if kind == "slurm":
        return slurm(job)
    return kubernetes(job, recipe_text=path.read_text(encoding="utf-8"), image=image, claim=claim)
