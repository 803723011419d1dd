"""Seconds of collectives on a ring: steps × latency + bytes sent ÷ bandwidth (the alpha-beta model).

`size` is the whole tensor in bytes: what an all-reduce sums, what an all-gather ends with.
"""

from __future__ import annotations

from trimtab.planning.devices.machine import Link


def all_gather(size: float, ranks: int, link: Link) -> float:
    """Also a reduce-scatter: (n-1) steps, (n-1)/n of the tensor."""
    if ranks == 1:
        return 0.0
    return (ranks - 1) * (link.latency_seconds + size / ranks / link.bytes_per_second)


def all_reduce(size: float, ranks: int, link: Link) -> float:
    """A reduce-scatter and an all-gather."""
    return 2 * all_gather(size, ranks, link)


def send(size: float, link: Link) -> float:
    """From one rank to its neighbour."""
    return link.latency_seconds + size / link.bytes_per_second
