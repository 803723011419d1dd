"""How a model is split over devices: the one record of a recipe's `parallel:`, of `--layout` and of plans."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from trimtab.spec.errors import UsageError

Schedule = Literal["gpipe", "1f1b", "interleaved", "zero_bubble"]
Recompute = Literal["none", "selective", "full"]

_SWITCHES = {"on": True, "off": False, True: True, False: False}
_WORDS = {"schedule": get_args(Schedule), "recompute": get_args(Recompute)}


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is not named takes the least: sizes 1, switches off.

    Sizes of the axes of the device mesh, whose product is `world`:
    `data` replicas; `shard` ranks that share parameters, gradients and optimizer state (FSDP; with `data` > 1
    it is hybrid); `context` ranks that share a sequence; `tensor` ranks that share every layer; `pipeline`
    stages. The rest says how:
    `reshard` frees gathered parameters after the forward pass (ZeRO-3, else ZeRO-2); `zero` shares over `data`
    the optimizer state (1) and gradients (2); `sequence` splits activations between the tensor-parallel
    layers; `virtual` stages per rank; `micro_batch` sequences per forward pass (None: not chosen, which plans
    read as 1, and training as all of a rank's share); `recompute` activations in the backward pass.
    """

    data: int = 1
    shard: int = 1
    reshard: bool = False
    zero: int = 0
    tensor: int = 1
    sequence: bool = False
    pipeline: int = 1
    virtual: int = 1
    schedule: Schedule = "1f1b"
    context: int = 1
    micro_batch: int | None = None
    recompute: Recompute = "none"

    @property
    def world(self) -> int:
        """Number of processes, one to a device."""
        return self.data * self.shard * self.context * self.tensor * self.pipeline

    @property
    def whole(self) -> bool:
        """Whether every rank holds all weights, gradients and optimizer state."""
        return not self.zero and self.world == self.data * self.context

    @property
    def length_multiple(self) -> int:
        """What the length of sequences must be a multiple of, so that ranks can share them evenly."""
        return self.context * (self.tensor if self.sequence else 1)

    def __str__(self) -> str:
        """As `parse_layout` reads it: what is not the default, or `data=1`."""
        named = []
        for key, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True):
            value = getattr(self, key)
            if value != default:
                named.append(f"{key}={('on' if value else 'off') if isinstance(value, bool) else value}")
        return ",".join(named) or "data=1"


def parse_layout(text: str, *, where: str = "layout") -> Layout:
    """`data=2,tensor=4,sequence=on` → Layout. Raises `UsageError` naming the key and what it takes."""
    values: dict[str, object] = {}
    for item in text.split(","):
        key, _, value = item.strip().partition("=")
        if key in values:
            raise UsageError(f"{key} is written twice.", where=where, remedy="Keep one of the two.")
        values[key] = int(value) if re.fullmatch("[0-9]{1,9}", value) else value
    return layout_from(values, where=where)


def layout_from(values: Mapping[str, object], *, where: str = "layout") -> Layout:
    """A mapping of a recipe or a JSON file → Layout, checked. Raises `UsageError`."""
    checked = {key: _value(key, value, where) for key, value in values.items()}
    return check_layout(msgspec.convert(checked, Layout), where=where)


def _value(key: str, value: object, where: str) -> object:
    if key not in Layout.__struct_fields__:
        near = difflib.get_close_matches(key, Layout.__struct_fields__, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(Layout.__struct_fields__)}."
        raise UsageError(f"{key!r} is no key of a layout.", where=where, remedy=remedy)
    if key in ("reshard", "sequence"):
        if isinstance(value, str | bool) and value in _SWITCHES:
            return _SWITCHES[value]
        raise UsageError(f"{key}={value} is no switch.", where=where, remedy="Use on or off.")
    if key in _WORDS:
        if value in _WORDS[key]:
            return value
        raise UsageError(f"{key}={value} is unknown.", where=where, remedy=f"Use {', '.join(_WORDS[key])}.")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise UsageError(f"{key}={value!r} is not a whole number.", where=where, remedy=f"Such as {key}=2.")


def check_layout(layout: Layout, *, where: str) -> Layout:
    """Raises `UsageError` for what no model could run; what a given model cannot is said where it is known."""
    for key in ("data", "shard", "tensor", "pipeline", "virtual", "context"):
        if not 1 <= getattr(layout, key) <= 1_000_000:
            raise UsageError(
                f"{key}={getattr(layout, key)} is not a number of processes.",
                where=where,
                remedy="Use 1 or more.",
            )
    if layout.micro_batch is not None and layout.micro_batch < 1:
        raise UsageError("micro_batch counts sequences.", where=where, remedy="Use 1 or more.")
    if not 0 <= layout.zero <= 2:
        raise UsageError(
            f"zero={layout.zero}: optimizer state (1) and gradients (2) are shared over data.",
            where=where,
            remedy="To share parameters too (stage 3), use shard=N,reshard=on.",
        )
    for key, needs in (("reshard", "shard"), ("sequence", "tensor")):
        if getattr(layout, key) and getattr(layout, needs) == 1:
            raise UsageError(f"{key}=on needs {needs} above 1.", where=where, remedy=f"Such as {needs}=2.")
    _check_stages(layout, where)
    return layout


def _check_stages(layout: Layout, where: str) -> None:
    if layout.virtual > 1 and layout.pipeline == 1:
        raise UsageError(
            "virtual stages divide a pipeline.", where=where, remedy="Use pipeline=2 or more, or virtual=1."
        )
    if layout.virtual > 1 and layout.schedule in ("gpipe", "1f1b"):
        raise UsageError(
            f"schedule={layout.schedule} has one stage a rank.",
            where=where,
            remedy="Use schedule=interleaved or zero_bubble with virtual stages.",
        )
    if layout.schedule == "interleaved" and layout.pipeline > 1 and layout.virtual == 1:
        raise UsageError(
            "schedule=interleaved needs two or more stages a rank.", where=where, remedy="Add virtual=2."
        )


def refuse_unrun(layout: Layout) -> None:
    """Raises `UsageError` for what can be planned for and not be run, whatever the model."""
    if layout.zero == 2:
        raise UsageError(
            "zero=2 is planned for, not run.",
            where="parallel.zero",
            remedy="Use zero=1 or shard=N.",
        )
    if layout.zero and (layout.shard > 1 or layout.tensor > 1):
        raise UsageError(
            "zero=1 shares optimizer state over replicas of whole weights.",
            where="parallel.zero",
            remedy="Use shard=N beside tensor; it shares the optimizer state as well.",
        )


def refuse_muon(layout: Layout) -> None:
    """Raises `UsageError` where ranks do not hold whole matrices."""
    if not layout.whole:
        raise UsageError(
            f"Muon makes whole matrices orthogonal, and {layout} cuts them or their state.",
            where="training.optimizer",
            remedy="Use optimizer: adamw, or a layout of data and context alone.",
        )
