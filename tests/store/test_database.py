"""The catalogue's file: its migrations say what its tables say, they happen whole, strangers are out."""

import sqlite3
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select

import trimtab.store.database as module
from trimtab.spec.errors import TrimtabError
from trimtab.store.database import ALIASES, LATEST, METADATA, Database

ROW = {"tenant_id": "t", "name": "n", "alias": "a", "version": 1}


def names(database: Database) -> list:
    with database.reading() as connection:
        return connection.execute(select(ALIASES.c.name)).scalars().all()


def test_migrations_make_the_tables_that_the_code_uses(tmp_path):
    database = Database(tmp_path)
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_the_latest_revision_is_the_one_the_code_knows():
    config = Config()
    config.set_main_option("script_location", module.__file__.replace("database.py", "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == LATEST


def test_a_second_opening_does_not_migrate(tmp_path, monkeypatch):
    Database(tmp_path)
    monkeypatch.setattr(Database, "_migrate", lambda _: pytest.fail("it migrated again"))
    Database(tmp_path)


def test_a_home_with_odd_characters(tmp_path):
    home = tmp_path / "50% off? #1 é"
    home.mkdir()
    Database(home)
    assert (home / "catalogue.db").is_file()


def test_what_fails_is_rolled_back(tmp_path):
    database = Database(tmp_path)

    def fail() -> None:
        with database.writing() as connection:
            connection.execute(insert(ALIASES).values(ROW))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(database) == []


def test_a_migration_that_fails_leaves_no_table(tmp_path, monkeypatch):
    from alembic import command

    upgrade = command.upgrade

    def fail_at_the_end(*arguments):
        upgrade(*arguments)
        raise RuntimeError

    monkeypatch.setattr(command, "upgrade", fail_at_the_end)
    with pytest.raises(RuntimeError):
        Database(tmp_path)
    with sqlite3.connect(tmp_path / "catalogue.db") as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == []
    raw.close()
    monkeypatch.undo()
    assert names(Database(tmp_path)) == []


def test_writers_wait_and_readers_do_not(tmp_path):
    database, order = Database(tmp_path), []
    inside, done = threading.Event(), threading.Event()

    def second() -> None:
        inside.wait()
        with database.writing() as connection:
            order.append("second")
            connection.execute(insert(ALIASES).values({**ROW, "name": "second"}))
        done.set()

    thread = threading.Thread(target=second)
    thread.start()
    with database.writing() as connection:
        inside.set()
        connection.execute(insert(ALIASES).values(ROW))
        assert names(database) == []  # a reader neither waits nor sees what is not committed
        assert not done.wait(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert sorted(names(database)) == ["n", "second"]


def test_a_file_that_is_no_catalogue(tmp_path):
    (tmp_path / "catalogue.db").write_bytes(b"not a database, but long enough to be taken for one " * 100)
    with pytest.raises(TrimtabError, match="cannot be read") as caught:
        Database(tmp_path)
    assert caught.value.where == str(tmp_path / "catalogue.db")


def test_a_catalogue_of_a_newer_version(tmp_path):
    database = Database(tmp_path)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(TrimtabError, match="Update Trimtab"):
        Database(tmp_path)
