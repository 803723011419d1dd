import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.evaluation.tally import KL_EDGES, PerFile, score
from trimtab.spec.errors import EngineError, ModelError


def _logits(seed: int, tokens: int, vocabulary: int, scale: float = 2.0):
    return (np.random.default_rng(seed).standard_normal((tokens, vocabulary)) * scale).astype(np.float32)


def _whole(reference, build, targets):
    parts = [scored for _, scored in score(reference, build, targets)]
    return {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in parts[0].__struct_fields__
    }


def _log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 60))
def test_every_figure_equals_its_definition(seed, tokens, vocabulary):
    reference, build = _logits(seed, tokens, vocabulary), _logits(seed + 1, tokens, vocabulary)
    targets = np.random.default_rng(seed).integers(0, vocabulary, tokens)
    found = _whole(reference, build, targets)
    p, q = _log_softmax(reference), _log_softmax(build)
    rows = np.arange(tokens)
    np.testing.assert_allclose(found["kl"], (np.exp(p) * (p - q)).sum(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["nll"], -q[rows, targets], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["reference_nll"], -p[rows, targets], rtol=1e-5, atol=1e-5)
    right, theirs = p.argmax(1) == targets, q.argmax(1) == targets
    assert (found["worse"] == (right & ~theirs)).all()
    assert (found["better"] == (~right & theirs)).all()
    assert (found["agree"] == (p.argmax(1) == q.argmax(1))).all()


def test_a_build_equal_to_the_reference_has_no_divergence_at_all():
    logits = _logits(0, 300, 50)
    found = _whole(logits, logits.copy(), np.zeros(300, dtype=int))
    assert (found["kl"] == 0).all()
    assert (found["agree"] == 1).all()
    assert not found["worse"].any()
    assert not found["better"].any()


def test_slices_change_nothing(monkeypatch):
    reference, build = _logits(1, 100, 30), _logits(2, 100, 30)
    targets = np.arange(100) % 30
    whole = _whole(reference, build, targets)
    monkeypatch.setattr("trimtab.evaluation.tally._SLICE", 90)
    assert len(list(score(reference, build, targets))) == 34
    for name, values in _whole(reference, build, targets).items():
        np.testing.assert_array_equal(values, whole[name])


def test_sums_go_to_their_group_and_the_histogram_holds_every_token():
    reference, build = _logits(3, 200, 20), _logits(4, 200, 20)
    groups = np.random.default_rng(0).integers(0, 5, 200)
    sums = PerFile.empty(6)
    for part, scored in score(reference, build, np.zeros(200, dtype=int)):
        sums.add(groups[part], scored)
    found = _whole(reference, build, np.zeros(200, dtype=int))
    for number in range(6):
        assert sums.tokens[number] == (groups == number).sum() == sums.kl_histogram[number].sum()
        assert sums.kl[number] == pytest.approx(found["kl"][groups == number].sum())
    assert sums.tokens[5] == 0


def test_the_histogram_puts_a_divergence_between_its_edges():
    sums = PerFile.empty(1)
    reference, build = _logits(5, 1, 20), _logits(6, 1, 20)
    ((_, scored),) = score(reference, build, np.zeros(1, dtype=int))
    sums.add(np.zeros(1, dtype=int), scored)
    bin_ = int(sums.kl_histogram[0].argmax())
    assert KL_EDGES[bin_] <= scored.kl[0] < KL_EDGES[bin_ + 1]


def test_other_vocabulary_and_broken_logits_are_refused():
    targets = np.zeros(3, dtype=int)
    with pytest.raises(ModelError, match="share a tokenizer"):
        list(score(_logits(0, 3, 10), _logits(0, 3, 11), targets))
    broken = _logits(0, 3, 10)
    broken[1, 4] = np.nan
    with pytest.raises(EngineError, match="small-one gave logits that are not finite"):
        list(score(_logits(0, 3, 10), broken, targets, name="small-one"))
