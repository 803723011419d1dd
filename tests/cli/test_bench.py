import json
import os
import subprocess
import sys

import msgspec
import pytest

from trimtab.cli.bench import Bench


def _trimtab(*arguments, **environment):

    return subprocess.run(
        [sys.executable, "-m", "trimtab", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_gateway_is_measured_and_leaves_nothing(tmp_path):
    done = _trimtab(
        "gateway",
        "--concurrency",
        "1",
        "--concurrency",
        "4",
        "--rounds",
        "2",
        "--output-tokens",
        "16",
        "--json",
        TRIMTAB_HOME=str(tmp_path / "home"),
    )
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout, type=Bench)
    assert [load.concurrency for load in found.loads] == [1, 4]
    assert all(0 < share <= 1.05 for share in found.efficiency.values())
    assert found.memory_bytes > 20 * 2**20
    # A measurement has a home of its own.
    assert not (tmp_path / "home").exists()


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    from trimtab.service.launch import ServedModel, start
    from trimtab.spec.serving import ServingConfiguration

    home = tmp_path_factory.mktemp("home")
    with start(
        [ServedModel(name="mock", serving=ServingConfiguration(engine="mock"))], home=home, port=0
    ) as service:
        yield service, service.create_key("test")


def test_service_with_its_noise(mock):
    service, key = mock
    done = _trimtab(
        "service",
        service.url,
        "--model",
        "mock",
        "--concurrency",
        "2",
        "--requests",
        "4",
        "--rounds",
        "2",
        "--output-tokens",
        "8",
        "--noise",
        "--json",
        TRIMTAB_KEY=key,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loads"][0]["output_tokens"] == 8
    assert found["noise"]["2"]["low"] <= found["noise"]["2"]["high"]


def test_a_table_for_people(mock):
    service, key = mock
    arguments = ("service", service.url, "--model", "mock", "--concurrency", "1", "--rounds", "2")
    done = _trimtab(*arguments, "--key-env", "MY_KEY", MY_KEY=key)
    assert done.returncode == 0
    assert "tokens/s" in done.stdout


def test_faults_are_one_sentence(mock):
    service, key = mock
    for arguments, environment, code, words in (
        (("service", service.url, "--model", "mock"), {"TRIMTAB_KEY": ""}, 2, "TRIMTAB_KEY holds no key"),
        (("service", service.url, "--model", "mock"), {"TRIMTAB_KEY": "tt_x_y"}, 1, "401"),
        (("service", service.url, "--model", "nobody"), {"TRIMTAB_KEY": key}, 1, "nobody"),
        (
            ("service", "http://127.0.0.1:1", "--model", "m"),
            {"TRIMTAB_KEY": key},
            1,
            "Is the service running",
        ),
        (("gateway", "--step", "fast"), {}, 2, "'fast' is not a duration"),
    ):
        done = _trimtab(*arguments, **environment)
        assert done.returncode == code, (arguments, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
