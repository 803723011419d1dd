import pytest
from msgspec.structs import replace

from machine_profiles import machine_profile
from trimtab.planning.devices.profiles import machine_of_profile
from trimtab.planning.training.plan import Scorer
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import parse_layout
from trimtab.spec.profile import CollectiveRate, GemmSample


def _profile(**changes):
    values = {
        "gemm": (
            GemmSample(dtype="float32", m=100, n=100, k=100, seconds=2e6 / 10e9),
            GemmSample(dtype="float32", m=1000, n=1000, k=1000, seconds=2e9 / 30e9),
            GemmSample(dtype="bfloat16", m=1000, n=1000, k=1000, seconds=2e9 / 5e9),
        ),
        "collectives": (
            CollectiveRate(
                operation="all_reduce", backend="gloo", ranks=2, latency_seconds=1e-3, bytes_per_second=1e9
            ),
        ),
    }
    return machine_profile(**values | changes)


def test_products_take_what_was_measured_and_in_between():
    machine = machine_of_profile(_profile(), single_precision=True)
    assert machine.gemm_seconds(2e9, 0) == pytest.approx(2e9 / 30e9)
    assert machine.gemm_seconds(2e6, 0) == pytest.approx(2e6 / 10e9)
    assert machine.gemm_seconds(1e3, 0) == pytest.approx(1e3 / 10e9)
    assert machine.gemm_seconds(2e12, 0) == pytest.approx(2e12 / 30e9)
    middle = (2e6 + 2e9) / 2
    assert machine.gemm_seconds(middle, 0) == pytest.approx(middle / 20e9)
    assert machine.peak_flops == 30e9


def test_a_precision_that_was_not_measured_is_refused():
    only = _profile(gemm=_profile().gemm[:2])
    with pytest.raises(UsageError, match="precision fp32"):
        machine_of_profile(only, single_precision=False)


def test_a_machine_without_links_plans_one_device():
    machine = machine_of_profile(_profile(collectives=()), single_precision=True)
    assert machine.link(2, 1).bytes_per_second == float("inf")


def test_two_ranks_here_are_planned_with_what_was_measured(make_job):
    shape = {"family": "llama", "layers": 4, "hidden": 256, "heads": 4, "ffn": 512, "vocab": 8000}
    job = make_job(shape, devices=2, length=256, batch=8, precision="fp32")
    machine = machine_of_profile(_profile(), single_precision=True)
    plan = Scorer(replace(job, machine=machine)).plan(parse_layout("data=2,micro_batch=4"))
    assert plan.feasible
    gradients = 4 * job.architecture.parameters
    assert plan.seconds.data == pytest.approx(2 * (1e-3 + gradients / 2 / 1e9), rel=0.01)
