"""Hours and money of a training run, from a plan's tokens/s. Pure."""

from __future__ import annotations

import msgspec

_SECONDS_PER_HOUR = 3600


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """`tokens` to train on, `price` of a device and hour in whatever currency."""

    tokens: float
    price: float | None = None

    def hours(self, tokens_per_second: float) -> float:
        return self.tokens / tokens_per_second / _SECONDS_PER_HOUR

    def cost(self, tokens_per_second: float, devices: int) -> float | None:
        """Of all devices for all hours; None without a price."""
        return None if self.price is None else self.hours(tokens_per_second) * devices * self.price
