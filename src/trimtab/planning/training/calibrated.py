"""A measured machine, with what only whole steps show: the host's work and memory by strategy, and traffic that stays
in caches.

Each is what is left of what was measured when all that is known of it is taken away, by rule: from two depths of one
model the difference is that of their layers; a narrow model has next to no tensors, so its memory is the process's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from msgspec.structs import replace

from trimtab.planning.devices.machine import HostCost, HostMemory, Link, Machine
from trimtab.planning.devices.profiles import machine_of_profile
from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.communication import all_reduce
from trimtab.planning.training.division import as_run, micro_batches
from trimtab.planning.training.host import PLAIN, passes, strategies
from trimtab.planning.training.job import Job
from trimtab.planning.training.kernels import traffic_bytes
from trimtab.planning.training.layer_costs import IN_LAYERS, hidden_bytes
from trimtab.planning.training.memory import memory_of
from trimtab.planning.training.stages import layers_of_ranks
from trimtab.planning.training.step_time import StepTimes
from trimtab.spec.layout import Layout
from trimtab.spec.profile import Profile, StepSample

# A rate for what takes no time.
_INSTANT = 1e15


def calibrated_machine(profile: Profile, *, single_precision: bool, per_node: int | None = None) -> Machine:
    """Raises as `machine_of_profile` does. Devices that work beside the host keep the plain model."""
    machine = machine_of_profile(profile, single_precision=single_precision, per_node=per_node)
    if not profile.steps or profile.overlap or not single_precision:
        return machine
    # The probes' small messages count latency and dispatch together, so that links keep bandwidth alone.
    known = replace(
        machine,
        inside=_without_latency(machine.inside),
        collectives={name: _without_latency(link) for name, link in machine.collectives.items()},
        traffic_curve=((1.0, _INSTANT),),
        host={PLAIN: HostCost(layer_seconds=0.0, step_seconds=0.0)},
        host_memory=_host_memory(machine, profile.steps),
    )
    pairs = list(_pairs(profile.steps))
    # The first by construction; on many ranks even narrow ones are wider than some of the wide.
    narrow = _size(pairs[0][0])
    host = {
        _strategy(first.layout): _host_cost(known, first, second)
        for first, second in pairs
        if _size(first) == narrow
    }
    known = replace(known, host=host)
    wide = [pair for pair in pairs if _size(pair[0]) != narrow]
    points = [_traffic_point(known, *pair) for pair in wide if _strategy(pair[0].layout) == PLAIN]
    known = replace(known, traffic_curve=tuple(sorted(point for point in points if point)))
    split = next((pair for pair in wide if pair[0].layout.tensor > 1), None)
    return known if split is None else _with_messages_of_layers(known, *split)


def _without_latency(link: Link) -> Link:
    return replace(link, latency_seconds=0.0)


def _pairs(samples: Sequence[StepSample]) -> Iterator[tuple[StepSample, StepSample]]:
    """Two depths of one model under one layout."""
    for first, second in pairwise(samples):
        if (
            replace(first, layers=second.layers, seconds=second.seconds, peak_bytes=second.peak_bytes)
            == second
        ):
            yield first, second


def _size(sample: StepSample) -> tuple[int, int]:
    return sample.hidden, sample.sequence_length


def _strategy(layout: Layout) -> str:
    """A probe uses one."""
    return strategies(layout)[0]


def _host_cost(machine: Machine, first: StepSample, second: StepSample) -> HostCost:
    left = [max(0.0, sample.seconds - _known_seconds(machine, sample)) for sample in (first, second)]
    count = [passes(sample.layout, *_work(machine, sample)) for sample in (first, second)]
    layer = max(0.0, (left[1] - left[0]) / (count[1] - count[0]))
    return HostCost(layer_seconds=layer, step_seconds=max(0.0, left[0] - layer * count[0]))


def _with_messages_of_layers(machine: Machine, first: StepSample, second: StepSample) -> Machine:
    """With the rate of all-reduces between computations: ranks wait for the slower one every time, and every message
    is in memory that was not touched before, which a probe of the collective by itself does not show.
    """
    instant = Link(latency_seconds=0.0, bytes_per_second=_INSTANT)
    known = replace(machine, collectives=machine.collectives | {IN_LAYERS: instant})
    left = [sample.seconds - _known_seconds(known, sample) for sample in (first, second)]
    seconds = (left[1] - left[0]) / (second.layers - first.layers)
    job, layout = _job(machine, first), _run(first)
    alone = machine.link(layout.tensor, 1)
    sent = 4 * all_reduce(hidden_bytes(job, layout), layout.tensor, replace(instant, bytes_per_second=1.0))
    if seconds <= sent / alone.bytes_per_second:
        return machine
    slower = replace(alone, bytes_per_second=sent / seconds)
    return replace(machine, collectives=machine.collectives | {IN_LAYERS: slower})


def _host_memory(machine: Machine, samples: Sequence[StepSample]) -> dict[str, HostMemory]:
    """By strategy: the process from the narrowest probe, what the allocator needs besides from the first wide one."""
    nothing = HostMemory(process_bytes=0, spare=0.0)
    found = {}
    looked_at = [sample for sample in samples if sample.peak_bytes]
    for name, group in groupby(looked_at, key=lambda sample: _strategy(sample.layout)):
        probes = list(group)
        bare = replace(machine, host_memory={name: nothing}, memory_factor=1.0)
        narrow = min(sample.hidden for sample in probes)
        process = max(s.peak_bytes - _tensors(bare, s)[0] for s in probes if s.hidden == narrow)
        wide = next((sample for sample in probes if sample.hidden > narrow), None)
        spare = 0.0
        if wide is not None:
            total, coming_and_going = _tensors(bare, wide)
            spare = max(0.0, (wide.peak_bytes - process - total) / coming_and_going)
        found[name] = HostMemory(process_bytes=max(0, process), spare=spare)
    return found


def _tensors(machine: Machine, sample: StepSample) -> tuple[int, int]:
    """Bytes of all tensors of a probe's fullest rank, and of those that come and go."""
    job, layout = _job(machine, sample), _run(sample)
    found = memory_of(job, layout, layers_of_ranks(job, layout), micro_batches(job, layout))
    return found.total, found.activations + found.logits + found.transient


