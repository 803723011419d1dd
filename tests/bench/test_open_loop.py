import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_client import job

from trimtab.bench.client import arrivals, drive
from trimtab.bench.job import address
from trimtab.spec.errors import EngineError, UsageError


@given(st.floats(0.5, 500), st.integers(0, 2**62))
def test_arrivals_are_random_and_keep_their_rate(rate, seed):
    moments = arrivals(job(requests=400, rate=rate, seed=seed))
    assert moments == sorted(moments)
    assert moments == arrivals(job(requests=400, rate=rate, seed=seed))
    # 400 exponential gaps: their sum is within a quarter in all but one of a million cases.
    assert moments[-1] * rate == pytest.approx(400, rel=0.27)


def test_requests_leave_when_they_are_due_answered_or_not(streaming):
    service = streaming(step_seconds=0.05)
    outcome = drive(job(service, concurrency=40, requests=40, output_tokens=8, rate=80.0))
    assert outcome.tokens == (8,) * 40
    # An answer takes 0.4 s, so a closed loop of one would take 16 s; these overlap.
    assert outcome.wall_seconds < 6
    assert service.most > 8


def test_a_wait_for_a_free_connection_counts(streaming):
    service = streaming(step_seconds=0.02)
    outcome = drive(job(service, concurrency=1, requests=6, output_tokens=5, rate=1000.0))
    # All were due at once and each took 0.1 s, so the last waited for five others.
    assert max(outcome.first) > 0.4
    assert outcome.wall_seconds >= 6 * 5 * 0.02


def test_a_connection_that_was_closed_while_idle_is_opened_again(streaming):
    service = streaming(step_seconds=0.0, close_after=1)
    outcome = drive(job(service, concurrency=2, requests=8, rate=20.0))
    assert outcome.tokens == (8,) * 8
    assert service.connections > 2


def test_silence_and_a_cut_answer_are_still_told(streaming):
    with pytest.raises(EngineError, match="no byte came"):
        drive(job(streaming(wait=2), timeout_seconds=0.2, rate=100.0))
    with pytest.raises(EngineError, match="mid-answer"):
        drive(job(streaming(cut=3), rate=100.0))


def test_a_pause_between_requests_is_no_silence(streaming):
    began = time.monotonic()
    asked = job(streaming(), concurrency=1, requests=3, rate=0.5, timeout_seconds=1.0, seed=5)
    moments = [0.0, *arrivals(asked)]
    assert max(after - before for before, after in itertools.pairwise(moments)) > 1.5
    assert len(drive(asked).tokens) == 3
    assert time.monotonic() - began > moments[-1]


def test_addresses():
    assert address("http://127.0.0.1:8000/v1") == ("127.0.0.1", 8000, "/v1/completions")
    assert address("http://host/base/") == ("host", 80, "/base/v1/completions")
    with pytest.raises(UsageError, match="no TLS"):
        address("https://host")
