"""Names and identifiers: what a model may be called, how a reference is written, digests of records."""

from __future__ import annotations

import hashlib
import re
import secrets

import msgspec

from trimtab.spec.errors import UsageError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """`name` (newest), `name@3` (a version, never moves) or `name:prod` (an alias, moves)."""

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return f"{self.name}:{self.alias}" if self.alias else self.name


def check_name(name: str, what: str = "name") -> str:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid {what}.",
            remedy="Use up to 64 lower-case letters, digits, '.', '_' and '-', starting with a letter or digit.",
        )
    return name


def parse_reference(text: str) -> Reference:
    """Raises `UsageError` for anything but the three forms."""
    if "@" in text:
        name, _, version = text.partition("@")
        if not re.fullmatch("[1-9][0-9]{0,17}", version):
            raise UsageError(
                f"{text!r} does not name a version.", remedy="Write NAME@N, such as support-bot@3."
            )
        return Reference(name=check_name(name), version=int(version))
    name, colon, alias = text.partition(":")
    return Reference(name=check_name(name), alias=check_name(alias, "alias") if colon else None)


def digest(record: object) -> str:
    """SHA-256 (hex) of a record's canonical JSON: equal records, equal digests, whatever the key order."""
    return hashlib.sha256(msgspec.json.encode(record, order="deterministic")).hexdigest()


def request_id() -> str:
    """An unguessable id for one request. Ids never come from a client."""
    return f"req_{secrets.token_hex(12)}"
