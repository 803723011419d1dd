"""A build is made once, whole, and a damaged one is made again."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trimtab.store.builds import MANIFEST, BuildCache

KEY, OTHER = "a" * 64, "b" * 64

CHILD = """
import os, sys, time
from pathlib import Path
from trimtab.store.builds import BuildCache
home = Path(sys.argv[1])
def fill(folder):
    with open(home / "fills", "a") as file:
        file.write("x")
    (folder / "half").write_text("half")
    if sys.argv[2] == "hang":
        print("inside", flush=True)
        time.sleep(60)
    time.sleep(0.3)
    (folder / "model.xml").write_text("xml")
print(BuildCache(home).put("a" * 64, fill))
"""


@pytest.fixture
def cache(tmp_path):
    return BuildCache(tmp_path)


def fill(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(b"123")


def child(home, how):
    command = [sys.executable, "-c", CHILD, str(home), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_build_is_made_once(cache):
    assert cache.get(KEY) is None
    path = cache.put(KEY, fill)
    assert (path / "sub" / "weights").read_bytes() == b"123"
    assert cache.get(KEY) == path
    assert cache.put(KEY, lambda _: pytest.fail("made twice")) == path
    assert cache.get(OTHER) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "sub" / "weights").write_bytes(b"124"),
        lambda path: (path / "sub" / "weights").unlink(),
        lambda path: (path / "added").write_text("x"),
        lambda path: (path / MANIFEST).unlink(),
        lambda path: (path / MANIFEST).write_text("{"),
    ],
    ids=["changed", "missing", "added", "no manifest", "broken manifest"],
)
def test_a_damaged_build_counts_as_missing_and_is_made_again(cache, tmp_path, damage):
    damage(cache.put(KEY, fill))
    assert cache.get(KEY) is None
    assert (cache.put(KEY, fill) / "sub" / "weights").read_bytes() == b"123"
    assert cache.get(KEY) is not None
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_fill_that_fails_keeps_nothing(cache, tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("no build")

    with pytest.raises(RuntimeError, match="no build"):
        cache.put(KEY, fail)
    assert cache.get(KEY) is None
    assert list((tmp_path / "scratch").iterdir()) == []
    cache.put(KEY, fill)


@pytest.mark.parametrize("key", ["../x", "A" * 64, "", "a" * 65, "a/b"])
def test_a_key_is_a_digest(cache, key):
    with pytest.raises(ValueError, match="digest"):
        cache.get(key)


def test_processes_that_want_the_same_build_make_it_once(cache, tmp_path):
    children = [child(tmp_path, "work") for _ in range(3)]
    paths = {process.communicate(timeout=30)[0].strip() for process in children}
    assert paths == {str(cache.get(KEY))}
    assert (tmp_path / "fills").read_text() == "x"


def test_threads_that_want_the_same_build_make_it_once_and_others_go_on(cache):
    fills = []

    def slow(folder):
        fills.append(folder)
        assert started.wait(5)
        fill(folder)

    started = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        same = [pool.submit(cache.put, KEY, slow) for _ in range(3)]
        other = pool.submit(cache.put, OTHER, lambda folder: started.set() or fill(folder))
        assert {future.result() for future in same} == {cache.get(KEY)}
        assert other.result() == cache.get(OTHER)
    assert len(fills) == 1


def test_a_killed_builder_leaves_nothing_and_blocks_nobody(cache, tmp_path):
    with child(tmp_path, "hang") as process:
        process.stdout.readline()
        process.kill()
        process.wait()
    assert cache.get(KEY) is None
    with child(tmp_path, "work") as process:
        assert process.communicate(timeout=30)[0].strip() == str(cache.get(KEY))
    cache.clear()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_clear_leaves_what_is_being_made(cache):
    cache.put(OTHER, fill)

    def clear_meanwhile(folder):
        assert cache.clear() == 1
        fill(folder)

    path = cache.put(KEY, clear_meanwhile)
    assert cache.get(KEY) == path
    assert cache.get(OTHER) is None


def test_foreign_files_and_folders_beside_builds_stay(tmp_path):
    cache = BuildCache(tmp_path)
    path = cache.put(KEY, lambda folder: (folder / "model.xml").write_text("xml"))
    (tmp_path / "builds" / "backup").mkdir()
    (tmp_path / "builds" / ".DS_Store").write_text("mine")
    assert cache.get(KEY) == path
    assert cache.clear() == 1
    assert {entry.name for entry in (tmp_path / "builds").iterdir()} >= {"backup", ".DS_Store"}
