"""What a service outlives: no descriptors, templates that never end, a catalogue that cannot be read, its starter."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import pytest
import structlog
from test_service_life import Command, gone, runs, status_of

from trimtab.service import descriptors, limits, replica
from trimtab.service.configuration import ServedModel
from trimtab.service.gateway import make_log
from trimtab.service.pulse import Pulse
from trimtab.service.replica import Place, Replica
from trimtab.service.worker_process import spawn_worker
from trimtab.spec import processes
from trimtab.spec.errors import UsageError
from trimtab.spec.serving import ServingConfiguration
from trimtab.text.tokenizer import Tokenizer

HERE = Path(__file__).parent
BURNS = (
    "{% if messages[0].content == 'burn' %}"
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}ok"
)


@pytest.fixture
def folder(tmp_path):
    """A model's folder with a tokenizer and this chat template; the fake worker needs no more."""

    def make(template=BURNS):
        made = tmp_path / "model"
        made.mkdir(exist_ok=True)
        Tokenizer.of_bytes()._rust.save(str(made / "tokenizer.json"))
        (made / "chat_template.jinja").write_text(template)
        return made

    return make


def templates_of(fake):
    return [each for each in fake.gateway.children() if "template_child" in " ".join(each.cmdline())]


def ask(fake, content="hi", **options):
    messages = [{"role": "user", "content": content}]
    return fake.client(**options).chat.completions.create(model="fake", messages=messages, max_tokens=2)


