from hypothesis import given
from hypothesis import strategies as st

from trimtab.optimization.recovery import affordable_tokens


@given(
    seconds=st.floats(1, 1e5),
    rate=st.floats(10, 1e6),
    costs=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4),
)
def test_what_is_afforded_fits_the_time(seconds: float, rate: float, costs: list[float]) -> None:
    tokens = affordable_tokens(seconds, rate, costs, most=1 << 60, fewest=0)
    spent = tokens / rate + sum(tokens * (1 / 3 + cost) / rate for cost in costs)
    assert spent <= seconds * (1 + 1e-9)


def test_bounds_hold() -> None:
    assert affordable_tokens(-5.0, 1000.0, [0.4], most=10_000, fewest=2_000) == 2_000
    assert affordable_tokens(1e9, 1000.0, [0.4], most=10_000, fewest=2_000) == 10_000
