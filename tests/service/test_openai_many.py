"""Requests for many answers: all are given, a bounded number is under way, and others get in between."""

import http.client
import json
import statistics
import threading
import time
from types import SimpleNamespace

import openai
import pytest
from fake_worker import SAYS

from trimtab.service import limits
from trimtab.service.launch import ServedModel, start
from trimtab.service.openai_orders import bounded
from trimtab.service.orders import Order, Prompt
from trimtab.spec.errors import UsageError
from trimtab.spec.serving import MockSettings, ServingConfiguration
from trimtab.spec.wire import Capabilities, Sampling

HELLO = [{"role": "user", "content": "hi"}]


def test_more_prompts_than_run_at_once_are_all_answered_in_order(fake):
    client = fake.client()
    prompts = ["x" * (1 + number % 7) for number in range(300)]
    settings = {"model": "fake", "prompt": prompts, "n": 2, "max_tokens": 3, "echo": True}
    answer = client.completions.create(**settings)
    assert [choice.index for choice in answer.choices] == list(range(600))
    said = SAYS[:3].decode()
    assert [choice.text for choice in answer.choices] == [p + said for p in prompts for _ in range(2)]
    assert answer.usage.completion_tokens == 1800
    texts = dict.fromkeys(range(600), "")
    for event in client.completions.create(stream=True, **settings):
        for choice in event.choices:
            texts[choice.index] += choice.text
    assert list(texts.values()) == [choice.text for choice in answer.choices]


@pytest.fixture(scope="module")
def narrow(start_fake):
    """A service that takes four requests in all."""
    return start_fake(max_batch=2, max_queue=2, step_seconds=0.002)


def test_a_request_larger_than_the_queue_leaves_room_for_others(narrow):
    client = narrow.client()
    before = len(narrow.asked("generate"))
    answer = client.completions.create(model="fake", prompt=["a"] * 40, max_tokens=2, stop=["llo"])
    assert len(answer.choices) == 40
    assert len(narrow.asked("generate")) == before + 40
    done = threading.Event()

    def long():
        narrow.client().completions.create(model="fake", prompt=["a"] * 60, max_tokens=5)
        done.set()

    thread = threading.Thread(target=long)
    thread.start()
    time.sleep(0.02)
    for _ in range(5):
        client.completions.create(model="fake", prompt="b", max_tokens=1)
    assert not done.is_set(), "the others were to be answered while it ran"
    thread.join()


def test_what_waits_is_not_begun_once_the_client_is_gone_or_its_time_over(narrow, until):
    client = narrow.client()
    before = len(narrow.asked("generate"))
    with client.completions.create(model="fake", prompt=["a"] * 500, max_tokens=100, stream=True) as stream:
        next(iter(stream))
    assert until(lambda: narrow.asked("cancel"))
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(
            model="fake", prompt=["a"] * 500, max_tokens=50, extra_headers={"x-request-timeout": "0.3"}
        )
    assert caught.value.status_code == 504
    assert len(narrow.asked("generate")) - before < 50
    # Each is told only what is left of the time.
    left = [float(word.split()[1]) for _, word in narrow.asked("deadline")]
    assert left == sorted(left, reverse=True)
    assert len(set(left)) > 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": ["a"] * 2048, "max_tokens": 2000}, "at most 1024 tokens"),
        ({"prompt": ["a"] * 1000, "max_tokens": 400, "logprobs": 5}, "at most 174 tokens"),
        ({"prompt": [[97] * 4000] * 64, "max_tokens": 1, "echo": True, "logprobs": 5}, "fewer prompts"),
    ],
)
def test_answers_that_come_to_too_much_are_refused_before_the_work(fake, settings, words):
    before = len(fake.asked("generate"))
    with pytest.raises(openai.BadRequestError, match=words):
        fake.client().completions.create(model="fake", **settings)
    assert len(fake.asked("generate")) == before


def test_a_length_that_nobody_asked_for_is_cut_to_what_can_be_told():
    """An answer to the end of the context is never refused for its alternatives: it is only shorter."""
    order = Order(prompts=(Prompt(ids=[1]),), sampling=Sampling(max_tokens=0), choices=8, alternatives=20)
    model = SimpleNamespace(loaded=lambda: Capabilities(kinds=(), context_length=2**17, vocabulary_size=256))
    most = limits.MAX_TOLD // (8 * 21)
    assert bounded(order, model, None, None).sampling.max_tokens == most
    assert bounded(order, model, None, 16).sampling.max_tokens == 16
    with pytest.raises(UsageError, match=f"at most {most} tokens"):
        bounded(order, model, most + 1, None)


def post(service, key, path, body):
    host, port = service.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body).encode(), headers)
    return connection, connection.getresponse()


LARGE = {
    "log-probabilities of prompts": (
        "/v1/completions",
        {"prompt": [[97] * 4000] * 24, "echo": True, "logprobs": 5, "max_tokens": 0},
    ),
    "answers and alternatives": (
        "/v1/chat/completions",
        {"messages": HELLO, "n": 8, "logprobs": True, "top_logprobs": 20, "max_tokens": 2000},
    ),
    "prompts": ("/v1/completions", {"prompt": ["ab" * 100] * 2048, "max_tokens": 1}),
    "messages": ("/v1/chat/completions", {"messages": HELLO * 25_000, "max_tokens": 1}),
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    mock = MockSettings(step_seconds=0.0005, prefill_tokens_per_second=1e7)
    serving = ServingConfiguration(engine="mock", replicas=2, max_batch_tokens=10**6, mock=mock)
    with start(
        [ServedModel(name="m", serving=serving)], home=tmp_path_factory.mktemp("home"), port=0
    ) as service:
        yield service, service.create_key("me")


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_request_does_not_take_the_others_time(quick, kind):
    """Another client's first token, again and again while a legal request of the largest size is answered."""
    (service, key), (path, body) = quick, LARGE[kind]
    done, status = threading.Event(), []

    def large():
        connection, answer = post(service, key, path, {"model": "m", **body})
        while answer.read(2**20):
            pass
        connection.close()
        status.append(answer.status)
        done.set()

    thread = threading.Thread(target=large)
    thread.start()
    times = []
    while not done.is_set():
        begun = time.perf_counter()
        small = {"model": "m", "prompt": "hi", "max_tokens": 2, "stream": True}
        connection, answer = post(service, key, "/v1/completions", small)
        answer.readline()
        times.append(time.perf_counter() - begun)
        answer.read()
        connection.close()
    thread.join()
    # The chat of many messages is longer than the context, but it had to be read.
    assert status == [400 if kind == "messages" else 200]
    assert statistics.median(times) < 0.1
    assert max(times) < 1.0
