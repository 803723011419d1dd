"""What probes are made of is what calibration finds: steps are computed from known constants, and these come back."""

import msgspec
import pytest

from trimtab.planning.devices.machine import HostCost, HostMemory, Link
from trimtab.planning.devices.profiles import machine_of_profile
from trimtab.planning.training.calibrated import _job, _known_seconds, _run, calibrated_machine
from trimtab.planning.training.division import micro_batches
from trimtab.planning.training.host import strategies
from trimtab.planning.training.layer_costs import IN_LAYERS
from trimtab.planning.training.memory import memory_of
from trimtab.planning.training.stages import layers_of_ranks
from trimtab.spec.hardware import this_machine
from trimtab.spec.layout import Layout
from trimtab.spec.profile import CollectiveRate, GemmSample, Profile, StepSample

HOST = {
    "data": HostCost(layer_seconds=1e-3, step_seconds=4e-3),
    "shard": HostCost(layer_seconds=3e-3, step_seconds=6e-3),
    "tensor": HostCost(layer_seconds=8e-3, step_seconds=9e-3),
    "pipeline": HostCost(layer_seconds=2e-3, step_seconds=5e-3),
}
LAYOUTS = (Layout(data=2), Layout(shard=2, reshard=True), Layout(tensor=2), Layout(pipeline=2))


def collective(operation, rate):
    return CollectiveRate(
        operation=operation, backend="gloo", ranks=2, latency_seconds=1e-4, bytes_per_second=rate
    )


def profile(**changes):
    values = {
        "name": "here",
        "hardware": this_machine(),
        "measured_at": "2026-11-25",
        "per_node": 2,
        "memory_bytes": 8 * 2**30,
        "memory_bytes_per_second": 8e9,
        "gemm": (GemmSample(dtype="float32", m=1000, n=1000, k=1000, seconds=2e9 / 30e9),),
        "collectives": (
            collective("all_reduce", 1e9),
            collective("all_gather", 2e9),
            collective("reduce_scatter", 1.5e9),
            collective("point_to_point", 3e9),
        ),
    }
    return Profile(**values | changes)


def sample(layout, layers, hidden, length):
    return StepSample(
        layout=layout,
        layers=layers,
        hidden=hidden,
        heads=max(2, hidden // 64),
        ffn=3 * hidden,
        vocabulary=128,
        sequence_length=length,
        batch=8,
        seconds=0.0,
    )


SIZES = ((128, 128), (256, 128), (512, 256))


@pytest.fixture
def truth():
    """A machine with known constants, without the latency that probes count as the host's."""
    machine = machine_of_profile(profile(), single_precision=True)

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


def test_the_constants_come_back(truth):
    probes = [sample(layout, layers, 32, 16) for layout in LAYOUTS for layers in (2, 6)]
    probes += [sample(LAYOUTS[0], layers, *size) for size in SIZES for layers in (1, 2)]
    probes += [sample(Layout(tensor=2), layers, 512, 256) for layers in (2, 4)]
    steps = tuple(msgspec.structs.replace(one, seconds=_known_seconds(truth, one)) for one in probes)
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


def test_what_processes_hold_comes_back(truth):
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
    steps = [measured(sample(layout, *shape)) for layout in LAYOUTS for shape in shapes]
    steps += [msgspec.structs.replace(sample(LAYOUTS[0], n, 128, 128), seconds=float(n)) for n in (1, 2)]
    found = calibrated_machine(profile(steps=tuple(steps)), single_precision=True).host_memory
    for layout in LAYOUTS:
        (name,) = strategies(layout)
        assert found[name].process_bytes == pytest.approx(known[name].process_bytes, rel=0.01), name
        assert found[name].spare == pytest.approx(known[name].spare, abs=0.03), name


def test_without_probes_it_is_the_plain_machine():
    assert calibrated_machine(profile(), single_precision=True) == machine_of_profile(
        profile(), single_precision=True
    )
