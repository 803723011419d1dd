"""The stop matcher against its definition, under every cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trimtab.text.stops import StopMatcher

letters = st.text(alphabet="ab", max_size=30)
stop_lists = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple)


def defined(text, stops):
    """Letter by letter: where a stop is complete first, cut before the longest one complete there."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(letters, stop_lists, st.lists(st.integers(0, 30), max_size=6))
def test_any_split_gives_what_is_defined(text, stops, cuts):
    matcher = StopMatcher(stops)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = "".join(matcher.push(text[a:b]) for a, b in pairwise(edges))
    shown += matcher.finish()
    assert (shown, matcher.stopped) == defined(text, stops)


@given(letters, stop_lists)
def test_nothing_shown_is_taken_back(text, stops):
    matcher, shown = StopMatcher(stops), ""
    final, _ = defined(text, stops)
    for letter in text:
        shown += matcher.push(letter)
        assert final.startswith(shown)


def test_text_that_cannot_be_a_stop_is_shown_at_once():
    matcher = StopMatcher(("\n\n",))
    assert matcher.push("hello") == "hello"
    assert matcher.push("a\n") == "a"
    assert matcher.push("b") == "\nb"
