"""How large a decoder is to become: one record, uniform over layers, so that the result stays a stock model.

Torch-free and pure. Which neurons and heads go is decided elsewhere, from activations; which layers stay is
part of the shape.
"""

from __future__ import annotations

import msgspec

from trimtab.models.families import FAMILIES
from trimtab.models.info import ModelInfo
from trimtab.spec.errors import UsageError

# Engines pad or fall off their fast path where an FFN's width is no multiple of this.
FFN_MULTIPLE = 16


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """`layers` are the indices that stay, ascending; `ffn` and `kv_heads` hold for each of them.

    Query heads follow their KV head.
    """

    layers: tuple[int, ...]
    ffn: int
    kv_heads: int

    @property
    def sizes(self) -> dict[str, int]:
        """`{"layers": 4, "ffn": 384, "kv_heads": 1}`."""
        return {"layers": len(self.layers), "ffn": self.ffn, "kv_heads": self.kv_heads}

    def __str__(self) -> str:
        return f"{len(self.layers)} layers, FFN {self.ffn}, {self.kv_heads} KV heads"


def whole(info: ModelInfo) -> Shape:
    """The shape that the model has."""
    return Shape(layers=tuple(range(info.layers)), ffn=info.ffn, kv_heads=info.kv_heads)


def can_cut_heads(info: ModelInfo) -> bool:
    """Whether the family's config can say that there are fewer heads than hidden ÷ head_dim; GPT-2's cannot."""
    return bool(FAMILIES[info.family].kv_cuts)


def possible_kv_heads(info: ModelInfo) -> tuple[int, ...]:
    """Counts of KV heads, ascending, that a model can be cut to so that stock transformers takes its config."""
    if not can_cut_heads(info):
        return (info.kv_heads,)
    per_group = info.heads // info.kv_heads
    free = FAMILIES[info.family].free_head_dim
    return tuple(
        count
        for count in range(1, info.kv_heads + 1)
        if free or count == info.kv_heads or info.hidden % (count * per_group) == 0
    )


def check(shape: Shape, info: ModelInfo) -> Shape:
    """Raises `UsageError` for a shape that the model cannot be cut to. Returns the shape."""
    kept = shape.layers
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= info.layers:
        raise UsageError(
            f"the layers to keep, {list(kept)}, are not ascending indices of {info.layers} layers.",
            where="layers",
            remedy=f"Keep 1 to {info.layers} layers.",
        )
    if not (shape.ffn == info.ffn or (0 < shape.ffn < info.ffn and shape.ffn % FFN_MULTIPLE == 0)):
        raise UsageError(
            f"an FFN of width {info.ffn} cannot be cut to {shape.ffn}.",
            where="ffn",
            remedy=f"Give a multiple of {FFN_MULTIPLE} below {info.ffn}.",
        )
    if not 0 < shape.kv_heads <= info.kv_heads:
        raise UsageError(
            f"{info.kv_heads} KV heads cannot become {shape.kv_heads}.",
            where="kv_heads",
            remedy=f"Keep 1 to {info.kv_heads}.",
        )
    if shape.kv_heads != info.kv_heads and not can_cut_heads(info):
        raise UsageError(
            f"a {info.family} config cannot say that heads were removed.",
            where="kv_heads",
            remedy=f"Keep all {info.kv_heads}; cut layers or the FFN.",
        )
    if shape.kv_heads not in (possible := possible_kv_heads(info)):
        heads = shape.kv_heads * (info.heads // info.kv_heads)
        below = [count for count in possible if count < shape.kv_heads]
        above = [count for count in possible if count > shape.kv_heads]
        raise UsageError(
            f"{shape.kv_heads} KV heads leave {heads} query heads, and stock transformers takes no {info.family} "
            f"whose hidden size of {info.hidden} is no multiple of them.",
            where="kv_heads",
            remedy=f"Keep {' or '.join(str(count) for count in (*below[-1:], *above[:1]))}.",
        )
    return shape
