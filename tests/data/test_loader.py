from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.loader import Loader, share
from trimtab.data.samples.windows import Windows
from trimtab.spec.errors import DataError

LENGTH = 4


def loaders(windows, batch, world, seed, position=0):
    tokens = np.arange(windows * LENGTH + 1, dtype="<u2")
    return [
        Loader(Windows(tokens, LENGTH), batch=batch, seed=seed, rank=rank, world=world, position=position)
        for rank in range(world)
    ]


def taken(group, steps):
    """The windows of each global batch, by number."""
    return [
        [int(row[0]) // LENGTH for loader in group for row in loader.next()["windows"]] for _ in range(steps)
    ]


CASES = {
    "windows": st.integers(1, 40),
    "batch": st.integers(1, 9),
    "world": st.integers(1, 4),
    "seed": st.integers(0, 9),
}


@given(**CASES, epochs=st.integers(1, 3))
def test_each_window_exactly_once_an_epoch_over_all_ranks(windows, batch, world, seed, epochs):
    batch = max(batch, world)
    steps = -(-windows * epochs // batch)
    order = list(chain(*taken(loaders(windows, batch, world, seed), steps)))
    for epoch in range(epochs):
        assert sorted(order[epoch * windows : (epoch + 1) * windows]) == list(range(windows))


@given(**CASES, before=st.integers(0, 12), other_world=st.integers(1, 4))
def test_resuming_gives_the_exact_next_batches_in_any_number_of_ranks(
    windows, batch, world, seed, before, other_world
):
    batch = max(batch, world, other_world)
    group = loaders(windows, batch, world, seed)
    taken(group, before)
    resumed = loaders(windows, batch, other_world, seed, position=group[0].position)
    assert taken(resumed, 4) == taken(group, 4)


@given(st.integers(1, 50), st.integers(1, 9))
def test_shares_are_even(batch, world):
    shares = [share(batch, rank, world) for rank in range(world)]
    assert [place for part in shares for place in part] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_targets_are_inputs_one_on():
    (loader,) = loaders(10, 3, 1, 0)
    rows = loader.next()["windows"]
    assert rows.shape == (3, LENGTH + 1)
    assert rows.dtype == np.int64
    assert (np.diff(rows) == 1).all()


def test_seeds_and_epochs_differ():
    first, other = (list(chain(*taken(loaders(40, 5, 1, seed), 16))) for seed in (0, 1))
    assert first != other
    assert first[:40] != first[40:]


def test_too_little_text_and_too_small_a_batch():
    with pytest.raises(DataError, match="less than one sequence of 4"):
        Windows(np.arange(4, dtype="<u2"), 4)
    with pytest.raises(DataError, match="batch of 1 cannot be shared by 2"):
        loaders(5, 1, 2, 0)
