"""Default deny over the one route table: what is not declared open answers nobody without a key."""

import http.client
import json

import msgspec
import pytest

from trimtab.security.keys import KeyRing
from trimtab.service import openapi
from trimtab.service.app import Application, Endpoint
from trimtab.service.backend import Backend
from trimtab.service.routes import ROUTES, Route

OPEN = {"/health", "/livez", "/readyz"}


def ask(fake, route, key=None):
    connection = http.client.HTTPConnection(fake.host, fake.port, timeout=20)
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection.request(route.method, route.path.replace("{model}", "fake"), b"{}", headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_only_the_probes_are_open(fake, route):
    allowed = route.path in OPEN
    assert (route.access == "open") == allowed
    assert (ask(fake, route) == 200) == allowed
    assert (ask(fake, route, "tt_0000000000000000_" + "a" * 43) == 200) == allowed
    if not allowed:
        assert ask(fake, route) == 401


@pytest.mark.parametrize("route", [route for route in ROUTES if route.access != "open"], ids=lambda r: r.path)
def test_a_key_opens_only_what_its_scope_names(fake, route):
    ring = KeyRing(fake.home)
    others = tuple({"infer", "read", "admin"} - {route.access})
    theirs, own = ring.create("others", scopes=others).key, ring.create("own", scopes=(route.access,)).key
    assert ask(fake, route, theirs) == 403
    assert ask(fake, route, own) not in (401, 403)


def test_a_route_must_say_who_may_use_it():
    with pytest.raises(TypeError, match="access"):
        Route(method="GET", path="/x", handler=None, summary="x")


def test_routing_and_openapi_hold_the_table_and_nothing_else():
    application = Application(Backend({}, keys=None))
    routed = {(route.path, method) for route in application.router.routes for method in route.methods}
    assert {each for each in routed if each[1] != "HEAD"} == {(route.path, route.method) for route in ROUTES}
    assert all(isinstance(route.endpoint, Endpoint) for route in application.router.routes)
    document = json.loads(openapi.document(ROUTES))
    described = {(path, method.upper()) for path, found in document["paths"].items() for method in found}
    assert described == {(route.path, route.method) for route in ROUTES}


def test_every_field_of_a_request_is_bounded():
    """Numbers, texts and lists have limits; what holds only null or true/false needs none."""
    document = msgspec.json.decode(openapi.document(ROUTES))

    def unbounded(schema, path):
        kind = schema.get("type")
        if kind in ("integer", "number") and not {"minimum", "exclusiveMinimum"} & set(schema):
            yield path
        if kind == "string" and not {"maxLength", "enum", "const"} & set(schema):
            yield path
        if kind == "array" and "maxItems" not in schema:
            yield path
        for inner in (*schema.get("anyOf", ()), *filter(None, [schema.get("items")])):
            yield from unbounded(inner, path)
        for name, inner in schema.get("properties", {}).items():
            yield from unbounded(inner, f"{path}.{name}")

    schemas = document["components"]["schemas"]
    names = [
        "CompletionRequest",
        "ChatRequest",
        "ChatMessage",
        "Part",
        "StreamOptions",
        "ToolCall",
        "ToolFunction",
    ]
    assert [place for name in names for place in unbounded(schemas[name], name)] == []


def test_metrics_and_openapi_are_served(fake):
    connection = http.client.HTTPConnection(fake.host, fake.port, timeout=20)
    try:
        headers = {"Authorization": f"Bearer {fake.key}"}
        connection.request("GET", "/metrics", headers=headers)
        text = connection.getresponse().read().decode()
        assert 'trimtab_ready_workers{model="fake"} 1.0' in text
        connection.request("GET", "/openapi.json", headers=headers)
        assert json.loads(connection.getresponse().read())["openapi"] == "3.1.0"
    finally:
        connection.close()
