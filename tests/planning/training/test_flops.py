import published
import pytest

from trimtab.planning.training.flops import flops_per_token, reported_tflops, utilisation
from trimtab.planning.training.presets import preset
from trimtab.spec.layout import parse_layout


def _job(make_job, row):
    shape = {"family": "gpt", "layers": row.layers, "hidden": row.hidden, "heads": row.heads, "vocab": 51200}
    return make_job(shape, on="a100-80gb", devices=row.devices, length=2048, batch=row.global_batch)


@pytest.mark.parametrize("row", published.KORTHIKANTI, ids=lambda row: f"{row.billions}B")
def test_published_utilisation(make_job, row):
    job = _job(make_job, row)
    assert 100 * utilisation(job, row.selective_seconds) == pytest.approx(row.mfu, abs=0.2)
    assert 100 * utilisation(job, row.selective_seconds, "selective") == pytest.approx(row.hfu, abs=0.2)


@pytest.mark.parametrize("row", published.SC21, ids=lambda row: f"{row.billions}B")
def test_megatrons_formula(make_job, row):
    """96 B s l h² (1 + s/6h + V/16lh), and the teraflops that come of it."""
    job = _job(make_job, row)
    h, layers, s = row.hidden, row.layers, 2048
    formula = 96 * s * layers * h**2 * (1 + s / (6 * h) + 51200 / (16 * layers * h)) * row.global_batch
    assert flops_per_token(job.architecture, s, "full") * job.tokens == pytest.approx(formula, rel=1e-12)
    seconds = formula / (row.teraflops * 1e12 * row.devices)
    assert reported_tflops(job, parse_layout(row.layout), seconds) == pytest.approx(row.teraflops)


def test_six_times_the_parameters_and_attention():
    shape = preset("llama3-8b", where="test")
    without_norms = shape.parameters - shape.embedding - shape.hidden * (2 * shape.layers + 1)
    expected = 6 * without_norms + 12 * shape.layers * shape.hidden * 8192
    assert flops_per_token(shape, 8192) == expected
