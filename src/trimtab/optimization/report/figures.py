"""How figures read: a few digits, thousands set apart, intervals beside them. Text, escaped by the page."""

from __future__ import annotations

from trimtab.spec.measures import Estimate
from trimtab.spec.verdict import Interval

NONE = "–"


def number(value: float | None) -> str:
    """Three significant digits; whole with thousands from 1000 up."""
    if value is None:
        return NONE
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.2g}"
    digits = 2 - (len(str(int(abs(value)))) - 1) if abs(value) >= 1 else 3
    return f"{value:.{max(digits, 0)}f}"


def tick(value: float) -> str:
    """A round number as round as it is."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def span(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


def percent(value: float) -> str:
    return f"{value * 100:.{1 if abs(value) >= 0.01 or value == 0 else 2}f} %"


def times(value: float) -> str:
    # Two digits tell a speed-up; a quality ratio close to 1 needs three.
    return f"{value:.{_digits(value)}f}\N{NO-BREAK SPACE}×"


def times_span(interval: Interval) -> str:
    digits = max(_digits(edge) for edge in interval)
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def _digits(value: float) -> int:
    return 3 if 0.8 < value < 1.25 else 2


def percent_span(low: float, high: float) -> str:
    """Without the sign, which stands beside the figure."""
    digits = 1 if low >= 0.01 or high == 0 else 2
    return f"{low * 100:.{digits}f} to {high * 100:.{digits}f}"


def interval_of(estimate: Estimate) -> str:
    return span(estimate.low, estimate.high)
