"""The one route table. Routing, the OpenAPI document and the default-deny test all come from it.

A route must say who may use it; there is no other way to add one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from trimtab.service import health, openai_models
from trimtab.service.backend import Backend
from trimtab.service.exchange import Exchange
from trimtab.service.openai_chat import chat_completions
from trimtab.service.openai_completions import completions
from trimtab.service.openai_requests import ChatRequest, CompletionRequest

Handler = Callable[[Exchange, Backend], Awaitable[None]]
Access = Literal["open", "infer", "read", "admin"]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """`access` is "open" or the scope that a key must have. `answer` None = not JSON, or dialect-defined."""

    method: Literal["GET", "POST"]
    path: str
    access: Access
    handler: Handler
    summary: str
    request: Any = None
    answer: Any = None


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/health",
        access="open",
        handler=health.ready,
        summary="Ready?",
        answer=health.Health,
    ),
    Route(
        method="GET",
        path="/livez",
        access="open",
        handler=health.live,
        summary="Alive?",
        answer=health.Health,
    ),
    Route(
        method="GET",
        path="/readyz",
        access="open",
        handler=health.ready,
        summary="Ready?",
        answer=health.Health,
    ),
    Route(
        method="GET",
        path="/v1/models",
        access="infer",
        handler=openai_models.list_models,
        summary="The models that are served.",
        answer=openai_models.ModelList,
    ),
    Route(
        method="GET",
        path="/v1/models/{model}",
        access="infer",
        handler=openai_models.get_model,
        summary="One model.",
        answer=openai_models.ModelCard,
    ),
    Route(
        method="POST",
        path="/v1/completions",
        access="infer",
        handler=completions,
        summary="Continue prompts; a stream of server-sent events with `stream`.",
        request=CompletionRequest,
    ),
    Route(
        method="POST",
        path="/v1/chat/completions",
        access="infer",
        handler=chat_completions,
        summary="Answer a conversation; a stream of server-sent events with `stream`.",
        request=ChatRequest,
    ),
    Route(
        method="GET", path="/metrics", access="read", handler=health.metrics, summary="Prometheus metrics."
    ),
    Route(
        method="GET", path="/openapi.json", access="read", handler=health.openapi, summary="This document."
    ),
)
