"""The catalogue's database: its tables, its connections, its migrations. Knows nothing of files or digests.

SQLite in WAL mode: one writer at a time, readers never wait. A transaction that writes takes the write lock
at its start, so what it read is still true when it writes; the store also relies on that lock (see
`store.store`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.exc import DatabaseError

from trimtab.spec.errors import TrimtabError
from trimtab.store.scratch import locked

DEFAULT_TENANT = "default"
LATEST = "0001"  # the newest revision in migrations/versions
BUSY_TIMEOUT_SECONDS = 60.0

METADATA = MetaData()
# A removed version keeps its row, so that its number is never given again.
VERSIONS = Table(
    "versions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("content_digest", String, nullable=False),
    Column("version_digest", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("created", String, nullable=False),
    Column("removed", String),
    UniqueConstraint("tenant_id", "name", "version"),
)
ALIASES = Table(
    "aliases",
    METADATA,
    Column("tenant_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("alias", String, primary_key=True),
    Column("version", Integer, nullable=False),
)
RECORDS = Table(
    "records",
    METADATA,
    Column("tenant_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("record", String, primary_key=True),
    Column("digest", String, nullable=False),
)
KEYS = Table(
    "keys",
    METADATA,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("created", String, nullable=False),
    Column("expires", String),
    Column("revoked", String),
)


class Database:
    """`home/catalogue.db`, brought to the latest revision when opened.

    Raises `TrimtabError` for a file that is no catalogue or that a newer Trimtab made.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "catalogue.db"
        # A connection costs 0.3 ms; none kept open means none to close, in any thread.
        self._engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(self._path)),
            poolclass=NullPool,
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
        )
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)
        try:
            if self._revision() != LATEST:
                with locked(home / "catalogue.lock"):
                    self._migrate()
        except DatabaseError as error:
            raise TrimtabError(
                f"the catalogue cannot be read: {error.orig}.",
                where=str(self._path),
                remedy="Restore it from a copy, or move it away to start with an empty one.",
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot of the catalogue."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The only writer, from here to the commit at the end; an exception rolls back."""
        with self._engine.connect() as connection:
            writer = connection.execution_options(trimtab_writes=True)
            with writer.begin():
                yield writer

    def _revision(self) -> str | None:
        """What the catalogue says of itself, without the cost of importing Alembic."""
        with self.reading() as connection:
            known = connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
            )
            if known.first() is None:
                return None
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        with self._engine.connect() as connection:
            # Kept by the file for ever after. It cannot be set inside a transaction, hence not through
            # SQLAlchemy.
            _dbapi(connection).execute("PRAGMA journal_mode = WAL")
        config = Config()
        config.set_main_option(
            "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
        )
        with self.writing() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise TrimtabError(
                    f"the catalogue was made by another version of Trimtab ({error}).",
                    where=str(self._path),
                    remedy="Update Trimtab, or set TRIMTAB_HOME to another folder.",
                ) from error


def _dbapi(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise TypeError(f"not an SQLite connection: {driver!r}")
    return driver


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    # We begin transactions ourselves: sqlite3 would begin late, and never before CREATE TABLE.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("trimtab_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
