"""Stop strings over a stream of text. However the text is cut, the result is the same.

The stop string that is complete first ends the text (of two complete at once, the longer); nothing of it is
shown. Text that may be the beginning of a stop string is held back.
"""

from __future__ import annotations


class StopMatcher:
    """State of one sequence. `stops` must not be empty, nor hold an empty string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops, self._held = stops, ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that may be shown. Sets `stopped` when a stop string is complete; the rest is dropped."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stops if stop in text]
        if found:
            self.stopped, self._held = True, ""
            end, length = min(found)
            return text[: end + length]
        keep = max(self._overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest beginning of `stop` that `text` ends with."""
        for length in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:length]):
                return length
        return 0
