"""A secret is made once, whatever races, and kept from others."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from trimtab.spec.errors import TrimtabError
from trimtab.store.private import private_file


def test_all_who_race_get_the_same_secret(tmp_path):
    path = tmp_path / "keys" / "secret"
    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(lambda index: private_file(path, lambda: b"%d" % index), range(64)))
    assert got == {path.read_bytes()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [other.name for other in path.parent.iterdir()] == ["secret"]


def test_a_fault_while_making_leaves_nothing(tmp_path):
    def fail() -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        private_file(tmp_path / "secret", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "secret"
    private_file(path, lambda: b"x")
    path.chmod(mode)
    with pytest.raises(TrimtabError, match="chmod 600"):
        private_file(path, lambda: b"y")
