"""Stop strings over a stream of text. However the text is cut, the result is the same.

The stop string that is complete first ends the text (of two complete at once, the longer); nothing of it is
shown. Text that may be the beginning of a stop string is held back. Some of the text may be hidden (the markup
of special tokens): stop strings see it, nobody else does.
"""

from __future__ import annotations


class StopStrings:
    """The stop strings of one request, made ready once for all of its answers. None may be empty.

    For each string and each of its beginnings, `fallbacks` holds the length of the longest shorter beginning
    that it ends with (Knuth, Morris and Pratt 1977), so that a letter is looked at once, whatever the strings.
    """

    __slots__ = ("beginnings", "fallbacks", "strings")

    def __init__(self, strings: tuple[str, ...]) -> None:
        self.strings = tuple(dict.fromkeys(strings))
        self.fallbacks = tuple(_fallbacks(string) for string in self.strings)
        self.beginnings = frozenset(string[0] for string in self.strings)


def _fallbacks(string: str) -> list[int]:
    found, length = [0], 0
    for letter in string[1:]:
        while length and letter != string[length]:
            length = found[length - 1]
        length += letter == string[length]
        found.append(length)
    return found


class StopMatcher:
    """State of one sequence."""

    __slots__ = ("_held", "_hidden", "_lengths", "_stops", "stopped")

    def __init__(self, stops: StopStrings) -> None:
        self._stops, self._held = stops, ""
        # How much of each stop string the text ends with.
        self._lengths = [0] * len(stops.strings)
        # Where hidden text lies in the held text.
        self._hidden: list[tuple[int, int]] = []
        self.stopped = False

    def push(self, text: str, *, hidden: bool = False) -> str:
        """The text that may be shown. Sets `stopped` when a stop string is complete; the rest is dropped."""
        if self.stopped or not text:
            return ""
        if not self._held and self._stops.beginnings.isdisjoint(text):
            return "" if hidden else text
        before = len(self._held)
        if hidden:
            self._hidden.append((before, before + len(text)))
        ends = []
        for number, stop in enumerate(self._stops.strings):
            end = self._follow(number, stop, text)
            if end is not None:
                ends.append((end, -len(stop)))
        self._held += text
        if ends:
            self.stopped = True
            end, length = min(ends)
            return self._release(before + end + length)
        return self._release(len(self._held) - max(self._lengths))

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        return "" if self.stopped else self._release(len(self._held))

    def _follow(self, number: int, stop: str, text: str) -> int | None:
        """Where in `text` the stop string is complete for the first time."""
        length = self._lengths[number]
        if not length and stop[0] not in text:
            return None
        fallbacks = self._stops.fallbacks[number]
        for place, letter in enumerate(text):
            while length and letter != stop[length]:
                length = fallbacks[length - 1]
            if letter == stop[length]:
                length += 1
                if length == len(stop):
                    return place + 1
        self._lengths[number] = length
        return None

    def _release(self, end: int) -> str:
        """Give up the held text before `end`, without what is hidden."""
        held, self._held = self._held, self._held[end:]
        if not self._hidden:
            return held[:end]
        shown, start = [], 0
        for first, last in self._hidden:
            shown.append(held[start : min(first, end)])
            start = min(last, end)
        shown.append(held[start:end])
        self._hidden = [(max(first - end, 0), last - end) for first, last in self._hidden if last > end]
        return "".join(shown)