def _traffic_point(machine: Machine, first: StepSample, second: StepSample) -> tuple[float, float] | None:
    """(bytes of a tensor, bytes a second), or None where matrix products alone explain the layer's time."""
    left = [sample.seconds - _known_seconds(machine, sample) for sample in (first, second)]
    seconds = (left[1] - left[0]) / (second.layers - first.layers)
    if seconds <= 0:
        return None
    job, layout = _job(machine, first), _run(first)
    moved = traffic_bytes(job, layout, "torch")
    size = 4.0 * (layout.micro_batch or 1) * first.sequence_length * first.hidden
    return size, (moved.forward + moved.backward) * micro_batches(job, layout) / seconds


def _known_seconds(machine: Machine, sample: StepSample) -> float:
    job, layout = _job(machine, sample), _run(sample)
    return StepTimes(job).of(layout, layers_of_ranks(job, layout), micro_batches(job, layout)).total


def _work(machine: Machine, sample: StepSample) -> tuple[int, int]:
    """Layers of the rank that has most, and its micro-batches."""
    job, layout = _job(machine, sample), _run(sample)
    return max(layers_of_ranks(job, layout)), micro_batches(job, layout)


def _run(sample: StepSample) -> Layout:
    """With the micro-batch that the probe took."""
    return as_run(sample.layout, sample.batch)


def _job(machine: Machine, sample: StepSample) -> Job:
    return Job(
        architecture=Architecture(
            family="llama",
            layers=sample.layers,
            hidden=sample.hidden,
            heads=sample.heads,
            kv_heads=sample.heads,
            head_dim=sample.hidden // sample.heads,
            ffn=sample.ffn,
            vocabulary=sample.vocabulary,
            tied=True,
        ),
        machine=machine,
        devices=sample.layout.world,
        sequence_length=sample.sequence_length,
        global_batch=sample.batch,
        precision="fp32",
        software="torch",
    )
