"""How many connections the open files of this process allow: the rest of the service needs some, too.

A gateway that runs out of them can neither start a worker again nor read its keys.
"""

from __future__ import annotations

import resource

from trimtab.service import limits
from trimtab.spec.errors import UsageError

# The loop, the listener, the log, libraries, the catalogue with its journal; connections that are being refused.
_OWN, _REFUSED = 64, 32
# Its socket, its pipes and its lifeline, twice: one that dies is still there when the next one starts.
_EACH_WORKER = 12
# Two processes with two pipes and a lifeline each.
_EACH_MODEL = 8
_FEWEST_CONNECTIONS = 8


def reserve_descriptors(models: int, workers: int) -> int:
    """Raise the soft limit as far as it helps; the connections that fit beside the rest.

    Raises `UsageError` where hardly any would.
    """
    reserve = _OWN + _REFUSED + models * _EACH_MODEL + workers * _EACH_WORKER
    allowed = _raise_soft_limit(limits.MAX_CONNECTIONS + reserve)
    if allowed < reserve + _FEWEST_CONNECTIONS:
        raise UsageError(
            f"This process may open {allowed} files; the service needs at least {reserve + _FEWEST_CONNECTIONS}.",
            where="RLIMIT_NOFILE",
            remedy=f"Raise the limit first: ulimit -n {limits.MAX_CONNECTIONS + reserve}.",
        )
    return min(limits.MAX_CONNECTIONS, allowed - reserve)


def _raise_soft_limit(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if new > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
    return max(soft, new)
