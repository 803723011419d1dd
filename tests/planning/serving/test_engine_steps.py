import itertools

import engine_profiles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.serving.engine_steps import engine_steps
from trimtab.spec.engine_profile import Wave
from trimtab.spec.errors import UsageError

small = st.floats(1e-6, 1e-2)


@given(
    small,
    small,
    st.floats(0, 1e-6),
    st.floats(1e-8, 1e-3),
    st.floats(0, 1e-2),
    st.floats(0, 50),
    st.floats(0, 0.1),
)
def test_what_was_planted_is_found(fixed, each, context, prompt, request, changes, outside):
    change = changes * (fixed + each)
    steps = engine_steps(
        engine_profiles.engine_profile(
            lambda n: fixed + each * n,
            context_seconds=context,
            prompt_seconds=prompt,
            request_seconds=request,
            change_seconds=change,
            outside_seconds=outside,
        )
    )
    assert steps.alone(1) == pytest.approx(fixed + each)
    assert steps.alone(5) == pytest.approx(fixed + 5 * each)
    assert steps.alone(100) == pytest.approx(fixed + 100 * each)
    # Single requests of 128 and 256 tokens wait for their context too, which is no part of their first token.
    assert steps.prompt_seconds == pytest.approx(prompt, rel=1e-6)
    assert steps.context_seconds == pytest.approx(context, rel=1e-6, abs=1e-12)
    assert steps.request_seconds == pytest.approx(request, rel=1e-6, abs=1e-9)
    assert steps.change_seconds == pytest.approx(change, rel=1e-6, abs=1e-9)
    assert steps.outside_seconds == pytest.approx(outside, abs=1e-9)
    assert steps.context_tokens == 16 + 32


@given(st.lists(st.floats(1e-4, 1e-1), min_size=6, max_size=6))
def test_noise_never_makes_larger_batches_faster_nor_moves_the_mean(times):
    by_level = dict(zip(engine_profiles.LEVELS, times, strict=True))
    steps = engine_steps(engine_profiles.engine_profile(by_level.__getitem__, context_seconds=0))
    assert list(steps.seconds) == sorted(steps.seconds)
    assert sum(steps.seconds) == pytest.approx(sum(times))
    table = steps.table(80)
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(table))


def test_a_profile_without_prompts_of_two_lengths_is_refused():
    profile = engine_profiles.engine_profile(
        waves=(Wave(running=1, prompt_tokens=16, output_tokens=8, ttft=0.1, tpot=0.01),)
    )
    with pytest.raises(UsageError, match="--measure"):
        engine_steps(profile)


def test_where_requests_are_read_beside_the_steps_they_cost_the_others_less():
    found = engine_steps(engine_profiles.engine_profile(prompt_seconds=1e-5, request_seconds=4e-4, busy=0.25))
    assert found.busy == pytest.approx(0.25)
    assert found.change_seconds == 0
    # Its own first token waits for all of it.
    assert found.outside_seconds == pytest.approx(0.002)
    assert found.beside(100) == pytest.approx(0.002 + 0.75 * (4e-4 + 100 * 1e-5))
