import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.evaluation.ngrams import DISCOUNT, fit
from trimtab.spec.errors import DataError

V = 5


def _by_hand(tokens, history, word):
    """The same formula, one probability at a time, straight from the definition."""
    if not history:
        return (tokens.count(word) + 0.5) / (len(tokens) + 0.5 * V)
    order = len(history)
    followers = [tokens[i + order] for i in range(len(tokens) - order) if tokens[i : i + order] == history]
    lower = _by_hand(tokens, history[1:], word)
    if not followers:
        return lower
    own = max(followers.count(word) - DISCOUNT, 0) / len(followers)
    return own + DISCOUNT * len(set(followers)) / len(followers) * lower


@given(
    st.lists(st.integers(0, V - 1), min_size=3, max_size=40),
    st.lists(st.integers(0, V - 1), min_size=4, max_size=8),
)
def test_probabilities_equal_the_definition(train, window):
    found = fit(np.array(train), V).nll(np.array([window]))
    for place in range(1, len(window)):
        for order, name in enumerate(("unigram", "bigram", "trigram")):
            history = window[max(0, place - order) : place]
            assert found[name][0, place - 1] == pytest.approx(
                -np.log(_by_hand(train, history, window[place]))
            )


@given(st.lists(st.integers(0, V - 1), min_size=3, max_size=40), st.integers(0, V - 1), st.integers(0, V - 1))
def test_probabilities_of_all_next_words_sum_to_one(train, first, second):
    model = fit(np.array(train), V)
    windows = np.array([[first, second, word] for word in range(V)])
    for nll in model.nll(windows).values():
        assert np.exp(-nll[:, 1]).sum() == pytest.approx(1.0)


def test_on_text_with_order_longer_contexts_win():
    generator = np.random.default_rng(0)
    text = [0, 1]
    for _ in range(6000):
        text.append((text[-1] + 2 * text[-2]) % V if generator.random() < 0.8 else int(generator.integers(V)))
    train, test = np.array(text[:5000]), np.array(text[5000:5960]).reshape(-1, 32)
    found = fit(train, V).perplexities(test)
    assert found["trigram"] < 0.75 * found["bigram"]
    assert found["bigram"] <= 1.02 * found["unigram"]


def test_too_little_text_is_refused():
    with pytest.raises(DataError, match="at least three tokens"):
        fit(np.array([1, 2]), V)
