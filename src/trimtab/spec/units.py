"""Quantities as people write them: `300ms`, `2GiB`, `99%`, `600k`. Seconds, bytes, fractions and counts inside.

Every parser raises `ValueError` with a sentence that names what was read and an example that works.
"""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ%]*)\s*")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_COUNTS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def _split(
    text: object, kind: str, units: dict[str, float] | dict[str, int], example: str
) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if not found or found[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ValueError(f"{text!r} is not a {kind}; write a number and one of {known}, such as {example}")
    return float(found[1]), found[2]


def parse_duration(text: object) -> float:
    """`300ms` → 0.3 seconds."""
    number, unit = _split(text, "duration", _SECONDS, "300ms")
    return number * _SECONDS[unit]


def parse_bytes(text: object) -> int:
    """`2GiB` → 2147483648. Decimal and binary units are told apart."""
    number, unit = _split(text, "size", _BYTES, "2GiB")
    return int(number * _BYTES[unit])


def parse_fraction(text: object) -> float:
    """`99%` → 0.99."""
    number, _ = _split(text, "percentage", {"%": 1.0}, "99%")
    return number / 100


def parse_count(text: object) -> int:
    """`600k` or 600000 → 600000."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    number, unit = _split(text, "count", _COUNTS, "600k")
    return int(number * _COUNTS[unit])


def format_duration(seconds: float) -> str:
    """0.0123 → `12 ms`; 75 → `1 min 15 s`."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_bytes(count: float) -> str:
    """1536 → `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def format_count(count: float) -> str:
    """1234567 → `1.23 M`."""
    for unit in ("", " k", " M", " B"):
        if abs(count) < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"
