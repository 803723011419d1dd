from itertools import accumulate, chain

import pytest

from trimtab.cli.demo import demo_recipe
from trimtab.optimization.forecast import forecast, matrix_rate, parameters
from trimtab.spec.architectures import Architecture
from trimtab.spec.recipe import Recipe

FOLDER = """
version: 1
name: it
model: some-model
data: {test: {text: t.txt}}
search: {distill_tokens: 0}
"""


def test_a_run_without_training_has_no_training_in_its_forecast() -> None:
    stages = forecast(Recipe.parse(FOLDER), 1_000_000, 1e11)
    assert [stage.name for stage in stages] == ["prepare", "measure and prove"]


def test_a_slower_machine_takes_longer() -> None:
    recipe = demo_recipe()
    quick, slow = (sum(s.seconds for s in forecast(recipe, 6_000_000, rate)) for rate in (2e11, 5e10))
    assert slow > quick


def test_parameters_are_those_of_the_architecture() -> None:
    shape = Architecture(
        architecture="llama", layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, vocabulary=400
    )
    # Per layer: q and o 64 · 64, k and v 64 · 32, three FFN matrices 64 · 128; and the tied head.
    assert parameters(shape) == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 400 * 64


def test_the_matrix_rate_is_that_of_the_best_run(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = accumulate(chain.from_iterable((1.0, seconds) for seconds in (0.5, 0.25, 0.125, 0.5, 0.25)))
    monkeypatch.setattr("trimtab.optimization.forecast.time.perf_counter", lambda: next(moments))
    assert matrix_rate() == 2 * 768**3 / 0.125


def test_the_sceptics_row_costs_as_much_as_all_training_before_it() -> None:
    plain = demo_recipe()
    sceptical = plain.model_copy(update={"search": plain.search.model_copy(update={"from_scratch": True})})
    before, after = ({s.name: s.seconds for s in forecast(r, 6_000_000, 1e11)} for r in (plain, sceptical))
    extra = after["train from scratch"]
    assert abs(extra - before["train the baseline"] - before["control and distillation"]) < 1e-6
    assert sum(after.values()) > sum(before.values())
