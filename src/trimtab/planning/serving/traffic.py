"""What a service has to bear and how well: the question of `plan serve`, as data."""

from __future__ import annotations

import math

import msgspec

from trimtab.spec.errors import UsageError

MOST_TOKENS = 1 << 24


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of `prompt_tokens` in and `output_tokens` out. Exactly one of the two:

    `rate`, requests per second that arrive at random and independently (Poisson), or `concurrency`, clients that
    each send their next request as soon as the last one is answered.
    """

    prompt_tokens: int
    output_tokens: int
    rate: float | None = None
    concurrency: int | None = None

    def check(self, context_length: int | None) -> Traffic:
        """Raises `UsageError` for traffic that cannot be, or (None: not known) that the model cannot answer."""
        if (self.rate is None) == (self.concurrency is None):
            raise UsageError(
                "traffic is a rate or a number of clients.",
                where="traffic",
                remedy="Give --rate (requests per second) or --concurrency, one of the two.",
            )
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise UsageError(f"a rate of {self.rate} requests per second is none.", where="--rate")
        for name in ("concurrency", "prompt_tokens", "output_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{value} is too few.", where=f"--{name.replace('_', '-')}")
        room = (context_length or MOST_TOKENS) - self.output_tokens
        if self.prompt_tokens > room:
            nearest = f"at most {room} prompt tokens with {self.output_tokens} of output"
            together = self.prompt_tokens + self.output_tokens
            raise UsageError(
                f"{together} tokens together exceed the context of {room + self.output_tokens}.",
                where="traffic",
                remedy=f"It takes {nearest}." if room > 0 else "Ask for a shorter answer.",
            )
        return self


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the service, in seconds, bytes and output tokens per second; None = not limited."""

    ttft_p95: float | None = None
    tpot_p95: float | None = None
    memory_bytes: int | None = None
    tokens_per_second: float | None = None

    def check(self) -> Level:
        """Raises `UsageError` for a limit that nothing could hold. Returns itself."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                flag = f"--{name.removesuffix('_bytes').replace('_', '-')}"
                raise UsageError(
                    f"a limit of {value:g} cannot be held.", where=flag, remedy="Give more than 0."
                )
        return self
