import engine_profiles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.planning.serving.engine_steps import engine_steps
from trimtab.planning.serving.queueing import completion_rates, queue
from trimtab.planning.serving.replay import Batching, replay
from trimtab.planning.serving.traffic import Traffic

BATCHING = Batching(max_batch=32, max_batch_tokens=512, max_queue=1000)
STEPS = engine_steps(engine_profiles.engine_profile())


@settings(max_examples=8)
@given(
    st.floats(0.1, 0.8),
    st.sampled_from([(16, 64), (128, 32), (64, 100)]),
    st.sampled_from([0.0, 0.0005, 0.002]),
)
def test_means_agree_with_the_formula(load, lengths, change):
    prompt, output = lengths
    steps = engine_steps(engine_profiles.engine_profile(change_seconds=change, request_seconds=change / 2))
    rates = completion_rates(steps, prompt_tokens=prompt, output_tokens=output, max_batch=32)
    rate = load * max(rates)
    formula = queue(rates, rate=rate, places=1032)
    traffic = Traffic(prompt_tokens=prompt, output_tokens=output, rate=rate)
    found = replay(steps, BATCHING, traffic, workers=1, seed=1)
    assert found.tokens_per_second == pytest.approx(rate * output, rel=0.12)
    # A step that has begun is waited for, which the formula's fluid does not know.
    assert found.running == pytest.approx(formula.running + formula.waiting, rel=0.25, abs=0.1)
    assert found.refused == 0


@given(st.integers(1, 32))
def test_clients_in_a_closed_loop_share_every_step(clients):
    traffic = Traffic(prompt_tokens=16, output_tokens=64, concurrency=clients)
    found = replay(STEPS, BATCHING, traffic, workers=1)
    assert found.tpot_p50 == pytest.approx(STEPS.alone(clients), rel=0.25)
    assert found.ttft_p50 >= STEPS.outside_seconds
    assert found.tokens_per_second <= 1.05 * clients / STEPS.alone(clients)


def test_two_workers_bear_twice_as_much_and_many_are_followed_as_eight():
    one = replay(STEPS, BATCHING, Traffic(prompt_tokens=16, output_tokens=64, rate=40.0), workers=1)
    two = replay(STEPS, BATCHING, Traffic(prompt_tokens=16, output_tokens=64, rate=80.0), workers=2)
    many = replay(STEPS, BATCHING, Traffic(prompt_tokens=16, output_tokens=64, rate=4000.0), workers=100)
    # Two share a queue by its shortest, so they do a little better than each alone.
    assert two.ttft_p95 <= one.ttft_p95 * 1.1
    assert many.tokens_per_second == pytest.approx(100 * one.tokens_per_second, rel=0.15)


def test_what_does_not_fit_is_refused():
    tight = Batching(max_batch=4, max_batch_tokens=512, max_queue=4)
    rates = completion_rates(STEPS, prompt_tokens=16, output_tokens=64, max_batch=4)
    traffic = Traffic(prompt_tokens=16, output_tokens=64, rate=3 * max(rates))
    found = replay(STEPS, tight, traffic, workers=1)
    assert found.refused == pytest.approx(queue(rates, rate=3 * max(rates), places=8).refused, abs=0.05)
    assert found.requests_per_second == pytest.approx(max(rates), rel=0.1)


def test_a_long_prompt_is_taken_in_pieces():
    traffic = Traffic(prompt_tokens=900, output_tokens=8, concurrency=1)
    whole = replay(STEPS, Batching(max_batch=8, max_batch_tokens=1024, max_queue=8), traffic, workers=1)
    pieces = replay(STEPS, Batching(max_batch=8, max_batch_tokens=100, max_queue=8), traffic, workers=1)
    assert pieces.ttft_p50 - whole.ttft_p50 == pytest.approx(8 * STEPS.alone(1), rel=1e-6)


def test_seeds_repeat():
    traffic = Traffic(prompt_tokens=16, output_tokens=64, rate=40.0)
    assert replay(STEPS, BATCHING, traffic, workers=2, seed=3) == replay(
        STEPS, BATCHING, traffic, workers=2, seed=3
    )


def test_a_client_that_is_refused_comes_back():
    """Nine places for sixteen clients: all sixteen go on asking."""
    tight = Batching(max_batch=8, max_batch_tokens=512, max_queue=1)
    found = replay(STEPS, tight, Traffic(prompt_tokens=16, output_tokens=64, concurrency=16), workers=1)
    assert found.refused > 0.05
