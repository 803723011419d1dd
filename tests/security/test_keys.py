"""Who gets in: the right key, and nothing that is nearly one."""

import hashlib
import hmac
import os
import sqlite3
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.security.keys import KeyRing
from trimtab.spec.errors import AuthenticationError, NotFoundError, UsageError


@pytest.fixture
def ring(tmp_path):
    return KeyRing(tmp_path)


def refused(ring: KeyRing, presented: str) -> str:
    with pytest.raises(AuthenticationError) as caught:
        ring.verify(presented)
    return str(caught.value)


def test_a_key_says_who_holds_it(ring):
    created = ring.create("ci", scopes=("admin", "infer"), tenant="acme")
    principal = ring.verify(created.key)
    assert (principal.key_id, principal.name, principal.tenant) == (created.id, "ci", "acme")
    assert principal.scopes == {"infer", "admin"}
    assert principal.may("infer")
    assert not principal.may("read")


def test_by_default_a_key_may_not_administer(ring):
    assert ring.verify(ring.create("a").key).scopes == {"infer", "read"}


def test_every_wrong_key_gets_the_same_answer(ring):
    key = ring.create("a").key
    other = ring.create("b").key
    prefix, key_id, secret = key.split("_", 2)
    answers = {
        refused(ring, wrong)
        for wrong in [
            f"{prefix}_{key_id}_{other.split('_', 2)[2]}",  # the secret of another key
            f"{prefix}_{'0' * 16}_{secret}",  # an id that is not there
            key[:-1] + ("A" if key[-1] != "A" else "B"),
            key[:-1],
            key + "A",
            key + "\n",
            " " + key,
            key.upper(),
            key.replace("tt_", "xx_"),
            "",
            "tt__",
            f"tt_{key_id}_' OR 1=1 --",
            "é" * 64,
            "\x00" * 64,
            "tt_" + "9" * 1_000_000,
        ]
    }
    assert len(answers) == 1
    assert ring.verify(key).name == "a"


@given(position=st.integers(0, 62), letter=st.sampled_from("abcdef0123456789XYZ-_ é"))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_single_letter_may_differ(tmp_path, position, letter):
    ring = KeyRing(tmp_path)
    key = ring.create("a").key
    wrong = key[:position] + letter + key[position + 1 :]
    if wrong == key:
        assert ring.verify(wrong).name == "a"
    else:
        refused(ring, wrong)


def test_a_revoked_key_stops_at_once(ring, tmp_path):
    created = ring.create("a")
    assert KeyRing(tmp_path).verify(created.key).name == "a"
    assert ring.revoke(created.id).revoked is not None
    refused(ring, created.key)
    refused(KeyRing(tmp_path), created.key)
    ring.revoke(created.id)
    with pytest.raises(NotFoundError):
        ring.revoke("unknown")


@pytest.mark.parametrize(
    ("column", "value"),
    [("scopes", None), ("expires", "soon"), ("expires", "2999-01-01"), ("digest", "é" * 64)],
)
def test_a_row_that_makes_no_sense_is_no_key_and_harms_no_other(ring, tmp_path, column, value):
    bad, good = ring.create("bad"), ring.create("good")
    with sqlite3.connect(tmp_path / "catalogue.db") as raw:
        # As damage or another program may leave it: SQLite keeps any type in any column.
        raw.execute("PRAGMA ignore_check_constraints = 1")
        raw.execute("PRAGMA writable_schema = 1")
        raw.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'keys'")
    raw.close()
    with sqlite3.connect(tmp_path / "catalogue.db") as raw:
        raw.execute(f"UPDATE keys SET {column} = ? WHERE id = ?", [value, bad.id])  # noqa: S608 - our own name
    raw.close()
    refused(ring, bad.key)
    assert ring.verify(good.key).name == "good"


def test_an_expired_key_stops_without_a_new_look(ring, tmp_path):
    created = ring.create("a", expires=datetime.now(UTC) + timedelta(hours=1))
    assert ring.verify(created.key).name == "a"
    with sqlite3.connect(tmp_path / "catalogue.db") as raw:
        raw.execute("UPDATE keys SET expires = ?", [(datetime.now(UTC) - timedelta(seconds=1)).isoformat()])
    raw.close()
    refused(KeyRing(tmp_path), created.key)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scopes": ()}, "infer, read, admin"),
        ({"scopes": ("root",)}, "root"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "later"),
        ({"expires": datetime(2999, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the fault
    ],
)
def test_bad_wishes_make_no_key(ring, fields, words):
    with pytest.raises(UsageError, match=words):
        ring.create(**{"name": "a", **fields})
    assert ring.list() == []


def test_nothing_on_disk_gives_a_key_away(ring, tmp_path):
    created = ring.create("a")
    secret = created.key.split("_", 2)[2]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
    assert stat.S_IMODE((tmp_path / "keys" / "pepper").stat().st_mode) == 0o600
    with sqlite3.connect(tmp_path / "catalogue.db") as raw:
        (digest,) = raw.execute("SELECT digest FROM keys").fetchone()
    raw.close()
    for guess in (secret, created.key):  # without the pepper a hash of the key is no help
        assert digest != hashlib.sha256(guess.encode()).hexdigest()
        assert digest != hmac.new(b"", guess.encode(), hashlib.sha256).hexdigest()


def test_a_row_moved_to_another_id_is_worth_nothing(ring, tmp_path):
    """Whoever can write the catalogue, but not read the pepper, cannot give a key the rights of another."""
    weak, strong = ring.create("weak"), ring.create("strong", scopes=("admin",))
    with sqlite3.connect(tmp_path / "catalogue.db") as raw:
        raw.execute("UPDATE keys SET digest = (SELECT digest FROM keys WHERE id = ?)", [weak.id])
    raw.close()
    refused(KeyRing(tmp_path), f"tt_{strong.id}_{weak.key.split('_', 2)[2]}")


def test_keys_of_another_home_do_not_work(ring, tmp_path):
    key = KeyRing(tmp_path / "other").create("a").key
    refused(ring, key)


def test_the_list_shows_no_secret(ring):
    first, second = ring.create("a"), ring.create("b")
    ring.revoke(first.id)
    assert [(entry.name, entry.revoked is None) for entry in ring.list()] in (
        [("a", False), ("b", True)],
        [("b", True), ("a", False)],  # made in the same second
    )
    assert second.key.split("_", 2)[2] not in repr(ring.list())


def test_keys_come_up_without_torch(tmp_path):
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, openvino=None, model_signing=None)\n"
        "from pathlib import Path; from trimtab.security.keys import KeyRing\n"
        "ring = KeyRing(Path(sys.argv[1])); print(ring.verify(ring.create('a').key).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a\n"


def _age(home: Path) -> None:
    """As if the catalogue had been written to an hour ago."""
    for path in home.glob("catalogue.db*"):
        os.utime(path, (time.time() - 3600,) * 2)


def test_a_catalogue_that_nobody_wrote_to_is_not_read_again(tmp_path, monkeypatch):
    ring = KeyRing(tmp_path)
    first = ring.create("first")
    _age(tmp_path)
    known = ring.known()
    with monkeypatch.context() as patch:
        patch.setattr(ring._database, "reading", None)
        assert ring.known() is known
    assert known.find(first.key)
    second = ring.create("second")
    assert ring.known().find(second.key)
    _age(tmp_path)
    ring.known()
    ring.revoke(first.id)
    assert ring.known().find(first.key) is None


def test_a_catalogue_that_was_just_written_to_is_read_each_time(tmp_path):
    ring = KeyRing(tmp_path)
    ring.create("it")
    assert ring.known() is not ring.known()
