"""The stop matcher against its definition, under every cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trimtab.text.stops import StopMatcher, StopStrings

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
    matcher = StopMatcher(StopStrings(stops))
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = "".join(matcher.push(text[a:b]) for a, b in pairwise(edges))
    shown += matcher.finish()
    assert (shown, matcher.stopped) == defined(text, stops)


@given(letters, stop_lists)
def test_nothing_shown_is_taken_back(text, stops):
    matcher, shown = StopMatcher(StopStrings(stops)), ""
    final, _ = defined(text, stops)
    for letter in text:
        shown += matcher.push(letter)
        assert final.startswith(shown)


def test_text_that_cannot_be_a_stop_is_shown_at_once():
    matcher = StopMatcher(StopStrings(("\n\n",)))
    assert matcher.push("hello") == "hello"
    assert matcher.push("a\n") == "a"
    assert matcher.push("b") == "\nb"


parts = st.lists(st.tuples(st.text(alphabet="ab", max_size=6), st.booleans()), max_size=12)


def cut_in_two(data, items):
    """Every part in one or two pieces."""
    for text, hidden in items:
        place = data.draw(st.integers(0, len(text)))
        yield text[:place], hidden
        yield text[place:], hidden


@given(parts, stop_lists, st.data())
def test_hidden_text_is_matched_and_never_shown(items, stops, data):
    """The stop strings see everything; what is shown is the visible part of what comes before the stop."""
    matcher = StopMatcher(StopStrings(stops))
    shown = "".join(matcher.push(text, hidden=hidden) for text, hidden in cut_in_two(data, items))
    shown += matcher.finish()
    before, stopped = defined("".join(text for text, _ in items), stops)
    marks = [hidden for text, hidden in items for _ in text]
    visible = "".join(letter for letter, hidden in zip(before, marks, strict=False) if not hidden)
    assert (shown, matcher.stopped) == (visible, stopped)


class Letter(str):
    """Counts how often one is compared."""

    __slots__ = ()
    looks = 0

    def __eq__(self, other):
        Letter.looks += 1
        return str.__eq__(self, other)

    def __ne__(self, other):
        Letter.looks += 1
        return str.__ne__(self, other)

    __hash__ = str.__hash__


def test_a_letter_costs_the_same_whatever_the_stop_strings():
    """Also where the text nearly fits all the time: one request's stops must not take the others' time."""
    stops = StopStrings(("a" * 255 + "b", "a" * 200 + "c", "ca" * 128))
    stops.strings = tuple(tuple(Letter(letter) for letter in string) for string in stops.strings)
    matcher, before = StopMatcher(stops), Letter.looks
    for letter in "a" * 3000:
        matcher.push(letter)
    assert 3000 < Letter.looks - before < 3000 * 3 * 4
