import pytest
from families_under_test import FAMILY_NAMES, config_of, family_of, info_of
from hypothesis import given
from hypothesis import strategies as st

from trimtab.compression.candidates import METHODS, cost, keep_layers, relative_cost, shapes
from trimtab.compression.shapes import check, whole
from trimtab.models.info import ModelInfo


@st.composite
def infos(draw):
    kv_heads = draw(st.integers(1, 8))
    return ModelInfo(
        family=draw(st.sampled_from(FAMILY_NAMES)),
        architecture="",
        layers=draw(st.integers(1, 40)),
        hidden=draw(st.integers(8, 4096)),
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([8, 64, 128])),
        ffn=draw(st.integers(8, 8192)),
        vocabulary=draw(st.integers(300, 100_000)),
        context=1024,
        tied=draw(st.booleans()),
        eos_ids=(),
        parameters=1,
        weights_bytes=1,
    )


@given(infos(), st.randoms(), st.sets(st.sampled_from([*METHODS, "int8"])), st.floats(0.05, 1.0))
def test_every_shape_of_the_grid_can_be_cut_and_is_of_use(info, random, methods, most):
    removal = list(range(info.layers))
    random.shuffle(removal)
    found = shapes(info, removal, methods=methods, most=most)
    assert len(set(found)) == len(found)
    assert whole(info) not in found
    flops = [cost(info, shape).flops for shape in found]
    assert flops == sorted(flops, reverse=True)
    for shape in found:
        check(shape, info)
        assert relative_cost(info, shape) <= most
        assert "depth" in methods or len(shape.layers) == info.layers
        assert "width" in methods or shape.ffn == info.ffn
        assert "kv_groups" in methods or shape.kv_heads == info.kv_heads


@given(infos())
def test_less_of_anything_costs_less(info):
    found = shapes(info, range(info.layers))
    for a in found:
        for b in found:
            smaller = len(a.layers) <= len(b.layers) and a.ffn <= b.ffn and a.kv_heads <= b.kv_heads
            if smaller and a.sizes != b.sizes:
                assert cost(info, a).flops < cost(info, b).flops
                assert cost(info, a).weights_bytes <= cost(info, b).weights_bytes


@given(st.permutations(range(7)), st.integers(1, 7))
def test_layers_go_in_the_order_of_removal(removal, count):
    kept = keep_layers(count, removal)
    assert list(kept) == sorted(kept)
    assert set(kept) | set(removal[: 7 - count]) == set(range(7))
    assert len(kept) == count


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_cost_counts_the_matrices_of_the_real_module(name):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(name, tie_word_embeddings=False))
    family, info = family_of(model), info_of(model)
    matrices = sum(
        parameter.numel()
        for parameter_name, parameter in model.named_parameters()
        if parameter.ndim == 2 and (parameter_name.startswith(family.layers) or parameter_name == family.head)
    )
    assert cost(info, whole(info)).flops == 2 * matrices
    assert cost(info, whole(info), weight_bits=32).weights_bytes == 4 * matrices
    caches = 2 * info.layers * info.kv_heads * info.head_dim
    assert cost(info, whole(info), cache_bits=16).cache_bytes_per_token == 2 * caches


def test_the_grid_of_the_demo():
    info = ModelInfo(
        family="llama",
        architecture="",
        layers=6,
        hidden=256,
        heads=4,
        kv_heads=2,
        head_dim=64,
        ffn=768,
        vocabulary=2048,
        context=1024,
        tied=True,
        eos_ids=(),
        parameters=0,
        weights_bytes=0,
    )
    found = shapes(info, [4, 2, 1, 3, 5, 0])
    sizes = [tuple(shape.sizes.values()) for shape in found]
    assert (6, 384, 2) in sizes
    assert (4, 192, 2) in sizes
    assert (3, 768, 1) in sizes
    assert len(found) == 3 * 4 * 2 - 1
    assert next(shape for shape in found if len(shape.layers) == 4).layers == (0, 1, 3, 5)
    assert all(relative_cost(info, shape) <= 0.4 for shape in shapes(info, range(6), most=0.4))
    assert len(shapes(info, range(6), methods=("width",))) == 3
