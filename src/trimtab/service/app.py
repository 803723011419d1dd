"""The ASGI application: the route table on Starlette's router, keys checked first, OpenAI's error bodies.

Every answer carries `x-request-id`, also 404, 405 and 500. An unexpected exception answers 500 and goes on
to the server, which logs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from trimtab.service import openapi
from trimtab.service.backend import Backend
from trimtab.service.cors import Cors
from trimtab.service.errors import ClientGoneError, MethodError, RouteNotFoundError
from trimtab.service.exchange import Exchange, Receive, Scope, Send
from trimtab.service.routes import ROUTES, Route
from trimtab.spec.errors import AuthenticationError, PermissionDeniedError, TrimtabError, UsageError

_EXCHANGE = "trimtab.exchange"
# Never sent: what the metrics call an answer that nobody was there to get (as nginx does).
GONE = 499


class Endpoint:
    """One route of the table. A route that is not open runs only for a key that has its scope."""

    def __init__(self, route: Route, backend: Backend) -> None:
        self._route, self._backend = route, backend

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        exchange: Exchange = scope[_EXCHANGE]
        exchange.route = self._route.path
        self._check(exchange)
        await self._route.handler(exchange, self._backend)

    def _check(self, exchange: Exchange) -> None:
        if self._route.access == "open":
            return
        principal = self._backend.keys.verify(_presented(exchange))
        if self._route.access not in principal.scopes:
            raise PermissionDeniedError(
                f"This key may not {self._route.access!r}.",
                remedy=f"Use a key that was made with the scope {self._route.access!r}.",
            )


def _presented(exchange: Exchange) -> str:
    authorization, other = exchange.header(b"authorization"), exchange.header(b"x-api-key")
    if authorization is None:
        key = other
    else:
        scheme, _, key = authorization.partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else None
    if key and other is not None and key != other:
        raise UsageError(
            "The headers Authorization and x-api-key hold two different keys.", remedy="Send one of them."
        )
    if not key:
        raise AuthenticationError(
            "No API key was sent.",
            remedy="Send 'Authorization: Bearer KEY'; 'trimtab keys create --name NAME' makes a key.",
        )
    return key


class Application:
    def __init__(
        self, backend: Backend, routes: Sequence[Route] = ROUTES, *, cors: Cors | None = None
    ) -> None:
        self._backend, self._cors = backend, cors or Cors()
        backend.openapi = openapi.document(routes)
        self.router = Router(
            [
                StarletteRoute(route.path, Endpoint(route, backend), methods=[route.method])
                for route in routes
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        scope[_EXCHANGE], scope["app"] = exchange, self  # with "app", the router raises instead of answering
        exchange.extra_headers = self._cors.headers(exchange)
        try:
            if (allowed := self._cors.preflight(exchange)) is not None:
                await exchange.respond(200, b"", headers=allowed)
            else:
                await self.router(scope, receive, send)
        except TrimtabError as error:
            await exchange.fail(error)
        except HTTPException as error:
            await exchange.fail(_routing_fault(error, exchange))
        except ClientGoneError:
            exchange.status = exchange.status or GONE
        finally:
            if not exchange.status:
                await exchange.fail(TrimtabError("The service failed while it worked on this request."))
            self._backend.metrics.note_answer(exchange.route, exchange.status)


def _routing_fault(error: HTTPException, exchange: Exchange) -> TrimtabError:
    if error.status_code == 405:
        return MethodError(
            f"{exchange.path} does not serve this method.",
            remedy=f"It serves {(error.headers or {}).get('Allow', 'another')}.",
        )
    return RouteNotFoundError(
        "There is nothing at this address.", remedy="GET /openapi.json lists what there is."
    )
