"""What of a step's communication is exposed, and what the slowest of uneven stages takes."""

import msgspec
import pytest

from trimtab.planning.training.memory import parameters_of_ranks
from trimtab.planning.training.plan import Scorer
from trimtab.planning.training.stages import layers_of_ranks
from trimtab.spec.layout import parse_layout

_GPT = {"family": "gpt", "layers": 30, "hidden": 4096, "heads": 32, "vocab": 51200}


def _seconds(job, text):
    return Scorer(job).plan(parse_layout(text)).seconds


@pytest.mark.parametrize("software", ["classic", "fused", "torch"])
@pytest.mark.parametrize("on", ["a100-80gb", "h100-80gb"])
def test_shared_gradients_are_reduced_beside_the_next_micro_batch(make_job, software, on):
    """zero=2: of 16 micro-batches' reductions only the last is exposed as zero=1's is; the others cost their cores."""
    job = make_job("gpt2-xl", on=on, length=1024, batch=8 * 16, software=software)
    found = _seconds(job, "data=8,zero=2,micro_batch=1")
    assert found.data < 0.1 * found.compute


@pytest.mark.parametrize("software", ["classic", "fused"])
def test_sharing_gradients_costs_little_time_beside_sharing_state(make_job, software):
    job = make_job("gpt2-xl", on="a100-80gb", length=1024, batch=128, software=software)
    first, second = (Scorer(job).plan(parse_layout(f"data=8,zero={zero},micro_batch=1")) for zero in (1, 2))
    assert first.step_seconds <= second.step_seconds < 1.1 * first.step_seconds


def test_one_micro_batch_reduces_once_whatever_is_shared(make_job):
    job = make_job("gpt2-xl", on="a100-80gb", length=1024, batch=8, software="fused")
    first, second = (_seconds(job, f"data=8,zero={zero},micro_batch=1") for zero in (1, 2))
    assert first == second


def test_a_slow_link_leaves_every_reduction_exposed_but_what_a_micro_batch_hides(make_job):
    """Reductions that are longer than a micro-batch computes cannot all be hidden."""
    job = make_job(_GPT, on="a100-80gb", devices=64, length=512, batch=64 * 4, software="fused", per_node=1)
    found = _seconds(job, "data=64,zero=2,micro_batch=1")
    assert found.data > found.compute


def test_the_fullest_stage_updates_and_sums_its_gradients(make_job):
    """Of 126 layers on 16 stages the middle ones have one more than the first, which outweighs its embedding."""
    job = make_job("llama3-405b", devices=1024, batch=1024)
    layout = parse_layout("data=8,tensor=8,sequence=on,pipeline=16,micro_batch=1")
    layers = layers_of_ranks(job, layout)
    held = dict(parameters_of_ranks(job, layout, layers))
    assert held[1] > held[0]
    found = _seconds(job, str(layout))
    first_alone = job.machine.traffic_seconds(58.0 * held[0])
    assert found.optimizer == pytest.approx(job.machine.traffic_seconds(58.0 * held[1]))
    assert found.optimizer > first_alone


def test_ranks_with_less_are_waited_for_less(make_job):
    """The pipeline fills through 14 stages of 8 layers and two of 7."""
    job = make_job("llama3-405b", devices=128, batch=64)
    more = msgspec.structs.replace(job.architecture, layers=128)
    text = "tensor=8,sequence=on,pipeline=16,micro_batch=1"
    uneven, even = (_seconds(one, text) for one in (job, msgspec.structs.replace(job, architecture=more)))
    assert uneven.bubble / even.bubble == pytest.approx((13 * 8 + 2 * 7) / (15 * 8), rel=0.03)


def test_the_head_alone_may_take_a_layers_place(make_job):
    job = make_job(_GPT | {"layers": 31}, on="a100-80gb", devices=4, length=2048, batch=16)
    plan = Scorer(job).plan(parse_layout("pipeline=4,micro_batch=1"))
    assert plan.step_seconds is not None
    assert layers_of_ranks(job, plan.layout) == (8, 8, 8, 7)
