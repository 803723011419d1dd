"""The catalogue's database: its tables, its connections, its migrations. Knows nothing of files or digests.

SQLite in WAL mode: one writer at a time, readers never wait. A transaction that writes takes the write lock
at its start, so what it read is still true when it writes; the store also relies on that lock (see
`store.store`). Its files are the owner's alone, whatever the umask.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
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
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError

from trimtab.spec.errors import TrimtabError
from trimtab.store.ownership import check_owner
from trimtab.store.private import make_private
from trimtab.store.scratch import locked

DEFAULT_TENANT = "default"
LATEST = "0001"  # the newest revision in migrations/versions
BUSY_TIMEOUT_SECONDS = 60.0
# Far more than the grain of any filesystem's clock.
_SETTLED_SECONDS = 1.0
# A disk that is full shows as either of the first two, by which file could not grow.
_NO_ROOM_OR_RIGHT = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_JOURNALS = ("-wal", "-shm", "-journal")

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

    `busy_seconds` is how long it waits for a lock of another process. Here and whenever it is used it raises
    `TrimtabError` for a file that is locked, missing, no catalogue, or a newer Trimtab's.
    """

    def __init__(self, home: Path, *, busy_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        self._path, self._busy_seconds = home / "catalogue.db", busy_seconds
        _make_private(self._path)
        # A connection costs 0.3 ms; none kept open means none to close, in any thread.
        self._engine = create_engine("sqlite+pysqlite://", poolclass=NullPool, creator=self._connect)
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)
        if self._revision() != LATEST:
            with locked(home / "catalogue.lock"), self._telling():
                self._migrate()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A snapshot of the catalogue."""
        with self._telling(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The only writer, from here to the commit at the end; an exception rolls back."""
        with self._telling(), self._engine.connect() as connection:
            writer = connection.execution_options(trimtab_writes=True)
            with writer.begin():
                yield writer

    def stamp(self) -> tuple[object, ...] | None:
        """Equal to an earlier one only if nothing was written between; for a few system calls instead of a look.

        None where that cannot be told: the file is gone, or so freshly written that its time might stand for two
        writes.
        """
        try:
            found = [self._path.stat()]
            with suppress(FileNotFoundError):
                log = self._path.with_name(self._path.name + "-wal").stat()
                found += [log] if log.st_size else []
        except OSError:
            return None
        if time.time() - max(each.st_mtime for each in found) < _SETTLED_SECONDS:
            return None
        return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found)

    def _connect(self) -> sqlite3.Connection:
        # "rw": a catalogue that is gone is not made anew, empty, by whoever reads.
        address = f"file:{quote(str(self._path))}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=self._busy_seconds, check_same_thread=False)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What the file or its disk does to us, in a sentence. What we do wrong stays an exception of the driver's."""
        try:
            yield
        except (DatabaseError, sqlite3.OperationalError) as error:
            if isinstance(error, (IntegrityError, ProgrammingError, DataError)):
                raise
            cause = error.orig if isinstance(error, DatabaseError) else error
            # An extended code holds the plain one in its last byte.
            if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM_OR_RIGHT:
                raise TrimtabError(
                    f"the catalogue cannot be written: {cause}.",
                    where=str(self._path),
                    remedy=f"Free space or get the right to use {self._path.parent}; then do it again.",
                ) from error
            if "locked" in str(cause):
                raise TrimtabError(
                    "the catalogue is locked by another process.",
                    where=str(self._path),
                    remedy="Wait until that has ended, then do it again.",
                ) from error
            raise TrimtabError(
                f"the catalogue cannot be read: {cause}.",
                where=str(self._path),
                remedy="Restore it from a copy, or move it away to start with an empty one.",
            ) from error

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


def _make_private(path: Path) -> None:
    """An empty file (an empty database) where there is none. SQLite gives its journals the mode of this file.

    It is never opened here: closing it would let go of the locks that this process holds on it elsewhere.
    """
    for each in (path, *(path.with_name(path.name + end) for end in _JOURNALS)):
        with suppress(FileNotFoundError):
            check_owner(each)
            if each.stat().st_mode & 0o077:
                each.chmod(0o600)
    make_private(path, bytes)


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
