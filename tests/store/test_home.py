"""A home is ours alone: one that another user owns or may write to is refused, and its files are the owner's."""

import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from trimtab.security.keys import KeyRing
from trimtab.spec.errors import UsageError
from trimtab.store import ownership
from trimtab.store.home import home, prepare
from trimtab.store.store import Store

STRANGER = 12345


@pytest.fixture
def stranger(monkeypatch):
    """`stranger(path)` makes another user own it: for real where we may, else by being somebody else ourselves."""

    def give(path):
        if os.geteuid() == 0:
            os.lchown(path, STRANGER, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: STRANGER)

    return give


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
def test_a_home_that_others_may_write_to_is_refused(tmp_path, monkeypatch, mode):
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("TRIMTAB_HOME", str(folder))
    for opened in (home, KeyRing, Store):
        with pytest.raises(UsageError, match="other users may write") as caught:
            opened()
        assert caught.value.where == str(folder)
        assert "chmod go-w" in caught.value.remedy
        assert caught.value.exit_code == 2
    assert list(folder.iterdir()) == []


def test_a_home_of_another_user_is_refused(tmp_path, stranger):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    stranger(folder)
    with pytest.raises(UsageError, match="belongs to another user") as caught:
        KeyRing(folder)
    assert "chown" in caught.value.remedy


@pytest.mark.parametrize("mode", [0o777, 0o772])
def test_a_folder_above_that_others_may_write_to_counts(tmp_path, mode):
    above = tmp_path / "above"
    KeyRing(above / "between" / "home")
    above.chmod(mode)
    with pytest.raises(UsageError, match="may write") as caught:
        KeyRing(above / "between" / "home")
    assert caught.value.where == str(above)
    above.chmod(mode | stat.S_ISVTX)  # as /tmp: others cannot rename what is not theirs
    KeyRing(above / "between" / "home")


def test_a_folder_above_of_another_user_counts(tmp_path, stranger):
    above = tmp_path / "above"
    KeyRing(above / "home")
    stranger(above)
    with pytest.raises(UsageError, match="belongs to another user"):
        KeyRing(above / "home")


def test_a_link_on_the_way_counts(tmp_path, stranger):
    real, open_to_all = tmp_path / "real", tmp_path / "open"
    KeyRing(real)
    open_to_all.mkdir()
    link = open_to_all / "home"
    link.symlink_to(real)
    KeyRing(link)
    open_to_all.chmod(0o777)
    with pytest.raises(UsageError, match="may write"):
        KeyRing(link)
    open_to_all.chmod(0o1777)
    KeyRing(link)
    stranger(link)
    with pytest.raises(UsageError, match="belongs to another user"):
        KeyRing(link)


@pytest.mark.parametrize("inside", ["keys", "keys/pepper", "catalogue.db"])
def test_secrets_that_another_user_owns_are_refused(tmp_path, stranger, inside):
    KeyRing(tmp_path / "home").create("a")
    stranger(tmp_path / "home" / inside)
    with pytest.raises(UsageError, match="belongs to another user"):
        KeyRing(tmp_path / "home")


def test_a_folder_of_keys_that_others_may_write_to_is_refused(tmp_path):
    KeyRing(tmp_path / "home")
    (tmp_path / "home" / "keys").chmod(0o777)
    with pytest.raises(UsageError, match="may write") as caught:
        KeyRing(tmp_path / "home")
    assert caught.value.where == str(tmp_path / "home" / "keys")


@pytest.mark.parametrize("name", ["builds", "catalogue.db"])
def test_what_others_can_reach_they_may_not_write(tmp_path, name):
    """A home that others may enter is fine as long as nothing in it is theirs to change."""
    folder = tmp_path / "home"
    KeyRing(folder)
    (folder / "builds").mkdir()
    folder.chmod(0o755)
    prepare(folder)
    (folder / name).chmod(0o777)
    with pytest.raises(UsageError, match="may write") as caught:
        prepare(folder)
    assert caught.value.where == str(folder / name)


@pytest.mark.parametrize("mask", ["0", "2", "22", "77"])
def test_the_catalogue_is_the_owners_alone_under_any_umask(tmp_path, mask):
    folder = tmp_path / "a" / "home"
    code = (
        "import os, sqlite3, sys; os.umask(int(sys.argv[2], 8))\n"
        "from pathlib import Path; from trimtab.security.keys import KeyRing\n"
        "ring = KeyRing(Path(sys.argv[1])); path = Path(sys.argv[1]) / 'catalogue.db'\n"
        "kept = sqlite3.connect(path); kept.execute('SELECT * FROM keys').fetchall()\n"  # the journals stay
        "ring.create('a'); print({each.name: oct(each.stat().st_mode & 0o777) for each in path.parent.iterdir()})\n"
        "print(oct(path.parent.parent.stat().st_mode & 0o777), oct(path.parent.stat().st_mode & 0o777))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), mask], capture_output=True, text=True, check=True
    )
    for name in ("catalogue.db", "catalogue.db-wal", "catalogue.db-shm", "catalogue.lock"):
        assert f"'{name}': '0o600'" in done.stdout, name
    assert "'keys': '0o700'" in done.stdout
    assert done.stdout.endswith("0o700 0o700\n")


def test_a_catalogue_of_old_that_others_can_read_is_closed_to_them(tmp_path):
    KeyRing(tmp_path).create("a")
    path = tmp_path / "catalogue.db"
    with sqlite3.connect(path) as kept:
        kept.execute("SELECT * FROM keys").fetchall()
        for each in tmp_path.glob("catalogue.db*"):
            each.chmod(0o644)
        assert len(KeyRing(tmp_path).list()) == 1
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.glob("catalogue.db*")} == {0o600}
    kept.close()


def test_the_private_group_of_a_user_may_write_above(tmp_path, monkeypatch):
    """Many systems give each user a group of their own, and folders that it may write to; never root."""
    import grp
    import pwd

    above = tmp_path / "above"
    KeyRing(above / "home")
    above.chmod(0o770)
    if os.geteuid() == 0:
        with pytest.raises(UsageError, match="may write"):
            prepare(above / "home")
    found = above.stat()
    me, own = pwd.struct_passwd(("me", "", 1, 1, "", "", "")), grp.struct_group(("me", "", 1, ["me"]))
    monkeypatch.setattr(ownership.os, "geteuid", lambda: 1)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: me)
    monkeypatch.setattr(grp, "getgrgid", lambda _: own)
    assert ownership._is_own_group(found)
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group(("me", "", 1, ["me", "other"])))
    assert not ownership._is_own_group(found)
    above.chmod(0o772)
    monkeypatch.setattr(grp, "getgrgid", lambda _: own)
    assert not ownership._is_own_group(above.stat())
