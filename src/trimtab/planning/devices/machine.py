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


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one kind, `per_node` in a node.

    `gemm_flops` is what large matrix products reach, in floating-point operations a second, before the memory
    traffic of their operands, which comes on top. `gemm_curve` replaces both where products were measured:
    (operations of a product, rate), by size. `attention_flops` is what fused attention reaches of the
    operations that a causal mask leaves. `memory_bytes_per_second` is what element-wise kernels reach.
    `inside` links devices of a node, `between` is each device's share of the network. `overlap`: which part
    of a collective runs beside computation. `measured`: the rates include what software wastes.
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

    def gemm_seconds(self, flops: float, bytes_moved: float) -> float:
        """One matrix product. The traffic is added, not maximised: a tile's loads before its first product and
        stores after its last overlap nothing, which makes products with a short inner dimension slow.
        """
        if self.gemm_curve:
            return flops / self._measured_rate(flops)
        return flops / self.gemm_flops + bytes_moved / self.memory_bytes_per_second

    def traffic_seconds(self, bytes_moved: float) -> float:
        return bytes_moved / self.memory_bytes_per_second

    def link(self, ranks: int, stride: int) -> Link:
        """What a ring of `ranks` that are `stride` devices apart reaches.

        As many of the ring's ranks as share a node also share its network ports, each with its own, and only
        one step in so many leaves the node.
        """
        sharing = max(1, min(ranks, self.per_node // stride))
        if sharing == ranks:
            return self.inside
        return Link(
            latency_seconds=(self.inside.latency_seconds * (sharing - 1) + self.between.latency_seconds)
            / sharing,
            bytes_per_second=min(self.inside.bytes_per_second, sharing * self.between.bytes_per_second),
        )

    def _measured_rate(self, flops: float) -> float:
        """Between two measured sizes the rate is linear in their number of operations; outside it is the last."""
        curve = self.gemm_curve
        at = bisect_left(curve, (flops, 0.0))
        if at == 0:
            return curve[0][1]
        if at == len(curve):
            return curve[-1][1]
        (low, slow), (high, fast) = curve[at - 1], curve[at]
        return slow + (fast - slow) * (flops - low) / (high - low)
