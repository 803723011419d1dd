import json

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtab.models.create import create
from trimtab.models.families import FAMILIES
from trimtab.models.info import inspect
from trimtab.models.load import load, save
from trimtab.spec.architectures import Architecture
from trimtab.spec.errors import ModelError


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_saved_model_answers_as_the_stock_one(make_model, tmp_path, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = make_model(name, shard="20KB")
    ids = torch.randint(0, 300, (2, 11), generator=torch.Generator().manual_seed(1))
    saved = save(load(source), tmp_path / "saved", source)
    stock, ours = (
        AutoModelForCausalLM.from_pretrained(source).eval(),
        AutoModelForCausalLM.from_pretrained(saved),
    )
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(ids).logits, stock(ids).logits, rtol=0, atol=0)
    assert (
        AutoTokenizer.from_pretrained(saved).decode(AutoTokenizer.from_pretrained(saved).encode("añ b"))
        == "añ b"
    )


def test_licence_template_and_generation_settings_are_kept(make_model, tmp_path):
    source = make_model("qwen2")
    for name in ("LICENSE.txt", "NOTICE", "chat_template.jinja"):
        (source / name).write_text(f"this is {name}")
    (source / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    (source / "notes.txt").write_text("stays behind")
    saved = save(load(source), tmp_path / "saved", source)
    assert (saved / "LICENSE.txt").read_text() == "this is LICENSE.txt"
    assert {"NOTICE", "chat_template.jinja"} < {path.name for path in saved.iterdir()}
    assert not (saved / "notes.txt").exists()
    assert inspect(saved).eos_ids == (3, 4, 0)
    assert list(tmp_path.glob(".saved*")) == []


def test_missing_weights_are_refused(make_model):
    folder = make_model("llama")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing keys model.layers.1.mlp.up_proj"):
        load(folder)


def test_bfloat16_weights_stay_what_they_are(make_model):
    folder = make_model("llama", dtype="bfloat16")
    assert load(folder, "bfloat16").dtype == torch.bfloat16
    assert load(folder).dtype == torch.float32


def test_create_is_seeded_and_takes_the_tokenizers_vocabulary(make_model, tmp_path):
    tokenizer = make_model("gpt2")
    wanted = Architecture(architecture="llama", layers=3, hidden=32, heads=4, kv_heads=2, ffn=40, context=128)
    state = torch.get_rng_state()
    first, again, other = (create(wanted, tokenizer, tmp_path / f"m{n}", n // 2) for n in (0, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    info = inspect(first)
    assert (info.layers, info.kv_heads, info.ffn, info.vocabulary, info.context) == (3, 2, 40, 257, 128)
    assert info.eos_ids == (0,)
    assert info.tied
    weights = [load_file(folder / "model.safetensors") for folder in (first, again, other)]
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_create_without_an_end_of_text(make_model, tmp_path):
    folder = make_model("gpt2")
    (folder / "tokenizer_config.json").write_text(json.dumps({}))
    with pytest.raises(ModelError, match="no end-of-text"):
        create(
            Architecture(architecture="llama", layers=1, hidden=8, heads=1, ffn=8), folder, tmp_path / "m", 0
        )


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_type_changed_after_loading_gives_what_loading_in_it_gives(make_model, name):
    folder = make_model(name, dtype="bfloat16")
    stored, wanted = load(folder, "stored"), load(folder)
    assert stored.dtype == torch.bfloat16
    stored.to(torch.float32)
    for found, other in (
        (stored.state_dict(), wanted.state_dict()),
        (dict(stored.named_buffers()), dict(wanted.named_buffers())),
    ):
        assert found.keys() == other.keys()
        for key, values in other.items():
            assert torch.equal(found[key], values), key


def test_weights_in_their_stored_type_take_no_memory_until_they_are_touched(make_model):
    folder = make_model("llama", dtype="bfloat16", hidden_size=512, intermediate_size=8192)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 50e6
    process = psutil.Process()
    before = process.memory_full_info().uss
    model = load(folder, "stored")
    assert process.memory_full_info().uss - before < size / 4
    assert model.dtype == torch.bfloat16
