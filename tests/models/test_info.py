import json

import pytest

from trimtab.models.families import FAMILIES
from trimtab.models.info import inspect, read_shape, stored_dtype
from trimtab.spec.errors import ModelError


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_dimensions_match_the_stock_model(make_model, name, shard):
    from transformers import AutoModelForCausalLM

    folder = make_model(name, shard=shard)
    info = inspect(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert info.parameters == sum(weight.numel() for weight in model.parameters())
    assert info.weights_bytes == 4 * info.parameters
    assert (info.family, info.architecture) == (name, type(model).__name__)
    assert (info.layers, info.hidden, info.heads, info.vocabulary, info.context) == (2, 32, 4, 300, 64)
    assert info.kv_heads == (4 if name == "gpt2" else 2)
    assert info.head_dim == (16 if name == "qwen3" else 8)
    assert info.ffn == (128 if name == "gpt2" else 48)
    assert info.tied is model.config.tie_word_embeddings is (name in {"llama", "gpt2"})
    assert info.eos_ids == (0,)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_family_names_exist_in_the_stock_model(make_model, name):
    import torch
    from transformers import AutoModelForCausalLM

    known = FAMILIES[name]
    model = AutoModelForCausalLM.from_pretrained(make_model(name))
    state = model.state_dict()
    layer = known.layer(1)
    width = inspect(make_model(name)).ffn
    assert len(model.get_submodule(known.layers)) == 2
    for module in (
        known.final_norm,
        *(f"{layer}.{part}" for part in (*known.norms, *known.gates, known.down)),
    ):
        assert isinstance(model.get_submodule(module), torch.nn.Module)
    for module in (known.attention, known.mlp, known.attention_out):
        assert isinstance(model.get_submodule(f"{layer}.{module}"), torch.nn.Module)
    assert state[known.embedding].shape == (300, 32)
    assert known.head in state
    for cut in known.ffn_cuts:
        tensor = state.get(f"{layer}.{cut.tensor}")
        assert (tensor is None and cut.tensor.endswith("bias")) or tensor.shape[cut.axis] == width


def test_untied_and_list_of_eos_ids(make_model):
    folder = make_model("llama", tie_word_embeddings=False, eos_token_id=[5, 7])
    assert inspect(folder).tied is False
    assert inspect(folder).eos_ids == (5, 7, 0)  # the tokenizer's own is 0
    (folder / "generation_config.json").write_text('{"eos_token_id": [9]}')
    assert inspect(folder).eos_ids == (9, 5, 7, 0)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80"), "pytorch_model.bin"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 40), "not a safetensors file"),
        (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
        (lambda f: _config(f, auto_map={"AutoModel": "evil.Model"}), "auto_map"),
        (lambda f: _config(f, model_type="mamba"), "'mamba'"),
        (lambda f: _config(f, hidden_size=-1), "hidden_size"),
        (lambda f: _config(f, quantization_config={"bits": 4}), "quantized"),
        (
            lambda f: (
                (f / "model.safetensors").unlink(),
                (f / "model.safetensors.index.json").write_text(
                    '{"weight_map": {"a": "../../etc/x"}, "metadata": {}}'
                ),
            ),
            "outside of the folder",
        ),
    ],
)
def test_bad_folders_are_refused_with_the_place_named(make_model, break_it, says):
    folder = make_model("llama")
    break_it(folder)
    with pytest.raises(ModelError, match=says) as caught:
        inspect(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        inspect(tmp_path / "nowhere")


def test_remote_code_of_a_tokenizer_is_refused(make_model):
    folder = make_model("llama")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.T", null]}}')
    with pytest.raises(ModelError, match="auto_map"):
        inspect(folder)


def _config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_config_alone_says_the_dimensions_and_so_the_count(make_model, name):
    from trimtab.parallel.planned_job import read_model

    folder = make_model(name)
    info, shape = inspect(folder), read_shape(folder / "config.json")
    for field in ("family", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocabulary", "tied"):
        assert getattr(shape, field) == getattr(info, field)
    assert read_model(str(folder), None, 64).architecture.parameters == info.parameters


@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_biases_that_are_not_planned_for_are_refused(make_model, key):
    folder = make_model("llama")
    _config(folder, **{key: True})
    with pytest.raises(ModelError, match=key):
        read_shape(folder / "config.json")


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_shape(tmp_path / "config.json")


def test_the_stored_type_is_that_of_the_files_whatever_the_config_says(make_model):
    import torch
    from safetensors.torch import load_file, save_file

    folder = make_model("llama", dtype="bfloat16")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    assert stored_dtype(folder) == "bfloat16"
    weights = load_file(folder / "model.safetensors")
    counted = weights | {"counted": torch.zeros(1, dtype=torch.int64)}
    save_file(counted, folder / "model.safetensors", metadata={"format": "pt"})
    assert stored_dtype(folder) == "bfloat16"
    weights["model.norm.weight"] = weights["model.norm.weight"].float()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert stored_dtype(folder) == "float32"


def test_a_folder_is_served_as_its_files_have_it_whatever_the_config_says(make_model):
    from trimtab.store.artifact import as_stored

    folder = make_model("llama")
    _config(folder, dtype="bfloat16")
    assert as_stored(folder).weight_format == "float32"
    _config(make_model("llama", dtype="bfloat16"), dtype="float32")
    assert as_stored(folder).weight_format == "bf16"


@pytest.mark.parametrize("name", list(FAMILIES))
def test_an_imported_decoder_has_the_parameters_that_inspect_counts(make_model, tmp_path, name):
    from trimtab.models.info import check_folder
    from trimtab.store.store import Store

    store, folder = Store(tmp_path / "home"), make_model(name)
    store.import_folder(folder, name, parameters=check_folder(folder))
    with store.open(name) as opened:
        passport = json.loads((opened / "passport.json").read_bytes())
        assert passport["parameters"] == inspect(folder).parameters == inspect(opened).parameters


def test_import_and_serve_say_the_same_of_a_config_that_does_not_fit(make_model):
    from trimtab.models.info import check_folder

    folder = make_model("llama")
    _config(folder, num_hidden_layers=10**9)
    with pytest.raises(ModelError) as one:
        inspect(folder)
    with pytest.raises(ModelError) as two:
        check_folder(folder)
    assert str(one.value) == str(two.value)
