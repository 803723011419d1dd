import pytest
import torch

from trimtab.compression.pruning.moments import Moments
from trimtab.compression.pruning.refit import DAMPING, factorise, refit
from trimtab.spec.errors import ModelError

FEATURES, HIDDEN = 64, 24


def _features(tokens, seed, features=FEATURES):
    """Correlated, with a power-law spectrum, as activations of trained networks are."""
    mix = torch.Generator().manual_seed(7)
    basis = torch.linalg.qr(torch.randn(features, features, generator=mix)).Q
    scale = torch.arange(1, features + 1).float() ** -0.7
    draw = torch.randn(tokens, features, generator=torch.Generator().manual_seed(seed))
    return (draw * scale) @ basis


def _matrix(seed=1):
    return torch.randn(FEATURES, HIDDEN, generator=torch.Generator().manual_seed(seed))


def _moments(z, y, *, bias=False):
    moments = Moments(z.shape[-1], y.shape[-1], bias=bias)
    moments.add(z, y)
    return moments


def test_moments_of_batches_are_those_of_the_whole():
    z, y = _features(300, 0), torch.randn(300, HIDDEN)
    parts = Moments(FEATURES, HIDDEN, bias=True)
    for start in range(0, 300, 70):
        parts.add(z[start : start + 70], y[start : start + 70])
    whole = _moments(z, y, bias=True)
    torch.testing.assert_close(parts.gram, whole.gram, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts.cross, whole.cross, rtol=1e-4, atol=1e-4)
    assert parts.tokens == 300
    assert parts.gram[-1, -1] == 300


def test_the_error_is_what_it_says():
    z, y, matrix = _features(300, 0), torch.randn(300, HIDDEN), _matrix().double()
    kept = torch.arange(0, FEATURES, 2)
    wanted = (y.double() - z[:, kept].double() @ matrix[kept]).square().sum() / y.double().square().sum()
    assert _moments(z, y).error(matrix[kept], kept) == pytest.approx(float(wanted), rel=1e-4)


def test_with_little_damping_it_is_least_squares():
    z, y, kept = _features(2000, 0), torch.randn(2000, HIDDEN), torch.arange(40)
    found = refit(_moments(z, y), _matrix(), kept, damping=1e-9)
    wanted = torch.linalg.lstsq(z[:, kept].double(), y.double()).solution
    torch.testing.assert_close(found.matrix, wanted, rtol=1e-3, atol=1e-3)


def test_it_is_the_minimum_of_the_damped_sum_of_squares():
    z, y, kept, start = _features(500, 0), torch.randn(500, HIDDEN), torch.arange(40), _matrix()
    moments = _moments(z, y)
    found = refit(moments, start, kept).matrix.requires_grad_()
    ridge = DAMPING * moments.gram[kept][:, kept].diagonal().mean()
    loss = (y.double() - z[:, kept].double() @ found).square().sum()
    (loss + ridge * (found - start[kept].double()).square().sum()).backward()
    assert float(found.grad.abs().max()) < 1e-2


def test_where_nothing_was_removed_nothing_changes():
    z, matrix = _features(500, 0), _matrix()
    found = refit(_moments(z, z @ matrix), matrix, torch.arange(FEATURES))
    torch.testing.assert_close(found.matrix.float(), matrix, rtol=1e-4, atol=1e-4)
    assert found.before < 1e-6


def test_of_a_quarter_removed_it_nearly_halves_the_error_on_text_it_never_saw():
    matrix, kept = _matrix(), torch.arange(FEATURES // 4, FEATURES)
    seen, unseen = _features(4000, 0), _features(4000, 1)
    found = refit(_moments(seen, seen @ matrix), matrix, kept)
    held_out = _moments(unseen, unseen @ matrix)
    before, after = held_out.error(matrix[kept].double(), kept), held_out.error(found.matrix, kept)
    assert before > 0.01
    assert after < 0.6 * before
    assert found.before == pytest.approx(before, rel=0.2)
    assert found.after == pytest.approx(after, rel=0.2)


def test_a_bias_takes_over_the_mean_of_what_was_removed():
    z, matrix = torch.full((200, FEATURES), 2.0), _matrix()
    z[:, : FEATURES // 2] = torch.randn(200, FEATURES // 2)
    whole = torch.cat([matrix, torch.zeros(1, HIDDEN)])
    kept = torch.cat([torch.arange(FEATURES // 2), torch.tensor([FEATURES])])
    found = refit(_moments(z, z @ matrix, bias=True), whole, kept, damping=1e-6)
    assert found.before > 0.5
    assert found.after < 1e-3


def test_damping_is_raised_tenfold_until_the_factorisation_holds():
    gram = torch.eye(8, dtype=torch.float64)
    gram[0, 0] = -0.5
    factor, ridge, damping = factorise(gram, 0.01)
    assert damping == pytest.approx(1.0)
    torch.testing.assert_close(factor @ factor.T, gram + ridge * torch.eye(8, dtype=torch.float64))
    assert factorise(torch.zeros(4, 4, dtype=torch.float64))[1] > 0


def test_activations_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="not finite"):
        factorise(torch.full((3, 3), torch.nan, dtype=torch.float64))
