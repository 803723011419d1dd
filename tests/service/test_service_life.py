"""How a service starts, survives and ends: real signals, real kills, nothing left behind."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import psutil
import pytest

from trimtab.service import launch
from trimtab.service.launch import ServedModel
from trimtab.spec.errors import EngineError, UsageError
from trimtab.spec.serving import ServingConfiguration

MOCK = ServedModel(name="mock", serving=ServingConfiguration(engine="mock"))


def opened(fake, prompt="hi", tokens=4000, *, stream=True):
    """A raw connection on which a completion has been asked for."""
    body = {"model": "fake", "prompt": prompt, "max_tokens": tokens, "stream": stream}
    connection = http.client.HTTPConnection(fake.host, fake.port, timeout=30)
    headers = {"Authorization": f"Bearer {fake.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    return connection


def runs(pid):
    """Whether a process is there and not just waiting to be noticed by its parent."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(runs(pid) for pid in pids):
        time.sleep(0.05)
    return not any(runs(pid) for pid in pids)


def status_of(fake, path):
    connection = http.client.HTTPConnection(fake.host, fake.port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_work(start_fake, until, stream):
    fake = start_fake(step_seconds=0.005)
    connection = opened(fake, stream=stream)
    if stream:
        connection.getresponse().read(200)
    else:
        assert until(lambda: fake.asked("generate"))
        time.sleep(0.2)
    left = time.monotonic()
    connection.close()
    assert until(lambda: fake.asked("cancel"), 3)
    assert fake.asked("cancel")[0][0] - left < 0.5


def test_a_client_that_leaves_stops_its_scoring(start_fake, until):
    fake = start_fake(environment={"FAKE_SCORE_SECONDS": "1.5"})
    body = {"model": "fake", "prompt": ["a", "b", "c"], "max_tokens": 0, "echo": True, "logprobs": 1}
    connection = http.client.HTTPConnection(fake.host, fake.port, timeout=30)
    headers = {"Authorization": f"Bearer {fake.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    assert until(lambda: fake.asked("score"))
    connection.close()
    assert until(lambda: fake.asked("cancel"), 3)
    assert len(fake.asked("score")) == 1


def test_a_deadline_travels_to_the_worker(start_fake):
    fake = start_fake()
    client = fake.client(default_headers={"x-request-timeout": "2.5"})
    assert client.completions.create(model="fake", prompt="hi", max_tokens=2)
    assert fake.asked("deadline 2.5")
    with pytest.raises(openai.BadRequestError, match="number of seconds"):
        fake.client(default_headers={"x-request-timeout": "soon"}).completions.create(
            model="fake", prompt="x"
        )


def test_sigterm_lets_streams_end_and_exits_0(start_fake):
    fake = start_fake(step_seconds=0.01)
    pids = fake.service.pids()
    connection = opened(fake, tokens=120)
    answer = connection.getresponse()
    first = answer.read(100)
    fake.gateway.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((fake.host, fake.port), timeout=2).close()
    rest = answer.read()
    connection.close()
    assert (first + rest).endswith(b"data: [DONE]\n\n")
    assert fake.service.wait() == 0
    assert fake.asked("drain")
    assert gone(pids)


def test_kill_9_before_loading_is_done_leaves_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from trimtab.service.launch import *;"
        "from trimtab.spec.serving import *;"
        "start([ServedModel(name='m', serving=ServingConfiguration(engine='mock', replicas=3))],"
        "      home=Path(sys.argv[1]), port=0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    time.sleep(1.0)
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.wait()
    assert children
    assert gone(children, 10)


def test_kill_9_of_the_parent_leaves_no_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from trimtab.service.launch import *;"
        "from trimtab.spec.serving import *;"
        "s = start([ServedModel(name='m', serving=ServingConfiguration(engine='mock'))],"
        "          home=Path(sys.argv[1]), port=0);"
        "print(*s.pids(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
    assert gone(pids, 10)


def test_kill_9_of_the_gateway_leaves_no_worker(start_fake):
    fake = start_fake()
    pids = fake.service.pids()
    fake.gateway.kill()
    assert gone(pids, 10)


def test_a_killed_worker_is_told_in_the_stream_and_replaced(start_fake, until):
    fake = start_fake(step_seconds=0.01)
    connection = opened(fake)
    answer = connection.getresponse()
    answer.read(100)
    fake.workers()[0].kill()
    rest = answer.read()
    connection.close()
    last = json.loads(rest.split(b"data: ")[-1])
    assert last["error"]["code"] == "engine_error"
    assert b"[DONE]" not in rest
    assert status_of(fake, "/readyz") == 503
    assert status_of(fake, "/livez") == 200
    with pytest.raises(openai.InternalServerError) as caught:
        fake.client().completions.create(model="fake", prompt="hi")
    assert caught.value.status_code == 503
    assert until(lambda: status_of(fake, "/readyz") == 200)
    assert fake.client().completions.create(model="fake", prompt="hi", max_tokens=2).choices[0].text


def test_a_worker_that_dies_of_a_request_answers_503(start_fake, until):
    fake = start_fake()
    with pytest.raises(openai.InternalServerError) as caught:
        fake.client().completions.create(model="fake", prompt="!")
    assert caught.value.status_code == 503
    assert until(lambda: status_of(fake, "/readyz") == 200)


@pytest.mark.parametrize("how", ["stopped", "asleep"])
def test_a_worker_that_stands_still_is_dead(start_fake, until, how):
    fake = start_fake(step_seconds=0.01, dead_seconds=1.0)
    worker = fake.workers()[0]
    if how == "stopped":
        connection = opened(fake)
        connection.getresponse().read(100)
        worker.suspend()
    else:
        connection = opened(fake, prompt="~")
    begun = time.monotonic()
    assert until(lambda: status_of(fake, "/readyz") == 503, 6)
    assert time.monotonic() - begun > 0.9
    assert until(lambda: status_of(fake, "/readyz") == 200)
    assert not worker.is_running()
    connection.close()


def test_a_busy_worker_is_not_dead(start_fake):
    fake = start_fake(dead_seconds=1.0)
    worker = fake.workers()[0].pid
    answer = fake.client().completions.create(model="fake", prompt="^", max_tokens=3)
    assert answer.usage.completion_tokens == 3
    assert [each.pid for each in fake.workers()] == [worker]


def test_an_idle_worker_is_not_dead(start_fake):
    fake = start_fake(dead_seconds=1.0)
    worker = fake.workers()[0].pid
    time.sleep(2.2)
    assert [each.pid for each in fake.workers()] == [worker]
    assert status_of(fake, "/readyz") == 200


def test_overload_is_refused_before_anything_is_sent(start_fake, until):
    fake = start_fake(step_seconds=0.01, max_batch=1, max_queue=1)
    client = fake.client()
    running = [opened(fake) for _ in range(2)]
    assert until(lambda: len(fake.asked("generate")) == 2)
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model="fake", prompt="hi", max_tokens=1)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.RateLimitError):
        client.completions.create(model="fake", prompt=["a", "b"], max_tokens=1)
    assert len(fake.asked("generate")) == 2
    for connection in running:
        connection.close()
    assert until(lambda: len(fake.asked("cancel")) == 2)
    assert client.completions.create(model="fake", prompt="hi", max_tokens=1)


