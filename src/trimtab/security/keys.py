"""API keys: made, checked, listed, revoked. Knows nothing of HTTP.

A key is `tt_<id>_<secret>`. Kept is HMAC-SHA256(pepper, id and secret): the secret has 256 random bits, so a
fast hash is enough, and a copy of the catalogue without `home/keys/pepper` is worth nothing. Every wrong key
takes the same path and gets the same answer, whether its id exists or not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlalchemy import Row, Select, insert, select, update

from trimtab.security.identity import SCOPES, Principal, Scope
from trimtab.spec.clock import now
from trimtab.spec.errors import AuthenticationError, NotFoundError, UsageError
from trimtab.store.database import BUSY_TIMEOUT_SECONDS, DEFAULT_TENANT, KEYS, Database
from trimtab.store.home import home as default_home
from trimtab.store.home import prepare
from trimtab.store.private import private_file

DEFAULT_SCOPES: tuple[Scope, ...] = ("infer", "read")
MAX_NAME_LENGTH = 128
_FORM = re.compile(r"tt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NO_DIGEST = "0" * 64


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key. `key` is shown now and never again."""

    key: str
    id: str
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    expires: str | None = None


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key once it was shown. Times are UTC, ISO 8601."""

    id: str
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    created: str
    expires: str | None
    revoked: str | None


class KnownKeys:
    """The living keys at one look at the catalogue. Reads nothing, so it never waits."""

    def __init__(self, pepper: bytes, digests: dict[str, tuple[str, KeyEntry]]) -> None:
        self._pepper, self._digests = pepper, digests

    def find(self, presented: str) -> Principal | None:
        """Who holds this key, if it lives. Takes as long for an unknown id as for a wrong secret."""
        form = _FORM.fullmatch(presented)
        if form is None:
            return None
        expected, entry = self._digests.get(form[1], (_NO_DIGEST, None))
        matches = hmac.compare_digest(_digest(self._pepper, form[1], form[2]), expected)
        if not matches or entry is None:
            return None
        if entry.expires is not None and datetime.fromisoformat(entry.expires) <= datetime.now(UTC):
            return None
        return Principal(
            key_id=entry.id, name=entry.name, tenant=entry.tenant, scopes=frozenset(entry.scopes)
        )


class KeyRing:
    """All keys of one home. It reads the catalogue each time it is asked; a service uses `security.verifier`.

    Raises what `Database` does.
    """

    def __init__(self, home: Path | None = None, *, busy_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        folder = default_home() if home is None else prepare(home)
        self._database = Database(folder, busy_seconds=busy_seconds)
        self._pepper = private_file(folder / "keys" / "pepper", lambda: secrets.token_bytes(32))
        self._last: tuple[object, KnownKeys] | None = None

    def create(
        self,
        name: str,
        *,
        scopes: Iterable[str] = DEFAULT_SCOPES,
        tenant: str = DEFAULT_TENANT,
        expires: datetime | None = None,
    ) -> CreatedKey:
        """A new key. `expires` is a moment with a time zone. Raises `UsageError` for a bad name, scope or
        moment.
        """
        wanted = _check(name, scopes, expires)
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        ends = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if expires else None
        with self._database.writing() as connection:
            connection.execute(
                insert(KEYS).values(
                    id=key_id,
                    tenant_id=tenant,
                    name=name,
                    digest=_digest(self._pepper, key_id, secret),
                    scopes=" ".join(wanted),
                    created=now(),
                    expires=ends,
                )
            )
        key = f"tt_{key_id}_{secret}"
        return CreatedKey(key=key, id=key_id, name=name, tenant=tenant, scopes=wanted, expires=ends)

    def verify(self, presented: str) -> Principal:
        """Who holds this key. Raises `AuthenticationError`, the same for every reason."""
        found = self.known().find(presented)
        if found is None:
            raise invalid_key()
        return found

    def known(self) -> KnownKeys:
        """The keys that are not revoked now. A row that makes no sense is no key.

        Of a catalogue that nobody has written to since, what the last look gave.
        """
        stamp = self._database.stamp()
        if self._last is None or stamp is None or self._last[0] != stamp:
            found = self._rows(select(KEYS).where(KEYS.c.revoked.is_(None)))
            known = KnownKeys(self._pepper, {entry.id: (digest, entry) for digest, entry in found})
            self._last = stamp, known
        return self._last[1]

    def list(self) -> list[KeyEntry]:
        """Oldest first, revoked and expired ones included."""
        return [entry for _, entry in self._rows(select(KEYS).order_by(KEYS.c.created, KEYS.c.id))]

    def revoke(self, key_id: str) -> KeyEntry:
        """End a key for ever; again is no error. Raises `NotFoundError`."""
        with self._database.writing() as connection:
            connection.execute(
                update(KEYS).where(KEYS.c.id == key_id, KEYS.c.revoked.is_(None)).values(revoked=now())
            )
        for entry in self.list():
            if entry.id == key_id:
                return entry
        raise NotFoundError(
            f"there is no key with the id {key_id!r}.", remedy="'trimtab keys ls' shows the ids."
        )

    def _rows(self, query: Select) -> Iterator[tuple[str, KeyEntry]]:
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            with suppress(TypeError, ValueError, AttributeError):
                yield _checked_digest(row.digest), _entry(row)


def invalid_key() -> AuthenticationError:
    return AuthenticationError(
        "this is not a valid API key.",
        remedy="Send 'Authorization: Bearer tt_…' with a key from 'trimtab keys create --name NAME'.",
    )


def has_form(presented: str) -> bool:
    """Whether it looks like a key at all."""
    return _FORM.fullmatch(presented) is not None


def _digest(pepper: bytes, key_id: str, secret: str) -> str:
    return hmac.new(pepper, f"trimtab api key v1\n{key_id}\n{secret}".encode(), hashlib.sha256).hexdigest()


def _check(name: str, scopes: Iterable[str], expires: datetime | None) -> tuple[Scope, ...]:
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise UsageError(
            f"{name!r} is no name for a key.",
            remedy=f"Use 1 to {MAX_NAME_LENGTH} printable characters that say who uses it.",
        )
    asked = set(scopes)
    if not asked or asked - set(SCOPES):
        unknown = ", ".join(sorted(asked - set(SCOPES))) or "none"
        raise UsageError(f"these are no scopes: {unknown}.", remedy=f"Choose from {', '.join(SCOPES)}.")
    if expires is not None and (expires.tzinfo is None or expires <= datetime.now(UTC)):
        raise UsageError("a key must expire later than now, in a stated time zone.", where="expires")
    return tuple(scope for scope in SCOPES if scope in asked)


def _checked_digest(digest: str) -> str:
    if len(digest) != len(_NO_DIGEST) or not digest.isascii():
        raise ValueError
    return digest


def _entry(row: Row) -> KeyEntry:
    """Raises `ValueError`, `TypeError` or `AttributeError` for what no version of ours has written."""
    if row.expires is not None and datetime.fromisoformat(row.expires).tzinfo is None:
        raise ValueError
    return KeyEntry(
        id=row.id,
        name=row.name,
        tenant=row.tenant_id,
        scopes=tuple(row.scopes.split()),
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
    )
