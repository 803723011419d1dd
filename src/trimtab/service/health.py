"""The open probes, and what an operator reads: metrics and the API's own description."""

from __future__ import annotations

import msgspec

from trimtab.service.backend import Backend
from trimtab.service.exchange import Exchange
from trimtab.service.metrics import CONTENT_TYPE
from trimtab.spec.errors import EngineError


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`stale_keys_seconds`: the keys' catalogue cannot be read, and what is known of them is so old."""

    status: str
    stale_keys_seconds: float | None = None


_FINE = msgspec.json.encode(Health(status="ok"))


async def live(exchange: Exchange, backend: Backend) -> None:  # noqa: ARG001 - a handler's signature
    """The gateway's loop turns."""
    await exchange.respond(200, _FINE)


async def ready(exchange: Exchange, backend: Backend) -> None:
    """Every model has a worker that is alive; dead ones are found within seconds."""
    if not backend.ready:
        raise EngineError("The service is not ready.", remedy="Try again in a few seconds.")
    stale = backend.keys.stale_seconds
    health = Health(status="ok", stale_keys_seconds=None if stale is None else round(stale, 1))
    await exchange.respond(200, msgspec.json.encode(health))


async def metrics(exchange: Exchange, backend: Backend) -> None:
    await exchange.respond(200, backend.metrics.render(backend.models.values()), kind=CONTENT_TYPE)


async def openapi(exchange: Exchange, backend: Backend) -> None:
    await exchange.respond(200, backend.openapi)
