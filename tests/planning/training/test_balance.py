import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.training.balance import cut, decoder_cut, stages_of_rank
from trimtab.spec.errors import UsageError

costs_and_stages = st.lists(st.floats(0, 100), min_size=1, max_size=9).flatmap(
    lambda costs: st.tuples(st.just(costs), st.integers(1, len(costs)))
)


def largest(costs, ranges):
    return max(sum(costs[i] for i in held) for held in ranges)


@given(costs_and_stages)
def test_stages_are_contiguous_not_empty_and_take_every_layer_once(case):
    costs, stages = case
    ranges = cut(costs, stages)
    assert len(ranges) == stages
    assert [i for held in ranges for i in held] == list(range(len(costs)))
    assert all(ranges)


@given(costs_and_stages)
def test_no_other_cut_is_better(case):
    costs, stages = case
    ways = itertools.combinations(range(1, len(costs)), stages - 1)
    best = min(
        largest(costs, [range(a, b) for a, b in itertools.pairwise([0, *way, len(costs)])]) for way in ways
    )
    assert largest(costs, cut(costs, stages)) == pytest.approx(best)


def test_a_heavy_head_is_a_stage_of_its_own():
    assert decoder_cut([1.0] * 4, 9.0, 3) == [range(2), range(2, 4), range(4, 5)]


def test_ranks_take_turns():
    assert [list(stages_of_rank(6, rank, 2)) for rank in (0, 1)] == [[0, 2, 4], [1, 3, 5]]


def test_more_stages_than_layers_are_refused():
    with pytest.raises(UsageError, match="2 layers cannot fill 3 stages"):
        cut([1.0, 1.0], 3)
