import engine_profiles
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.devices.refit import fitness, refitted
from trimtab.spec.layout import Layout
from trimtab.spec.profile import CollectiveRate, Comparison, GemmSample, Profile, StepSample


def profile(*ratios, quantity="step_seconds"):
    return Profile(
        name="planted",
        hardware=engine_profiles.HARDWARE,
        measured_at="",
        per_node=2,
        memory_bytes=2**34,
        memory_bytes_per_second=1e10,
        gemm=(GemmSample(dtype="float32", m=8, n=8, k=8, seconds=1e-6),),
        collectives=(
            CollectiveRate(
                operation="all_reduce", backend="gloo", ranks=2, latency_seconds=1e-4, bytes_per_second=1e9
            ),
        ),
        launch_seconds=1e-5,
        step_seconds=1e-3,
        comparisons=tuple(
            Comparison(layout="data=2", quantity=quantity, predicted=1.0, measured=ratio) for ratio in ratios
        ),
    )


@given(st.floats(0.2, 5), st.integers(3, 9))
def test_a_steady_error_is_corrected_whole(ratio, runs):
    (before,) = fitness(profile(*[ratio] * runs))
    assert before.factor == pytest.approx(ratio)
    assert before.mean_error == pytest.approx(abs(1 / ratio - 1))
    assert before.refitted_error == pytest.approx(0, abs=1e-9)
    after = refitted(profile(*[ratio] * runs))
    assert fitness(after)[0].mean_error == pytest.approx(0, abs=1e-9)
    assert after.gemm[0].seconds == pytest.approx(1e-6 * ratio)
    assert after.collectives[0].bytes_per_second == pytest.approx(1e9 / ratio)
    assert after.launch_seconds == pytest.approx(1e-5 * ratio)
    # What is corrected needs no second correction.
    assert refitted(after).step_seconds == pytest.approx(after.step_seconds)


def test_one_odd_run_moves_nothing():
    (found,) = fitness(profile(1.1, 1.1, 1.1, 40.0))
    assert found.factor == pytest.approx(1.1)
    assert found.worst_error == pytest.approx(1 - 1 / 40)


def test_too_few_runs_and_no_runs():
    assert refitted(profile(2.0, 2.0)) == profile(2.0, 2.0)
    assert fitness(profile()) == []
    assert fitness(profile(2.0))[0].refitted_error == pytest.approx(0.5)


def test_memory_has_a_factor_of_its_own():
    after = refitted(profile(1.5, 1.5, 1.5, quantity="peak_memory_bytes"))
    assert after.memory_factor == pytest.approx(1.5)
    assert after.gemm[0].seconds == 1e-6


def test_whole_steps_are_corrected_too():
    step = StepSample(
        layout=Layout(data=2),
        layers=1,
        hidden=8,
        heads=1,
        ffn=8,
        vocabulary=8,
        sequence_length=8,
        batch=2,
        seconds=1.0,
    )
    before = msgspec.structs.replace(profile(1.5, 1.5, 1.5), steps=(step,))
    assert refitted(before).steps[0].seconds == pytest.approx(1.5)
