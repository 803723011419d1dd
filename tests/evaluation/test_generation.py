import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.evaluation.generation import degenerate, fraction_degenerate, looping, sample


@pytest.mark.parametrize("period", [1, 2, 5, 9])
def test_a_phrase_repeated_at_the_end_is_a_loop(period):
    phrase = list(range(100, 100 + period))
    repeats = max(4, -(-24 // period))
    assert looping([1, 2, 3, *phrase * repeats])
    assert not looping([*phrase * repeats, *range(200, 224)])


def test_a_short_repetition_is_no_loop():
    assert not looping([7] * 23)
    assert looping([7] * 24)
    assert not looping([*range(40), 5, 6, 5, 6, 5, 6])
    assert not looping([])


@given(st.permutations(range(64)))
def test_text_without_a_repeated_token_never_loops(tokens):
    assert not looping(tokens)


def test_empty_is_nothing_before_the_first_end():
    assert degenerate([], {0})
    assert degenerate([0, 4, 5], {0})
    assert not degenerate([4, 0], {0})
    assert degenerate([*[3] * 30, 0, 9, 8], {0})
    assert fraction_degenerate([[0], [1, 2], [3, 0], [5] * 50], {0}) == 0.5
    assert fraction_degenerate([]) == 0.0


def _fixed(weights):
    row = np.log(np.asarray(weights, dtype=np.float32))
    return lambda ids: np.broadcast_to(row, (*ids.shape, len(weights)))


def test_samples_follow_the_distribution():
    drawn = sample(_fixed([0.5, 0.3, 0.2]), np.zeros((500, 1), dtype=int), 20, temperature=1.0, top_p=1.0)
    assert drawn.shape == (500, 20)
    shares = np.bincount(drawn.ravel(), minlength=3) / drawn.size
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.02)


def test_top_p_keeps_the_smallest_set_and_temperature_zero_the_best():
    prompts = np.zeros((200, 2), dtype=int)
    assert set(sample(_fixed([0.2, 0.5, 0.3]), prompts, 10, temperature=1.0, top_p=0.75).ravel()) == {1, 2}
    assert set(sample(_fixed([0.2, 0.5, 0.3]), prompts, 10, temperature=1.0, top_p=0.0).ravel()) == {1}
    assert set(sample(_fixed([0.2, 0.5, 0.3]), prompts, 10, temperature=0.0).ravel()) == {1}


def test_samples_condition_on_what_was_written_and_repeat_by_seed():
    def successor(ids):
        logits = np.full((*ids.shape, 10), -50.0, dtype=np.float32)
        np.put_along_axis(logits, ((ids + 1) % 10)[..., None], 0.0, axis=-1)
        return logits

    assert sample(successor, np.array([[3], [8]]), 4).tolist() == [[4, 5, 6, 7], [9, 0, 1, 2]]
    flat = _fixed([0.25] * 4)
    first, again, other = (sample(flat, np.zeros((4, 1), dtype=int), 16, seed=s) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
