import msgspec
import pytest

from trimtab.compression.shapes import Shape, check, whole
from trimtab.models.info import ModelInfo
from trimtab.spec.errors import UsageError


def info(**changes):
    fields = {
        "family": "llama",
        "architecture": "LlamaForCausalLM",
        "layers": 6,
        "hidden": 256,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 64,
        "ffn": 768,
        "vocabulary": 2048,
        "context": 1024,
        "tied": True,
        "eos_ids": (0,),
        "parameters": 5_000_000,
        "weights_bytes": 20_000_000,
    }
    return ModelInfo(**fields | changes)


def test_the_whole_shape_passes_and_comes_back():
    assert check(whole(info()), info()) == Shape(layers=(0, 1, 2, 3, 4, 5), ffn=768, kv_heads=2)
    assert whole(info()).sizes == {"layers": 6, "ffn": 768, "kv_heads": 2}


def test_a_whole_ffn_may_have_any_width():
    assert check(whole(info(ffn=100)), info(ffn=100)).ffn == 100


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"layers": ()}, "layers"),
        ({"layers": (0, 6)}, "layers"),
        ({"layers": (-1, 2)}, "layers"),
        ({"layers": (2, 1)}, "layers"),
        ({"layers": (1, 1)}, "layers"),
        ({"ffn": 0}, "ffn"),
        ({"ffn": 700}, "ffn"),
        ({"ffn": 784}, "ffn"),
        ({"kv_heads": 0}, "kv_heads"),
        ({"kv_heads": 3}, "kv_heads"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name(changes, where):
    shape = msgspec.structs.replace(whole(info()), **changes)
    with pytest.raises(UsageError) as caught:
        check(shape, info())
    assert caught.value.where == where
    assert caught.value.remedy


def test_heads_of_gpt2_stay_because_its_config_cannot_say_otherwise():
    gpt2 = info(family="gpt2", kv_heads=4)
    check(msgspec.structs.replace(whole(gpt2), ffn=384), gpt2)
    with pytest.raises(UsageError, match="gpt2 config cannot say"):
        check(msgspec.structs.replace(whole(gpt2), kv_heads=2), gpt2)
