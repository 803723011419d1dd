"""Which web pages may call the service from a browser: those of the origins that were named, without credentials.

Keys travel in a header that the page sets itself, so no answer ever allows cookies.
"""

from __future__ import annotations

import re

from trimtab.service.exchange import Exchange, Headers
from trimtab.spec.errors import UsageError

ANY = "*"
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,1024}")
_ASKED = b"access-control-request-method"
_VARY = (b"vary", b"Origin")
_SHOWN = (b"access-control-expose-headers", b"x-request-id, retry-after, server-timing")
# Browsers keep the answer to a preflight for so many seconds.
_MAX_AGE = (b"access-control-max-age", b"600")


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """The origins as browsers write them. Raises `UsageError` for what no browser would send."""
    for origin in origins:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"{origin!r} is not an origin.",
                where="--cors-origin",
                remedy="Write scheme, host and port and nothing behind them, such as https://app.example; "
                "'*' lets every page call.",
            )
    return tuple(origin.lower() for origin in origins)


class Cors:
    """No origins: every answer is as if there were no browsers."""

    def __init__(self, origins: tuple[str, ...] = ()) -> None:
        self._origins = frozenset(origins)

    def headers(self, exchange: Exchange) -> Headers:
        """What an answer to this request tells a browser."""
        if not self._origins:
            return []
        if ANY in self._origins:
            return [(b"access-control-allow-origin", b"*"), _SHOWN]
        origin = exchange.header(b"origin")
        if origin is None or origin.lower() not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin.encode("latin-1")), _SHOWN, _VARY]

    def preflight(self, exchange: Exchange) -> Headers | None:
        """What a page asks before its request, which has no key; None if this is no such question."""
        if exchange.method != "OPTIONS" or exchange.header(_ASKED) is None:
            return None
        allowed = len(self.headers(exchange)) > 1
        names = exchange.header(b"access-control-request-headers") or ""
        if not allowed or not _NAMES.fullmatch(names):
            return None
        found: Headers = [(b"access-control-allow-methods", b"GET, POST"), _MAX_AGE]
        if names:
            found.append((b"access-control-allow-headers", names.encode("ascii")))
        return found
