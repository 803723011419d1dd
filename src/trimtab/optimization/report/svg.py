"""SVG by hand: escaped elements, axes with round ticks, labels that keep out of each other's way.

Colours and fonts are classes, set by the page's style sheet, so that a plot follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec
from markupsafe import Markup, escape

# Average advance of the page's label font per character, in px at 12 px; good enough to keep labels apart.
_CHARACTER = 6.6
_LINE = 14.0


def element(name: str, content: str = "", /, **attributes: object) -> Markup:
    """`class_` becomes `class`, `text_anchor` becomes `text-anchor`. Content that is no Markup is escaped."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")  # noqa: S704 -- every part is escaped above


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _short(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value


def picture(width: float, height: float, title: str, parts: Iterable[Markup]) -> Markup:
    """A plot that scales with the page; `title` is what a screen reader says."""
    inside = join([element("title", title), *parts])
    return element("svg", inside, viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=title)


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """Maps data to pixels. `ticks` are data values; `log` for a logarithmic axis."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def linear(values: Sequence[float], start: float, end: float, *, wanted: int = 5, zero: bool = False) -> Axis:
    """An axis over finite `values`, widened to round ticks; `zero` starts it at 0."""
    low, high = (0.0 if zero else min(values)), max(values)
    if high - low <= 1e-9 * abs(high) or high - low < 1e-300:
        room = abs(high) * 0.05 if abs(high) > 1e-290 else 0.5
        low, high = low - room, high + room
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = tuple(index * step for index in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], start=start, end=end, ticks=ticks)


def logarithmic(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis over positive `values`; ticks at 1, 2, 5 of each decade, finer in a narrow range."""
    low, high = min(values) / 1.25, max(values) * 1.25
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]

    def within(digits: Sequence[float]) -> tuple[float, ...]:
        return tuple(
            decade * digit for decade in decades for digit in digits if low <= decade * digit <= high
        )

    ticks = within((1, 2, 5))
    if len(ticks) < 2:
        ticks = within((1, 1.5, 2, 3, 4, 5, 7))
    return Axis(low=low, high=high, start=start, end=end, ticks=ticks, log=True)


def axes(x: Axis, y: Axis, show_x: Callable[[float], str], show_y: Callable[[float], str]) -> Markup:
    """Horizontal grid lines, the base line, and the ticks' labels."""
    parts = []
    for tick in y.ticks:
        parts.append(element("line", class_="grid", x1=x.start, x2=x.end, y1=y(tick), y2=y(tick)))
        parts.append(
            element("text", show_y(tick), class_="tick", x=x.start - 8, y=y(tick) + 4, text_anchor="end")
        )
    parts.append(element("line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start))
    for tick in x.ticks:
        parts.append(element("line", class_="axis", x1=x(tick), x2=x(tick), y1=y.start, y2=y.start + 5))
        parts.append(
            element("text", show_x(tick), class_="tick", x=x(tick), y=y.start + 20, text_anchor="middle")
        )
    return join(parts)


def path(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    steps = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
    return element("path", class_=class_, d=steps, fill="none")


class Box(msgspec.Struct, frozen=True):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def line_box(start: tuple[float, float], end: tuple[float, float]) -> Box:
    """The place that a level or upright line takes."""
    (x1, y1), (x2, y2) = start, end
    return Box(min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1)


class Labels:
    """Places labels beside points, greedily: the first of eight places that touches nothing."""

    def __init__(self, frame: Box, taken: Iterable[Box]) -> None:
        self._frame, self._taken = frame, list(taken)

    def place(self, text: str, x: float, y: float, class_: str) -> Markup:
        width = len(text) * _CHARACTER
        near, far = 11.0, 18.0
        places = [
            (x + near, y, "start"),
            (x, y - near - 5, "middle"),
            (x, y + near + 7, "middle"),
            (x - near, y, "end"),
            *((x + side * 4, y + down * far, anchor) for down in (-1, 1) for side, anchor in _SIDES),
        ]
        boxes = [(place, _box(place, width)) for place in places]
        free = (
            pair for pair in boxes if self._inside(pair[1]) and not any(pair[1].meets(t) for t in self._taken)
        )
        inside = (pair for pair in boxes if self._inside(pair[1]))
        (left, middle, anchor), box = next(free, None) or next(inside, boxes[0])
        self._taken.append(box)
        return element("text", text, class_=class_, x=left, y=middle + 4, text_anchor=anchor)

    def _inside(self, box: Box) -> bool:
        frame = self._frame
        return (
            box.left >= frame.left
            and box.right <= frame.right
            and box.top >= frame.top
            and box.bottom <= frame.bottom
        )


_SIDES = ((1, "start"), (-1, "end"))
_SHIFT = {"start": 0.0, "middle": 0.5, "end": 1.0}


def _box(place: tuple[float, float, str], width: float) -> Box:
    x, y, anchor = place
    left = x - _SHIFT[anchor] * width
    return Box(left, y - _LINE / 2, left + width, y + _LINE / 2)
