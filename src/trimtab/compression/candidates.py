"""The small grid of shapes worth trying, and what each costs to decode. Pure: no model, no file, no clock.

The costs order candidates and drop hopeless ones before anything is built; claims come from measurement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from trimtab.compression.shapes import FFN_MULTIPLE, Shape, can_cut_heads, possible_kv_heads, whole
from trimtab.models.families import FAMILIES
from trimtab.models.info import ModelInfo

Method = Literal["depth", "width", "kv_groups"]
METHODS: tuple[Method, ...] = ("depth", "width", "kv_groups")
DEPTHS = (1.0, 3 / 4, 1 / 2)
WIDTHS = (1.0, 3 / 4, 1 / 2, 1 / 4)
GROUPS = (1.0, 1 / 2)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one generated token costs: multiply-adds × 2, weights read, and cache read per token of context."""

    flops: int
    weights_bytes: int
    cache_bytes_per_token: int


def cost(info: ModelInfo, shape: Shape, *, weight_bits: int = 8, cache_bits: int = 8) -> Cost:
    """Matrices only: norms, biases and the lookup of one embedding row do not count. The head does."""
    per_group = info.heads // info.kv_heads
    queries, keys = shape.kv_heads * per_group * info.head_dim, shape.kv_heads * info.head_dim
    attention = info.hidden * (2 * queries + 2 * keys)
    ffn = info.hidden * shape.ffn * (len(FAMILIES[info.family].gates) + 1)
    weights = len(shape.layers) * (attention + ffn) + info.vocabulary * info.hidden
    return Cost(
        flops=2 * weights,
        weights_bytes=weights * weight_bits // 8,
        cache_bytes_per_token=len(shape.layers) * 2 * keys * cache_bits // 8,
    )


def relative_cost(info: ModelInfo, shape: Shape) -> float:
    """Cost of a token against the whole model's at equal bits. Engines reach at best its inverse in speed."""
    return cost(info, shape).flops / cost(info, whole(info)).flops


def _width(ffn: int, fraction: float) -> int:
    if fraction == 1:
        return ffn
    return min(ffn, max(FFN_MULTIPLE, round(ffn * fraction / FFN_MULTIPLE) * FFN_MULTIPLE))


def _heads(info: ModelInfo, fraction: float) -> int:
    """The possible count that is nearest, the larger of two."""
    return min(possible_kv_heads(info), key=lambda count: (abs(count - info.kv_heads * fraction), -count))


def keep_layers(count: int, removal: Sequence[int]) -> tuple[int, ...]:
    """The `count` layers that are left when layers go in the order of `removal` (every layer, first to go first)."""
    return tuple(sorted(removal[len(removal) - count :]))


def shapes(
    info: ModelInfo,
    removal: Sequence[int],
    *,
    methods: Literal["auto"] | Collection[str] = "auto",
    most: float = 1.0,
) -> list[Shape]:
    """The grid, cheapest last, each shape once, the whole model never.

    `removal` is the order in which layers go (`pruning.depth.removal_order`), `methods` what may be cut, and
    `most` the largest relative cost that is still of use: 0.4 where decoding has to become 2.5 times as fast and
    only shape can do it.
    """
    allowed = METHODS if methods == "auto" else tuple(method for method in METHODS if method in methods)
    depths = DEPTHS if "depth" in allowed else (1.0,)
    widths = WIDTHS if "width" in allowed else (1.0,)
    groups = GROUPS if "kv_groups" in allowed and can_cut_heads(info) else (1.0,)
    grid = {
        Shape(
            layers=keep_layers(max(1, round(info.layers * depth)), removal),
            ffn=_width(info.ffn, width),
            kv_heads=_heads(info, group),
        )
        for depth in depths
        for width in widths
        for group in groups
    }
    useful = [s for s in grid - {whole(info)} if relative_cost(info, s) <= most]
    return sorted(useful, key=lambda s: (-cost(info, s).flops, s.layers, s.ffn, s.kv_heads))
