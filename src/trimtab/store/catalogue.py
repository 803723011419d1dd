"""What the store knows: names, versions, aliases, records, as questions to one open connection.

Knows nothing of files. Every question is limited to one tenant. Whoever calls holds the transaction.
"""

from __future__ import annotations

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from trimtab.spec.clock import now
from trimtab.spec.errors import NotFoundError
from trimtab.spec.ids import Reference
from trimtab.store.database import ALIASES, RECORDS, VERSIONS
from trimtab.store.version import Version


class Catalogue:
    """One tenant's view through one connection."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection, self._tenant = connection, tenant

    def versions(self, name: str | None = None) -> list[Version]:
        """By name, oldest first; removed versions are left out."""
        question = select(VERSIONS).where(VERSIONS.c.tenant_id == self._tenant, VERSIONS.c.removed.is_(None))
        if name is not None:
            question = question.where(VERSIONS.c.name == name)
        rows = self._connection.execute(question.order_by(VERSIONS.c.name, VERSIONS.c.version))
        aliases = self._aliases()
        return [_version(row, aliases.get((row.name, row.version), ())) for row in rows]

    def resolve(self, reference: Reference) -> Version:
        """Raises `NotFoundError` that says what there is instead."""
        found = self.versions(reference.name)
        if not found:
            raise NotFoundError(
                f"no model is named '{reference.name}'.",
                remedy="'trimtab models ls' shows the names that exist.",
            )
        wanted = [
            version
            for version in found
            if (reference.version is None or version.version == reference.version)
            and (reference.alias is None or reference.alias in version.aliases)
        ]
        if not wanted:
            aliases = [f"{reference.name}:{alias}" for version in found for alias in version.aliases]
            there = ", ".join([version.reference for version in found] + aliases)
            raise NotFoundError(f"there is no {reference}.", remedy=f"There are: {there}.")
        return wanted[-1]

    def newest(self, name: str) -> Version | None:
        return next(reversed(self.versions(name)), None)

    def add(self, name: str, *, content_digest: str, version_digest: str, size_bytes: int) -> Version:
        """The next version of a name. Numbers of removed versions are not given again."""
        highest = self._connection.execute(
            select(func.max(VERSIONS.c.version)).where(
                VERSIONS.c.tenant_id == self._tenant, VERSIONS.c.name == name
            )
        ).scalar()
        version = Version(
            name=name,
            version=(highest or 0) + 1,
            content_digest=content_digest,
            version_digest=version_digest,
            created=now(),
            bytes=size_bytes,
        )
        self._connection.execute(
            insert(VERSIONS).values(
                tenant_id=self._tenant,
                name=name,
                version=version.version,
                content_digest=content_digest,
                version_digest=version_digest,
                bytes=size_bytes,
                created=version.created,
            )
        )
        return version

    def remove(self, version: Version) -> None:
        this = (VERSIONS.c.name == version.name, VERSIONS.c.version == version.version)
        self._connection.execute(
            update(VERSIONS).where(VERSIONS.c.tenant_id == self._tenant, *this).values(removed=now())
        )
        self._connection.execute(
            delete(RECORDS).where(
                RECORDS.c.tenant_id == self._tenant,
                RECORDS.c.name == version.name,
                RECORDS.c.version == version.version,
            )
        )

    def set_alias(self, name: str, alias: str, version: int) -> None:
        values = {"tenant_id": self._tenant, "name": name, "alias": alias, "version": version}
        self._connection.execute(
            upsert(ALIASES).values(values).on_conflict_do_update(set_={"version": version}),
        )

    def drop_alias(self, name: str, alias: str) -> bool:
        """Whether there was one."""
        where = (ALIASES.c.tenant_id == self._tenant, ALIASES.c.name == name, ALIASES.c.alias == alias)
        return self._connection.execute(delete(ALIASES).where(*where)).rowcount > 0

    def set_record(self, version: Version, record: str, digest: str) -> None:
        values = {
            "tenant_id": self._tenant,
            "name": version.name,
            "version": version.version,
            "record": record,
            "digest": digest,
        }
        self._connection.execute(
            upsert(RECORDS).values(values).on_conflict_do_update(set_={"digest": digest})
        )

    def records(self, version: Version) -> dict[str, str]:
        """Name of each record beside a version → its SHA-256."""
        rows = self._connection.execute(
            select(RECORDS.c.record, RECORDS.c.digest)
            .where(
                RECORDS.c.tenant_id == self._tenant,
                RECORDS.c.name == version.name,
                RECORDS.c.version == version.version,
            )
            .order_by(RECORDS.c.record)
        )
        return {row.record: row.digest for row in rows}

    def _aliases(self) -> dict[tuple[str, int], tuple[str, ...]]:
        rows = self._connection.execute(
            select(ALIASES).where(ALIASES.c.tenant_id == self._tenant).order_by(ALIASES.c.alias)
        )
        found: dict[tuple[str, int], tuple[str, ...]] = {}
        for row in rows:
            found[row.name, row.version] = (*found.get((row.name, row.version), ()), row.alias)
        return found


def folders_in_use(connection: Connection) -> tuple[set[str], set[str]]:
    """Of all tenants: the names of the artifact folders, and of the record folders, that some row needs."""
    versions = connection.execute(
        select(VERSIONS.c.version_digest).where(VERSIONS.c.removed.is_(None))
    ).scalars()
    records = connection.execute(select(RECORDS.c.record, RECORDS.c.digest))
    return set(versions), {record_folder(row.record, row.digest) for row in records}


def record_folder(record: str, digest: str) -> str:
    return f"{digest}-{record}"


def _version(row: Row, aliases: tuple[str, ...]) -> Version:
    return Version(
        name=row.name,
        version=row.version,
        content_digest=row.content_digest,
        version_digest=row.version_digest,
        aliases=aliases,
        created=row.created,
        bytes=row.bytes,
    )
