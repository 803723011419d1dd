import numpy as np
import pytest

from trimtab.evaluation.quality import REFERENCE, compare, group
from trimtab.spec.errors import DataError

VOCABULARY = 32


class Table:
    """A scorer whose logits depend on the last token only: a table, plus noise."""

    def __init__(self, seed: int, *, noise: float = 0.0, sharpness: float = 1.0) -> None:
        generator = np.random.default_rng(seed)
        base = np.random.default_rng(0).standard_normal((VOCABULARY, VOCABULARY)) * 2
        self._table = (sharpness * base + noise * generator.standard_normal((VOCABULARY, VOCABULARY))).astype(
            np.float32
        )
        self.shapes: list[tuple[int, int]] = []

    def logits(self, tokens):
        self.shapes.append(tokens.shape)
        return self._table[tokens]

    def draw(self, generator, count, length):
        """Text of the table's own distribution."""
        p = np.exp(self._table.astype(np.float64))
        cumulative = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
        ids = [generator.integers(0, VOCABULARY, count)]
        for _ in range(length - 1):
            uniform = generator.random((count, 1))
            ids.append(np.minimum((cumulative[ids[-1]] < uniform).sum(axis=1), VOCABULARY - 1))
        return np.stack(ids, axis=1)


def _text(windows=60, files=12, length=17, seed=5):
    ids = Table(0).draw(np.random.default_rng(seed), windows, length)
    return ids, np.arange(windows) % files


def test_a_model_against_itself_is_itself():
    windows, files = _text()
    quality = compare(Table(0), {"same": Table(0)}, windows, files).quality("same")
    for estimate in (quality.perplexity_ratio, quality.top1_agreement):
        assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)
    for estimate in (quality.kl_mean, quality.flips_worse, quality.flips_better):
        assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)
    assert quality.kl_p99.value < 1e-7
    assert quality.tokens == 60 * 16


def test_perplexity_is_that_of_every_token_but_each_windows_first():
    windows, files = _text()
    table = Table(0)
    logits = table.logits(windows)[:, :-1].astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nll = -np.take_along_axis(logp, windows[:, 1:, None], axis=-1)
    found = compare(table, {}, windows, files).perplexity(REFERENCE)
    assert found.value == pytest.approx(float(np.exp(nll.mean())), rel=1e-5)
    assert found.low < found.value < found.high


def test_more_noise_is_worse_in_every_figure():
    windows, files = _text(windows=200, files=40)
    builds = {"slight": Table(1, noise=0.2), "strong": Table(1, noise=1.0)}
    found = compare(Table(0), builds, windows, files)
    slight, strong = found.quality("slight"), found.quality("strong")
    assert 0 < slight.kl_mean.high < strong.kl_mean.low
    assert slight.kl_mean.value < slight.kl_p99.value < strong.kl_p99.value
    assert 1 > slight.top1_agreement.low > strong.top1_agreement.high
    assert 1 < slight.perplexity_ratio.value < strong.perplexity_ratio.low
    assert strong.flips_worse.value > strong.flips_better.value > 0


def test_the_p99_is_that_of_the_tokens():
    windows, files = _text(windows=200, files=40)
    reference, build = Table(0), Table(1, noise=0.5)
    p, q = (
        table.logits(windows)[:, :-1].reshape(-1, VOCABULARY).astype(np.float64)
        for table in (reference, build)
    )
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (p, q))
    wanted = np.quantile((np.exp(p) * (p - q)).sum(axis=1), 0.99)
    found = compare(reference, {"build": build}, windows, files).quality("build").kl_p99
    assert found.value == pytest.approx(wanted, rel=0.03)
    assert found.low <= found.value <= found.high


def test_a_paired_ratio_is_far_tighter_than_its_two_sides():
    windows, files = _text(windows=120, files=30)
    found = compare(Table(0), {"a": Table(1, noise=0.3), "b": Table(2, noise=0.3)}, windows, files)
    ratio, a, b = found.perplexity_ratio("a", "b"), found.perplexity("a"), found.perplexity("b")
    assert ratio.value == pytest.approx(a.value / b.value)
    assert (ratio.high - ratio.low) * 3 < (a.high - a.low) / b.value + (b.high - b.low) / a.value * 1.0 + 1e-9


def test_the_interval_of_the_ratio_covers_the_truth_about_95_times_in_100():
    reference, build = Table(0), Table(1, noise=0.5)
    many = Table(0).draw(np.random.default_rng(99), 4000, 17)
    truth = compare(reference, {"b": build}, many, np.arange(4000)).perplexity_ratio("b", REFERENCE).value
    hits = 0
    for trial in range(100):
        windows, files = _text(windows=24, files=12, seed=trial)
        interval = compare(reference, {"b": build}, windows, files).perplexity_ratio("b", REFERENCE)
        hits += interval.low <= truth <= interval.high
    assert 87 <= hits <= 100


def test_batches_bound_the_logits_and_change_nothing():
    windows, files = _text()
    reference, build = Table(0), Table(1, noise=0.3)
    limit = 5 * 17 * VOCABULARY * 4
    small = compare(reference, {"b": build}, windows, files, logits_bytes=limit).quality("b")
    assert {shape[0] for shape in reference.shapes} <= {1, 4, 5}
    assert build.shapes == reference.shapes
    large = compare(Table(0), {"b": build}, windows, files).quality("b")
    for name in ("perplexity", "kl_mean", "kl_p99", "top1_agreement"):
        assert getattr(small, name).value == pytest.approx(getattr(large, name).value)


def test_files_are_drawn_where_there_are_enough_and_stretches_of_text_where_not():
    numbers, what = group(np.repeat(np.arange(12) * 7, 3))
    assert what == "files"
    assert list(numbers) == list(np.repeat(np.arange(12), 3))
    numbers, what = group(np.zeros(100, dtype=int))
    assert what == "stretches of text"
    assert 20 <= len(set(numbers)) <= 30
    assert (np.diff(numbers) >= 0).all()
    two = np.repeat([0, 1], 30)
    numbers, _ = group(two)
    for stretch in set(numbers):
        assert len(set(two[numbers == stretch])) == 1


def test_progress_ends_at_one_and_no_text_is_refused():
    seen: list[float] = []
    windows, files = _text()
    compare(Table(0), {}, windows, files, on_progress=seen.append)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    with pytest.raises(DataError, match="no whole window"):
        compare(Table(0), {}, windows[:0], files[:0])
