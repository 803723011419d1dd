"""The report's three plots: speed against quality, training curves, and the ladder of n-grams and models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec
from markupsafe import Markup

from trimtab.optimization.report import svg
from trimtab.optimization.report.figures import number, tick
from trimtab.spec.measures import Estimate
from trimtab.spec.units import format_count

Curve = Sequence[Mapping[str, float | None]]
# The steep start of training would flatten all that matters; the curve's first part is cut off at the top.
_STEEP = 0.04
_LOSSES = {"loss": "train", "validation_loss": "validation"}


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A measured candidate in the plot. `kind` is a role or `winner`; it chooses colour and mark."""

    name: str
    kind: str
    perplexity: Estimate
    tokens_per_second: Estimate
    pareto: bool


def tradeoff(points: Sequence[Point], concurrency: int) -> Markup:
    """Output tokens/s over perplexity, with 95 % intervals both ways; up and left is better."""
    width, height = 760.0, 430.0
    xs = [edge for point in points for edge in (point.perplexity.low, point.perplexity.high)]
    ys = [edge for point in points for edge in (point.tokens_per_second.low, point.tokens_per_second.high)]
    x = svg.linear(xs, 76, width - 24, wanted=6)
    y = svg.linear(ys, height - 58, 22, zero=True)
    places = [(x(p.perplexity.value), y(p.tokens_per_second.value)) for p in points]
    taken = [svg.Box(px - 8, py - 8, px + 8, py + 8) for px, py in places]
    for point, (px, py) in zip(points, places, strict=True):
        across, up = point.perplexity, point.tokens_per_second
        taken.append(svg.line_box((x(across.low), py), (x(across.high), py)))
        taken.append(svg.line_box((px, y(up.low)), (px, y(up.high))))
    front = _front(points, x, y)
    taken += [svg.line_box(*pair) for pair in pairwise(front)]
    labels = svg.Labels(svg.Box(x.start, 4, x.end, y.start), taken)
    parts = [svg.axes(x, y, tick, tick), svg.path(front, "front")]
    parts += [_cross(point, x, y) for point in points]
    parts += [mark(point.kind, *place) for point, place in zip(points, places, strict=True)]
    # The winner's label first, so that it gets the best place.
    for point, (px, py) in sorted(
        zip(points, places, strict=True), key=lambda pair: pair[0].kind != "winner"
    ):
        parts.append(labels.place(point.name, px, py, f"label {point.kind}"))
    middle = (x.start + x.end) / 2
    parts.append(
        svg.element(
            "text",
            "perplexity on held-out text (lower is better)",
            class_="name",
            x=middle,
            y=height - 12,
            text_anchor="middle",
        )
    )
    caption = f"output tokens/s at {concurrency} concurrent requests (higher is better)"
    parts.append(
        svg.element(
            "text",
            caption,
            class_="name",
            text_anchor="middle",
            transform=f"translate(18 {(y.start + y.end) / 2:.0f}) rotate(-90)",
        )
    )
    return svg.picture(width, height, "Speed against quality of every measured candidate", parts)


def _front(points: Sequence[Point], x: svg.Axis, y: svg.Axis) -> list[tuple[float, float]]:
    """The staircase of what nothing else beats in both, in pixels."""
    best = sorted((p for p in points if p.pareto), key=lambda p: p.perplexity.value)
    steps: list[tuple[float, float]] = []
    for point in best:
        here = (x(point.perplexity.value), y(point.tokens_per_second.value))
        if steps:
            steps.append((here[0], steps[-1][1]))
        steps.append(here)
    return [*steps, (x.end, steps[-1][1])] if steps else []


def _cross(point: Point, x: svg.Axis, y: svg.Axis) -> Markup:
    across, up = point.perplexity, point.tokens_per_second
    px, py = x(across.value), y(up.value)
    return svg.join(
        (
            svg.path([(x(across.low), py), (x(across.high), py)], f"error {point.kind}"),
            svg.path([(px, y(up.low)), (px, y(up.high))], f"error {point.kind}"),
        )
    )


def mark(kind: str, x: float, y: float) -> Markup:
    """Each role has its own shape, so that the plot can be read without colours."""
    if kind == "baseline":
        return svg.element("rect", class_=f"mark {kind}", x=x - 5.5, y=y - 5.5, width=11, height=11)
    if kind == "control":
        corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y + 5:.1f} {x - 7:.1f},{y + 5:.1f}"
        return svg.element("polygon", class_=f"mark {kind}", points=corners)
    if kind == "int8_only":
        corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
        return svg.element("polygon", class_=f"mark {kind}", points=corners)
    dot = svg.element("circle", class_=f"mark {kind}", cx=x, cy=y, r=6.5 if kind == "winner" else 5.5)
    if kind == "winner":
        return svg.join((dot, svg.element("circle", class_="ring", cx=x, cy=y, r=10.5, fill="none")))
    return dot


