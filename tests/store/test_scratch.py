"""Temporary folders of the living stay, those of the dead go, and no lock is got twice."""

import signal
import subprocess
import sys
import threading

import pytest

from trimtab.store.scratch import locked, scratch, sweep

CHILD = """
import sys, time
from pathlib import Path
from trimtab.store.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_folder_is_gone_at_the_end_even_after_a_fault(tmp_path):
    with scratch(tmp_path) as folder:
        (folder / "a").mkdir()
    with pytest.raises(RuntimeError), scratch(tmp_path) as folder:
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_was_renamed_away_stays(tmp_path):
    with scratch(tmp_path / "s") as folder:
        folder.rename(tmp_path / "kept")
    assert (tmp_path / "kept").is_dir()


def test_the_living_keep_their_folder_and_the_killed_lose_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        child.stdout.readline()
        with scratch(tmp_path) as mine:
            sweep(tmp_path)
            assert mine.is_dir()
            assert len(list(tmp_path.glob("*/file"))) == 1
            child.send_signal(signal.SIGKILL)
            child.wait()
            sweep(tmp_path)
            assert mine.is_dir()
            assert list(tmp_path.glob("*/file")) == []
    assert list(tmp_path.iterdir()) == []


def test_a_lock_excludes_threads_and_says_so(tmp_path):
    with locked(tmp_path / "l") as first, locked(tmp_path / "l", wait=False) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path / "l", wait=False) as third:
        assert third


def test_a_waiter_does_not_keep_a_lock_file_that_was_swept(tmp_path):
    """The owner unlinks its lock file at the end; who waited must lock a file that is still there."""
    path, got = tmp_path / "l", threading.Event()

    def wait() -> None:
        with locked(path):
            got.set()
            assert path.exists()

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
        path.unlink()
    thread.join(5)
    assert got.is_set()


def test_a_sweep_leaves_what_is_not_ours(tmp_path):
    for name in ("Cargo.lock", "mine.lock", "0123456789abcdef.lock"):
        (tmp_path / name).touch()
    (tmp_path / "mine").mkdir()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"Cargo.lock", "mine.lock", "mine"}
