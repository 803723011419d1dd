import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.parallel.ranks import Ranks
from trimtab.training.muon import Muon, cost, share_matrices
from trimtab.training.orthogonal import COEFFICIENTS, STEPS, orthogonalize


def reference(matrix):
    """The plain iteration, in float64."""
    x = matrix.double() / matrix.double().norm()
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 12, 20), (2, 16, 48), (1, 1, 7), (1, 64, 128)])
def test_both_ways_compute_the_plain_iteration(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([reference(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices.clone()).double(), wanted, rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 24), st.integers(0, 60), st.floats(-6, 6), st.integers(0, 99))
def test_singular_values_end_near_one(short, more, scale, seed):
    matrices = torch.randn(1, short, short + more, generator=torch.Generator().manual_seed(seed)) * 10**scale
    u, s, vh = torch.linalg.svd(matrices[0].double(), full_matrices=False)
    matrices = ((u * s.clamp(min=s.max() * 0.02)) @ vh).float()[None]
    found = torch.linalg.svdvals(orthogonalize(matrices)[0])
    assert found.max() < 1.3
    assert found.min() > 0.5


def test_zero_stays_zero():
    assert not orthogonalize(torch.zeros(1, 4, 4)).any()


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(40, 90)), min_size=1, max_size=30), st.integers(1, 5)
)
def test_matrices_are_shared_once_and_evenly(shapes, world):
    named = {f"w{n}": shape for n, shape in enumerate(shapes)}
    owned = share_matrices(named, world)
    assert sorted(name for part in owned for name in part) == sorted(named)
    work = [sum(cost(named[name]) for name in part) for part in owned]
    # Each goes to the least busy, so ranks differ by at most one matrix.
    assert max(work) - min(work) <= max(map(cost, shapes))


def test_one_step_by_hand():
    generator = torch.Generator().manual_seed(3)
    tall, wide = torch.randn(20, 8, generator=generator), torch.randn(8, 8, generator=generator)
    parameters = {"tall": torch.nn.Parameter(tall.clone()), "wide": torch.nn.Parameter(wide.clone())}
    muon = Muon(parameters, Ranks(), weight_decay=0.1, momentum=0.9)
    for _ in range(2):
        for parameter in parameters.values():
            parameter.grad = parameter.detach().clone() * 0.5 + 1
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        momenta = {name: state.clone() for name, state in muon.state().items()}
        muon.step(0.01)
    for name, start in before.items():
        gradient = start * 0.5 + 1
        kept = momenta[name].mT if name == "tall" else momenta[name]
        momentum = 0.9 * kept + 0.1 * gradient
        direction = reference((0.1 * gradient + 0.9 * momentum).mT).mT.float()
        scale = (20 / 8) ** 0.5 if name == "tall" else 1.0
        wanted = start * (1 - 0.01 * 0.1) - 0.01 * scale * direction
        torch.testing.assert_close(parameters[name].detach(), wanted, rtol=1e-4, atol=1e-5)
