"""Seconds of the optimizer: memory traffic of every parameter, and Muon's matrix products."""

from __future__ import annotations

from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.communication import all_gather
from trimtab.planning.training.job import Job
from trimtab.planning.training.memory import parameters_of_ranks
from trimtab.spec.layout import Layout

# A parameter's traffic in one update: unscale its gradient (8 bytes), take the norm (4), clip (8), read weight,
# gradient and two moments and write weight and moments in 32 bits (28), copy to 16 bits (6), zero (4). Our own loop,
# which measured machines run, takes the norm, clips and updates.
_UPDATE_BYTES, _OUR_UPDATE_BYTES = 58.0, 40.0
# Newton-Schulz steps, as our Muon takes them (training/orthogonal.py).
_STEPS = 5


def update_seconds(job: Job, layout: Layout, layers: tuple[int, ...]) -> float:
    """Of one step, on the rank with most parameters. `layers` as `stages.layers_of_ranks` gives them."""
    parameters = max(held for _, held in parameters_of_ranks(job, layout, layers))
    shared = layout.shard * (layout.data if layout.zero else 1)
    each = _OUR_UPDATE_BYTES if job.machine.measured else _UPDATE_BYTES
    traffic = job.machine.traffic_seconds(each * parameters / shared)
    return traffic + (_orthogonal(job, layout) if job.optimizer == "muon" else 0.0)


def _orthogonal(job: Job, layout: Layout) -> float:
    """Muon's iterations, each matrix on one rank, and the gather that gives every rank all updates."""
    shape = job.architecture
    matrices = _matrices(shape)
    seconds = shape.layers * sum(_newton_schulz(job, *matrix) for matrix in matrices) / layout.world
    size = 4.0 * shape.layers * sum(short * long for short, long in matrices)
    return seconds + all_gather(size, layout.world, job.machine.link(layout.world, 1, "all_gather"))


def _matrices(shape: Architecture) -> list[tuple[int, int]]:
    """(short, long) sides of one layer's matrices."""
    hidden = shape.hidden
    ends = [shape.query_width, shape.query_width, shape.kv_width, shape.kv_width]
    ends += [shape.ffn] * (shape.gates + 1)
    return [(min(hidden, end), max(hidden, end)) for end in ends]


def _newton_schulz(job: Job, short: int, long: int) -> float:
    """A long matrix is iterated by its Gram matrix, one that is nearly square by itself."""
    square, oblong = _product(job, short, short, short), _product(job, short, short, long)
    if long >= 2 * short:
        # The polynomial every time; but for one step, its product with the last and the Gram matrix between two.
        return (_STEPS + 3 * (_STEPS - 1)) * square + 2 * oblong
    return _STEPS * (square + 2 * oblong)


def _product(job: Job, rows: int, columns: int, inner: int) -> float:
    """In the weights' own type, which is 32 bits wherever our loop keeps them."""
    moved = 4.0 * (rows * inner + inner * columns + rows * columns)
    return job.machine.gemm_seconds(2.0 * rows * columns * inner, moved)
