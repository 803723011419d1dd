"""The devices that a plan is for, as the cost models ask them: seconds of a product, of memory traffic, of a
collective. Made from an accelerator's datasheet (`accelerators`) or from what was measured (`profiles`).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal

import msgspec

# How a GPT was trained by those who published it: see `software`.
Generation = Literal["classic", "fused"]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Between two neighbours of a ring, one direction: seconds a step, and bytes a second that are reached."""

    latency_seconds: float
    bytes_per_second: float


class HostCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the host spends under one strategy, small messages included: a layer and micro-batch, and a step."""

    layer_seconds: float
    step_seconds: float


class HostMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What a process that trains by one strategy holds beside its tensors: code, buffers and caches in bytes; and of
    the tensors that come and go, what its allocator keeps besides, as a fraction.
    """

    process_bytes: int
    spare: float


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one kind, `per_node` in a node.

    `gemm_flops` is what large matrix products reach, in floating-point operations a second, before the memory
    traffic of their operands, which comes on top. `gemm_curve` replaces both where products were measured:
    (operations of a product, rate), by size. `attention_flops` is what fused attention reaches of the
    operations that a causal mask leaves. `memory_bytes_per_second` is what element-wise kernels reach.
    `inside` links devices of a node, `between` is each device's share of the network. `overlap`: which part
    of a collective runs beside computation. `measured`: the rates include what software wastes. `traffic_curve`
    replaces the memory bandwidth for tensors inside of layers: (bytes of a tensor, rate), by size, since small ones
    stay in caches. `host` and `host_memory`, by strategy, are what a processor that computes itself spends and holds
    beside; `collectives` are links by collective.
    """

    name: str
    peak_flops: float
    gemm_flops: float
    attention_flops: float
    memory_bytes: int
    memory_bytes_per_second: float
    inside: Link
    between: Link
    per_node: int
    launch_seconds: float
    step_seconds: float = 0.0
    overlap: float = 1.0
    process_bytes: int = 0
    memory_factor: float = 1.0
    generation: Generation = "fused"
    measured: bool = False
    gemm_curve: tuple[tuple[float, float], ...] = ()
    traffic_curve: tuple[tuple[float, float], ...] = ()
    host: dict[str, HostCost] = {}
    host_memory: dict[str, HostMemory] = {}
    collectives: dict[str, Link] = {}

    def gemm_seconds(self, flops: float, bytes_moved: float) -> float:
        """One matrix product. The traffic is added, not maximised: a tile's loads before its first product and
        stores after its last overlap nothing, which makes products with a short inner dimension slow.
        """
        if self.gemm_curve:
            return flops / _between(self.gemm_curve, flops)
        return flops / self.gemm_flops + bytes_moved / self.memory_bytes_per_second

    def traffic_seconds(self, bytes_moved: float, each: float | None = None) -> float:
        """Element-wise kernels over tensors of `each` bytes (None: far larger than any cache)."""
        if self.traffic_curve and each is not None:
            return bytes_moved / _between(self.traffic_curve, each)
        return bytes_moved / self.memory_bytes_per_second

    def link(self, ranks: int, stride: int, operation: str = "all_reduce") -> Link:
        """What a ring of `ranks` that are `stride` devices apart reaches.

        As many of the ring's ranks as share a node also share its network ports, each with its own, and only
        one step in so many leaves the node.
        """
        sharing = max(1, min(ranks, self.per_node // stride))
        if sharing == ranks:
            return self.collectives.get(operation, self.inside)
        return Link(
            latency_seconds=(self.inside.latency_seconds * (sharing - 1) + self.between.latency_seconds)
            / sharing,
            bytes_per_second=min(self.inside.bytes_per_second, sharing * self.between.bytes_per_second),
        )


def _between(curve: tuple[tuple[float, float], ...], size: float) -> float:
    """The rate at a size: linear between two that were measured, outside of them the nearest."""
    at = bisect_left(curve, (size, 0.0))
    if at == 0:
        return curve[0][1]
    if at == len(curve):
        return curve[-1][1]
    (low, slow), (high, fast) = curve[at - 1], curve[at]
    return slow + (fast - slow) * (size - low) / (high - low)
