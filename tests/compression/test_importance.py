import itertools

import pytest
import torch

from trimtab.compression.pruning.importance import choose, contribution, eliminate
from trimtab.compression.pruning.moments import Moments
from trimtab.compression.pruning.refit import refit

HIDDEN = 10


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _moments(z, matrix, *, bias=False):
    moments = Moments(z.shape[1], matrix.shape[1], bias=bias)
    moments.add(z, z @ matrix)
    return moments


@pytest.mark.parametrize("how", ["elimination", "contribution"])
@pytest.mark.parametrize("bias", [False, True])
def test_units_that_do_nothing_go_first(how, bias):
    z, matrix = _normal(400, 12), _normal(12, HIDDEN, seed=1)
    z[:, 3] = 0
    matrix[7] = 0
    z[:, 9] *= 0.01
    assert choose(_moments(z, matrix, bias=bias), matrix, 12, 9, how=how).tolist() == [
        unit for unit in range(12) if unit not in {3, 7, 9}
    ]


@pytest.mark.parametrize("how", ["elimination", "contribution"])
def test_groups_go_whole(how):
    z, matrix = _normal(400, 12), _normal(12, HIDDEN, seed=1)
    z[:, 4:8] *= 0.1  # unit 1 of 3
    assert choose(_moments(z, matrix), matrix, 3, 2, how=how).tolist() == [0, 2]


def test_the_contribution_is_the_size_of_what_a_unit_adds():
    z, matrix = _normal(500, 6), _normal(6, HIDDEN, seed=1)
    added = torch.stack([(z[:, [u]] @ matrix[[u]]).square().sum(dim=1).mean().sqrt() for u in range(6)])
    torch.testing.assert_close(contribution(_moments(z, matrix), matrix, 6).float(), added)


def test_elimination_sees_that_two_strong_units_say_the_same():
    z, matrix = _normal(400, 8), _normal(8, HIDDEN, seed=1)
    z[:, 5] = z[:, 2]  # one of the two can go without loss
    z[:, [2, 5]] *= 3
    moments = _moments(z, matrix)
    kept = {how: choose(moments, matrix, 8, 7, how=how) for how in ("elimination", "contribution")}
    assert {2, 5} - set(kept["elimination"].tolist())
    assert {2, 5} <= set(kept["contribution"].tolist())
    error = {how: refit(moments, matrix, units, damping=1e-9).after for how, units in kept.items()}
    assert error["elimination"] < 1e-3
    assert error["contribution"] > 1e-2


@pytest.mark.parametrize("size", [1, 2])
def test_a_single_removal_is_the_best_of_all(size):
    z = _normal(300, 12) @ _normal(12, 12, seed=2)
    matrix = _normal(12, HIDDEN, seed=1)
    moments = _moments(z, matrix)
    units = 12 // size
    errors = {}
    for kept in itertools.combinations(range(units), units - 1):
        features = (torch.tensor(kept)[:, None] * size + torch.arange(size)).flatten()
        errors[kept] = refit(moments, matrix, features, damping=0.01).after
    best = min(errors, key=errors.__getitem__)
    assert tuple(eliminate(moments, matrix, units, units - 1).tolist()) == best


def test_many_removals_leave_less_error_than_by_contribution_or_at_random():
    z = _normal(2000, 40) @ _normal(40, 40, seed=2)
    matrix = _normal(40, HIDDEN, seed=1)
    moments = _moments(z, matrix)
    left = {
        how: choose(moments, matrix, 40, 20, how=how) for how in ("elimination", "contribution", "random")
    }
    error = {how: refit(moments, matrix, kept).after for how, kept in left.items()}
    assert error["elimination"] < error["contribution"]
    assert error["elimination"] < error["random"]
    assert all(len(kept) == 20 and (kept.diff() > 0).all() for kept in left.values())


def test_keeping_all_keeps_all():
    z, matrix = _normal(50, 6), _normal(6, HIDDEN)
    assert choose(_moments(z, matrix), matrix, 6, 6).tolist() == list(range(6))
