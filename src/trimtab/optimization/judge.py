"""From measurements to a decision: gates, the Pareto front, the winner and a reason for every loser. Pure.

On quality the bad end of the 95 % interval decides, on speed the median over rounds. Quality is held against the
better of baseline and control, so that a candidate is never praised for training that the baseline was denied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from trimtab.spec.measures import Estimate, Load
from trimtab.spec.recipe import Recipe
from trimtab.spec.units import format_bytes, format_duration
from trimtab.spec.verdict import Candidate

MAX_DEGENERATE = 0.1


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A measured candidate with its paired ratios: `quality_ratio` = perplexity ÷ the better of baseline and control,
    `speedup` = output tokens/s at the traffic's concurrency ÷ the baseline's, `noise` the same of the baseline against
    itself: a speed-up that lies within it is none.
    """

    candidate: Candidate
    quality_ratio: Estimate
    speedup: Estimate
    noise: Estimate


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`winner` is a candidate's name, or None with `reasons` and the `nearest` feasible level per limit."""

    candidates: tuple[Candidate, ...]
    winner: str | None
    reasons: tuple[str, ...] = ()
    nearest: dict[str, str] = {}


def load_at(candidate: Candidate, concurrency: int) -> Load:
    if candidate.speed is None:
        raise ValueError(f"{candidate.name} was not measured")
    return next(load for load in candidate.speed.loads if load.concurrency == concurrency)


class _Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as it stands for one candidate: how it reads, whether it holds, and how far off it is (≥ 1)."""

    key: str
    text: str
    holds: bool
    excess: float
    level: str


def _limits(recipe: Recipe, contender: Contender) -> list[_Limit]:
    """Every limit that the recipe sets, against what was measured."""
    slo, load = recipe.slo, load_at(contender.candidate, recipe.traffic.concurrency)
    speed, quality = contender.candidate.speed, contender.candidate.quality
    limits = [_at_least("quality.retain", 1 / contender.quality_ratio.high, recipe.quality.retain, _percent)]
    if quality is not None:
        limits.append(_at_most("generation sanity", quality.degenerate, MAX_DEGENERATE, _percent))
    if slo.ttft_p95 is not None:
        limits.append(_at_most("slo.ttft_p95", load.ttft_p95, slo.ttft_p95, format_duration))
    if slo.tpot_p95 is not None:
        limits.append(_at_most("slo.tpot_p95", load.tpot_p95, slo.tpot_p95, format_duration))
    if slo.memory is not None and speed is not None:
        limits.append(_at_most("slo.memory", speed.memory_bytes, slo.memory, format_bytes))
    if slo.tokens_per_second is not None:
        rate = load.tokens_per_second.value
        limits.append(_at_least("slo.tokens_per_second", rate, slo.tokens_per_second, "{:.4g}".format))
    if slo.speedup is not None:
        limits.append(_at_least("slo.speedup", contender.speedup.value, slo.speedup, "{:.3g}".format))
        limits += [_clear_of_noise(contender)] if slo.speedup > 1 else []
    return limits


def _clear_of_noise(contender: Contender) -> _Limit:
    """A speed-up that was asked for has to exceed what the baseline's service showed against itself."""
    speedup, noise = contender.speedup, contender.noise
    return _Limit(
        key="A/A noise",
        text=f"the speed-up, {speedup}, does not stand clear of the A/A noise, {noise}",
        holds=speedup.low > noise.high,
        excess=noise.high / speedup.low,
        level=f"{speedup.low:.3g}",
    )


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}"


def _at_most(key: str, value: float, limit: float, show: Callable[[float], str]) -> _Limit:
    text = f"{key} is {show(value)}, the limit is {show(limit)}"
    excess = value / limit if limit else float("inf")
    return _Limit(key=key, text=text, holds=value <= limit, excess=excess, level=show(value))


def _at_least(key: str, value: float, limit: float, show: Callable[[float], str]) -> _Limit:
    text = f"{key} is {show(value)}, {show(limit)} is asked"
    return _Limit(key=key, text=text, holds=value >= limit, excess=limit / value, level=show(value))


def _merit(recipe: Recipe, candidate: Candidate) -> float:
    """What the objective says of a candidate; more is better."""
    load = load_at(candidate, recipe.traffic.concurrency)
    if recipe.objective == "latency":
        return -load.tpot_p50
    if recipe.objective == "memory":
        return -float(candidate.speed.memory_bytes if candidate.speed else 0)
    return load.tokens_per_second.value


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (speed, perplexity) points no other beats in both: more speed and less perplexity are better."""
    return [
        not any(s >= speed and p <= perplexity and (s, p) != (speed, perplexity) for s, p in points)
        for speed, perplexity in points
    ]


def decide(recipe: Recipe, contenders: Sequence[Contender]) -> Decision:
    """Gates first, then the best in the objective among what holds every limit."""
    limits = {c.candidate.name: _limits(recipe, c) for c in contenders}
    holding = [c.candidate for c in contenders if all(limit.holds for limit in limits[c.candidate.name])]
    best = max(holding, key=lambda candidate: _merit(recipe, candidate), default=None)
    judged = tuple(
        msgspec.structs.replace(
            c.candidate, reason=_reason(recipe, c.candidate, limits[c.candidate.name], best)
        )
        for c in contenders
    )
    if best is not None:
        return Decision(candidates=judged, winner=best.name)
    return Decision(candidates=judged, winner=None, **_infeasible(limits))


def _reason(recipe: Recipe, candidate: Candidate, limits: list[_Limit], best: Candidate | None) -> str:
    broken = [limit.text for limit in limits if not limit.holds]
    if broken:
        return "; ".join(broken)
    if best is None or candidate.name == best.name:
        return ""
    ours, theirs = (load_at(c, recipe.traffic.concurrency).tokens_per_second.value for c in (candidate, best))
    if recipe.objective == "throughput":
        return f"holds every limit, but serves {ours / theirs:.2f} × the winner's tokens/s"
    return f"holds every limit, but is behind the winner in {recipe.objective}"


def _infeasible(limits: dict[str, list[_Limit]]) -> dict:
    """Reasons and the nearest feasible level, read off the candidate that misses its worst limit by least."""
    if not limits:
        return {"reasons": ("no candidate could be built",)}
    name = min(limits, key=lambda n: max(limit.excess for limit in limits[n]))
    broken = [limit for limit in limits[name] if not limit.holds]
    return {
        "reasons": tuple(f"{name}, the nearest: {limit.text}" for limit in broken),
        "nearest": {limit.key: limit.level for limit in broken},
    }
