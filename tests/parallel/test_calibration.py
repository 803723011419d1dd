import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.parallel import calibration
from trimtab.parallel.calibration import Calibrated, fit_link
from trimtab.parallel.launching.launch import launch
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import Layout

SIZES = (1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 23)


@given(st.floats(1e-6, 1e-2), st.floats(1e7, 1e12), st.integers(1, 30))
def test_latency_and_bandwidth_are_found(latency, rate, steps):
    share = 2 * steps / (steps + 1)
    times = [steps * latency + share * size / rate for size in SIZES]
    found = fit_link(SIZES, times, steps=steps, share=share)
    # Where one of the two hardly shows in any of the times, its own figure is lost in rounding.
    assert all(
        steps * found[0] + share * size / found[1] == pytest.approx(time, rel=1e-4)
        for size, time in zip(SIZES, times, strict=True)
    )


@given(st.lists(st.floats(1e-6, 1e-1), min_size=5, max_size=5))
def test_noise_leaves_both_positive(times):
    latency, rate = fit_link(SIZES, times, steps=2, share=1.0)
    assert latency > 0
    assert rate > 0


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(calibration, "_WIDTHS", (16, 32))
    monkeypatch.setattr(calibration, "_SECONDS", 0.0)
    monkeypatch.setattr(calibration, "_COPY_BYTES", 1 << 16)


@pytest.mark.slow
def test_one_rank_measures_alone(brief):
    news = []
    found = msgspec.convert(calibration.run({"layout": {}}, Ranks(), news.append, lambda: False), Calibrated)
    assert {sample.dtype for sample in found.gemm} == {"float32", "bfloat16"}
    assert all(sample.seconds > 0 for sample in found.gemm)
    assert found.collectives == ()
    assert 0 < found.launch_seconds < found.step_seconds
    assert found.process_bytes > 2**20
    assert [event["fraction"] for event in news] == sorted(event["fraction"] for event in news)


@pytest.mark.slow
def test_two_ranks_measure_their_collectives():
    with launch(Layout(data=2), threads=1) as group:
        found = msgspec.convert(group.run("calibrate", {"layout": {"data": 2}}), Calibrated)
    by_name = {rate.operation: rate for rate in found.collectives}
    assert set(by_name) == {"all_reduce", "all_gather", "reduce_scatter", "point_to_point"}
    assert all(rate.ranks == 2 and rate.backend == "gloo" for rate in found.collectives)
    assert all(1e-7 < rate.latency_seconds < 1 for rate in found.collectives)
    assert all(1e5 < rate.bytes_per_second < 1e12 for rate in found.collectives)
    rates = [sample.flops / sample.seconds for sample in found.gemm if sample.dtype == "float32"]
    assert all(1e8 < rate < 1e14 for rate in rates)
