"""What probes are made of is what calibration finds: steps are computed from known constants, and these come back."""

import msgspec
import pytest

from machine_profiles import machine_profile
from trimtab.planning.devices.machine import HostCost, HostMemory, Link
from trimtab.planning.devices.profiles import machine_of_profile
from trimtab.planning.training.calibrated import _job, _known_seconds, _run, calibrated_machine
from trimtab.planning.training.division import micro_batches
from trimtab.planning.training.host import strategies
from trimtab.planning.training.layer_costs import IN_LAYERS
from trimtab.planning.training.memory import memory_of
from trimtab.planning.training.stages import layers_of_ranks
from trimtab.spec.layout import Layout
from trimtab.spec.profile import CollectiveRate, StepSample

HOST = {
    "data": HostCost(layer_seconds=1e-3, step_seconds=4e-3),
    "shard": HostCost(layer_seconds=3e-3, step_seconds=6e-3),
    "tensor": HostCost(layer_seconds=8e-3, step_seconds=9e-3),
    "pipeline": HostCost(layer_seconds=2e-3, step_seconds=5e-3),
}
SIZES = ((128, 128), (256, 128), (512, 256))


def profile(ranks=2, **changes):
    rates = {"all_reduce": 1e9, "all_gather": 2e9, "reduce_scatter": 1.5e9, "point_to_point": 3e9}
    collectives = tuple(
        CollectiveRate(
            operation=operation, backend="gloo", ranks=ranks, latency_seconds=1e-4, bytes_per_second=rate
        )
        for operation, rate in rates.items()
    )
    return machine_profile(**{"per_node": ranks, "collectives": collectives} | changes)


def sample(layout, layers, hidden, length):
    return StepSample(
        layout=layout,
        layers=layers,
        hidden=hidden,
        heads=hidden // (16 if length == 16 else 64),
        ffn=3 * hidden,
        vocabulary=64 * layout.world,
        sequence_length=length,
        batch=4 * layout.world,
        seconds=0.0,
    )


def layouts_of(n):
    return Layout(data=n), Layout(shard=n, reshard=True), Layout(tensor=n), Layout(pipeline=n)


def machine_of(ranks):
    """With known constants, without the latency that probes count as the host's."""
    machine = machine_of_profile(profile(ranks), single_precision=True)

    def quiet(link):
        return msgspec.structs.replace(link, latency_seconds=0.0)

    curve = tuple(
        (4.0 * 4 * length * hidden, 4e10 / (1 + place)) for place, (hidden, length) in enumerate(SIZES)
    )
    return msgspec.structs.replace(
        machine,
        host=HOST,
        traffic_curve=curve,
        inside=quiet(machine.inside),
        collectives={name: quiet(link) for name, link in machine.collectives.items()}
        | {IN_LAYERS: Link(latency_seconds=0.0, bytes_per_second=4e8)},
    )


def probed(machine, ranks):
    """Steps of that machine, as probes take them."""
    plain, *rest = layouts_of(ranks)
    probes = [
        sample(layout, layers, max(32, 16 * ranks), 16)
        for layout in (plain, *rest)
        for layers in (ranks, 3 * ranks)
    ]
    probes += [sample(plain, layers, *size) for size in SIZES for layers in (1, 2)]
    probes += [sample(Layout(tensor=ranks), layers, 512, 256) for layers in (ranks, 2 * ranks)]
    return tuple(msgspec.structs.replace(one, seconds=_known_seconds(machine, one)) for one in probes)


def test_the_constants_come_back():
    truth = machine_of(2)
    steps = probed(truth, 2)
    found = calibrated_machine(profile(steps=steps), single_precision=True)
    for axis, cost in HOST.items():
        assert found.host[axis].layer_seconds == pytest.approx(cost.layer_seconds, rel=0.05), axis
        assert found.host[axis].step_seconds == pytest.approx(cost.step_seconds, rel=0.05), axis
    for (size, rate), (known, wanted) in zip(found.traffic_curve, truth.traffic_curve, strict=True):
        assert size == known
        assert rate == pytest.approx(wanted, rel=0.05)
    assert found.collectives[IN_LAYERS].bytes_per_second == pytest.approx(4e8, rel=0.1)
    for one in steps:
        assert _known_seconds(found, one) == pytest.approx(one.seconds, rel=0.03)


@pytest.mark.parametrize("ranks", [4, 8])
def test_narrow_probes_of_many_ranks_are_not_taken_for_wide_ones(ranks):
    """They are as wide as those by then, and their own traffic and messages count as the host's work."""
    found = calibrated_machine(profile(ranks, steps=probed(machine_of(ranks), ranks)), single_precision=True)
    assert [size for size, _ in found.traffic_curve] == [
        4.0 * 4 * length * hidden for hidden, length in SIZES
    ]
    for axis, cost in HOST.items():
        assert cost.layer_seconds * 0.99 < found.host[axis].layer_seconds < 2 * cost.layer_seconds, axis


def test_what_processes_hold_comes_back():
    truth, layouts = machine_of(2), layouts_of(2)
    known = {
        name: HostMemory(process_bytes=(400 + place) << 20, spare=0.2 * place)
        for place, name in enumerate(HOST)
    }
    machine = msgspec.structs.replace(truth, host_memory=known)

    def measured(one):
        job, layout = _job(machine, one), _run(one)
        peak = memory_of(job, layout, layers_of_ranks(job, layout), micro_batches(job, layout)).total
        return msgspec.structs.replace(one, seconds=1.0, peak_bytes=peak)

    shapes = ((2, 32, 16), (6, 32, 16), (2, 512, 256))
    steps = [measured(sample(layout, *shape)) for layout in layouts for shape in shapes]
    steps += [msgspec.structs.replace(sample(layouts[0], n, 128, 128), seconds=float(n)) for n in (1, 2)]
    found = calibrated_machine(profile(steps=tuple(steps)), single_precision=True).host_memory
    for layout in layouts:
        (name,) = strategies(layout)
        assert found[name].process_bytes == pytest.approx(known[name].process_bytes, rel=0.01), name
        assert found[name].spare == pytest.approx(known[name].spare, abs=0.03), name


def test_without_probes_it_is_the_plain_machine():
    assert calibrated_machine(profile(), single_precision=True) == machine_of_profile(
        profile(), single_precision=True
    )
