"""The record of one published version. Plain data."""

from __future__ import annotations

import msgspec


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """`name@version`. Digests are SHA-256 (hex); `created` is UTC, ISO 8601; `bytes` is the size of all
    files.
    """

    name: str
    version: int
    content_digest: str
    version_digest: str
    aliases: tuple[str, ...] = ()
    created: str
    bytes: int

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"
