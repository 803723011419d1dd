"""The OpenAPI 3.1 document, generated from the route table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from trimtab.service.errors import ErrorBody
from trimtab.service.routes import Route
from trimtab.spec.version import __version__

_REFERENCE = "#/components/schemas/{name}"


def document(routes: Sequence[Route]) -> bytes:
    types = [kind for route in routes for kind in (route.request, route.answer) if kind is not None]
    types = list(dict.fromkeys([*types, ErrorBody]))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    found = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, found)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Trimtab", "version": __version__},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        }
    )


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done."}
    if route.answer is not None:
        answer["content"] = _content(schemas[route.answer])
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z0-9]+', '_', route.path)}".rstrip("_"),
        "responses": {
            "200": answer,
            "default": {"description": "A fault.", "content": _content(schemas[ErrorBody])},
        },
        "security": [] if route.access == "open" else [{"bearer": []}, {"header": []}],
        "x-scope": route.access,
    }
    if route.request is not None:
        operation["requestBody"] = {"required": True, "content": _content(schemas[route.request])}
    names = re.findall(r"{(\w+)}", route.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return operation
