"""`trimtab train` on encoders and image models as a person runs it: two processes, and stock folders in the end."""

import json
import math
import os
import subprocess
import sys

import pytest
import transformers

from toys import plainly_measured, write_images, write_repeats, write_texts
from trimtab.models.create import create_encoder
from trimtab.spec.architectures import BertArchitecture
from trimtab.training.job import TrainJob

BERT = "{architecture: bert, layers: 1, hidden: 32, heads: 2, ffn: 48, vocabulary: 300, context: 32}"

LONG_BERT = BERT.replace("context: 32", "context: 512")


def trimtab(folder, command, recipe, *arguments):
    (folder / "recipe.yaml").write_text(f"version: 1\nname: it\n{recipe}\n")
    return subprocess.run(
        [sys.executable, "-m", "trimtab", command, str(folder / "recipe.yaml"), *arguments],
        env=os.environ | {"TRIMTAB_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def check_measured(answer, objective, folder, *, samples):
    """The held-out loss that the run told is that of the folder which stock transformers loads."""
    data = str(next((folder / "home" / "runs").iterdir()) / "data")
    job = TrainJob(
        model="",
        data=data,
        output=answer["model"],
        objective=objective,
        sequence_length=24,
        validation_samples=samples,
    )
    loss, accuracy = plainly_measured(job, folder / "t.jsonl")
    last = answer["training"]["curve"][-1]
    assert math.isclose(last["validation_loss"], loss, rel_tol=1e-4)
    return accuracy, last["validation_accuracy"]


@pytest.mark.slow
def test_masked_language_modelling_with_shared_optimizer_state(tmp_path):
    write_repeats(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").write_text("something else")
    recipe = (
        f"model: {BERT}\ndata: {{train: {{jsonl: a.jsonl, text: t}}, test: {{text: b.txt}}}}\n"
        "training: {tokens: 4000, sequence_length: 24, batch: 8, precision: float32}"
    )
    done = trimtab(tmp_path, "train", recipe, "--layout", "data=2,zero=1", "--json")
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stderr
    answer = json.loads(done.stdout)
    assert answer["training"]["tokens"] == pytest.approx(4000, abs=8 * 24)
    assert check_measured(answer, "masked_language_modelling", tmp_path, samples=64)[1] is None
    assert transformers.AutoTokenizer.from_pretrained(answer["model"]).mask_token == "[MASK]"


def test_a_ready_encoder_is_fine_tuned_with_a_new_head(tmp_path):
    """Of the classes that the data has; for another task than the one the folder is for."""
    from trimtab.data.tokenizer import train_bpe

    path = write_texts(tmp_path / "t.jsonl", 200)
    tokenizer = train_bpe([path.read_text()], 300, tmp_path / "tokenizer", encoder=True)
    shape = BertArchitecture(architecture="bert", layers=1, hidden=32, heads=2, ffn=48, context=32)
    create_encoder(shape, "fill-mask", tokenizer, tmp_path / "model", classes=(), seed=0)
    recipe = (
        "model: ./model\ndata: {train: {jsonl: t.jsonl, text: t, label: y}}\n"
        "training: {epochs: 2, sequence_length: 24, batch: 16, precision: float32, learning_rate: 0.003}"
    )
    done = trimtab(tmp_path, "train", recipe, "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert "no head for text-classification of 2 classes; it begins with a new one" in done.stderr
    assert "samples/s" in done.stderr
    answer = json.loads(done.stdout)
    assert answer["training"]["samples"] > 200
    assert answer["training"]["tokens"] == 0
    right, told = check_measured(answer, "text_classification", tmp_path, samples=512)
    assert told == pytest.approx(right)


@pytest.mark.slow
def test_sharded_images_keep_their_statistics(tmp_path):
    write_images(tmp_path / "i.npz")
    recipe = (
        "model: {architecture: resnet, layers: [1, 1], widths: [8, 16]}\ndata: {train: {npz: i.npz}}\n"
        "training: {samples: 480, batch: 16, precision: float32, learning_rate: 0.005}"
    )
    log = tmp_path / "log.jsonl"
    done = trimtab(tmp_path, "train", recipe, "--layout", "shard=2,reshard=on", "--log", str(log))
    assert done.returncode == 0, done.stderr
    assert "trained on 480 samples" in done.stderr
    assert "of them right" in done.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (lines[-1]["samples"], "tokens" in lines[-1]) == (480, False)
    answer = {"model": done.stdout.strip(), "training": {"curve": [lines[-1]]}}
    right, told = check_measured(answer, "image_classification", tmp_path, samples=512)
    assert told == pytest.approx(right)


@pytest.mark.parametrize(
    ("command", "recipe", "says"),
    [
        (
            "train",
            f"model: {LONG_BERT}\ndata: {{train: {{text: a.txt}}}}\nparallel: {{pipeline: 2}}",
            "pipeline=2 cuts the layers or sequences of decoders, and a model for fill-mask is none. Use data, shard",
        ),
        (
            "train",
            f"model: {LONG_BERT}\ndata: {{train: {{text: a.txt}}}}\ntraining: {{optimizer: muon, tokens: 1k}}",
            "Muon is for the matrices of decoders, and a model for fill-mask is none. Use adamw",
        ),
        (
            "optimize",
            f"model: {LONG_BERT}\ndata: {{train: {{text: a.txt}}}}",
            "models for fill-mask are trained, and not yet compressed, optimized or served. Use `trimtab train`",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence_and_code_2(tmp_path, command, recipe, says):
    (tmp_path / "a.txt").write_text("".join(f"line {n} of a small text\n" for n in range(900)))
    done = trimtab(tmp_path, command, recipe)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if command == "optimize":
        assert not (tmp_path / "home" / "runs").exists()
