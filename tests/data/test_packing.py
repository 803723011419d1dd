import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.packing import count_windows, cut_windows, window_documents


@given(st.integers(0, 200), st.integers(1, 20))
def test_windows_are_the_tokens_in_order(count, length):
    tokens = np.arange(count, dtype="<u2")
    windows = cut_windows(tokens, length)
    assert windows.dtype == np.int32
    assert windows.shape == (count // length, length)
    assert windows.ravel().tolist() == list(range(count // length * length))
    extra = count_windows(count, length, extra=1)
    assert extra * length + 1 <= max(count, 1) < (extra + 1) * length + 1 + length


@given(st.lists(st.integers(1, 30), min_size=1, max_size=10), st.integers(1, 15))
def test_a_window_belongs_to_the_document_of_its_middle(lengths, length):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
    owner = np.repeat(np.arange(len(lengths)), lengths)
    count = count_windows(len(owner), length)
    middles = [owner[n * length + length // 2] for n in range(count)]
    assert window_documents(offsets, count, length).tolist() == middles
