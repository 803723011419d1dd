import engine_profiles
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.planning.serving.limits import broken
from trimtab.planning.serving.plan import serving_plan
from trimtab.planning.serving.traffic import Level, Traffic
from trimtab.spec.errors import UsageError
from trimtab.spec.units import parse_bytes, parse_duration

PROFILE = engine_profiles.engine_profile(replicas=2)


def as_level(nearest):
    """The level that the flags of a plan's `nearest` ask for."""
    flags = nearest.split(" can be had")[0].split()
    fields = dict(zip(flags[::2], flags[1::2], strict=True))
    return Level(
        ttft_p95=parse_duration(fields["--ttft-p95"]) if "--ttft-p95" in fields else None,
        tpot_p95=parse_duration(fields["--tpot-p95"]) if "--tpot-p95" in fields else None,
        memory_bytes=parse_bytes(fields["--memory"]) if "--memory" in fields else None,
    )


@settings(max_examples=6)
@given(
    st.floats(1, 800),
    st.sampled_from([None, 0.0005, 0.004, 0.02, 0.5]),
    st.sampled_from([None, 0.0005, 0.0015, 0.003, 0.02]),
)
def test_a_plan_holds_its_level_and_an_infeasible_one_names_a_level_that_holds(rate, ttft, tpot):
    traffic = Traffic(prompt_tokens=64, output_tokens=32, rate=rate)
    level = Level(ttft_p95=ttft, tpot_p95=tpot)
    plan = serving_plan(PROFILE, traffic, level)
    assert plan.feasible == (not plan.reasons)
    if plan.feasible:
        assert broken(level, plan.expected, plan.memory_bytes) is None
        assert plan.expected.refused <= 0.01
        fewer = [option for option in plan.tried if option.workers == plan.workers - 1]
        assert all(option.reason for option in fewer)
        assert plan.machines == -(-plan.workers // 2)
        assert plan.serving.replicas == min(plan.workers, 2)
        assert len(plan.serving.cores) == plan.serving.replicas
    else:
        relaxed = as_level(plan.nearest)
        again = Level(ttft_p95=relaxed.ttft_p95 or ttft, tpot_p95=relaxed.tpot_p95 or tpot)
        assert serving_plan(PROFILE, traffic, again).feasible


def test_more_traffic_takes_more_workers_and_costs_per_token_stay():
    def plan(rate):
        traffic = Traffic(prompt_tokens=64, output_tokens=64, rate=rate)
        return serving_plan(PROFILE, traffic, Level(tpot_p95=0.004), price_per_hour=2.0)

    small, large = plan(50.0), plan(2000.0)
    assert large.workers > small.workers
    assert large.machines * 2.0 / (large.expected.tokens_per_second * 3600) * 1e6 == pytest.approx(
        large.cost_per_million_tokens
    )
    assert serving_plan(PROFILE, small.traffic).cost_per_million_tokens is None


def test_bounds_come_from_the_level():
    traffic = Traffic(prompt_tokens=64, output_tokens=64, rate=50.0)
    free = serving_plan(PROFILE, traffic)
    tight = serving_plan(PROFILE, traffic, Level(ttft_p95=0.1, tpot_p95=0.003))
    assert (free.serving.max_batch, free.serving.max_queue) == (64, 256)
    # 0.001 + 0.0002 n and the longer context stay under 3 ms for nine sequences.
    assert tight.serving.max_batch == 9
    assert 1 <= tight.serving.max_queue < 256
    assert tight.cache_bytes == 9 * 128 * 1000


def test_memory_counts_a_cache_beyond_its_bound():
    serving = msgspec.structs.replace(PROFILE.serving, cache_bytes=2**20)
    small = msgspec.structs.replace(PROFILE, serving=serving)
    traffic = Traffic(prompt_tokens=500, output_tokens=500, rate=1.0)
    plan = serving_plan(small, traffic)
    assert plan.cache_bytes == 64 * 1024 * 1000
    assert plan.memory_bytes == 400_000_000 + plan.cache_bytes - 2**20
    refused = serving_plan(small, traffic, Level(memory_bytes=2**20))
    assert not refused.feasible
    assert "memory of a machine" in refused.reasons[0]
    assert serving_plan(small, traffic, as_level(refused.nearest)).feasible


def test_clients_need_no_more_workers_than_there_are():
    traffic = Traffic(prompt_tokens=64, output_tokens=64, concurrency=3)
    plan = serving_plan(PROFILE, traffic, Level(tokens_per_second=1e9))
    assert not plan.feasible
    assert plan.workers <= 3
    assert "--tokens-per-second" in plan.nearest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": None}, "--rate"),
        ({"concurrency": 4}, "one of the two"),
        ({"rate": 0.0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
        ({"prompt_tokens": 0}, "--prompt-tokens"),
        ({"output_tokens": 1000}, "at most 24 prompt tokens"),
        ({"output_tokens": 5000}, "shorter answer"),
    ],
)
def test_traffic_that_cannot_be(changes, words):
    traffic = Traffic(**({"prompt_tokens": 64, "output_tokens": 64, "rate": 1.0} | changes))
    with pytest.raises(UsageError) as caught:
        serving_plan(PROFILE, traffic)
    assert words in str(caught.value)
