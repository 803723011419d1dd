import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.optimization.judge import Contender, decide, pareto
from trimtab.spec.measures import Estimate, Load, Quality, Speed
from trimtab.spec.recipe import Recipe
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.verdict import Candidate

RECIPE = """
version: 1
name: it
model: some-model
data: {test: {text: t.txt}}
quality: {retain: 95%}
"""


def _recipe(more: str = "") -> Recipe:
    return Recipe.parse(RECIPE + more)


def _point(value: float, spread: float = 0.0) -> Estimate:
    return Estimate(value=value, low=value - spread, high=value + spread)


def _contender(
    name: str,
    *,
    rate: float,
    ratio: Estimate,
    speedup: Estimate | None = None,
    noise: Estimate | None = None,
    memory: int = 100,
) -> Contender:
    loads = tuple(
        Load(
            concurrency=level,
            prompt_tokens=1,
            output_tokens=1,
            tokens_per_second=_point(rate),
            ttft_p50=0.01,
            ttft_p95=0.02,
            tpot_p50=1 / rate,
            tpot_p95=2 / rate,
        )
        for level in (1, 16)
    )
    one = _point(1.0)
    quality = Quality(
        perplexity=_point(50.0 * ratio.value),
        perplexity_ratio=ratio,
        kl_mean=one,
        kl_p99=one,
        top1_agreement=one,
        flips_worse=one,
        flips_better=one,
        degenerate=0.0,
        tokens=1000,
    )
    candidate = Candidate(
        name=name,
        role="candidate",
        shape={},
        parameters=1,
        weights_bytes=1,
        serving=ServingConfiguration(),
        quality=quality,
        speed=Speed(load_seconds=1.0, memory_bytes=memory, weights_bytes=1, loads=loads),
    )
    return Contender(
        candidate=candidate,
        quality_ratio=ratio,
        speedup=speedup or _point(2.0),
        noise=noise or _point(1.0, 0.02),
    )


def test_the_fastest_that_holds_every_limit_wins_and_every_loser_has_a_reason() -> None:
    decision = decide(
        _recipe(),
        [
            _contender("slow", rate=100, ratio=_point(1.0)),
            _contender("fast", rate=300, ratio=_point(1.02)),
            _contender("bad", rate=900, ratio=_point(1.2)),
        ],
    )
    assert decision.winner == "fast"
    reasons = {c.name: c.reason for c in decision.candidates}
    assert reasons["fast"] == ""
    assert "0.33 × the winner's" in reasons["slow"]
    assert "quality.retain" in reasons["bad"]
    assert "95.0%" in reasons["bad"]


def test_the_bad_end_of_the_interval_decides() -> None:
    sure = _contender("sure", rate=100, ratio=_point(1.04, 0.01))
    unsure = _contender("unsure", rate=200, ratio=_point(1.04, 0.05))
    assert decide(_recipe(), [sure, unsure]).winner == "sure"


def test_infeasible_names_the_nearest_level() -> None:
    decision = decide(
        _recipe("slo: {memory: 50B}\n"),
        [
            _contender("near", rate=100, ratio=_point(1.0), memory=60),
            _contender("far", rate=100, ratio=_point(1.0), memory=600),
        ],
    )
    assert decision.winner is None
    assert decision.nearest == {"slo.memory": "60 B"}
    assert "slo.memory is 60 B, the limit is 50 B" in decision.reasons[0]


@pytest.mark.parametrize(
    ("limit", "key"),
    [
        ("ttft_p95: 10ms", "slo.ttft_p95"),
        ("tpot_p95: 1ms", "slo.tpot_p95"),
        ("tokens_per_second: 500", "slo.tokens_per_second"),
        ("speedup: 3", "slo.speedup"),
    ],
)
def test_each_limit_refuses(limit: str, key: str) -> None:
    decision = decide(_recipe(f"slo: {{{limit}}}\n"), [_contender("it", rate=100, ratio=_point(1.0))])
    assert decision.winner is None
    assert list(decision.nearest) == [key]


def test_a_speed_up_within_the_noise_is_none() -> None:
    noisy = _contender("it", rate=100, ratio=_point(1.0), speedup=_point(1.3, 0.2), noise=_point(1.05, 0.15))
    refused = decide(_recipe("slo: {speedup: 1.2}\n"), [noisy])
    assert refused.winner is None
    assert "does not stand clear of the A/A noise, 1.05 [0.9, 1.2]" in refused.reasons[0]
    assert decide(_recipe(), [noisy]).winner == "it"
    assert decide(_recipe("slo: {speedup: 0.9}\n"), [noisy]).winner == "it"
    clear = msgspec.structs.replace(noisy, speedup=_point(1.3, 0.05))
    assert decide(_recipe("slo: {speedup: 1.2}\n"), [clear]).winner == "it"


def test_degenerate_text_refuses() -> None:
    it = _contender("it", rate=100, ratio=_point(1.0))
    looping = msgspec.structs.replace(it.candidate.quality, degenerate=0.5)
    candidate = msgspec.structs.replace(it.candidate, quality=looping)
    decision = decide(_recipe(), [msgspec.structs.replace(it, candidate=candidate)])
    assert decision.winner is None
    assert "sanity" in decision.candidates[0].reason


def test_objective_memory_prefers_the_small() -> None:
    decision = decide(
        _recipe("objective: memory\n"),
        [
            _contender("fast", rate=900, ratio=_point(1.0), memory=200),
            _contender("small", rate=100, ratio=_point(1.0), memory=50),
        ],
    )
    assert decision.winner == "small"


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=1, max_size=20))
def test_the_front_is_what_nobody_beats(points: list[tuple[float, float]]) -> None:
    front = pareto(points)
    assert any(front)
    for index, (speed, perplexity) in enumerate(points):
        beaten = any(s >= speed and p <= perplexity and (s, p) != (speed, perplexity) for s, p in points)
        assert front[index] is not beaten
