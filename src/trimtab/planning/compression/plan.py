"""`plan compress`: which steps can meet a service level on one engine, how large and fast the result would be, and
what it would risk. Pure.

Speed comes from shapes that were measured on that engine (`shape_steps`), replayed under the traffic; what
quality would cost is not predicted but named, by what the same cut has cost others (`evidence`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from trimtab.planning.compression.evidence import HARD_REMOVAL, INT4_RISK, INT8_RISK, Refusal, recovery
from trimtab.planning.compression.shape_steps import Predicted, ShapeModel, Sizes
from trimtab.planning.serving.limits import broken, nearest_flags
from trimtab.planning.serving.queueing import completion_rates
from trimtab.planning.serving.replay import Batching, Replayed, replay
from trimtab.planning.serving.traffic import Level, Traffic
from trimtab.spec.engine_profile import CompressionProfile
from trimtab.spec.serving import WeightFormat

Risk = Literal["none", "low", "moderate", "high"]
# Without training: the refit halves a layer's error, and a tenth of the weights is what it makes good.
LOW_REMOVAL, MODERATE_REMOVAL = 0.10, 0.25
# Options are many, and their latencies are wanted to a few percent.
REPLAYED_TOKENS = 25_000
_RISKS: tuple[Risk, ...] = ("none", "low", "moderate", "high")


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One way to compress. `speedup` is output tokens/s under the traffic, and `speedup_alone` of one request at a
    time, ÷ the whole model's as it is served now. `distill_tokens` (least, most) as in the case that `evidence`
    names; None: none needed, or none published. `reason`: which limit it breaks.
    """

    sizes: Sizes
    steps: tuple[str, ...]
    parameters: int
    removed: float
    weights_bytes: int
    memory_bytes: int
    speedup: float
    speedup_alone: float
    expected: Replayed
    risk: Risk
    distill_tokens: tuple[int, int] | None
    evidence: tuple[str, ...]
    reason: str | None


class CompressionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`options` that hold every limit come first, the least risky before the others; `refused` steps gain nothing."""

    feasible: bool
    reason: str | None
    nearest: str | None
    traffic: Traffic
    level: Level
    speedup: float | None
    baseline: Option
    options: tuple[Option, ...]
    refused: tuple[Refusal, ...]


def compression_plan(
    profile: CompressionProfile,
    shapes: Sequence[tuple[int, int, int]],
    traffic: Traffic,
    level: Level | None = None,
    *,
    speedup: float | None = None,
    formats: Sequence[WeightFormat] = (),
    refused: Sequence[Refusal] = (),
) -> CompressionPlan:
    """`shapes` as (layers, FFN width, KV heads), the whole one among them or not; each in the model's own format and in
    `formats`.

    Raises `UsageError` for traffic that the model cannot answer and for shapes that nothing measured speaks of.
    """
    whole = profile.shapes[0].profile
    traffic.check(whole.context_length)
    search = _Search(profile, traffic, level or Level(), speedup)
    wanted = {(search.whole.layers, search.whole.ffn, search.whole.kv_heads), *shapes}
    options = [
        search.option(Sizes(layers=layers, ffn=ffn, kv_heads=heads, weight_format=bits))
        for layers, ffn, heads in wanted
        for bits in dict.fromkeys((search.whole.weight_format, *formats))
    ]
    options.sort(key=lambda o: (o.reason is not None, _RISKS.index(o.risk), o.removed, -o.speedup))
    feasible = options[0].reason is None
    return CompressionPlan(
        feasible=feasible,
        reason=None if feasible else "nothing that was asked for holds every limit.",
        nearest=None if feasible else _nearest(options, level or Level(), speedup),
        traffic=traffic,
        level=level or Level(),
        speedup=speedup,
        baseline=search.baseline,
        options=tuple(options),
        refused=tuple(refused),
    )


class _Search:
    """Predictions of one model under one traffic, relative to the whole model as it is served."""

    def __init__(
        self, profile: CompressionProfile, traffic: Traffic, level: Level, speedup: float | None
    ) -> None:
        self._model, self._traffic, self._level, self._wanted = ShapeModel(profile), traffic, level, speedup
        serving = profile.shapes[0].profile.serving
        self._workers = serving.replicas
        self._batching = Batching(
            max_batch=serving.max_batch,
            max_batch_tokens=serving.max_batch_tokens,
            max_queue=serving.max_queue,
        )
        self._base: Predicted = self._model.predict(self.whole)
        self._base_rates = self._rates(self._base)
        self.baseline = self.option(self.whole)

    @property
    def whole(self) -> Sizes:
        return self._model.whole

    def option(self, sizes: Sizes) -> Option:
        predicted = self._model.predict(sizes)
        expected = replay(
            predicted.steps, self._batching, self._traffic, workers=self._workers, tokens=REPLAYED_TOKENS
        )
        many, alone = (
            ours / theirs for ours, theirs in zip(self._rates(predicted), self._base_rates, strict=True)
        )
        removed = 1 - predicted.parameters / self._base.parameters
        risk, tokens, evidence = _quality(sizes, self.whole, removed, predicted.parameters)
        option = Option(
            sizes=sizes,
            steps=_steps(sizes, self.whole),
            parameters=predicted.parameters,
            removed=removed,
            weights_bytes=predicted.weights_bytes,
            memory_bytes=predicted.memory_bytes,
            speedup=many,
            speedup_alone=alone,
            expected=expected,
            risk=risk,
            distill_tokens=tokens,
            evidence=evidence,
            reason=None,
        )
        return msgspec.structs.replace(option, reason=_broken(option, self._level, self._wanted))

    def _rates(self, predicted: Predicted) -> tuple[float, float]:
        """Requests per second of a worker under the traffic's concurrency (at its best, for a rate), and alone."""
        rates = completion_rates(
            predicted.steps,
            prompt_tokens=self._traffic.prompt_tokens,
            output_tokens=self._traffic.output_tokens,
            max_batch=self._batching.max_batch,
        )
        if self._traffic.concurrency is None:
            return max(rates), rates[0]
        share = min(max(1, round(self._traffic.concurrency / self._workers)), len(rates))
        return rates[share - 1], rates[0]


