"""What `trimtab train --emit` prints: the same command as a job of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout

if TYPE_CHECKING:
    from trimtab.spec.recipe import Recipe


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job is to run. `gpus` and `cores` are of each process; `image` and `claim` are for Kubernetes."""

    kind: Literal["slurm", "kubernetes"]
    nodes: int
    gpus: int
    cores: int
    restarts: int
    image: str
    claim: str


def job_file(
    cluster: Cluster, path: Path, recipe: Recipe, *, processes: int | None, flags: Mapping[str, object]
) -> str:
    """The text; `flags` follow the recipe in its command. Raises `UsageError` where the number of processes is not
    given or does not divide over nodes.
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
    job = JobFile(
        name=recipe.name.replace("_", "-").replace(".", "-").strip("-"),
        recipe=path,
        processes=world,
        nodes=cluster.nodes,
        gpus=cluster.gpus,
        cores=cluster.cores,
        restarts=cluster.restarts,
        arguments=tuple(_words(flags)),
    )
    if cluster.kind == "slurm":
        return slurm(job)
    text = path.read_text(encoding="utf-8")
    return kubernetes(job, recipe_text=text, image=cluster.image, claim=cluster.claim)


def refuse_flags(given: Mapping[str, object]) -> None:
    """Of what a job file decides itself, or would do again every time it is requeued. Raises `UsageError`."""
    for flag in _words(given):
        raise UsageError(
            f"{flag} has no place in a job file.", where=flag, remedy="Leave it out with --emit."
        )


def _words(given: Mapping[str, object]) -> Iterator[str]:
    """Flags as they are written on a command line; what is None or off is left out."""
    for flag, value in given.items():
        if value is True:
            yield flag
        elif value is not None and value is not False:
            yield from (flag, str(value))