def _finite(curve: Curve, key: str) -> list[tuple[float, float]]:
    found = ((point["tokens"], point.get(key)) for point in curve)
    return [(tokens, loss) for tokens, loss in found if tokens and loss is not None and math.isfinite(loss)]


def apart(curve: Curve) -> bool:
    """Whether training and validation loss end so far apart that one axis would flatten both."""
    last = [pairs[-1][1] for pairs in (_finite(curve, key) for key in _LOSSES) if pairs]
    return len(last) == len(_LOSSES) and max(last) > 2 * min(last)


def training(
    name: str, curve: Curve, references: Mapping[str, float], keys: Iterable[str] = _LOSSES
) -> Markup:
    """Loss over tokens: `loss` (training, thin) and `validation_loss` (bold), nats per token. Each may lack.

    `references` are perplexities, drawn as dashed lines where they fall into the picture.
    """
    width, height = 360.0, 262.0
    series = {key: _finite(curve, key) for key in keys}
    total = max((tokens for pairs in series.values() for tokens, _ in pairs), default=0.0)
    settled = [loss for pairs in series.values() for tokens, loss in pairs if tokens >= _STEEP * total]
    if not settled:
        return Markup("")
    x = svg.linear([0, total], 40, width - 92, wanted=3)
    y = svg.linear(settled, height - 46, 16, wanted=4)
    parts = [svg.axes(x, y, _tokens, tick)]
    ends = []
    for label, perplexity in references.items():
        level = math.log(perplexity)
        if y.low < level < y.high:
            parts.append(svg.path([(x.start, y(level)), (x.end, y(level))], "reference"))
            ends.append((y(level), label, "small"))
    for key, pairs in series.items():
        if not pairs:
            continue
        shown = [(x(tokens), max(y(loss), y.end)) for tokens, loss in pairs]
        parts.append(svg.path(shown, f"curve {key}"))
        if key == "validation_loss":
            parts += [svg.element("circle", class_="dot", cx=px, cy=py, r=2.5) for px, py in shown]
        ends.append((shown[-1][1], f"{_LOSSES[key]} {number(pairs[-1][1])}", "small strong"))
    parts += _ends(ends, x.end + 6)
    parts.append(
        svg.element(
            "text", "tokens seen", class_="name", x=(x.start + x.end) / 2, y=height - 6, text_anchor="middle"
        )
    )
    return svg.picture(width, height, f"Training and validation loss of {name}", parts)


def _tokens(value: float) -> str:
    return format_count(value).replace(" ", "\N{NO-BREAK SPACE}") if value else "0"


def _ends(ends: list[tuple[float, str, str]], x: float) -> list[Markup]:
    """`(level, text, class)` beside the end of each line, pushed apart where they would touch."""
    parts, below = [], -math.inf
    for level, text, class_ in sorted(ends):
        place = max(level, below + 14)
        parts.append(svg.element("text", text, class_=class_, x=x, y=place + 4))
        below = place
    return parts


def ladder(rungs: Sequence[tuple[str, str, float]]) -> Markup:
    """Perplexities on a logarithmic axis: `(label, kind, perplexity)`, as given from top to bottom."""
    width, row = 760.0, 28.0
    height = row * len(rungs) + 52
    x = svg.logarithmic([perplexity for _, _, perplexity in rungs], 190, width - 76)
    base = height - 44
    parts = [svg.element("line", class_="axis", x1=x.start, x2=x.end, y1=base, y2=base)]
    for value in x.ticks:
        parts.append(svg.element("line", class_="grid", x1=x(value), x2=x(value), y1=6, y2=base))
        parts.append(
            svg.element("text", tick(value), class_="tick", x=x(value), y=base + 18, text_anchor="middle")
        )
    for index, (label, kind, perplexity) in enumerate(rungs):
        level = row * index + 20
        parts.append(
            svg.element("text", label, class_="label", x=x.start - 12, y=level + 4, text_anchor="end")
        )
        parts.append(svg.path([(x.start, level), (x(perplexity), level)], f"stem {kind}"))
        parts.append(mark(kind, x(perplexity), level))
        parts.append(
            svg.element("text", number(perplexity), class_="small strong", x=x(perplexity) + 14, y=level + 4)
        )
    parts.append(
        svg.element(
            "text",
            "perplexity, logarithmic (lower is better)",
            class_="name",
            x=(x.start + x.end) / 2,
            y=height - 6,
            text_anchor="middle",
        )
    )
    return svg.picture(width, height, "Perplexity of n-gram models and of ours", parts)
