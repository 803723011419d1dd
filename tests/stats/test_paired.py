import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec.errors import UsageError
from trimtab.spec.measures import Estimate
from trimtab.stats import paired

speeds = st.floats(1, 1e5)


def test_nine_rounds_drop_one_at_each_end():
    found = paired.median([5, 1, 9, 3, 7, 2, 8, 4, 6])
    assert (found.value, found.low, found.high) == (5, 2, 8)


@pytest.mark.parametrize(("rounds", "low"), [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (20, 6), (25, 8)])
def test_order_statistics_are_those_of_the_sign_test(rounds, low):
    found = paired.median(range(1, rounds + 1))
    assert (found.low, found.high) == (low, rounds + 1 - low)


@given(st.lists(st.tuples(speeds, speeds), min_size=2, max_size=30))
def test_interval_holds_the_median_and_turns_over(pairs):
    above, below = zip(*pairs, strict=True)
    found, turned = paired.ratio(above, below), paired.ratio(below, above)
    assert found.low <= found.value <= found.high
    assert turned.low == pytest.approx(1 / found.high)
    assert turned.high == pytest.approx(1 / found.low)


@given(st.lists(st.tuples(speeds, st.floats(0.01, 100)), min_size=9, max_size=20), st.floats(0.5, 4))
def test_a_slow_minute_cancels(rounds, factor):
    """Both sides of a round are slowed alike: the ratio does not see it."""
    below = [speed * slowdown for speed, slowdown in rounds]
    above = [value * factor for value in below]
    assert paired.ratio(above, below).high == pytest.approx(factor)


@pytest.mark.parametrize("rounds", [3, 5, 9, 15])
def test_intervals_cover_the_true_ratio(rounds):
    generator = np.random.default_rng(rounds)
    held = 0
    for _ in range(600):
        below = generator.lognormal(0, 0.4, rounds)
        found = paired.ratio(below * 2.5 * generator.lognormal(0, 0.1, rounds), below)
        held += found.low <= 2.5 <= found.high
    assert held / 600 >= 0.93


def test_too_few_rounds():
    with pytest.raises(UsageError, match="two rounds"):
        paired.median([1.0])
    with pytest.raises(UsageError, match="too few for a claim"):
        paired.check_claim(8)
    paired.check_claim(9)
    with pytest.raises(ValueError, match="positive"):
        paired.median([1.0, 0.0, 2.0])
    with pytest.raises(ValueError, match="every round"):
        paired.ratio([1.0, 2.0], [1.0])


def test_noise_gate():
    generator = np.random.default_rng(0)
    base = generator.lognormal(5, 0.3, 15)
    calm = paired.noise(base * generator.lognormal(0, 0.01, 15), base)
    assert calm.quiet
    assert calm.rounds == 15
    assert not paired.noise(base * generator.lognormal(0, 0.5, 15), base).quiet
    assert not paired.noise(base * 1.2, base, allowed=0.5).quiet


def test_a_claim_must_leave_the_noise():
    background = Estimate(value=1, low=0.95, high=1.06)
    assert paired.exceeds(Estimate(value=2, low=1.8, high=2.2), background)
    assert paired.exceeds(Estimate(value=0.5, low=0.4, high=0.6), background)
    assert not paired.exceeds(Estimate(value=1.1, low=1.05, high=1.2), background)
