from trimtab.compression.pipeline import PruneReport
from trimtab.compression.shapes import Shape
from trimtab.optimization.shaping import Shaped, choose_finalists, formats, shape_name
from trimtab.spec.recipe import Recipe

RECIPE = """
version: 1
name: it
model: some-model
data: {{train: {{text: a.txt}}, test: {{text: t.txt}}}}
slo: {{speedup: 2.5}}
search: {{finalists: {finalists}, methods: {methods}}}
"""


def _recipe(finalists: int = 1, methods: str = "auto") -> Recipe:
    return Recipe.parse(RECIPE.format(finalists=finalists, methods=methods))


def _shaped(layers: int, *, speedup: float, perplexity: float) -> Shaped:
    shape = Shape(layers=tuple(range(layers)), ffn=64, kv_heads=1)
    report = PruneReport(
        shape=shape,
        halves=(),
        parameters=1,
        source_parameters=2,
        perplexity=perplexity,
        source_perplexity=10.0,
        calibration_tokens=100,
        seconds=1.0,
        steps=(),
    )
    name = shape_name(shape)
    return Shaped(name=name, folder=name, shape=shape, report=report, relative_cost=0.5, speedup=speedup)


SLOW = _shaped(5, speedup=2.0, perplexity=11.0)
NEAR = _shaped(4, speedup=2.6, perplexity=12.0)
FAST = _shaped(3, speedup=3.0, perplexity=13.0)
FASTER = _shaped(2, speedup=4.0, perplexity=20.0)


def test_of_what_is_fast_enough_what_lost_least() -> None:
    assert choose_finalists(_recipe(), [SLOW, FASTER, NEAR, FAST]) == [NEAR]
    assert choose_finalists(_recipe(finalists=2), [SLOW, FASTER, NEAR, FAST]) == [NEAR, FAST]


def test_then_the_fastest_of_the_others() -> None:
    slower = _shaped(6, speedup=1.5, perplexity=10.5)
    assert choose_finalists(_recipe(finalists=2), [slower, SLOW, FASTER]) == [FASTER, SLOW]
    assert choose_finalists(_recipe(), [slower, SLOW]) == [SLOW]


def test_formats_follow_the_methods() -> None:
    assert formats(_recipe()) == ("int8", "int4")
    assert formats(_recipe(methods="[depth, int4]")) == ("int4",)
    assert formats(_recipe(methods="[depth]")) == ()
