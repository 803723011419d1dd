import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.spec.errors import DataError
from trimtab.stats import bootstrap
from trimtab.stats.student import t_975

sizes = st.integers(2, 40)


def _files(groups, seed):
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, 500, groups).astype(float)
    return tokens, tokens * generator.lognormal(0.5, 0.3, groups)


def test_draws_are_whole_resamples_and_the_same_for_everybody():
    drawn = bootstrap.draws(17)
    assert drawn.shape == (bootstrap.RESAMPLES, 17)
    assert (drawn.sum(axis=1) == 17).all()
    assert np.array_equal(drawn, bootstrap.draws.__wrapped__(17))
    assert not np.array_equal(drawn, bootstrap.draws(17, seed=1))
    with pytest.raises(ValueError, match="read-only"):
        drawn[0, 0] = 1


@given(sizes, st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_figure_is_the_plain_one_and_lies_in_its_interval(groups, seed):
    tokens, nll = _files(groups, seed)
    found = bootstrap.perplexity(nll, tokens)
    assert found.value == pytest.approx(np.exp(nll.sum() / tokens.sum()))
    assert found.low <= found.value <= found.high
    assert bootstrap.ratio_of_sums(nll, tokens).value == pytest.approx(np.log(found.value))


@given(sizes, st.integers(0, 10_000), st.floats(0.5, 2))
@settings(max_examples=40, deadline=None)
def test_a_ratio_is_paired(groups, seed, factor):
    """A build that is worse by the same factor in every file has no spread in its ratio at all."""
    tokens, nll = _files(groups, seed)
    found = bootstrap.perplexity_ratio(nll + np.log(factor) * tokens, nll, tokens)
    assert found.value == pytest.approx(factor)
    assert found.high - found.low < 1e-9


def test_intervals_cover_the_truth():
    """A level per file, 12 files: about 95 of 100 intervals hold the true mean; plain percentiles fewer."""
    generator = np.random.default_rng(3)
    expanded = plain = 0
    for _ in range(400):
        values = generator.lognormal(0, 0.2, 12)
        found = bootstrap.mean(values)
        expanded += found.low <= np.exp(0.02) <= found.high
        low, high = np.quantile(bootstrap.draws(12) @ values / 12, [0.025, 0.975])
        plain += low <= np.exp(0.02) <= high
    assert 0.915 <= expanded / 400 <= 0.985
    assert plain < expanded


@given(st.integers(2, 12), st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_percentile_of_pooled_histograms(groups, seed, fraction):
    generator = np.random.default_rng(seed)
    values = [generator.exponential(1, 200) for _ in range(groups)]
    edges = np.linspace(0, 20, 2001)
    counts = np.stack([np.histogram(v, edges)[0] for v in values])
    found = bootstrap.percentile(counts, edges, fraction)
    assert abs(found.value - np.quantile(np.concatenate(values), fraction, method="inverted_cdf")) <= 0.0101
    assert found.low <= found.value <= found.high


def test_an_empty_file_is_no_error_but_empty_text_is():
    assert bootstrap.perplexity([2.0, 0.0, 4.0], [2, 0, 4]).value == pytest.approx(np.e)
    with pytest.raises(DataError, match="not finite"):
        bootstrap.perplexity([0.0, 0.0], [0, 0])
    with pytest.raises(DataError, match="two groups"):
        bootstrap.perplexity([1.0], [1])
    with pytest.raises(ValueError, match="groups"):
        bootstrap.ratio_of_sums([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("degrees", "exact"), [(1, 12.706), (4, 2.776), (5, 2.571), (8, 2.306), (30, 2.042), (10**6, 1.96)]
)
def test_student(degrees, exact):
    assert t_975(degrees) == pytest.approx(exact, rel=2e-3)
