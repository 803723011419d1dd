"""Artifacts and builds of the five families, shared by all tests of the room, and real worker processes."""

import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import msgspec
import pytest
from bare_gateway import Gateway
from tiny_models import make_artifact

from trimtab.engines.builder import Builder
from trimtab.engines.builds import build_key
from trimtab.engines.quiet import quiet_libraries
from trimtab.spec import processes
from trimtab.spec.ids import digest
from trimtab.spec.serving import MockSettings, ServingConfiguration
from trimtab.store.builds import BuildCache

os.environ.setdefault("OMP_NUM_THREADS", "1")
quiet_libraries()


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    """family → folder, made when first asked for."""
    made = {}

    def artifact(family):
        if family not in made:
            made[family] = make_artifact(tmp_path_factory.mktemp(family), family)
        return made[family]

    return artifact


@pytest.fixture(scope="session")
def build_home(tmp_path_factory):
    """One cache of builds for the whole run, also where tests run in several processes."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "engines-home"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(scope="session")
def build_of(artifacts, build_home):
    """(family, weight format) → build folder; one build process makes all that are missing."""
    with Builder() as builder:

        def made(family, weight_format="float32"):
            artifact = artifacts(family)
            key = digest(build_key(artifact, ServingConfiguration(weight_format=weight_format)))
            make = partial(builder.make, artifact, weight_format)
            return BuildCache(build_home).put(key, make)

        yield made


@pytest.fixture
def short_folder():
    """A folder whose path leaves room for a socket's name, whatever pytest's own is."""
    folder = Path(tempfile.mkdtemp(prefix="tt"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start_worker(short_folder, build_home):
    """Starts worker processes; none outlives the test."""
    started = []

    def start(artifact=None, *, connect=True, arguments=(), **settings):
        number = len(started)
        serving, address = short_folder / f"{number}.json", short_folder / f"{number}.sock"
        serving.write_bytes(msgspec.json.encode(ServingConfiguration(**settings)))
        nothing = short_folder / "no-artifact"
        nothing.mkdir(exist_ok=True)
        words = ["--artifact", str(artifact or nothing), "--serving", str(serving)]
        words += ["--address", f"unix:{address}", "--home", str(build_home), *arguments]
        # Its words go to a file: a pipe that nobody reads could stop it.
        with address.with_suffix(".err").open("wb") as log:
            process = processes.start("worker", words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        started.append(Gateway(process, address))
        return started[-1].connect() if connect else started[-1]

    yield start
    for gateway in started:
        gateway.end()


@pytest.fixture
def mock_worker(start_worker):
    """A greeted worker of the mock engine."""

    def start(*, step_seconds=0.002, context_length=4096, prefill=100_000.0, **settings):
        mock = MockSettings(
            step_seconds=step_seconds, context_length=context_length, prefill_tokens_per_second=prefill
        )
        gateway = start_worker(engine="mock", mock=mock, **settings)
        gateway.hello()
        return gateway

    return start
