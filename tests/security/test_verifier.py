"""A service checks keys without waiting for its catalogue, and goes on when that is locked, damaged or gone."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from pathlib import Path

import pytest

import trimtab.security.verifier as module
from trimtab.security.keys import KeyRing
from trimtab.security.verifier import HONOURED_SECONDS, REVOKED_WITHIN_SECONDS, Verifier
from trimtab.spec.errors import AuthenticationError, UnavailableError

WRONG = f"tt_{'0' * 16}_{'A' * 43}"


@pytest.fixture
def ring(tmp_path):
    return KeyRing(tmp_path)


@contextlib.asynccontextmanager
async def verifying(home, report=lambda _: None):
    made = Verifier(KeyRing(home, busy_seconds=module.BUSY_SECONDS), report)
    try:
        yield made
    finally:
        await made.close()


@contextlib.contextmanager
def locked(home):
    """As a program does that wants the file for itself: in WAL mode only this keeps readers out."""
    raw = sqlite3.connect(home / "catalogue.db", isolation_level=None)
    raw.execute("PRAGMA locking_mode = EXCLUSIVE")
    raw.execute("BEGIN EXCLUSIVE")
    raw.execute("UPDATE keys SET name = name")
    try:
        yield
    finally:
        raw.execute("ROLLBACK")
        raw.close()


@contextlib.contextmanager
def damaged(home):
    path = home / "catalogue.db"
    whole = path.read_bytes()
    for journal in home.glob("catalogue.db-*"):
        journal.unlink()
    path.write_bytes(b"nonsense" * 2000)
    yield
    for journal in home.glob("catalogue.db-*"):
        journal.unlink()
    path.write_bytes(whole)


@contextlib.contextmanager
def missing(home):
    path = home / "catalogue.db"
    away = path.rename(home / "away.db")
    yield
    assert not path.exists()  # nobody made an empty one in its place
    away.rename(path)


async def longest_pause(work):
    """What `work` gives, and for how long the loop stood still meanwhile."""
    worst, stop = 0.0, asyncio.Event()

    async def look():
        nonlocal worst
        while not stop.is_set():
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - begun)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    result = await work
    stop.set()
    await looking
    return result, worst


@pytest.mark.parametrize("fault", [locked, damaged, missing])
def test_known_keys_work_while_the_catalogue_cannot_be_read(ring, tmp_path, fault):
    key, told = ring.create("a").key, []

    async def run():
        async with verifying(tmp_path, told.append) as verifier:
            await verifier.verify(key)
            with fault(tmp_path):
                verifier._good -= 10  # the service was idle for so long
                begun = time.monotonic()
                principal, pause = await longest_pause(verifier.verify(key))
                assert principal.name == "a"
                assert time.monotonic() - begun < 2.0
                assert pause < 0.3
                assert verifier.stale_seconds > 10
                begun = time.monotonic()
                for _ in range(100):
                    assert (await verifier.verify(key)).name == "a"
                assert time.monotonic() - begun < 0.5  # who comes next does not wait
                with pytest.raises(UnavailableError):  # it may be a new one
                    await verifier.verify(WRONG)
            assert len(told) == 1
            assert told[0]
            for _ in range(100):
                await asyncio.sleep(0.05)
                if verifier.fault is None:
                    break
            assert verifier.stale_seconds is None
            assert told[1:] == [None]
            with pytest.raises(AuthenticationError):
                await verifier.verify(WRONG)

    asyncio.run(run())


def test_keys_that_were_never_read_cannot_be_checked(ring, tmp_path):
    key = ring.create("a").key

    async def run():
        async with verifying(tmp_path) as verifier:
            with missing(tmp_path), pytest.raises(UnavailableError):
                await verifier.verify(key)

    asyncio.run(run())


def test_the_last_look_is_not_honoured_for_ever(ring, tmp_path):
    key = ring.create("a").key

    async def run():
        async with verifying(tmp_path) as verifier:
            await verifier.verify(key)
            with missing(tmp_path):
                verifier._good -= HONOURED_SECONDS + 1
                with pytest.raises(UnavailableError):
                    await verifier.verify(key)

    asyncio.run(run())


def test_a_disk_that_does_not_answer_holds_nobody(ring, tmp_path, monkeypatch):
    key, freed = ring.create("a").key, threading.Event()

    async def run():
        async with verifying(tmp_path) as verifier:
            await verifier.verify(key)
            monkeypatch.setattr(KeyRing, "known", lambda _: freed.wait(20))
            verifier._good -= 10
            _, pause = await longest_pause(verifier.verify(key))
            assert pause < 0.3
            begun = time.monotonic()
            await verifier.verify(key)
            assert time.monotonic() - begun < 0.3
            freed.set()

    asyncio.run(run())


def test_a_new_key_works_at_once_whatever_was_asked_just_before(ring, tmp_path):
    async def run():
        async with verifying(tmp_path) as verifier:
            for name in "abc":
                with pytest.raises(AuthenticationError):
                    await verifier.verify(WRONG)
                assert (await verifier.verify(ring.create(name).key)).name == name

    asyncio.run(run())


def test_a_revoked_key_stops_within_the_bound(ring, tmp_path):
    created = ring.create("a")

    async def run():
        async with verifying(tmp_path) as verifier:
            await verifier.verify(created.key)
            ring.revoke(created.id)
            until = time.monotonic() + REVOKED_WITHIN_SECONDS
            while time.monotonic() < until:
                try:
                    await verifier.verify(created.key)
                except AuthenticationError:
                    return
                await asyncio.sleep(0.02)
            pytest.fail("it is still let in")

    asyncio.run(run())


def test_the_bound_on_revocation_is_kept_by_the_others_and_told_in_the_documents():
    assert module.RENEW_SECONDS < module.TRUST_SECONDS
    assert module.BUSY_SECONDS < module.WAIT_SECONDS
    assert module.TRUST_SECONDS + module.WAIT_SECONDS + module.BUSY_SECONDS < REVOKED_WITHIN_SECONDS
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    assert f"within {REVOKED_WITHIN_SECONDS:.0f} seconds" in text


def test_a_revoked_key_is_not_let_in_after_a_pause(ring, tmp_path):
    """Also where the catalogue could not be read for a while and nobody came since."""
    created = ring.create("a")

    async def run():
        async with verifying(tmp_path) as verifier:
            await verifier.verify(created.key)
            with missing(tmp_path):
                verifier._good -= 10
                await verifier.verify(created.key)
            ring.revoke(created.id)
            await asyncio.sleep(2.5)
            with pytest.raises(AuthenticationError):
                await verifier.verify(created.key)

    asyncio.run(run())


def test_wrong_keys_cannot_make_it_read_the_catalogue_each_time(ring, tmp_path, monkeypatch):
    looks, known = [], KeyRing.known
    monkeypatch.setattr(KeyRing, "known", lambda self: looks.append(1) or known(self))

    async def run():
        async with verifying(tmp_path) as verifier:
            begun = time.monotonic()
            answers = await asyncio.gather(
                *(verifier.verify(WRONG) for _ in range(500)), return_exceptions=True
            )
            assert {type(each) for each in answers} == {AuthenticationError}
            spent = time.monotonic() - begun
            assert len(looks) <= 3 + spent / module.LOOK_EVERY_SECONDS

    asyncio.run(run())


def test_what_has_no_form_of_a_key_reads_nothing(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(KeyRing, "known", lambda _: pytest.fail("it was read"))

    async def run():
        async with verifying(tmp_path) as verifier:
            for wrong in ("", "tt__", "x" * 1_000_000, "é"):
                with pytest.raises(AuthenticationError):
                    await verifier.verify(wrong)

    asyncio.run(run())
