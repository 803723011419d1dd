import pytest
from families_under_test import FAMILY_NAMES, build

from trimtab.compression.shapes import Shape, can_cut_heads, whole
from trimtab.compression.variants import blank, single_cuts
from trimtab.models.info import inspect


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_single_cuts_differ_in_one_thing_each_and_can_be_made(family, save_model, tmp_path):
    source = save_model(build(family))
    info = inspect(source)
    first, *cuts = single_cuts(info)
    assert first == whole(info)
    names = ["layers", "ffn"] + (["kv_heads"] if can_cut_heads(info) else [])
    assert len(cuts) == len(names)
    for name, cut in zip(names, cuts, strict=True):
        changed = [key for key in cut.sizes if cut.sizes[key] != first.sizes[key]]
        assert changed == [name]
        assert cut.sizes[name] * 2 == first.sizes[name]
        made = inspect(blank(source, cut, tmp_path / name))
        assert {"layers": made.layers, "ffn": made.ffn, "kv_heads": made.kv_heads} == cut.sizes
        assert made.head_dim == info.head_dim


def test_counts_of_single_cuts_give_the_count_of_any_shape(save_model, tmp_path):
    """The formula that `planning.compression.shape_steps` uses is exact for parameters."""
    source = save_model(build("llama"))
    info = inspect(source)
    counts = [inspect(source).parameters]
    counts += [
        inspect(blank(source, cut, tmp_path / str(number))).parameters
        for number, cut in enumerate(single_cuts(info)[1:])
    ]
    base, depth, width, groups = counts
    layer, ffn, kv = (base - depth) / 2, (base - width) / 4 * 2, (base - groups) / 4 * 2
    wanted = Shape(layers=(0, 2, 3), ffn=16, kv_heads=1)
    expected = base - layer - 3 * (ffn * (1 - 16 / 64) + kv / 2)
    assert inspect(blank(source, wanted, tmp_path / "all")).parameters == expected
