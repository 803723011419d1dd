"""Kills a real process with SIGKILL at each of its file operations in turn; run by `test_crash.py`.

Usage: kill_everywhere.py WORK_FOLDER JOBS, where JOBS is a JSON list of `[action, stride, home, model]`.
For each job and N = 1, 1 + stride, …: copy the home, fork a child that does the action and is killed just
before its N-th open, fsync, rename, mkdir or unlink below its home, look what is left, until a child gets to
the end. Prints one JSON document: action → list of `[state, faults found]`.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import alembic.command  # noqa: F401 - children fork with everything imported, so they touch only their home
import model_signing  # noqa: F401

from trimtab.spec.errors import TrimtabError
from trimtab.store.store import Store

EVENTS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"})


def act(action: str, home: Path, model: Path) -> None:
    store = Store(home)
    if action in ("publish", "begin"):
        store.publish(model, "bot", aliases=("prod",))
    elif action == "attach":
        store.attach("bot@1", "report.html", model / "config.json")
    elif action == "remove":
        store.remove("bot@1")
    elif action == "build":
        store.builds.put("a" * 64, lambda folder: shutil.copyfile(model / "config.json", folder / "x"))
    else:
        raise ValueError(action)


def kill_before(number: int, home: Path) -> None:
    """Arm this process."""
    left = [number]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        if event in EVENTS and str(arguments[0]).startswith(str(home)):
            count()

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        count()
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(hook)


def look(home: Path) -> tuple[list, list[str]]:
    """What the next process finds: the state of the catalogue, and everything that is wrong."""
    faults = []
    try:
        store = Store(home)
        versions = store.versions()
        for version in versions:
            store.verify(version.reference)
            for record in store.records(version.reference):
                store.record(version.reference, record)
        build = store.builds.get("a" * 64)
        state = [[[v.reference, v.aliases, store.records(v.reference)] for v in versions], build is not None]
    except TrimtabError as error:
        return ["unreadable"], [str(error)]
    left = [str(path.relative_to(home)) for path in (home / "scratch").iterdir()]
    known = {version.version_digest for version in versions}
    left += [path.name for path in (home / "artifacts").iterdir() if path.name not in known]
    if left:
        faults.append(f"not cleaned up: {left}")
    return state, faults


def kill_everywhere(action: str, stride: int, template: Path, model: Path, work: Path) -> list:
    found, number, status = [], 1 - stride, signal.SIGKILL
    while status == signal.SIGKILL:
        number += stride
        home = work / f"{action}-{number}"
        shutil.copytree(template, home)
        child = os.fork()
        if child == 0:
            kill_before(number, home)
            act(action, home, model)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found.append(look(home))
        shutil.rmtree(home)
    if status != 0:
        sys.exit(f"the child that should {action} ended with status {status}")
    return found


jobs = json.loads(sys.argv[2])
results = {
    action: kill_everywhere(action, stride, Path(home), Path(model), Path(sys.argv[1]))
    for action, stride, home, model in jobs
}
json.dump(results, sys.stdout)