def test_two_replicas_share_the_work(start_fake, until):
    fake = start_fake(step_seconds=0.01, replicas=2)
    assert len(fake.workers()) == 2
    answer = fake.client().completions.create(model="fake", prompt=["a"] * 6, max_tokens=5)
    assert len(answer.choices) == 6
    fake.workers()[0].kill()
    assert status_of(fake, "/readyz") == 200
    assert fake.client().completions.create(model="fake", prompt="hi", max_tokens=2)


def test_a_slow_reader_holds_little_and_hurts_nobody(start_fake):
    fake = start_fake(step_seconds=0.0002)
    before = fake.gateway.memory_info().rss
    with socket.create_connection((fake.host, fake.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({"model": "fake", "prompt": "hi", "max_tokens": 4000, "stream": True, "n": 8})
        slow.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fake.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        for _ in range(5):
            assert fake.client().completions.create(model="fake", prompt="hi", max_tokens=20)
        time.sleep(1.5)
        assert fake.gateway.memory_info().rss - before < 4 * 2**20
        whole = b""
        slow.settimeout(20)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        while not whole.endswith(b"0\r\n\r\n"):
            whole += slow.recv(2**20)
    assert b"[DONE]" in whole
    # What waited was put together: far fewer events than the 27,733 that a quick reader gets.
    assert whole.count(b"data: ") < 25_000


def test_why_a_worker_did_not_start_is_told(start_fake):
    with pytest.raises(EngineError, match="no memory for this model"):
        start_fake(environment={"FAKE_LOAD_FAILS": "no memory for this model"})


def test_a_taken_port_is_told(fake, tmp_path):
    with pytest.raises(UsageError, match=rf"Port {fake.port} .* in use"):
        launch.start([MOCK], home=tmp_path, port=fake.port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_the_network_needs_tls_or_a_clear_word(tmp_path, host):
    with pytest.raises(UsageError, match="insecure-http"):
        launch.start([MOCK], home=tmp_path, host=host, port=0)


def test_names_must_differ(tmp_path):
    with pytest.raises(UsageError, match="twice"):
        launch.start([MOCK, MOCK], home=tmp_path, port=0)
    with pytest.raises(UsageError, match="No model"):
        launch.start([], home=tmp_path, port=0)


def test_the_runtime_folder_goes_with_the_service(start_fake):
    fake = start_fake()
    folders = {
        Path(word).parent
        for word in fake.workers()[0].cmdline()
        if word.endswith(".json") and "trimtab-" in word
    }
    (folder,) = folders
    assert folder.stat().st_mode & 0o777 == 0o700
    assert fake.service.stop() == 0
    assert not folder.exists()


class Command:
    """`trimtab serve …` in its own process and home."""

    def __init__(self, home, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trimtab", "serve", *arguments],
            env={**os.environ, "TRIMTAB_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ended(self):
        out, error = self.process.communicate(timeout=30)
        return self.process.returncode, out, error


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_serves_until_told_to_stop(tmp_path, number, status):
    command = Command(tmp_path, "mock", "--port", "0")
    lines = [command.process.stdout.readline() for _ in range(5)]
    assert "http://127.0.0.1:" in lines[0]
    assert "trimtab keys create" in lines[1]
    assert "curl" in lines[2]
    children = [child.pid for child in psutil.Process(command.process.pid).children(recursive=True)]
    assert len(children) == 2
    os.killpg(command.process.pid, number)
    code, _, error = command.ended()
    assert code == status
    assert "Traceback" not in error
    assert gone(children)


def test_the_command_prints_json(tmp_path):
    command = Command(tmp_path, "mock", "--port", "0", "--json")
    text = ""
    while "}" not in text:
        text += command.process.stdout.readline()
    found = json.loads(text)
    assert found["models"] == ["mock"]
    assert found["url"].startswith("http://127.0.0.1:")
    command.process.terminate()
    assert command.ended()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody", "--port", "0"], "nobody"),
        (["./", "--port", "0"], "config.json"),
        (["mock", "--port", "0", "--host", "0.0.0.0"], "--insecure-http"),
        (["mock", "mock", "--port", "0"], "twice"),
    ],
)
def test_the_command_refuses_in_a_sentence(tmp_path, arguments, words):
    code, out, error = Command(tmp_path, *arguments).ended()
    assert code == 2
    assert words in error
    assert "Traceback" not in error
    assert out == ""


def test_the_loop_answers_while_long_prompts_are_tokenized(fake):
    """Probes stay quick while somebody sends the longest prompts there are."""
    stop, worst = threading.Event(), 0.0

    def load():
        client = fake.client()
        while not stop.is_set():
            with contextlib.suppress(openai.BadRequestError):
                client.completions.create(model="fake", prompt="word " * 100_000)

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(20):
        begun = time.monotonic()
        assert status_of(fake, "/livez") == 200
        worst = max(worst, time.monotonic() - begun)
        time.sleep(0.05)
    stop.set()
    thread.join()
    assert worst < 1.0
