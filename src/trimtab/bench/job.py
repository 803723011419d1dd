"""What the load process is asked and what it answers: one JSON line each way over its stdin and stdout.

The key travels here and never in an argument list, which other users of a machine can read.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from trimtab.spec.errors import UsageError


class Address(NamedTuple):
    """Where completions are asked for."""

    host: str
    port: int
    path: str


def address(url: str) -> Address:
    """Of the service at `url`, with or without `/v1`. Raises `UsageError` for one that cannot be loaded."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(
            f"{url!r} cannot be loaded.",
            where="url",
            remedy="Give an http:// address; the client speaks no TLS.",
        )
    path = parts.path.rstrip("/").removesuffix("/v1") + "/v1/completions"
    return Address(parts.hostname, parts.port or 80, path)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One load: `concurrency` connections send `requests` requests between them, each of fixed size.

    Without a `rate` the loop is closed: a connection sends its next request once its last one is answered. With
    one, requests leave at random moments, so many a second on average (Poisson), answered or not.
    `answers` are the output tokens of each request in turn, where not all have `output_tokens`.
    Prompts are drawn from `seed`, ids below `vocabulary_size`; no two are alike. `cores` empty = not pinned.
    `timeout_seconds` is how long all connections together may be silent.
    """

    host: str
    port: int
    path: str
    model: str
    key: str
    concurrency: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    vocabulary_size: int
    seed: int
    cores: tuple[int, ...] = ()
    timeout_seconds: float = 120.0
    rate: float | None = None
    answers: tuple[int, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one load saw. Lists have one item a request. Seconds; `first` is the time to the first event.

    `rest` is from the first event to the end of the answer. `events` and `cpu_seconds` are the client's own.
    """

    wall_seconds: float
    cpu_seconds: float
    events: int
    first: tuple[float, ...]
    rest: tuple[float, ...]
    tokens: tuple[int, ...]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a loop was given up: a sentence."""

    message: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    outcome: Outcome | None = None
    failure: Failure | None = None
