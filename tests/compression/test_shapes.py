import msgspec
import pytest

from trimtab.compression.candidates import shapes
from trimtab.compression.shapes import Shape, check, possible_kv_heads, whole
from trimtab.models.families import FAMILIES
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


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "gpt2"])
@pytest.mark.parametrize("per_group", [1, 2, 3])
def test_the_heads_that_may_be_left_are_those_that_stock_takes(name, per_group):
    """Asked of the installed transformers for every count, so that a rule that changes there is seen here."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    hidden, kv_heads, taken = 96, 8, []
    model = info(family=name, hidden=hidden, heads=kv_heads * per_group, kv_heads=kv_heads, head_dim=8)
    for count in range(1, kv_heads + 1):
        sizes = {
            "hidden_size": hidden,
            "num_attention_heads": count * per_group,
            "num_key_value_heads": count,
        }
        try:
            AutoConfig.for_model(name, **sizes, head_dim=8)
        except StrictDataclassError:
            continue
        taken.append(count)
    assert [count for count in possible_kv_heads(model) if count < kv_heads] == [
        c for c in taken if c < kv_heads
    ]


def test_heads_that_stock_refuses_are_refused_with_the_nearest_counts():
    model = info(hidden=256, heads=8, kv_heads=8, head_dim=32)
    with pytest.raises(UsageError, match="3 KV heads leave 3 query heads") as caught:
        check(Shape(layers=(0,), ffn=768, kv_heads=3), model)
    assert caught.value.where == "kv_heads"
    assert caught.value.remedy == "Keep 2 or 4."
    with pytest.raises(UsageError, match="hidden size of 256 is no multiple") as caught:
        check(Shape(layers=(0,), ffn=768, kv_heads=7), model)
    assert caught.value.remedy == "Keep 4 or 8."
    assert (
        check(Shape(layers=(0,), ffn=768, kv_heads=3), info(family="qwen2", heads=8, kv_heads=8)).kv_heads
        == 3
    )


def test_a_search_tries_no_heads_that_stock_refuses():
    model = info(hidden=256, heads=12, kv_heads=6, head_dim=32)
    assert {shape.kv_heads for shape in shapes(model, range(6), methods=["kv_groups"])} == {4}
    # Four of six KV heads leave eight query heads, of which 256 is a multiple; three would leave six.
