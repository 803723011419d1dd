import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.overlap import check_overlap, overlap, shingles
from trimtab.spec.errors import DataError

LINES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12)


@given(LINES)
def test_a_text_overlaps_itself_wholly_even_when_indented(lines):
    text = "\n".join(lines)
    assert overlap([text], [text]) == 1.0
    assert overlap(["\n\n".join(f"    {line}  " for line in lines)], [text]) == 1.0


@given(LINES, LINES)
def test_share_is_that_of_common_runs_of_four_lines(train, test):
    def runs(lines):
        return {tuple(lines[i : i + 4]) for i in range(max(1, len(lines) - 3))}

    wanted = len(runs(train) & runs(test)) / len(runs(test))
    assert overlap(["\n".join(train)], ["\n".join(test)]) == pytest.approx(wanted)


def test_nothing_overlaps_nothing():
    assert overlap(["a\nb"], []) == 0.0
    assert list(shingles("\n \n")) == []


def test_more_than_two_percent_is_refused():
    check_overlap(0.02)
    with pytest.raises(DataError, match=r"2\.1%"):
        check_overlap(0.021)
