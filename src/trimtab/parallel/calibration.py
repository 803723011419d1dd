"""The task "calibrate" of a group of ranks: what this machine's devices and links do, all of them busy at once.

Products and memory traffic are timed in every rank at the same moment, because ranks that train share caches and
memory. Collectives run in groups of 2, 4 … and all ranks; latency and bandwidth are fitted to their times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec
import psutil
import torch
import torch.distributed as dist

from trimtab.models.load import import_libraries
from trimtab.parallel.probes import samples
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import Layout
from trimtab.spec.profile import CollectiveRate, GemmSample, Operation, StepSample

# Rows of a micro-batch, and widths of matrices from small models to large ones.
_ROWS, _WIDTHS = 1024, (64, 128, 256, 512, 1024, 2048)
_COLLECTIVE_BYTES = (1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 23, 1 << 25)
_COPY_BYTES = 1 << 27
_CALLS, _SECONDS = 3, 0.15
# A product that takes longer than this ends its series: without hardware for a dtype, larger ones take minutes.
_LONGEST_SECONDS = 0.6
_LAUNCHES = 2000


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's figures, as `spec.profile.Profile` has them."""

    gemm: tuple[GemmSample, ...]
    collectives: tuple[CollectiveRate, ...]
    memory_bytes: int
    memory_bytes_per_second: float
    launch_seconds: float
    step_seconds: float
    overlap: float
    process_bytes: int
    steps: tuple[StepSample, ...]


def prepare() -> None:
    """What training imports, so that the size of the process is that of a rank that trains."""
    import_libraries()


def run(
    job: dict[str, Any],
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    wants_stop: Callable[[], bool],  # noqa: ARG001
) -> dict[str, Any]:
    """The job names a `layout`, whose steps are probed; plain replicas also measure everything else. Reports
    `{fraction, note}`.
    """
    layout = msgspec.convert(job["layout"], Layout)
    process_bytes = psutil.Process().memory_info().rss
    report({"fraction": 0.0, "note": f"training steps, {layout}"})
    # Before anything else has used memory.
    steps = tuple(samples(ranks, layout))
    if layout.data < ranks.world:
        return {"steps": msgspec.to_builtins(steps)}
    gemm = []
    for number, dtype in enumerate((torch.float32, torch.bfloat16)):
        report({"fraction": 0.4 + 0.2 * number, "note": f"products in {dtype}".replace("torch.", "")})
        gemm += _products(dtype, ranks)
    report({"fraction": 0.8, "note": "memory"})
    bandwidth, launch, step = _bandwidth(ranks), _launch_seconds(ranks), _step_seconds(ranks)
    report({"fraction": 0.85, "note": "collectives"})
    collectives = tuple(_collectives(ranks))
    memory_bytes = _memory_bytes(ranks)
    found = Calibrated(
        gemm=tuple(gemm),
        collectives=collectives,
        memory_bytes=memory_bytes,
        memory_bytes_per_second=bandwidth,
        launch_seconds=launch,
        step_seconds=step,
        overlap=1.0 if ranks.device.type == "cuda" else 0.0,
        process_bytes=process_bytes,
        steps=steps,
    )
    return msgspec.to_builtins(found)


def _timed(call: Callable[[], object], ranks: Ranks, *, collective: bool = False) -> float:
    """Median seconds of a call; every rank starts together, and makes as many calls as rank 0 has time for."""
    call()
    ranks.barrier()
    times: list[float] = []
    while True:
        _wait(ranks)
        began = time.perf_counter()
        call()
        _wait(ranks)
        times.append(time.perf_counter() - began)
        enough = len(times) >= _CALLS and sum(times) > _SECONDS
        if collective:
            # All must stop at the same call, or the last of them would wait for ever.
            enough = bool(ranks.broadcast(torch.tensor(float(enough))) > 0)
        if enough:
            return median(times)


def _wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)


def _products(dtype: torch.dtype, ranks: Ranks) -> list[GemmSample]:
    """(rows, width) × (width, width and 4 × width), as the layers of a decoder have them."""
    samples = []
    for width in _WIDTHS:
        for outer in (width, 4 * width):
            left = torch.randn(_ROWS, width, device=ranks.device).to(dtype)
            right = torch.randn(width, outer, device=ranks.device).to(dtype)
            with torch.inference_mode():
                seconds = _timed(lambda left=left, right=right: left @ right, ranks)
            # The slowest rank's time, so that all go on or stop together.
            seconds = ranks.largest(seconds)
            name = str(dtype).removeprefix("torch.")
            samples.append(GemmSample(dtype=name, m=_ROWS, n=outer, k=width, seconds=seconds))
            if seconds > _LONGEST_SECONDS:
                return samples
    return samples


