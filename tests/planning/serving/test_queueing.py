import math

import engine_profiles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.serving.engine_steps import engine_steps
from trimtab.planning.serving.queueing import completion_rates, queue, queue_bound


@given(st.floats(0.05, 0.9), st.floats(0.1, 100))
def test_one_server_is_mm1(load, service_rate):
    found = queue((service_rate,), rate=load * service_rate, places=2000)
    assert found.running + found.waiting == pytest.approx(load / (1 - load), rel=1e-6)
    assert found.utilisation == pytest.approx(load)
    assert found.seconds_inside == pytest.approx(1 / (service_rate * (1 - load)), rel=1e-6)


@given(st.integers(1, 30), st.floats(0.1, 40))
def test_servers_without_a_queue_refuse_what_erlang_b_says(servers, erlangs):
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = erlangs * blocked / (n + erlangs * blocked)
    found = queue(tuple(range(1, servers + 1)), rate=erlangs, places=servers)
    assert found.refused == pytest.approx(blocked)
    assert found.running == pytest.approx(erlangs * (1 - blocked))
    assert found.waiting == 0


@given(st.floats(0.1, 3), st.integers(1, 64), st.integers(0, 400))
def test_what_enters_leaves(load, batch, queued):
    rates = tuple(math.sqrt(n) for n in range(1, batch + 1))
    found = queue(rates, rate=load * rates[-1], places=batch + queued)
    assert 0 <= found.refused < 1
    assert 0 <= found.running <= batch * (1 + 1e-9)
    assert 0 <= found.waiting <= queued + 1e-9
    accepted = found.offered * (1 - found.refused)
    assert accepted <= found.capacity * (1 + 1e-9)
    assert found.seconds_inside * accepted == pytest.approx(found.running + found.waiting)


def test_completion_rates_are_the_formula():
    steps = engine_steps(
        engine_profiles.engine_profile(context_seconds=1e-7, change_seconds=0.003, request_seconds=0.001)
    )
    rates = completion_rates(steps, prompt_tokens=100, output_tokens=50, max_batch=8)
    context = 1e-7 * (100 + 25 - 48)
    for n, rate in enumerate(rates, start=1):
        step = 0.001 + 0.0002 * n + n * context + 0.003 * (1 - math.exp(-3 * n / 50))
        assert rate == pytest.approx(1 / (50 * step / n + 2e-5 * 100 + 0.001))


def test_the_last_of_a_bounded_queue_starts_in_time():
    assert queue_bound((1.0, 1.5, 20.0), seconds=0.5) == 10
    assert queue_bound((1.0,), seconds=0.0) == 1
