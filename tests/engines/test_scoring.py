"""Scores against the definition, whatever pieces the logits come in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.engines.scorers import scorer
from trimtab.engines.scoring import finish, log_softmax, piece_rows, score_pieces
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import ServingConfiguration


@given(
    st.integers(1, 30), st.integers(2, 20), st.integers(1, 31), st.integers(0, 20), st.integers(0, 2**32 - 1)
)
def test_any_cut_into_pieces_gives_the_same_score(length, vocabulary, rows, top, seed):
    draw, top = np.random.default_rng(seed), min(top, vocabulary)
    logits = draw.normal(0, 5, (length, vocabulary)).astype(np.float32)
    tokens = draw.integers(0, vocabulary, length).astype(np.int32)
    pieces = [logits[start : start + rows] for start in range(0, length, rows)]
    score = finish(score_pieces(tokens, top, iter(pieces)))
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    assert np.isnan(score.logprobs[0])
    np.testing.assert_allclose(score.logprobs[1:], exact[np.arange(length - 1), tokens[1:]], atol=1e-4)
    best = np.sort(exact[:-1], axis=1)[:, ::-1][:, :top]
    np.testing.assert_allclose(score.top_logprobs[1:], best, atol=1e-4)
    chosen = np.take_along_axis(exact[:-1], score.top_ids[1:].astype(np.int64), axis=1)
    np.testing.assert_allclose(chosen, best, atol=1e-4)


def test_there_is_news_after_every_piece_and_the_score_comes_last():
    logits = np.zeros((10, 4), np.float32)
    said = list(score_pieces(np.zeros(10, np.int32), 0, (logits[i : i + 3] for i in range(0, 10, 3))))
    assert [item is None for item in said] == [True] * 4 + [False]


def test_large_logits_do_not_overflow():
    rows = log_softmax(np.array([[1e30, -1e30, 1e30]], np.float32))
    np.testing.assert_allclose(rows[0, [0, 2]], np.log(0.5), rtol=1e-6)


@pytest.mark.parametrize(("vocabulary", "batch"), [(256, 1), (150_000, 1), (150_000, 64), (8192, 16)])
def test_pieces_are_as_large_as_the_bounds_allow(vocabulary, batch):
    def fits(rows):
        return rows * batch <= 256 and rows * batch * vocabulary * 4 <= 16 * 2**20

    rows = piece_rows(vocabulary, batch)
    assert rows == 1 or fits(rows)
    assert not fits(rows + 1)


def test_the_mock_engine_has_nothing_to_score_with(tmp_path):
    with pytest.raises(EngineError, match="no model"):
        scorer(tmp_path, ServingConfiguration(engine="mock"), tmp_path)
