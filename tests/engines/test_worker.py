"""Real worker processes on the mock engine: what a gateway may rely on before any model is behind it."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from trimtab.engines.mock import prompt_seed, token_at
from trimtab.spec import processes
from trimtab.spec.wire import Cancel, Chunk, Drain, Event, Fault, Step, Submit, encode

FOREVER = 4000
PROMPT = [1, 2, 3]


def ended(gateway, seconds=10.0):
    return gateway.process.wait(seconds)


def test_greets_then_answers_with_the_tokens_asked_for(mock_worker):
    gateway = mock_worker()
    gateway.generate(7, PROMPT, max_tokens=5, logprobs=True)
    tokens, logprobs, finish = gateway.answers(7)[7]
    seed = prompt_seed(np.array(PROMPT, np.int32), 0)
    assert tokens == [token_at(seed, index, 256) for index in range(5)]
    assert len(logprobs) == 5
    assert finish == "length"


def test_one_frame_a_step_for_all_streams(mock_worker):
    gateway = mock_worker()
    for id_ in range(16):
        gateway.generate(id_, PROMPT, max_tokens=50)
    gateway.wait_for(Chunk)
    message, _ = gateway.wait_for(Chunk)
    assert len(message.events) == 16


def test_heartbeats_come_while_idle_and_while_generating(mock_worker):
    gateway = mock_worker()
    for busy in (False, True):
        if busy:
            gateway.generate(1, PROMPT, max_tokens=FOREVER)
        first, _ = gateway.wait_for(Step)
        moments, counters = [time.monotonic()], [first.counter]
        for _ in range(4):
            message, _ = gateway.wait_for(Step)
            moments.append(time.monotonic())
            counters.append(message.counter)
        assert max(np.diff(moments)) < 0.5
        assert all(np.diff(counters) > 0)
    assert message.running == 1
    assert message.generated_tokens > 0


def test_idle_costs_next_to_nothing(mock_worker):
    gateway = mock_worker()
    process = psutil.Process(gateway.process.pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    while time.monotonic() < began + 1.5:
        gateway.wait_for(Step)
    assert sum(process.cpu_times()[:2]) - before < 0.1


def test_a_stopped_worker_falls_silent_and_goes_on_when_continued(mock_worker):
    gateway = mock_worker()
    gateway.generate(1, PROMPT, max_tokens=FOREVER)
    gateway.wait_for(Chunk)
    process = psutil.Process(gateway.process.pid)
    os.kill(gateway.process.pid, signal.SIGSTOP)
    _swallow(gateway)
    before = sum(process.cpu_times()[:2])
    with pytest.raises(AssertionError, match="said nothing"):
        gateway.next(1.2)
    assert sum(process.cpu_times()[:2]) == before
    os.kill(gateway.process.pid, signal.SIGCONT)
    gateway.wait_for(Step, 2)
    gateway.wait_for(Chunk, 2)


def _swallow(gateway):
    """What was on its way when the worker was stopped."""
    while True:
        try:
            gateway.next(0.2)
        except AssertionError:
            return


def test_cancel_ends_one_stream_and_leaves_the_others(mock_worker):
    gateway = mock_worker(step_seconds=0.01)
    gateway.generate(1, PROMPT, max_tokens=FOREVER)
    gateway.generate(2, PROMPT, max_tokens=40)
    gateway.wait_for(Chunk)
    gateway.send(Cancel(id=1))
    asked = time.monotonic()
    gateway.wait_for(Chunk, 2, events=(Event(id=1, finish="cancelled"),))
    assert time.monotonic() - asked < 0.2
    message, _ = gateway.wait_for(Chunk)
    assert [event.id for event in message.events] == [2]
    assert gateway.answers(2)[2][2] == "length"


def test_cancel_of_an_unknown_id_is_ignored(mock_worker):
    gateway = mock_worker()
    gateway.send(Cancel(id=99))
    gateway.generate(1, PROMPT, max_tokens=2)
    assert gateway.answers(1)[1][2] == "length"


def test_waiting_requests_can_be_cancelled_too(mock_worker):
    gateway = mock_worker(step_seconds=0.01, max_batch=1)
    gateway.generate(1, PROMPT, max_tokens=FOREVER)
    gateway.generate(2, PROMPT, max_tokens=3)
    gateway.wait_for(Step, waiting=1)
    gateway.send(Cancel(id=2))
    gateway.wait_for(Chunk, 2, events=(Event(id=2, finish="cancelled"),))
    gateway.wait_for(Step, waiting=0)


def test_a_deadline_ends_a_request_in_time(mock_worker):
    gateway = mock_worker(step_seconds=0.01)
    began = time.monotonic()
    gateway.generate(1, PROMPT, max_tokens=FOREVER, deadline=0.3)
    message, _ = gateway.wait_for(Fault)
    assert (message.id, message.code) == (1, "deadline")
    assert 0.3 <= time.monotonic() - began < 0.8
    gateway.wait_for(Step, running=0)


def test_drain_lets_streams_end_takes_nothing_new_and_exits_0(mock_worker):
    gateway = mock_worker(step_seconds=0.005)
    gateway.generate(1, PROMPT, max_tokens=100)
    gateway.wait_for(Chunk)
    gateway.drain()
    gateway.generate(2, PROMPT, max_tokens=100)
    message, _ = gateway.wait_for(Fault)
    assert (message.id, message.code) == (2, "overloaded")
    assert gateway.answers(1)[1][2] == "length"
    while (found := gateway.next()) is not None:
        assert isinstance(found[0], Step)
    assert ended(gateway) == 0


def test_sigterm_drains_as_well(mock_worker):
    gateway = mock_worker(step_seconds=0.005)
    gateway.generate(1, PROMPT, max_tokens=100)
    gateway.wait_for(Chunk)
    gateway.process.terminate()
    assert gateway.answers(1)[1][2] == "length"
    assert ended(gateway) == 0


def test_a_closed_connection_ends_the_worker(mock_worker):
    gateway = mock_worker()
    gateway.generate(1, PROMPT, max_tokens=FOREVER)
    gateway.wait_for(Chunk)
    gateway.socket.close()
    assert ended(gateway, 1.0) == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n" * 4,
        struct.pack("<II", 12, 8) + b"\xff" * 8,
        encode(Drain())[:4] + b"\xff\xff\xff\x7f",
        encode(Step(counter=1, running=0, waiting=0)),
    ],
    ids=["http", "no message", "header too long", "a message of its own"],
)
def test_garbage_closes_the_connection_and_exits_not_0(mock_worker, garbage):
    gateway = mock_worker()
    gateway.socket.sendall(garbage)
    assert ended(gateway) == 1
    assert "protocol" in gateway.words()
    assert "Traceback" not in gateway.words()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"max_tokens": 0}, "invalid", "max_tokens"),
        ({"temperature": -1.0}, "invalid", "temperature"),
        ({"temperature": float("nan")}, "invalid", "temperature"),
        ({"top_p": 0.0}, "invalid", "top_p"),
        ({"prompt": []}, "invalid", "empty"),
        ({"prompt": [1, 256]}, "invalid", "vocabulary"),
        ({"prompt": [-1]}, "invalid", "vocabulary"),
        ({"prompt": [1] * 64}, "invalid", "context"),
    ],
)
def test_an_invalid_request_is_a_fault_of_its_own(mock_worker, change, code, said):
    gateway = mock_worker(context_length=64)
    gateway.generate(1, **{"prompt": PROMPT, "max_tokens": 5, **change})
    message, _ = gateway.wait_for(Fault)
    assert (message.id, message.code) == (1, code)
    assert said in message.message
    gateway.generate(2, PROMPT, max_tokens=3)
    assert len(gateway.answers(2)[2][0]) == 3


def test_requests_without_tokens_or_of_another_kind_are_faults(mock_worker):
    gateway = mock_worker()
    for id_, submit, parts in (
        (1, Submit(id=1, kind="generate"), [b"\x01\x00\x00\x00"]),
        (2, Submit(id=2, kind="embed"), [b"\x01\x00\x00\x00"]),
        (3, Submit(id=3, kind="score"), []),
        (4, Submit(id=4, kind="score"), [b"\x01\x00\x00"]),
        (5, Submit(id=5, kind="score", top=-1), [b"\x01\x00\x00\x00"]),
    ):
        gateway.send(submit, *parts)
        message, _ = gateway.wait_for(Fault)
        assert (message.id, message.code) == (id_, "invalid")


def test_an_id_in_use_is_refused(mock_worker):
    gateway = mock_worker(step_seconds=0.01)
    gateway.generate(1, PROMPT, max_tokens=20)
    gateway.generate(1, PROMPT, max_tokens=20)
    message, _ = gateway.wait_for(Fault)
    assert "in use" in message.message


def test_the_longest_prompt_gets_one_token(mock_worker):
    gateway = mock_worker(context_length=64)
    gateway.generate(1, [1] * 63, max_tokens=50)
    tokens, _, finish = gateway.answers(1)[1]
    assert (len(tokens), finish) == (1, "length")


def test_the_queue_is_bounded(mock_worker):
    gateway = mock_worker(step_seconds=0.01, max_batch=2, max_queue=3)
    for id_ in range(6):
        gateway.generate(id_, PROMPT, max_tokens=FOREVER)
    message, _ = gateway.wait_for(Fault)
    assert (message.id, message.code) == (5, "overloaded")
    gateway.wait_for(Step, running=2, waiting=3)


def test_scores_come_beside_generation(mock_worker):
    gateway = mock_worker()
    gateway.generate(1, PROMPT, max_tokens=FOREVER)
    text = np.arange(200) % 256
    score = gateway.score(text, top=4)
    assert np.isnan(score.logprobs[0])
    assert (score.logprobs[1:] < 0).all()
    assert (np.diff(score.top_logprobs[1:], axis=1) <= 0).all()
    hit = score.top_ids[1:] == text[1:, None]
    np.testing.assert_array_equal(score.top_logprobs[1:][hit], score.logprobs[1:][hit.any(axis=1)])
    gateway.wait_for(Chunk)


def test_a_gateway_that_stops_reading_is_waited_for_within_bounds(mock_worker):
    """64 streams without pause make megabytes a second: memory must not follow, and nothing may be lost."""
    gateway = mock_worker(step_seconds=0.0, context_length=50_000, max_batch=64)
    limit = 12_000
    for id_ in range(64):
        gateway.generate(id_, PROMPT, max_tokens=limit)
    gateway.wait_for(Chunk)
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    cpu = _stands_still(process)
    assert process.memory_info().rss - before < 32 * 2**20
    time.sleep(0.5)
    assert sum(process.cpu_times()[:2]) - cpu < 0.1
    gateway.send(Cancel(id=0))
    for id_ in range(1, 62):
        gateway.send(Cancel(id=id_))
    answers = gateway.answers(*range(64))
    assert [len(answers[id_][0]) for id_ in (62, 63)] == [limit, limit]
    assert answers[0][2] == "cancelled"


def _stands_still(process, seconds=20.0):
    """CPU seconds of a process once it has stopped computing."""
    until, last = time.monotonic() + seconds, -1.0
    while time.monotonic() < until:
        time.sleep(0.4)
        now = sum(process.cpu_times()[:2])
        if now - last < 0.05:
            return now
        last = now
    raise AssertionError("the worker goes on producing for a gateway that does not read")


def test_the_address_is_private_and_gone_once_taken(start_worker, short_folder):
    gateway = start_worker(connect=False, engine="mock")
    gateway.wait_until_it_listens()
    assert gateway.address.stat().st_mode & 0o777 == 0o600
    gateway.connect().hello()
    gateway.wait_for(Step)
    assert list(short_folder.glob("*.sock*")) == []


def test_pins_itself_before_loading(start_worker):
    core = min(os.sched_getaffinity(0))
    gateway = start_worker(engine="mock", arguments=["--cores", str(core)])
    hello = gateway.hello()
    assert os.sched_getaffinity(hello.pid) == {core}


def test_dies_with_its_parent(short_folder):
    """A parent that is killed outright leaves no worker, even one that nobody has connected to."""
    serving = short_folder / "s.json"
    serving.write_text('{"engine": "mock"}')
    arguments = ["--artifact", ".", "--serving", str(serving), "--home", str(short_folder)]
    code = (
        "import sys, time; from trimtab.spec import processes\n"
        f"p = processes.start('worker', {arguments!r} + ['--address', 'unix:{short_folder}/s.sock'])\n"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        until = time.monotonic() + 20
        while not (short_folder / "s.sock").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        parent.kill()
    assert psutil.wait_procs([worker], timeout=5)[1] == []


@pytest.mark.parametrize(
    ("settings", "arguments", "said"),
    [
        ({"engine": "transformers", "weight_format": "float32"}, [], "config.json"),
        ({"engine": "transformers", "weight_format": "int4"}, [], "int4"),
        ({"engine": "mock"}, ["--cores", "zero"], "cores"),
        ({"engine": "mock"}, ["--cores", "4095"], "cores"),
    ],
)
def test_a_worker_that_cannot_start_says_why(start_worker, settings, arguments, said):
    gateway = start_worker(connect=False, arguments=arguments, **settings)
    if not arguments:
        message, _ = gateway.connect().wait_for(Fault)
        assert message.id is None
        assert said in message.message
        gateway.socket.close()
    assert ended(gateway, 20) != 0
    last = gateway.words().splitlines()
    assert said in last[-1]
    assert len(last) == 1


def test_a_bad_address_or_serving_file_is_a_sentence(short_folder):
    good = short_folder / "s.json"
    good.write_text('{"engine": "mock"}')
    bad = short_folder / "bad.json"
    bad.write_text('{"engine": "magic"}')
    far = "unix:/" + "x" * 120
    for serving, address, said in (
        (good, "tcp:localhost:1", "unix:/PATH"),
        (good, far, "longer"),
        (bad, far, "magic"),
    ):
        arguments = ["--artifact", ".", "--serving", str(serving), "--address", address]
        done = subprocess.run(
            processes.command("worker", [*arguments, "--home", str(short_folder)]),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_worker_of_a_mock_imports_nothing_heavy(mock_worker):
    gateway = mock_worker()
    mapped = Path(f"/proc/{gateway.process.pid}/maps").read_text()
    assert "libtorch" not in mapped
    assert "openvino" not in mapped
