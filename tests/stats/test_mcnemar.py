from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.stats import mcnemar


@given(st.integers(0, 60), st.integers(0, 60))
def test_equals_the_sum_of_binomials(worse, better):
    trials = worse + better
    exact = min(1.0, 2 * sum(comb(trials, k) for k in range(min(worse, better) + 1)) / 2**trials)
    assert mcnemar.exact(worse, better) == pytest.approx(exact)
    assert mcnemar.exact(worse, better) == mcnemar.exact(better, worse)


def test_large_counts_and_none():
    assert mcnemar.exact(0, 0) == 1.0
    assert mcnemar.exact(50_000, 50_000) == 1.0
    # Two standard deviations: 50 500 of 100 000 + continuity.
    assert mcnemar.exact(50_316, 49_684) == pytest.approx(0.0459, abs=5e-4)
    assert mcnemar.exact(100_000, 90_000) < 1e-50
    with pytest.raises(ValueError, match="negative"):
        mcnemar.exact(-1, 2)
