"""Ray for real, where it is installed: equal to local ranks to the last bit, also when a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

RECIPE = """
version: 1
name: tiny
model: {architecture: llama, layers: 1, hidden: 32, heads: 2, ffn: 48, vocabulary: 320, context: 64}
data: {train: {jsonl: text.jsonl, text: t}}
training: {tokens: 307200, sequence_length: 16, batch: 8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray")
    rows = [json.dumps({"t": f"the {n} cats sat on {n * 7} mats near {n % 13} dogs"}) for n in range(300)]
    (path / "text.jsonl").write_text("\n".join(rows))
    (path / "recipe.yaml").write_text(RECIPE)
    return path


def start(folder, name, *arguments):
    command = [
        sys.executable,
        "-m",
        "trimtab",
        "train",
        "recipe.yaml",
        "--json",
        "--output",
        str(folder / name),
    ]
    with (folder / f"{name}.err").open("w") as errors:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=os.environ | {"TRIMTAB_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def curve(process, folder, name):
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, (folder / f"{name}.err").read_text()[-3000:]
    return json.loads(out)["training"]["curve"]


@pytest.fixture(scope="module")
def local(folder):
    return curve(start(folder, "local", "--processes", "2"), folder, "local")


def workers():
    return [
        process for process in psutil.process_iter(["cmdline", "pid"])
        if any("RayTrainWorker" in part for part in process.info["cmdline"] or [])
    ]  # fmt: skip


def test_ray_ends_as_local_ranks_to_the_last_bit(folder, local):
    assert curve(start(folder, "ray", "--processes", "2", "--on", "ray"), folder, "ray") == local


def test_a_worker_killed_in_the_middle_changes_nothing(folder, local):
    process = start(folder, "killed", "--processes", "2", "--on", "ray", "--restarts", "2")
    checkpoints = folder / "killed" / "checkpoints" / "baseline"
    deadline = time.monotonic() + 600
    while not list(checkpoints.glob("step-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    assert process.poll() is None, "it ended before its first checkpoint"
    mine = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    victims = [worker for worker in workers() if worker.pid in mine] or workers()
    os.kill(victims[0].pid, signal.SIGKILL)
    assert curve(process, folder, "killed") == local


def test_a_range_of_workers_takes_what_there_is(folder, local):
    """Two were asked for where there may be room for one: the batch is the same, so the loss is to rounding."""
    found = curve(start(folder, "elastic", "--processes", "1:2", "--on", "ray"), folder, "elastic")
    assert found[-1]["loss"] == pytest.approx(local[-1]["loss"], rel=1e-3)
