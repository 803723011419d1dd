"""Figures and what goes with them: an estimate and its 95 % interval, quality of a build, speed of a service."""

from __future__ import annotations

import msgspec


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure with its 95 % interval [low, high]."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


class Quality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quality of a build on held-out text against a reference (the baseline in transformers float32).

    KL is in nats per token, KL(reference ‖ build). A flip is a token that the reference's top choice got right
    and the build's did not, or the other way round, as a fraction of all tokens. `degenerate` is the fraction of
    sample generations that were empty or looped.
    """

    perplexity: Estimate
    perplexity_ratio: Estimate
    kl_mean: Estimate
    kl_p99: Estimate
    top1_agreement: Estimate
    flips_worse: Estimate
    flips_better: Estimate
    degenerate: float
    tokens: int

    def figures(self) -> dict[str, Estimate]:
        """What was estimated of the build, by name."""
        return {
            name: value
            for name in self.__struct_fields__
            if isinstance(value := getattr(self, name), Estimate) and name != "perplexity_ratio"
        }


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One service under one concurrency. Seconds; rates count output tokens."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    tokens_per_second: Estimate
    ttft_p50: float
    ttft_p95: float
    tpot_p50: float
    tpot_p95: float


class Speed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Speed and footprint of one serving configuration on one machine, through the service."""

    load_seconds: float
    memory_bytes: int
    weights_bytes: int
    loads: tuple[Load, ...]
