"""The task "parity" of a group of ranks: every layout against one process, one layout after the other."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from trimtab.models.load import import_libraries
from trimtab.parallel.mesh import Grid, build_grid
from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout
from trimtab.training.parity.compare import Reference, first_difference, gaps, same_everywhere
from trimtab.training.parity.job import Case, Difference, ParityJob, ParityResult
from trimtab.training.parity.subject import Subject
from trimtab.training.snapshot import read, write
from trimtab.training.streams import stream_seed


def prepare() -> None:
    import_libraries()


def run(
    job: dict[str, Any],
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    wants_stop: Callable[[], bool],
) -> dict[str, Any]:
    """A `ParityJob` in, a `ParityResult` out, both as plain data. Reports every case when it is known."""
    del wants_stop
    wanted = msgspec.convert(job, ParityJob)
    cases = []
    for case in resumed_cases(wanted, ranks) if wanted.resume else cases_of(wanted, ranks):
        report({"kind": "case", "case": msgspec.to_builtins(case)})
        cases.append(case)
    result = ParityResult(
        model=wanted.model,
        dtype=wanted.dtype,
        steps=wanted.steps,
        tolerance=wanted.tolerance,
        cases=tuple(cases),
    )
    return msgspec.to_builtins(result)


class _Grids:
    """Grids by their shape: layouts that differ in how, not where, share their groups of processes."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._made: dict[tuple[int | bool, ...], Grid | None] = {}

    def of(self, layout: Layout) -> Grid | None:
        """Every rank must call it; None where this one has no place in the layout."""
        sizes = (layout.data, layout.shard, layout.context, layout.tensor, layout.pipeline, layout.zero > 0)
        if sizes not in self._made:
            self._made[sizes] = build_grid(layout, self._ranks)
        grid = self._made[sizes]
        return grid and replace(grid, layout=layout)


def refer(job: ParityJob) -> Reference:
    """The run in one process; every rank makes its own."""
    subject = Subject(job, Grid(layout=Layout(), ranks=Ranks()))
    losses, weights, moments, reach = [], [], [], []
    for _ in range(job.steps + (job.steps_after if job.resume else 0)):
        losses.append(subject.step())
        weights.append(subject.weights())
        moments.append(subject.moments() if job.resume else {})
        before = reach[-1] if reach else {}
        reach.append({name: before.get(name, 0) + moved for name, moved in subject.reach().items()})
    return Reference(losses=losses, weights=weights, moments=moments, reach=reach)


def cases_of(job: ParityJob, ranks: Ranks) -> Iterator[Case]:
    """Every layout in turn."""
    reference, grids = refer(job), _Grids(ranks)
    for layout in job.layouts:
        # Ranks without a place in the last one wait here: a store that they would wait at later is polled.
        ranks.barrier()
        grid = grids.of(layout)
        if grid is not None:
            yield _case(job, grid, reference)
        gc.collect()


def _case(job: ParityJob, grid: Grid, reference: Reference) -> Case:
    try:
        subject = Subject(job, grid)
        losses = [subject.step() for _ in range(job.steps)]
    except UsageError as error:
        return _refused(str(grid.layout), error)
    apart = gaps(subject.weights(), reference.weights[-1], grid.ranks, reference.reach[-1])
    case = _judged(str(grid.layout), job, reference, losses, apart)
    return (
        case if case.equal else msgspec.structs.replace(case, first_difference=_locate(job, grid, reference))
    )


def _locate(job: ParityJob, grid: Grid, reference: Reference) -> Difference | None:
    """Once more, looking at all weights after every step."""
    subject = Subject(job, grid)
    losses, apart = [], []
    for step in range(job.steps):
        losses.append(subject.step())
        apart.append(gaps(subject.weights(), reference.weights[step], grid.ranks, reference.reach[step]))
    return first_difference(losses, apart, reference, tolerance=job.tolerance)


def resumed_cases(job: ParityJob, ranks: Ranks) -> Iterator[Case]:
    """Every layout's checkpoint, taken up by every layout."""
    if job.scratch is None:
        raise UsageError("checkpoints need a folder.", where="scratch", remedy="Name one.")
    reference, grids = refer(job), _Grids(ranks)
    for number, before in enumerate(job.layouts):
        folder = Path(job.scratch) / f"checkpoint-{number}"
        grid = grids.of(before)
        if grid is not None:
            _save_after(job, grid, folder)
        ranks.barrier()
        for after in job.layouts:
            ranks.barrier()
            grid = grids.of(after)
            if grid is not None:
                yield _resumed(f"{before} -> {after}", job, grid, reference, folder)
            gc.collect()
        ranks.barrier()


def _save_after(job: ParityJob, grid: Grid, folder: Path) -> None:
    subject = Subject(job, grid)
    for _ in range(job.steps):
        subject.step()
    if grid.ranks.first:
        folder.mkdir(parents=True)
    grid.ranks.barrier()
    write(folder, subject.snapshot(), grid.ranks)


def _resumed(name: str, job: ParityJob, grid: Grid, reference: Reference, folder: Path) -> Case:
    subject = Subject(job, grid)
    state = subject.snapshot()
    read(folder, state, grid.ranks)
    subject.adopt(state)
    moments = gaps(subject.moments(), reference.moments[job.steps - 1], grid.ranks).max().item()
    position = same_everywhere(subject.loader.position == job.steps * job.batch, grid)
    losses, apart, drawn = [], [], True
    for step in range(job.steps, job.steps + job.steps_after):
        losses.append(subject.step())
        apart.append(gaps(subject.weights(), reference.weights[step], grid.ranks, reference.reach[step]))
        drawn = drawn and torch.equal(subject.random_state, _drawn(job, grid, step))
    random = same_everywhere(drawn, grid)
    case = _judged(name, job, reference, losses, torch.stack(apart).amax(0), first_step=job.steps)
    return msgspec.structs.replace(
        case,
        equal=case.equal and moments <= job.tolerance and random and position,
        max_abs_moment_difference=moments,
        random_state_equal=random,
        data_position_equal=position,
        first_difference=first_difference(
            losses, apart, reference, tolerance=job.tolerance, first_step=job.steps
        ),
    )


def _drawn(job: ParityJob, grid: Grid, step: int) -> torch.Tensor:
    """The random state in which a run that was never interrupted begins a step."""
    return torch.Generator().manual_seed(stream_seed(job.seed, step, grid.stream)).get_state()


def _judged(
    name: str,
    job: ParityJob,
    reference: Reference,
    losses: list[float],
    apart: torch.Tensor,
    *,
    first_step: int = 0,
) -> Case:
    wanted = reference.losses[first_step : first_step + len(losses)]
    loss_gap = max(abs(loss - right) for loss, right in zip(losses, wanted, strict=True))
    weight_gap, unexplained = apart.amax(1).tolist()
    return Case(
        layout=name,
        max_abs_loss_difference=loss_gap,
        max_abs_parameter_difference=weight_gap,
        unexplained_parameter_difference=unexplained,
        equal=loss_gap <= job.tolerance and unexplained <= job.tolerance,
    )


def _refused(name: str, error: UsageError) -> Case:
    return Case(
        layout=name,
        max_abs_loss_difference=0.0,
        max_abs_parameter_difference=0.0,
        unexplained_parameter_difference=0.0,
        equal=False,
        refused=str(error),
    )
