import ast
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import trimtab
from trimtab.bench.job import Job
from trimtab.spec import processes

SOURCES = Path(trimtab.__file__).parent


@pytest.mark.parametrize("name", processes.MODULES)
def test_every_process_of_the_table_exists_and_can_be_started(name):
    found = importlib.util.find_spec(processes.MODULES[name])
    assert found is not None
    source = Path(found.origin).read_text(encoding="utf-8")
    assert '__name__ == "__main__"' in source


@pytest.mark.parametrize("name", [n for n in processes.MODULES if n != "rank"])
def test_the_light_ones_import_without_torch(name):
    """`rank` is torch's own; `build` and `worker` reach for an engine only when they know which."""
    blocked = "import sys; sys.modules.update(torch=None, transformers=None, openvino=None); "
    code = f"{blocked}import {processes.MODULES[name]}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_starts_nothing():
    with pytest.raises(KeyError):
        processes.command("os.system")


@pytest.fixture
def hopeless_job():
    """A job for a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    job = Job(
        host="127.0.0.1",
        port=port,
        path="/",
        model="m",
        key="k",
        concurrency=1,
        requests=1,
        prompt_tokens=1,
        output_tokens=1,
        vocabulary_size=9,
        seed=0,
    )
    return msgspec.json.encode(job) + b"\n"


def test_started_by_exec_with_our_environment_and_more(hopeless_job):
    started = processes.start(
        "load", environment={"TRIMTAB_TEST": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    # Its answer shows that it is past exec.
    started.stdin.write(hopeless_job)
    started.stdin.flush()
    assert b"nothing answers" in started.stdout.readline()
    if Path("/proc/self/environ").exists():
        assert b"TRIMTAB_TEST=1" in Path(f"/proc/{started.pid}/environ").read_bytes()
    started.communicate()
    assert started.returncode == 0


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_no_pickle_and_no_fork_anywhere():
    for path in SOURCES.rglob("*.py"):
        found = {name.partition(".")[0] for name in _imports(path)}
        assert not found & {
            "pickle",
            "cloudpickle",
            "dill",
            "joblib",
            "shelve",
            "marshal",
            "multiprocessing",
        }, path
        text = path.read_text(encoding="utf-8")
        assert "yaml.load(" not in text, path
        assert "torch.load(" not in text, path
        assert "shell=True" not in text, path
