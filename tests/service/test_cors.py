"""Which web pages may call: none unless named, without credentials, on every answer."""

import http.client

import pytest

from trimtab.service import launch
from trimtab.service.cors import check_origins
from trimtab.spec.errors import UsageError
from trimtab.spec.serving import ServingConfiguration

OURS, OTHER = "https://app.example", "https://evil.example"


@pytest.fixture(scope="module")
def named(start_fake):
    return start_fake(cors_origins=[OURS, "http://localhost:3000"])


@pytest.fixture(scope="module")
def open_to_all(start_fake):
    return start_fake(cors_origins=["*"])


def ask(running, method, path, origin=OURS, **headers):
    connection = http.client.HTTPConnection(running.host, running.port, timeout=20)
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={"Origin": origin, **headers})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def preflight(running, origin=OURS, path="/v1/chat/completions"):
    names = "authorization,content-type,x-stainless-lang"
    return ask(
        running,
        "OPTIONS",
        path,
        origin,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=names,
    )


def test_a_preflight_is_answered_without_a_key(named):
    status, headers, body = preflight(named)
    assert (status, body) == (200, b"")
    assert headers["access-control-allow-origin"] == OURS
    assert "POST" in headers["access-control-allow-methods"]
    assert "authorization" in headers["access-control-allow-headers"]
    assert "x-stainless-lang" in headers["access-control-allow-headers"]
    assert headers["vary"] == "Origin"
    assert headers["x-request-id"].startswith("req_")
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/v1/models", 401),
        ("GET", "/nothing", 404),
        ("GET", "/v1/completions", 405),
    ],
)
def test_every_answer_may_be_read_by_the_page_also_a_fault(named, method, path, status):
    got, headers, _ = ask(named, method, path)
    assert got == status
    assert headers["access-control-allow-origin"] == OURS
    assert "x-request-id" in headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in headers


def test_another_origin_gets_nothing(named):
    status, headers, _ = preflight(named, OTHER)
    assert status == 405
    assert not [name for name in headers if name.startswith("access-control")]
    status, headers, _ = ask(named, "GET", "/livez", OTHER)
    assert status == 200
    assert not [name for name in headers if name.startswith("access-control")]
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["null", OURS + ".evil.example", "http://app.example", OURS + ":444", ""])
def test_an_origin_is_matched_whole(named, origin):
    assert "access-control-allow-origin" not in ask(named, "GET", "/livez", origin)[1]


def test_off_by_default(fake):
    status, headers, _ = preflight(fake)
    assert status == 405
    assert not [name for name in headers if name.startswith(("access-control", "vary"))]


def test_all_pages_only_when_that_is_said(open_to_all):
    status, headers, _ = preflight(open_to_all, OTHER)
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in headers
    assert ask(open_to_all, "GET", "/v1/models", OTHER)[1]["access-control-allow-origin"] == "*"


def test_a_stream_may_be_read_by_the_page(named):
    with named.client(default_headers={"Origin": OURS}).with_streaming_response.completions.create(
        model="fake", prompt="hi", max_tokens=3, stream=True
    ) as response:
        assert response.headers["access-control-allow-origin"] == OURS
        assert response.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("names", ["a\x01b", "x" * 2000, "a: b"])
def test_a_preflight_with_names_that_are_none_is_not_mirrored(named, names):
    status, headers, _ = ask(
        named,
        "OPTIONS",
        "/v1/models",
        Access_Control_Request_Method="GET",
        Access_Control_Request_Headers=names,
    )
    assert status in (400, 405)
    assert "access-control-allow-headers" not in headers


@pytest.mark.parametrize(
    "origin",
    ["app.example", "https://app.example/", "https://app.example/path", "https://*.example", "null", ""],
)
def test_what_no_browser_sends_is_refused_at_start(origin):
    with pytest.raises(UsageError, match="not an origin"):
        check_origins((origin,))


def test_origins_are_written_as_browsers_write_them():
    found = check_origins(("HTTPS://App.Example", "http://[::1]:3000", "*"))
    assert found == ("https://app.example", "http://[::1]:3000", "*")


def test_a_service_with_a_wrong_origin_does_not_start(tmp_path):
    model = launch.ServedModel(name="x", serving=ServingConfiguration(engine="mock"))
    with pytest.raises(UsageError) as caught:
        launch.start([model], home=tmp_path, port=0, cors_origins=["app.example"])
    assert (caught.value.exit_code, caught.value.where) == (2, "--cors-origin")
