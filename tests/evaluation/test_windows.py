import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.evaluation.windows import spread


@given(st.integers(1, 5000), st.integers(1, 500))
def test_indices_are_spread_evenly_from_the_first_to_the_last(count, wanted):
    found = spread(count, wanted)
    assert len(found) == min(count, wanted)
    assert found[0] == 0
    assert found[-1] == (count - 1 if wanted > 1 else 0)
    gaps = np.diff(found)
    assert not gaps.size or gaps.max() - gaps.min() <= 1
