from hypothesis import given
from hypothesis import strategies as st

from trimtab.training.schedule import rate_factor

PARTS = {"warmup": st.floats(0, 1), "decay": st.floats(0, 1)}


@given(steps=st.integers(1, 500), **PARTS)
def test_never_zero_never_above_one_up_then_down(steps, warmup, decay):
    factors = [rate_factor(step, steps, warmup=warmup, decay=decay) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_warms_up_holds_and_decays():
    factors = [rate_factor(step, 100, warmup=0.1, decay=0.5) for step in range(100)]
    assert factors[0] == 0.1
    assert factors[9:51] == [1.0] * 42
    assert factors[75] == 0.5
    assert factors[99] == 0.02