def _bandwidth(ranks: Ranks) -> float:
    """Bytes a second that an element-wise kernel reads and writes."""
    left = torch.ones(_COPY_BYTES // 4, device=ranks.device)
    right, out = torch.ones_like(left), torch.empty_like(left)
    return 3 * _COPY_BYTES / _timed(lambda: torch.add(left, right, out=out), ranks)


def _launch_seconds(ranks: Ranks) -> float:
    """What the host spends on one small operation."""
    value = torch.ones(8, device=ranks.device)

    def many() -> None:
        for _ in range(_LAUNCHES):
            value.add_(1.0)

    return _timed(many, ranks) / _LAUNCHES


def _step_seconds(ranks: Ranks) -> float:
    """A training step that has nothing to compute: the loop, autograd and the optimizer."""
    layer = torch.nn.Linear(8, 8, device=ranks.device)
    optimizer = torch.optim.AdamW(layer.parameters())
    inputs = torch.ones(1, 8, device=ranks.device)

    def step() -> None:
        optimizer.zero_grad()
        loss = layer(inputs).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return _timed(step, ranks)


def _memory_bytes(ranks: Ranks) -> int:
    if ranks.device.type == "cuda":
        return torch.cuda.get_device_properties(ranks.device).total_memory
    return psutil.virtual_memory().total // ranks.world


def _collectives(ranks: Ranks) -> list[CollectiveRate]:
    """Every operation in every group size, all groups of a size at once."""
    found = []
    size = 2
    while size <= ranks.world:
        group = _group(ranks, size)
        for operation, (steps, share, make) in _operations(size, group, ranks).items():
            times = [_timed(make(bytes_), ranks, collective=True) for bytes_ in _COLLECTIVE_BYTES]
            latency, rate = fit_link(_COLLECTIVE_BYTES, times, steps=steps, share=share)
            found.append(
                CollectiveRate(
                    operation=operation,
                    backend="nccl" if ranks.device.type == "cuda" else "gloo",
                    ranks=size,
                    latency_seconds=latency,
                    bytes_per_second=rate,
                )
            )
        size = 2 * size if 2 * size <= ranks.world or size == ranks.world else ranks.world
    return found


def _group(ranks: Ranks, size: int) -> dist.ProcessGroup:
    """The neighbours that this rank measures with. Ranks that fill no group make a smaller one beside the others."""
    groups = [
        dist.new_group(list(range(start, min(start + size, ranks.world))))
        for start in range(0, ranks.world, size)
    ]
    group = groups[ranks.rank // size]
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError("a rank is in no group of its own")
    return group


def _operations(
    size: int, group: dist.ProcessGroup, ranks: Ranks
) -> dict[Operation, tuple[int, float, Callable[[int], Callable[[], object]]]]:
    """By operation: steps of its ring, the share of a buffer that a rank sends, and the call for a buffer."""

    def buffer(count: int) -> torch.Tensor:
        return torch.ones(count, device=ranks.device)

    def all_reduce(bytes_: int) -> Callable[[], object]:
        whole = buffer(bytes_ // 4)
        return lambda: dist.all_reduce(whole, group=group)

    def all_gather(bytes_: int) -> Callable[[], object]:
        members = dist.get_world_size(group)
        part = buffer(max(1, bytes_ // 4 // members))
        whole = buffer(part.numel() * members)
        return lambda: dist.all_gather_single(whole, part, group=group)

    def reduce_scatter(bytes_: int) -> Callable[[], object]:
        members = dist.get_world_size(group)
        part = buffer(max(1, bytes_ // 4 // members))
        whole = buffer(part.numel() * members)
        return lambda: dist.reduce_scatter_single(part, whole, group=group)

    def point_to_point(bytes_: int) -> Callable[[], object]:
        whole = buffer(bytes_ // 4)
        return lambda: _pass_on(whole, group)

    ring = (size - 1) / size
    return {
        "all_reduce": (2 * (size - 1), 2 * ring, all_reduce),
        "all_gather": (size - 1, ring, all_gather),
        "reduce_scatter": (size - 1, ring, reduce_scatter),
        "point_to_point": (1, 1.0, point_to_point),
    }


def _pass_on(whole: torch.Tensor, group: dist.ProcessGroup) -> None:
    """The first of a group sends to the second, as stages of a pipeline do; the others have nothing to do."""
    members = dist.get_process_group_ranks(group)
    if len(members) < 2:
        return
    if dist.get_rank() == members[0]:
        dist.send(whole, members[1], group=group)
    elif dist.get_rank() == members[1]:
        dist.recv(whole, members[0], group=group)


def fit_link(sizes: tuple[int, ...], times: list[float], *, steps: int, share: float) -> tuple[float, float]:
    """Latency of a step in seconds and bytes a second, from t = steps × latency + share × bytes ÷ rate.

    Least squares of the relative error, so that small messages count as much as large ones; what noise would
    make negative is set to the smallest time, or the largest message's rate.
    """
    rows = torch.tensor([[steps, share * size] for size in sizes], dtype=torch.float64)
    seconds = torch.tensor(times, dtype=torch.float64)
    solved = torch.linalg.lstsq(rows / seconds[:, None], torch.ones(len(times), 1, dtype=torch.float64))
    latency, slowness = (float(value) for value in solved.solution[:, 0])
    if latency <= 0:
        latency = min(times) / steps
    if slowness <= 0:
        slowness = times[-1] / (share * sizes[-1])
    return latency, 1 / slowness
