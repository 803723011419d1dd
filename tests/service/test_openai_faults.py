"""What is refused: the status, the client's error class, the parameter's name, and an id on every answer."""

import http.client
import json
import socket

import openai
import pytest

from trimtab.security.keys import KeyRing

HELLO = [{"role": "user", "content": "hi"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BIG = 10 * 2**20


@pytest.fixture(scope="module")
def client(fake):
    return fake.client()


def post(fake, path="/v1/completions", body=b"{}", headers=None, method="POST"):
    """A raw request; status, headers, decoded body."""
    connection = http.client.HTTPConnection(fake.host, fake.port, timeout=20)
    try:
        ours = {"Authorization": f"Bearer {fake.key}", "Content-Type": "application/json"}
        connection.request(
            method, path, body, {**ours, **(headers or {})}, encode_chunked=not isinstance(body, bytes)
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("settings", "param", "words"),
    [
        ({"max_tokens": -1}, "max_tokens", ">= 0"),
        ({"max_tokens": 5000}, "max_tokens", "at most 4094"),
        ({"prompt": "x" * 5000}, "prompt", "context holds 4096"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": [256]}, "prompt", "end at 255"),
        ({"prompt": [1, "a"]}, "prompt", "mixes"),
        ({"prompt": ["a"] * 2049}, "prompt", "too many"),
        ({"prompt": ["a"] * 257, "n": 8}, "prompt", "too many"),
        ({"n": 9}, "n", "<= 8"),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"stop": ["a"] * 9}, "stop", "<= 8"),
        ({"stop": ""}, "stop", ">= 1"),
        ({"best_of": 4}, "best_of", "not served"),
        ({"presence_penalty": 1}, "presence_penalty", "not served"),
        ({"logit_bias": {"1": 2}}, "logit_bias", "not served"),
        ({"suffix": "end"}, "suffix", "not served"),
        ({"logprobs": 6}, "logprobs", "<= 5"),
        ({"logprobs": 3, "stream": True}, "logprobs", "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"extra_body": {"top_k": 3}}, "top_k", "not served"),
        ({"extra_body": {"topk": 3}}, "topk", "unknown"),
        ({"seed": "x"}, "seed", "expected"),
    ],
)
def test_a_wrong_parameter_is_named(client, settings, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="fake", **{"prompt": "hi", **settings})
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
    ],
)
def test_a_wrong_chat_parameter_is_named(client, settings, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="fake", **{"messages": HELLO, **settings})
    assert caught.value.param == param


def test_too_long_is_told_by_code(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="fake", prompt="x" * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_a_refusal_of_the_engine(client):
    with pytest.raises(openai.BadRequestError, match="does not like it"):
        client.completions.create(model="fake", prompt="?")


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="nobody", prompt="hi")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


@pytest.mark.parametrize("key", ["nonsense", "tt_0000000000000000_" + "a" * 43])
def test_wrong_key(fake, key):
    with pytest.raises(openai.AuthenticationError):
        fake.client(key).completions.create(model="fake", prompt="hi")


def test_the_other_header_and_a_key_without_the_right(fake):
    reader = KeyRing(fake.home).create("reader", scopes=("read",)).key
    no_bearer = {"Authorization": "Basic abc", "x-api-key": fake.key}
    assert post(fake, headers=no_bearer)[0] == 401
    with pytest.raises(openai.PermissionDeniedError):
        fake.client(reader).completions.create(model="fake", prompt="hi")
    connection = http.client.HTTPConnection(fake.host, fake.port, timeout=20)
    connection.request("GET", "/v1/models", headers={"x-api-key": fake.key})
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"path": "/nothing"}, 404, "unknown_url"),
        ({"path": "/v1/completions/"}, 404, "unknown_url"),
        ({"method": "GET", "body": None}, 405, "method_not_allowed"),
        ({"headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"body": b"{"}, 400, "invalid_request_error"),
        ({"body": b'{"model": "\xff"}'}, 400, "invalid_request_error"),
        ({"body": b'{"model": "fake", "prompt": NaN}'}, 400, "invalid_request_error"),
        ({"body": b"[" * 100_000}, 400, "invalid_request_error"),
        ({"body": b'{"model": "fake", "zzz":' + b"[" * 100_000}, 400, "invalid_request_error"),
        ({"body": b"[]"}, 400, "invalid_request_error"),
        ({"body": b"x" * BIG}, 413, "request_too_large"),
        ({"body": iter([b"x" * 2**16] * 160)}, 413, "request_too_large"),
        ({"headers": {"Authorization": ""}}, 401, "invalid_api_key"),
    ],
)
def test_every_fault_is_an_openai_body_with_an_id(fake, request_, status, code):
    got, headers, body = post(fake, **request_)
    assert (got, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"].startswith("req_")
    assert str(fake.home) not in body["error"]["message"]


def test_ids_differ_and_are_never_the_clients(fake):
    ids = {post(fake, headers={"x-request-id": "mine"})[1]["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert "mine" not in ids


def test_answers_carry_id_and_timing(fake):
    body = json.dumps({"model": "fake", "prompt": "hi", "max_tokens": 2}).encode()
    status, headers, _ = post(fake, body=body)
    assert status == 200
    assert headers["x-request-id"].startswith("req_")
    assert "tokenize;dur=" in headers["server-timing"]
    assert "generate;dur=" in headers["server-timing"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", b"431"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\na: " + b"b" * 40_000, b"431"),
    ],
)
def test_what_is_no_request_is_told_so(fake, sent, status):
    with socket.create_connection((fake.host, fake.port), timeout=10) as raw:
        raw.sendall(sent)
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.split()[1] == status
    assert b"x-request-id: req_" in answer
    assert b'{"error":' in answer


def test_a_body_of_ten_megabytes_is_not_kept(fake):
    before = fake.gateway.memory_info().rss
    for _ in range(4):
        post(fake, body=b"x" * BIG)
    assert fake.gateway.memory_info().rss - before < 8 * 2**20
