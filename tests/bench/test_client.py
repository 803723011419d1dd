import socket

import pytest

from trimtab.bench.client import drive, render
from trimtab.bench.job import Job
from trimtab.spec.errors import EngineError


def job(service=None, **changes):
    fields = {
        "host": "127.0.0.1",
        "port": service.port if service else 1,
        "path": "/v1/completions",
        "model": "m",
        "key": "tt_1_secret",
        "concurrency": 4,
        "requests": 10,
        "prompt_tokens": 5,
        "output_tokens": 8,
        "vocabulary_size": 300,
        "seed": 7,
        "timeout_seconds": 5,
    }
    return Job(**(fields | changes))


def test_every_request_is_counted_and_the_loop_is_closed(streaming):
    service = streaming(step_seconds=0.002)
    outcome = drive(job(service))
    assert outcome.tokens == (8,) * 10
    assert len(outcome.first) == len(outcome.rest) == 10
    assert service.most == 4
    assert service.connections == 4
    assert outcome.events == 10 * 10
    assert all(0.002 <= first < 5 for first in outcome.first)
    # A late first look makes the rest look short; together they are what was waited for.
    assert all(first + rest >= 8 * 0.002 for first, rest in zip(outcome.first, outcome.rest, strict=True))
    assert outcome.wall_seconds >= 3 * 8 * 0.002
    path, headers, body = service.requests[0]
    assert path == "/v1/completions"
    assert headers["authorization"] == "Bearer tt_1_secret"
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert len(body["prompt"]) == 5
    prompts = [tuple(body["prompt"]) for _, _, body in service.requests]
    assert len(set(prompts)) == 10


def test_first_token_is_not_the_headers(streaming):
    outcome = drive(job(streaming(step_seconds=0.05), requests=1, output_tokens=2))
    assert outcome.first[0] >= 0.05


def test_bytes_may_come_one_by_one(streaming):
    outcome = drive(job(streaming(split=True, step_seconds=0), requests=3, concurrency=3))
    assert outcome.tokens == (8, 8, 8)


def test_requests_are_deterministic_in_their_seed():
    assert list(render(job())) == list(render(job()))
    assert list(render(job())) != list(render(job(seed=8)))


def test_a_prompt_larger_than_the_socket_takes_at_once(streaming):
    outcome = drive(
        job(streaming(), requests=2, prompt_tokens=1_000_000, output_tokens=1, timeout_seconds=30)
    )
    assert outcome.tokens == (1, 1)


def test_a_refusal_carries_the_services_own_words(streaming):
    body = {"error": {"message": "max_tokens is over the context.", "type": "invalid_request_error"}}
    for split in (False, True):
        with pytest.raises(EngineError, match=r"HTTP/1.1 400 No: max_tokens is over the context\."):
            drive(job(streaming(status=400, body=body, split=split)))


def test_an_error_in_the_stream(streaming):
    service = streaming(body={"error": {"message": "the worker died."}}, usage=False)
    with pytest.raises(EngineError, match=r"stream: the worker died\."):
        drive(job(service))


def test_a_stream_without_usage_is_no_measurement(streaming):
    with pytest.raises(EngineError, match="include_usage"):
        drive(job(streaming(usage=False)))


def test_a_cut_stream_silence_and_nobody_there(streaming):
    with pytest.raises(EngineError, match="mid-answer"):
        drive(job(streaming(cut=3)))
    with pytest.raises(EngineError, match="no byte came"):
        drive(job(streaming(wait=2), timeout_seconds=0.2))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EngineError, match="Is the service running"):
        drive(job(port=port))