@contextlib.contextmanager
def asking(fake, content, count=1):
    """Somebody asks meanwhile, and does not mind what comes of it."""

    def quietly():
        with contextlib.suppress(openai.OpenAIError):
            ask(fake, content)

    threads = [threading.Thread(target=quietly) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    yield
    for thread in threads:
        thread.join()


# --- descriptors


def test_a_worker_comes_back_while_idle_connections_fill_the_service(start_fake, until):
    fake = start_fake(environment={"FAKE_FILES": "200"})
    worker = fake.workers()[0]
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            taken = stack.enter_context(socket.create_connection((fake.host, fake.port), timeout=5))
            taken.sendall(b"GET /livez HTTP/1.1\r\n")  # and never an end
        time.sleep(0.2)
        worker.kill()
        assert until(lambda: [each for each in fake.workers() if each.pid != worker.pid and runs(each.pid)])
    assert until(lambda: status_of(fake, "/readyz") == 200)
    assert fake.client().completions.create(model="fake", prompt="hi", max_tokens=2).choices[0].text


def test_connections_and_descriptors_fit_each_other(monkeypatch):
    limit = [(256, 1 << 20)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limit[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, value: limit.append(value))
    assert descriptors.reserve_descriptors(1, 1) == limits.MAX_CONNECTIONS
    soft, hard = limit[-1]
    assert limits.MAX_CONNECTIONS < soft < 2 * limits.MAX_CONNECTIONS
    assert hard == 1 << 20
    limit.append((300, 300))
    few, many = descriptors.reserve_descriptors(1, 1), descriptors.reserve_descriptors(2, 8)
    assert 0 < many < few < 300
    limit.append((64, 64))
    with pytest.raises(UsageError, match="ulimit -n"):
        descriptors.reserve_descriptors(1, 1)


def test_a_process_that_cannot_be_looked_at_is_not_dead(monkeypatch):
    """Without a descriptor nothing can be read in /proc: that says nothing of a worker."""
    pulse = Pulse(os.getpid(), 0.0)
    pulse.standstill(0, 0.0)

    def fail(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "scandir", fail)
    assert pulse.standstill(0, 100.0) == 0.0


# --- the supervisor


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setitem(processes.MODULES, "worker", "fake_worker")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setattr(replica, "FIRST_PAUSE_SECONDS", 0.05)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    return Place(home=tmp_path, runtime=runtime, label="w")


MODEL = ServedModel(name="m", serving=ServingConfiguration(engine="mock"))


async def back(one, lives, seconds=15.0):
    """Whether a worker of that many lives is there in time."""
    try:
        async with asyncio.timeout(seconds):
            while one._lives < lives or one.connection is None:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("fault", [OSError(24, "Too many open files"), MemoryError(), RuntimeError("?")])
def test_a_supervisor_survives_whatever_keeps_a_worker_from_starting(place, fault):
    faults = []

    def spawn(arguments):
        if faults:
            raise faults.pop()
        return spawn_worker(arguments)

    async def run():
        one = Replica(MODEL, place, structlog.get_logger(), spawn=spawn)
        await one.start()
        faults.extend([fault] * 3)
        one._worker.kill()
        assert await back(one, 5)
        assert not faults
        await one.close(drain_seconds=0)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["watching fails", "cancelled", "the log fails", "the folder is gone"])
def test_a_supervisor_that_fails_is_started_again(place, monkeypatch, how):
    class Broken:
        def bind(self, **_):
            return self

        def warning(self, *_, **__):
            raise OSError(28, "No space left on device")

        error = warning

    async def run():
        log = Broken() if how == "the log fails" else structlog.get_logger()
        one = Replica(MODEL, place, log)
        await one.start()
        if how == "watching fails":
            watch = Replica._watch
            monkeypatch.setattr(Replica, "_watch", lambda *_: 1 / 0)
            await asyncio.sleep(0)
            one._worker.kill()
            await asyncio.sleep(0.2)
            monkeypatch.setattr(Replica, "_watch", watch)
        elif how == "cancelled":
            one._supervisor.cancel()
            await asyncio.sleep(0)
        elif how == "the folder is gone":
            for each in place.runtime.iterdir():
                each.unlink()
            place.runtime.rmdir()
        lives = one._lives
        one._worker.kill()
        assert await back(one, lives + 1)
        await one.close(drain_seconds=0)

    asyncio.run(run())


def test_a_log_that_cannot_be_written_harms_nothing(monkeypatch):
    class Full:
        def write(self, *_):
            raise OSError(28, "No space left on device")

        flush = write

    monkeypatch.setattr("sys.stderr", Full())
    make_log().warning("worker lost", reason="x")


# --- templates


def test_a_template_that_burns_holds_neither_loop_nor_other_requests(start_fake, folder):
    fake = start_fake(artifact=folder())
    with asking(fake, "burn", 2):
        for _ in range(5):
            begun = time.monotonic()
            assert status_of(fake, "/livez") == 200
            assert fake.client().completions.create(model="fake", prompt="hi", max_tokens=2)
            assert time.monotonic() - begun < 2
    assert ask(fake).usage.prompt_tokens == 2


def test_a_stopped_template_process_is_replaced(start_fake, folder):
    fake = start_fake(artifact=folder())
    (child,) = templates_of(fake)
    child.suspend()
    assert ask(fake).usage.prompt_tokens == 2
    assert gone([child.pid])


@pytest.mark.parametrize("how", ["burning", "stopped"])
def test_sigterm_ends_a_service_whose_template_does_not_answer(start_fake, folder, how):
    fake = start_fake(artifact=folder())
    pids = fake.service.pids()
    if how == "stopped":
        templates_of(fake)[0].suspend()
    with asking(fake, "burn" if how == "burning" else "hi", 3):
        begun = time.monotonic()
        fake.gateway.send_signal(signal.SIGTERM)
        assert fake.service.wait() == 0
        assert time.monotonic() - begun < limits.END_SECONDS
    assert gone(pids)


def test_sigterm_ends_a_service_whose_loop_does_not_turn(tmp_path):
    """The kernel's timer, set by the first signal, ends what nothing else could."""
    code = (
        "import asyncio, signal, sys\n"
        "from trimtab.service import gateway, limits\n"
        "limits.END_SECONDS = 0.5\n"
        "made = object.__new__(gateway.Gateway)\n"
        "made._settings = type('S', (), {'drain_seconds': 0.0})\n"
        "made._server = type('S', (), {'should_exit': False, 'force_exit': False})\n"
        "made.backend = type('B', (), {'draining': False})\n"
        "made._end()\n"
        "print('armed', flush=True)\n"
        "10 ** (10 ** 9)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"armed\n"
        assert process.wait(20) == -signal.SIGALRM


@pytest.mark.parametrize("killed", ["gateway", "starter"])
def test_nothing_is_left_when_a_gateway_or_its_starter_is_killed_at_work(start_fake, folder, killed):
    """Templates that burn, a worker that computes and one that is stopped: all gone within seconds."""
    fake = start_fake(artifact=folder(), replicas=2, step_seconds=0.01)
    pids = fake.service.pids()
    assert len(pids) == 4
    fake.workers()[1].suspend()
    with asking(fake, "burn"):
        if killed == "gateway":
            fake.gateway.kill()
        else:
            # What the gateway sees of its starter's death: the end of its stdin, and of its lifeline.
            fake.service._gateway.stdin.close()
        assert gone(pids, 15 if killed == "starter" else 5)


@pytest.mark.parametrize("template", ["{% if %}", "{{ 10 ** (10 ** 8) }}"])
def test_a_broken_template_is_refused_before_the_service_is_ready(start_fake, folder, template):
    broken = folder(template)
    with pytest.raises(UsageError, match="chat template cannot be read") as caught:
        start_fake(artifact=broken)
    assert str(broken / "chat_template.jinja") in str(caught.value)
    assert caught.value.exit_code == 2


# --- keys


def test_a_locked_catalogue_freezes_nobody(start_fake, tmp_path, until):
    fake = start_fake(home=tmp_path / "home")
    assert fake.client().models.list().data
    raw = sqlite3.connect(fake.home / "catalogue.db", isolation_level=None)
    raw.execute("PRAGMA locking_mode = EXCLUSIVE")
    raw.execute("BEGIN EXCLUSIVE")
    raw.execute("UPDATE keys SET name = name")
    time.sleep(3.2)  # what is known is not trusted longer without a look
    for _ in range(5):
        begun = time.monotonic()
        assert fake.client().completions.create(model="fake", prompt="hi", max_tokens=2)
        assert time.monotonic() - begun < 2.0
    assert status_of(fake, "/readyz") == 200
    with pytest.raises(openai.InternalServerError) as caught:
        fake.client("tt_0000000000000000_" + "a" * 43).models.list()
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 1
    raw.execute("ROLLBACK")
    raw.close()
    assert until(lambda: _refused(fake))


def _refused(fake):
    try:
        fake.client("tt_0000000000000000_" + "a" * 43).models.list()
    except openai.AuthenticationError:
        return True
    except openai.InternalServerError:
        return False


def test_a_home_of_others_serves_nothing(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    code, _, error = Command(home, "mock", "--port", "0").ended()
    assert code == 2
    assert "other users may write" in error
    assert "Traceback" not in error
