"""The wall clock, for records that people read. Durations are measured with `time.monotonic`."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """UTC, ISO 8601 to the second: `2026-11-24T23:19:03Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
