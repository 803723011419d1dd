"""A real gateway process on a real socket, whose workers are `fake_worker`: a known text, and faults on order."""

import json
import time
from pathlib import Path

import openai
import psutil
import pytest

from trimtab.service import launch
from trimtab.spec import processes
from trimtab.spec.serving import MockSettings, ServingConfiguration

HERE = Path(__file__).parent
TEXT = "héllo wörld. "


class Running:
    """A service under test. `asked()` are the words that its worker noted, with the moment of each."""

    def __init__(self, service, home, log):
        self.service, self.home, self._log = service, home, log
        self.url, self.key = service.url, service.create_key("tests")
        self.host, port = service.url.removeprefix("http://").split(":")
        self.port = int(port)
        self._clients = []

    def client(self, key=None, **options):
        made = openai.OpenAI(
            base_url=self.url + "/v1", api_key=key or self.key, max_retries=0, timeout=30, **options
        )
        self._clients.append(made)
        return made

    def close(self):
        for client in self._clients:
            client.close()
        self.service.stop(seconds=5)

    def asked(self, word=""):
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        found = [(float(moment), rest) for moment, rest in (line.split(" ", 1) for line in lines)]
        return [(moment, rest) for moment, rest in found if rest.startswith(word)]

    @property
    def gateway(self):
        return psutil.Process(self.service.pids()[0])

    def workers(self):
        return [p for p in self.gateway.children() if "fake_worker" in " ".join(p.cmdline())]

    def events(self, **body):
        """A raw stream of /v1/completions, as decoded events."""
        with self.client().with_streaming_response.completions.create(
            model="fake", stream=True, **body
        ) as response:
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def start_fake(tmp_path_factory):
    """Starts services; all are stopped at the end. Environment variables reach the worker."""
    running, home = [], tmp_path_factory.mktemp("home")

    def start(*, step_seconds=0.001, name="fake", environment=None, **settings):
        options = {
            key: settings.pop(key) for key in ("dead_seconds", "port", "cors_origins") if key in settings
        }
        serving = ServingConfiguration(
            engine="mock", mock=MockSettings(step_seconds=step_seconds), **settings
        )
        log = home / f"asked-{len(running)}.log"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(processes.MODULES, "gateway", "gateway_with_fake")
            patch.setenv("PYTHONPATH", str(HERE))
            patch.setenv("FAKE_LOG", str(log))
            for key, value in (environment or {}).items():
                patch.setenv(key, value)
            service = launch.start(
                [launch.ServedModel(name=name, serving=serving)], home=home, **{"port": 0, **options}
            )
        running.append(Running(service, home, log))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture(scope="session")
def fake(start_fake):
    """The service that tests share which leave it as it is."""
    return start_fake(step_seconds=0.0001)


def until(condition, seconds=10.0):
    """Wait for something to come true; whether it did."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@pytest.fixture(name="until")
def until_fixture():
    return until
