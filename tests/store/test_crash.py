"""`kill -9` at any moment leaves the old state or the new one, readable, and the next process cleans up."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimtab.store.store import Store

SWEEP = Path(__file__).with_name("kill_everywhere.py")
PUBLISH = """
import sys
from pathlib import Path
from trimtab.store.store import Store
print(Store(Path(sys.argv[1])).publish(Path(sys.argv[2]), "bot").reference)
"""

V1, V2_PROD = ["bot@1", [], ["report.html"]], ["bot@2", ["prod"], []]


@pytest.fixture(scope="module")
def kills(tmp_path_factory, write_weights):
    """Everything that is killed everywhere, in one process, because its imports are most of the cost."""
    root = tmp_path_factory.mktemp("kills")
    (root / "empty").mkdir()
    old, new = root / "old", root / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        write_weights(folder / "model.safetensors", folder.name.encode())
    store = Store(root / "home")
    store.publish(old, "bot")
    store.attach("bot", "report.html", old / "config.json")
    jobs = [[action, 1, str(store.home), str(new)] for action in ("publish", "attach", "remove", "build")]
    jobs.append(["begin", 2, str(root / "empty"), str(new)])
    command = [sys.executable, str(SWEEP), str(root), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("action", "old", "new", "at_least"),
    [
        ("publish", [[V1], False], [[V1, V2_PROD], False], 25),
        ("begin", [[], False], [[["bot@1", ["prod"], []]], False], 20),  # in a home that is not there yet
        ("attach", [[V1], False], [[V1], False], 8),
        ("remove", [[V1], False], [[], False], 8),
        ("build", [[V1], False], [[V1], True], 8),
    ],
)
def test_killed_anywhere(kills, action, old, new, at_least):
    """First some kills that leave the old state, then some that leave the new one, and nothing else, ever."""
    found = kills[action]
    assert [faults for _, faults in found if faults] == []
    assert len(found) > at_least  # the faults were really injected
    states = [state for state, _ in found]
    assert states == [old] * states.count(old) + [new] * (len(states) - states.count(old))
    assert states[0] == old
    assert states[-1] == new


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.1])
def test_killed_from_outside_while_copying_something_large(make_model, write_weights, store, seconds):
    """The kill comes whenever it comes: during the copy, the hashing, the flush."""
    store.publish(make_model(data=b"1"), "bot")
    large = make_model("large")
    write_weights(large / "model.safetensors", bytes(48 * 2**20))
    command = [sys.executable, "-c", PUBLISH, str(store.home), str(large)]
    with subprocess.Popen(command) as child:
        while not list((store.home / "scratch").glob("*/bot/model.safetensors")):
            assert child.poll() is None
            time.sleep(0.001)
        time.sleep(seconds)
        child.kill()
    assert child.returncode == -9
    after = Store(store.home)
    assert [version.reference for version in after.versions()] == ["bot@1"]
    assert after.verify("bot")
    assert list((store.home / "scratch").iterdir()) == []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "bot@2\n"


def start(home: Path, model: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISH, str(home), str(model)], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_publish_at_once_into_a_new_home_get_different_versions(make_model, tmp_path):
    models = [make_model(f"m{index}", data=b"%d" % index) for index in range(3)]
    children = [start(tmp_path / "home", model) for model in models]
    references = [child.communicate(timeout=60)[0].strip() for child in children]
    assert sorted(references) == ["bot@1", "bot@2", "bot@3"]
    store = Store(tmp_path / "home")
    for reference, model in zip(references, models, strict=True):
        with store.open(reference) as folder:
            assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_processes_that_publish_the_same_at_once_get_the_same_version(make_model, tmp_path):
    model = make_model()
    children = [start(tmp_path / "home", model) for _ in range(2)]
    assert {child.communicate(timeout=60)[0] for child in children} == {"bot@1\n"}
    assert len(list((tmp_path / "home" / "artifacts").iterdir())) == 1
