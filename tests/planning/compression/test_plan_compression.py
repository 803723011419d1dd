import engine_profiles
import pytest
from engine_profiles import compression_profile, shape_profile
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.compression.evidence import ENGINES, RECOVERIES, REFUSALS, STEPS, recovery, refusal
from trimtab.planning.compression.plan import compression_plan
from trimtab.planning.compression.shape_steps import ShapeModel, Sizes
from trimtab.planning.serving.engine_steps import engine_steps
from trimtab.planning.serving.traffic import Level, Traffic
from trimtab.spec.engine_profile import CompressionProfile
from trimtab.spec.errors import UsageError

TRAFFIC = Traffic(prompt_tokens=64, output_tokens=64, concurrency=16)
GRID = [(layers, ffn, kv) for layers in (6, 4, 3) for ffn in (768, 384, 192) for kv in (4, 2)]


@given(
    st.integers(1, 6), st.sampled_from([768, 512, 192]), st.integers(1, 4), st.sampled_from(["bf16", "int8"])
)
def test_shapes_that_were_not_measured_are_predicted_as_planted(layers, ffn, kv_heads, bits):
    factor = 0.5 if bits == "int8" else 1.0
    truth = shape_profile(layers, ffn, kv_heads, bits, factor=factor).profile
    found = ShapeModel(compression_profile()).predict(
        Sizes(layers=layers, ffn=ffn, kv_heads=kv_heads, weight_format=bits)
    )
    expected = engine_steps(truth)
    for n in (1, 3, 16, 32):
        assert found.steps.alone(n) == pytest.approx(expected.alone(n), rel=1e-6)
    assert found.steps.prompt_seconds == pytest.approx(expected.prompt_seconds, rel=1e-6)
    assert found.steps.context_seconds == pytest.approx(expected.context_seconds, rel=1e-3)
    assert found.parameters == pytest.approx(truth.parameters, rel=1e-5)
    assert found.weights_bytes == pytest.approx(truth.weights_bytes, rel=1e-5)
    assert found.memory_bytes == pytest.approx(truth.memory_bytes, rel=1e-5)


def test_noise_cannot_make_a_part_negative():
    whole, bits, shallow, _, grouped = compression_profile().shapes
    slower = engine_profiles.shape_profile(ffn=384, factor=1.3)
    odd = CompressionProfile(model="", name="", shapes=(whole, bits, shallow, slower, grouped))
    sizes = Sizes(layers=3, ffn=192, kv_heads=2, weight_format="bf16")
    found = ShapeModel(odd).predict(sizes)
    assert found.steps.alone(1) > 0
    assert found.parameters > 0
    assert list(found.steps.seconds) == sorted(found.steps.seconds)


def test_what_was_not_measured_is_not_guessed():
    whole = compression_profile().shapes[:2]
    model = ShapeModel(CompressionProfile(model="", name="", shapes=whole))
    with pytest.raises(UsageError, match="--measure"):
        model.predict(Sizes(layers=3, ffn=768, kv_heads=4, weight_format="bf16"))
    with pytest.raises(UsageError, match="int4 was not measured"):
        ShapeModel(compression_profile()).predict(Sizes(layers=6, ffn=768, kv_heads=4, weight_format="int4"))


def test_the_mildest_option_that_holds_comes_first():
    plan = compression_plan(compression_profile(), GRID, TRAFFIC, speedup=2.0, formats=["int8"])
    assert plan.feasible
    first = plan.options[0]
    assert first.reason is None
    assert first.speedup >= 2
    assert first.steps == ("int8",) or first.removed < 0.5
    assert plan.baseline.speedup == pytest.approx(1)
    assert plan.baseline.risk == "none"
    holding = [option for option in plan.options if option.reason is None]
    assert plan.options[: len(holding)] == tuple(holding)
    assert {option.sizes.weight_format for option in plan.options} == {"bf16", "int8"}


def test_bits_halve_the_planted_engine_and_shape_does_the_rest():
    plan = compression_plan(compression_profile(), GRID, TRAFFIC, formats=["int8"])
    by_steps = {option.steps: option for option in plan.options}
    # The engine's own cost around a request does not shrink with the model.
    assert by_steps[("int8",)].speedup_alone == pytest.approx(2, rel=0.01)
    assert by_steps[("int8",)].weights_bytes == pytest.approx(plan.baseline.weights_bytes / 2, rel=1e-3)
    cut = by_steps[("depth 6 to 3", "width 768 to 192", "kv_groups 4 to 2", "int8")]
    assert cut.speedup == max(option.speedup for option in plan.options)
    assert cut.risk == "high"
    assert cut.distill_tokens is None
    mild = by_steps[("kv_groups 4 to 2",)]
    assert mild.risk == "low"
    low, high = mild.distill_tokens
    assert low == pytest.approx(0.36 * mild.parameters, rel=1e-3)
    assert high > low


def test_an_infeasible_plan_names_what_can_be_had():
    plan = compression_plan(
        compression_profile(), GRID, TRAFFIC, Level(memory_bytes=2**20), speedup=500.0, formats=["int8"]
    )
    assert not plan.feasible
    words = plan.nearest.split()
    speedup = float(words[words.index("--speedup") + 1])
    memory = int(words[words.index("--memory") + 1].removesuffix("MiB")) * 2**20
    again = compression_plan(
        compression_profile(), GRID, TRAFFIC, Level(memory_bytes=memory), speedup=speedup, formats=["int8"]
    )
    assert again.feasible


def test_every_refusal_has_a_reason_and_a_source():
    pairs = [(one.step, engine) for one in REFUSALS for engine in one.engines]
    assert len(pairs) == len(set(pairs))
    for one in REFUSALS:
        assert one.reason.endswith(".")
        assert one.source
    for engine in ENGINES:
        assert refusal("unstructured", engine) is not None
        assert refusal("2:4", engine) is not None
        assert refusal("depth", engine) is None
    assert {step for step, _ in pairs} <= set(STEPS)


def test_recoveries_ascend_and_nothing_is_claimed_beyond_them():
    assert [case.removed for case in RECOVERIES] == sorted(case.removed for case in RECOVERIES)
    assert recovery(0.1) == RECOVERIES[0]
    assert recovery(0.3) == RECOVERIES[1]
    assert recovery(0.76) is None