def _steps(sizes: Sizes, whole: Sizes) -> tuple[str, ...]:
    names = (("depth", "layers"), ("width", "ffn"), ("kv_groups", "kv_heads"))
    cuts = [
        f"{name} {getattr(whole, key)} to {getattr(sizes, key)}"
        for name, key in names
        if getattr(sizes, key) < getattr(whole, key)
    ]
    if sizes.weight_format != whole.weight_format:
        cuts.append(sizes.weight_format)
    return tuple(cuts) or ("as it is",)


def _quality(
    sizes: Sizes, whole: Sizes, removed: float, parameters: int
) -> tuple[Risk, tuple[int, int] | None, tuple[str, ...]]:
    """Risk, tokens of distillation and what both rest on."""
    evidence: list[str] = []
    risk: Risk = "none"
    if sizes.weight_format != whole.weight_format and sizes.weight_format in ("int8", "int4"):
        low = sizes.weight_format == "int8"
        risk = "low" if low else "moderate"
        evidence.append(f"{sizes.weight_format}: {INT8_RISK if low else INT4_RISK}")
    if removed <= 0:
        return risk, None, tuple(evidence)
    cut: Risk = "low" if removed <= LOW_REMOVAL else "moderate" if removed <= MODERATE_REMOVAL else "high"
    case = recovery(removed)
    if case is None:
        evidence.append(
            f"{removed:.0%} removed: beyond {HARD_REMOVAL:.0%} in one go is hard to bring back; no published case."
        )
        return "high", None, tuple(evidence)
    evidence.append(f"{removed:.0%} removed: {case.source}")
    tokens = (math.ceil(case.tokens[0] * parameters), math.ceil(case.tokens[1] * parameters))
    worse = max(_RISKS.index(risk), _RISKS.index(cut))
    return _RISKS[worse], tokens, tuple(evidence)


def _broken(option: Option, level: Level, speedup: float | None) -> str | None:
    if speedup is not None and option.speedup < speedup:
        return f"{option.speedup:.2f} times as fast, not {speedup:g} times."
    return broken(level, option.expected, option.memory_bytes)


def _nearest(options: Sequence[Option], level: Level, speedup: float | None) -> str:
    """The fastest option, as the flags that it would hold."""
    best = max(options, key=lambda option: option.speedup)
    flags = nearest_flags(level, best.expected, best.memory_bytes)
    if speedup is not None and best.speedup < speedup:
        flags.insert(0, f"--speedup {math.floor(best.speedup * 100) / 100:g}")
    if not flags:
        return "Each limit can be had alone, not all together."
    return f"{' '.join(flags)} can be had: {', '.join(best.steps)}."
