"""Checks keys for a service: against the last good look at the catalogue, never waiting for a disk in the event loop.

The catalogue is looked at by a thread of its own. While it can be read, a revoked key is refused within
`REVOKED_WITHIN_SECONDS`, and a new one works at once. While it cannot (locked, damaged, gone), the keys of the last
good look stay valid, for `HONOURED_SECONDS` at most: nobody can revoke a key in a catalogue that cannot be written,
and `keys revoke` says so. What is unknown then is not called wrong: "cannot be checked".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from trimtab.security.identity import Principal
from trimtab.security.keys import KeyRing, KnownKeys, has_form, invalid_key
from trimtab.spec.errors import UnavailableError

# The one bound on revocation; `trimtab keys revoke` and the documents name it.
REVOKED_WITHIN_SECONDS = 5.0
# A look that is older is renewed in passing; one that is much older is not trusted before it is renewed.
RENEW_SECONDS, TRUST_SECONDS = 1.0, 3.0
# Wrong keys cannot make the catalogue be read more often; and how often it is tried while it cannot be read.
LOOK_EVERY_SECONDS, RETRY_SECONDS = 0.05, 1.0
# How long a request waits for a look; and a look for somebody's lock, which is less.
WAIT_SECONDS, BUSY_SECONDS = 0.8, 0.5
HONOURED_SECONDS = 3600.0

Report = Callable[[str | None], None]


class Verifier:
    """Of one event loop. `report` is told why the catalogue cannot be read, and None once it can: at each change."""

    def __init__(self, ring: KeyRing, report: Report = lambda _: None) -> None:
        self._ring, self._report = ring, report
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._known: KnownKeys | None = None
        self._looking: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        # When the last look began, and when the last good one did.
        self._begun = self._good = float("-inf")
        self.fault: str | None = None

    async def verify(self, presented: str) -> Principal:
        """Who holds this key. Raises `AuthenticationError`, the same for every reason, or `UnavailableError`
        where that cannot be known.
        """
        if not has_form(presented):
            raise invalid_key()
        now = time.monotonic()
        if now - self._good > TRUST_SECONDS:
            await self._look(since=now)
        elif now - self._good > RENEW_SECONDS:
            self._start_looking()
        found = self._find(presented)
        if found is None:
            # It may be newer than the last look.
            await self._look(since=now)
            found = self._find(presented)
        if found is not None:
            return found
        if self._good > now:
            raise invalid_key()
        raise UnavailableError(
            "API keys cannot be checked now.", remedy="Try again; the service's log says what is wrong."
        )

    @property
    def stale_seconds(self) -> float | None:
        """How old what is known of the keys is, while the catalogue cannot be read; else None."""
        return None if self.fault is None else time.monotonic() - self._good

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _find(self, presented: str) -> Principal | None:
        if self._known is None or time.monotonic() - self._good > HONOURED_SECONDS:
            return None
        return self._known.find(presented)

    async def _look(self, *, since: float) -> None:
        """Wait for a good look that began after `since`: not long, and not at all while there is a fault."""
        until = since + WAIT_SECONDS
        while self._good <= since and self.fault is None:
            self._start_looking()
            try:
                await asyncio.wait_for(self._ended.wait(), until - time.monotonic())
            except TimeoutError:
                self._note("it does not answer in time")

    def _start_looking(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Look, until it works."""
        pause = LOOK_EVERY_SECONDS
        while self._looking is asyncio.current_task():
            await asyncio.sleep(max(0.0, self._begun + pause - time.monotonic()))
            self._begun = begun = time.monotonic()
            try:
                known = await asyncio.get_running_loop().run_in_executor(self._thread, self._ring.known)
            except Exception as error:  # noqa: BLE001 - whatever it is, the last good look stays
                self._note(str(error))
                pause = RETRY_SECONDS
            else:
                self._known, self._good = known, begun
                self._note(None)
                return
            finally:
                ended, self._ended = self._ended, asyncio.Event()
                ended.set()

    def _note(self, fault: str | None) -> None:
        changed = (fault is None) != (self.fault is None)
        self.fault = fault
        if changed:
            self._report(fault)
