"""A config is read as the stock config class reads it, or refused in a sentence that names the key."""

import json

import pytest

from trimtab.models.dimensions import dimensions
from trimtab.models.families import FAMILIES
from trimtab.spec.errors import ModelError

LLAMA_LIKE = ["llama", "qwen2", "qwen3", "mistral"]
NAMES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocabulary": "vocab_size",
    "context": "max_position_embeddings",
}


def ours(name, values, tmp_path):
    return dimensions(values, FAMILIES[name], tmp_path / "config.json")


def stock(name, values, tmp_path):
    from transformers import AutoConfig

    (tmp_path / "config.json").write_text(json.dumps(values | {"model_type": name}))
    config = AutoConfig.from_pretrained(tmp_path)
    heads = config.num_attention_heads
    found = {ours: getattr(config, theirs, None) for ours, theirs in NAMES.items()}
    found["kv_heads"] = found["kv_heads"] or heads
    found["head_dim"] = found["head_dim"] or config.hidden_size // heads
    found["ffn"] = found["ffn"] or getattr(config, "n_inner", None) or 4 * config.hidden_size
    return found


def fits(sizes):
    """Whether a model of these sizes can run: stock takes some configs that it can not build, or not run."""
    multiple = not sizes["heads"] % sizes["kv_heads"] and not sizes["hidden"] % sizes["heads"]
    return multiple and not sizes["head_dim"] % 2


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_absent_key_means_the_stock_classs_default(config_values, name, tmp_path):
    whole = {key: value for key, value in config_values(name).items() if key != "layer_types"}
    keys = FAMILIES[name].keys
    checked = [ours(name, {}, tmp_path) == stock(name, {}, tmp_path)]
    sizes = (keys.layers, keys.hidden, keys.heads, keys.kv_heads, keys.head_dim, keys.ffn, keys.context)
    for key in (*sizes, "vocab_size"):
        less = {k: v for k, v in whole.items() if k != key}
        try:
            expected = stock(name, less, tmp_path)
        except Exception:  # noqa: BLE001 - whatever stock says of a config that it does not take
            expected = None
        if expected and fits(expected):
            checked.append(ours(name, less, tmp_path) == expected)
        else:
            with pytest.raises(ModelError, match=r"no multiple|must be even"):
                ours(name, less, tmp_path)
    assert len(checked) > 4
    assert all(checked)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_null_means_what_the_stock_class_makes_of_it_or_is_refused(config_values, name, tmp_path):
    whole = config_values(name)
    keys = FAMILIES[name].keys
    for key in (keys.layers, keys.heads, keys.kv_heads, keys.head_dim, keys.ffn):
        # Stock takes the one of Qwen2, and fails when it builds.
        if key is None or (name, key) == ("qwen2", "head_dim"):
            continue
        try:
            expected = stock(name, whole | {key: None}, tmp_path)
        except Exception:  # noqa: BLE001
            with pytest.raises(ModelError, match=key):
                ours(name, whole | {key: None}, tmp_path)
        else:
            assert ours(name, whole | {key: None}, tmp_path) == expected, key


@pytest.mark.parametrize("value", [0, -1, True, 4.0, "4", [4], {}])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_sizes_that_are_none_are_refused_by_key(config_values, name, value, tmp_path):
    keys, whole = FAMILIES[name].keys, config_values(name)
    for key in (keys.layers, keys.hidden, keys.heads, keys.kv_heads, keys.head_dim, keys.ffn, keys.context):
        if key is not None:
            with pytest.raises(ModelError, match=key):
                ours(name, whole | {key: value, FAMILIES[name].aliases.get(key, key): value}, tmp_path)


@pytest.mark.parametrize("name", [*LLAMA_LIKE, "gpt2"])
def test_hidden_no_multiple_of_heads_is_refused_as_for_arch(config_values, name, tmp_path):
    keys, whole = FAMILIES[name].keys, config_values(name)
    changed = {key: value for key, value in whole.items() if key != "head_dim"} | {
        keys.heads: 5,
        "num_key_value_heads": 1,
    }
    if name == "qwen3":
        assert ours(name, changed, tmp_path)["head_dim"] == 128
        return
    with pytest.raises(ModelError, match="no multiple"):
        ours(name, changed, tmp_path)
    if FAMILIES[name].free_head_dim:
        assert ours(name, changed | {"head_dim": 8}, tmp_path)["head_dim"] == 8


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_key_value_heads": 3}, "num_attention_heads .4. is no multiple of num_key_value_heads"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings is"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"attention_bias": 1}, "attention_bias"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"torch_dtype": 3}, "torch_dtype"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_theta": "x"}, "rope_theta"),
        ({"rope_theta": True}, "rope_theta"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_scaling": {"type": "nonsense"}}, "unknown type"),
        ({"rope_scaling": {"type": ["linear"]}}, "unknown type"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "rope_parameters.factor"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": float("nan")}}, "rope_theta"),
    ],
)
def test_what_fails_later_without_a_name_is_refused_by_key(config_values, changes, says, tmp_path):
    with pytest.raises(ModelError, match=says):
        ours("llama", config_values("llama") | changes, tmp_path)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 1e6},
        {"rope_scaling": None},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
            }
        },
    ],
)
def test_rope_as_models_have_it_is_taken(config_values, rope, tmp_path):
    assert ours("llama", config_values("llama") | rope, tmp_path)["heads"] == 4


def test_gpt2_under_its_second_names(tmp_path):
    values = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 300}
    assert ours("gpt2", values, tmp_path) == stock("gpt2", values, tmp_path)
    with pytest.raises(ModelError, match="differ"):
        ours("gpt2", values | {"n_embd": 64}, tmp_path)
