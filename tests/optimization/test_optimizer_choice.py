from types import SimpleNamespace

import pytest

from trimtab.optimization.training import Trainer
from trimtab.optimization.workspace import Workspace
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout
from trimtab.spec.recipe import Recipe

RECIPE = """
version: 1
name: tiny
model: {architecture: llama, layers: 2, hidden: 32, heads: 2, ffn: 48, vocabulary: 320, context: 64}
data: {train: {text: t.txt}}
"""


@pytest.fixture
def optimizer_under(tmp_path):
    """The optimizer of a job of one run, under a layout."""
    recipe = Recipe.parse(RECIPE)

    def choose(layout):
        with Workspace(recipe, tmp_path / "run", tmp_path) as workspace:
            laid_out = recipe.model_copy(update={"parallel": layout})
            trainer = Trainer(laid_out, workspace, SimpleNamespace(folder=tmp_path))
            return trainer.job(tmp_path, tmp_path / "out", 1000).optimizer

    return choose


def test_a_run_keeps_the_optimizer_that_it_began_with(optimizer_under):
    assert optimizer_under(Layout(data=2)) == "muon"
    assert optimizer_under(Layout(context=2)) == "muon"
    with pytest.raises(UsageError, match="was begun with Muon"):
        optimizer_under(Layout(tensor=2))


def test_what_began_with_adamw_goes_anywhere(optimizer_under):
    assert optimizer_under(Layout(tensor=2)) == "adamw"
    assert optimizer_under(Layout(data=2)) == "adamw"
