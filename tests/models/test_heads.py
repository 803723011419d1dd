"""Ready models made fit for a task: what has the head keeps it, what has not gets one, what cannot is refused."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from trimtab.data.tokenizer import train_bpe
from trimtab.models.heads import with_head
from trimtab.models.info import inspect
from trimtab.models.load import load
from trimtab.models.tasks import classes_of, longest_sequence, task_of
from trimtab.spec.errors import ModelError

SMALL = {"vocab_size": 300, "max_position_embeddings": 40}
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SMALL, **SIZES),
    "roberta": lambda: transformers.RobertaConfig(**SMALL, **SIZES, pad_token_id=1),
    "distilbert": lambda: transformers.DistilBertConfig(
        **SMALL, dim=16, n_layers=1, n_heads=2, hidden_dim=24
    ),
}


@pytest.fixture
def made(tmp_path):
    """`made("bert", "AutoModelForMaskedLM")` → the folder of a stock model with a tokenizer."""

    def make(name, kind, **changes):
        torch.manual_seed(0)
        config = CONFIGS[name]()
        config.update(changes)
        folder = tmp_path / f"{name}-{kind}"
        getattr(transformers, kind).from_config(config).save_pretrained(folder)
        return train_bpe(["the cat sat on the mat"], 300, folder, encoder=True)

    return make


def fit(source, folder, *, task="text-classification", classes=("no", "yes", "maybe"), seed=0):
    return with_head(source, task, folder, classes=classes, companions=source, seed=seed)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_masked_language_model_gets_a_classifiers_head(made, tmp_path, name):
    source = made(name, "AutoModelForMaskedLM")
    assert task_of(source) == "fill-mask"
    assert classes_of(source) == ()
    assert fit(source, tmp_path / "a")
    assert (task_of(tmp_path / "a"), classes_of(tmp_path / "a")) == (
        "text-classification",
        ("no", "yes", "maybe"),
    )
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "a" / "model.safetensors")
    kept = [key for key in after if key in before]
    assert len(kept) > 10
    assert all(torch.equal(before[key], after[key]) for key in kept)
    # Equal on every machine that begins the same run.
    fit(source, tmp_path / "b")
    assert load_file(tmp_path / "b" / "model.safetensors").keys() == after.keys()
    assert all(
        torch.equal(left, after[key]) for key, left in load_file(tmp_path / "b" / "model.safetensors").items()
    )
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "a")
    assert stock.config.num_labels == 3
    assert load(tmp_path / "a", task="text-classification").config.label2id["maybe"] == 2


def test_a_head_that_serves_is_kept_and_another_is_not(made, tmp_path):
    source = made("bert", "AutoModelForMaskedLM")
    fit(source, tmp_path / "a")
    assert not fit(tmp_path / "a", tmp_path / "same")
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "same"))
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert fit(tmp_path / "a", tmp_path / "more", classes=("no", "yes", "maybe", "never"))
    assert not fit(source, tmp_path / "mask", task="fill-mask", classes=())


def test_an_image_model_gets_a_new_head_for_other_classes(tmp_path):
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "m")
    (tmp_path / "preprocessor").mkdir()
    (tmp_path / "preprocessor" / "preprocessor_config.json").write_text('{"do_resize": true}')
    new = with_head(
        tmp_path / "m",
        "image-classification",
        tmp_path / "a",
        classes=("a", "b", "c"),
        companions=tmp_path / "preprocessor",
        seed=0,
    )
    assert new
    assert classes_of(tmp_path / "a") == ("a", "b", "c")
    assert (tmp_path / "a" / "preprocessor_config.json").read_text() == '{"do_resize": true}'


def test_positions_of_an_encoder(made):
    assert longest_sequence(made("bert", "AutoModelForMaskedLM")) == 40
    # RoBERTa's begin after the id of padding.
    assert longest_sequence(made("roberta", "AutoModelForMaskedLM")) == 38


def test_models_that_cannot_do_a_task(made, make_model, tmp_path):
    bert, llama = made("bert", "AutoModelForMaskedLM"), make_model("llama")
    for folder, task, says in (
        (llama, "text-classification", "a llama model is for text-generation, not for text-classification"),
        (bert, "text-generation", "a bert model is for fill-mask or text-classification"),
        (bert, "image-classification", "use one of: resnet"),
    ):
        with pytest.raises(ModelError, match=says.split(":", maxsplit=1)[0]):
            fit(folder, tmp_path / "a", task=task)
    with pytest.raises(ModelError, match="trained, and not yet compressed, optimized or served") as caught:
        inspect(bert)
    assert "trimtab train" in caught.value.remedy
    config = json.loads((bert / "config.json").read_text()) | {"model_type": "electra"}
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="'electra' is not one of those that are known for fill-mask"):
        fit(bert, tmp_path / "a", task="fill-mask")


def test_more_than_a_head_missing_is_a_fault(made, tmp_path):
    source = made("bert", "AutoModelForMaskedLM")
    weights = load_file(source / "model.safetensors")
    name = next(key for key in weights if "attention.self.query.weight" in key)
    save_file({key: value for key, value in weights.items() if key != name}, source / "model.safetensors")
    with pytest.raises(ModelError, match=f"missing or of another shape {name}"):
        fit(source, tmp_path / "a")
    assert not (tmp_path / "a").exists()
