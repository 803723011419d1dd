"""How a model is split over devices: the record in a recipe's `parallel:` and in `--layout`."""

from __future__ import annotations

import re

import msgspec

from trimtab.spec.errors import UsageError


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`data` processes each hold the whole model and a share of every batch. What is not named takes the least."""

    data: int = 1

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.data

    def __str__(self) -> str:
        return f"data={self.data}"


def check_layout(layout: Layout, *, where: str) -> Layout:
    if layout.data < 1:
        raise UsageError(
            f"data={layout.data} is not a number of processes.", where=where, remedy="Use 1 or more."
        )
    return layout


def parse_layout(text: str) -> Layout:
    """`data=2` → Layout. Raises `UsageError` for unknown keys and values that are not whole numbers."""
    values: dict[str, int] = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key not in Layout.__struct_fields__:
            raise UsageError(
                f"{key!r} is no key of a layout.",
                where="layout",
                remedy=f"Known: {', '.join(Layout.__struct_fields__)}.",
            )
        if not re.fullmatch("[0-9]{1,9}", value):
            raise UsageError(
                f"{key}={value!r} is not a whole number.", where="layout", remedy="Such as data=2."
            )
        values[key] = int(value)
    return check_layout(Layout(**values), where="layout")
