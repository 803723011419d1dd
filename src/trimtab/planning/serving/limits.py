"""A service level against what is expected of a service: which limit breaks, and which flags would hold. Pure."""

from __future__ import annotations

import math

from trimtab.planning.serving.replay import Replayed
from trimtab.planning.serving.traffic import Level
from trimtab.spec.units import format_bytes, format_duration


def broken(level: Level, expected: Replayed, memory_bytes: int) -> str | None:
    """The first limit that does not hold, in a sentence."""
    for what, found, limit in (
        ("time to first token, p95", expected.ttft_p95, level.ttft_p95),
        ("time per output token, p95", expected.tpot_p95, level.tpot_p95),
    ):
        if limit is not None and found > limit:
            return over(what, found, limit)
    if level.memory_bytes is not None and memory_bytes > level.memory_bytes:
        return (
            f"memory of a machine: {format_bytes(memory_bytes)} is over {format_bytes(level.memory_bytes)}."
        )
    wanted = level.tokens_per_second
    if wanted is not None and expected.tokens_per_second < wanted:
        return f"{expected.tokens_per_second:,.0f} output tokens/s are under {wanted:,.0f}."
    return None


def over(what: str, found: float, limit: float) -> str:
    return f"{what}: {format_duration(found)} is over {format_duration(limit)}."


def nearest_flags(level: Level, expected: Replayed, memory_bytes: int) -> list[str]:
    """For every limit that breaks, the flag that would hold, with a twentieth of room."""
    flags = [
        f"{flag} {math.ceil(1.05e3 * found)}ms"
        for flag, found, limit in (
            ("--ttft-p95", expected.ttft_p95, level.ttft_p95),
            ("--tpot-p95", expected.tpot_p95, level.tpot_p95),
        )
        if limit is not None and found > limit
    ]
    if level.memory_bytes is not None and memory_bytes > level.memory_bytes:
        flags.append(f"--memory {math.ceil(1.05 * memory_bytes / 2**20)}MiB")
    wanted = level.tokens_per_second
    if wanted is not None and expected.tokens_per_second < wanted:
        flags.append(f"--tokens-per-second {math.floor(0.95 * expected.tokens_per_second)}")
    return flags
