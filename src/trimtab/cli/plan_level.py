"""Flags of a service level, as `plan serve` and `plan compress` take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from trimtab.spec.errors import UsageError
from trimtab.spec.units import parse_bytes, parse_duration

if TYPE_CHECKING:
    from trimtab.planning.serving.traffic import Level

Value = TypeVar("Value")


def read_level(
    *, ttft_p95: str | None, tpot_p95: str | None, memory: str | None, tokens_per_second: float | None
) -> Level:
    """Raises `UsageError` naming the flag."""
    from trimtab.planning.serving.traffic import Level

    return Level(
        ttft_p95=_read(ttft_p95, parse_duration, "--ttft-p95"),
        tpot_p95=_read(tpot_p95, parse_duration, "--tpot-p95"),
        memory_bytes=_read(memory, parse_bytes, "--memory"),
        tokens_per_second=tokens_per_second,
    ).check()


def _read(text: str | None, parse: Callable[[str], Value], flag: str) -> Value | None:
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise UsageError(f"{error}.", where=flag) from error
