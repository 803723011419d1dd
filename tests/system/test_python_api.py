"""The functions that `trimtab` has for Python: plain values in, the command's own record out, and not a word."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import trimtab
from trimtab.cli.output import emit_json
from trimtab.spec.errors import DataError, ModelError, NotFoundError, RecipeError, UsageError
from trimtab.spec.recipe_data import Source

PAGE = Path(__file__).parents[2] / "docs" / "python-api.md"
TINY = {"architecture": "llama", "layers": 1, "hidden": 32, "heads": 2, "ffn": 48, "vocabulary": 320}
PROMISED = {
    *("optimize", "train", "compress", "evaluate", "load", "serve", "Recipe", "Verdict"),
    *("plan_training", "plan_compression", "plan_serving"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `model/`, `train.txt` and `held_out.txt`, as the page of examples has it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("python api")
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(place / "model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {letter: number + 1 for number, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(place / "model" / "tokenizer.json"))
    (place / "model" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
    )
    for name, step in (("train.txt", 7), ("held_out.txt", 11)):
        paragraphs = [f"number {n}: {n * n * step % 97} and {n * step}, so on\n" * 3 for n in range(200)]
        (place / name).write_text("\n\n".join(paragraphs))
    return place


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(folder)
    return folder


def test_every_promised_name_is_there():
    assert set(trimtab.__all__) >= PROMISED
    assert all(callable(getattr(trimtab, name)) for name in PROMISED)


def test_importing_takes_no_time():
    code = "import time; began = time.process_time(); import trimtab; print(time.process_time() - began)"
    done = min(
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    )
    assert done < 0.15


def test_from_trimtab_import_is_the_function_although_rooms_have_such_names():
    code = "import trimtab.optimization.train, trimtab; from trimtab import train; assert callable(train)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _blocks(*, slow):
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for block in found if block.startswith("# slow") == slow]


def _run(blocks):
    names = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    return names


def test_the_pages_examples_run(here, tmp_path, monkeypatch, capsys):
    for name in ("model", "train.txt", "held_out.txt"):
        (tmp_path / name).symlink_to(here / name)
    monkeypatch.chdir(tmp_path)
    names = _run(_blocks(slow=False))
    assert names["trained"].training.tokens >= 2048
    assert (tmp_path / "smaller" / "model.safetensors").exists()
    assert '"completion_tokens": 4' in capsys.readouterr().out.replace("'", '"')


@pytest.mark.slow
def test_the_pages_slow_examples_run(here):
    names = _run(["import trimtab", *_blocks(slow=True)])
    assert names["verdict"].baseline.quality is not None


def test_train_is_silent_and_tells_its_callback(here, tmp_path, capfd):
    heard = []
    recipe = trimtab.Recipe.model_validate(
        {
            "version": 1,
            "name": "quiet",
            "model": TINY,
            "data": {"train": {"text": str(here / "train.txt")}},
            "training": {"tokens": 1024, "sequence_length": 32, "batch": 4},
        }
    )
    done = trimtab.train(recipe, processes=1, output=tmp_path / "run", progress=heard.append)
    assert capfd.readouterr().out == ""
    assert Path(done.model).is_dir()
    assert done.training.curve[-1].loss > 0
    assert {event.stage for event in heard} >= {"train baseline"}
    again = trimtab.train(recipe, processes=1, output=tmp_path / "run")
    assert again == done
    assert json.loads(msgspec.json.encode(done))["training"]["tokens"] == 1024


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"processes": 0}, "no number of processes"),
        ({"processes": "4:2"}, "no number of processes"),
        ({"processes": 2, "layout": "data=2"}, "Use one of the two"),
        ({"layout": "dat=2"}, "Did you mean 'data'"),
        ({"layout": trimtab.Layout(tensor=0)}, "not a number of processes"),
        ({"on": "slurm"}, "--on: 'slurm' is unknown"),
        ({"keep": 0}, "--keep"),
        ({"restarts": -1}, "--restarts"),
    ],
)
def test_train_refuses_what_the_command_refuses(here, options, words):
    recipe = {"version": 1, "name": "bad", "model": TINY, "data": {"train": {"text": "train.txt"}}}
    with pytest.raises(UsageError, match=words):
        trimtab.train(trimtab.Recipe.model_validate(recipe), **options)
    with pytest.raises(RecipeError):
        trimtab.train("nowhere.yaml", **options)


def test_training_refuses_a_layout_of_gpt2_before_anything_starts(here, tmp_path):
    """As `plan_training` says of it: the sentence has one source."""
    config = {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "vocab_size": 257,
    }
    gpt = tmp_path / "gpt"
    import shutil

    import transformers

    transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).save_pretrained(gpt)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(here / "model" / name, gpt / name)
    recipe = {"version": 1, "name": "gpt", "model": str(gpt), "data": {"train": {"text": "train.txt"}}}
    began = time.monotonic()
    with pytest.raises(UsageError) as caught:
        trimtab.train(trimtab.Recipe.model_validate(recipe), layout="tensor=2")
    plan = trimtab.plan_training(
        gpt, layout="tensor=2", accelerator="a100-80gb", sequence_length=64, global_batch=4
    )
    assert caught.value.message == plan.layouts[0].not_trained
    assert time.monotonic() - began < 30


def test_compress_and_evaluate_return_the_commands_records(here, tmp_path, capfd):
    heard = []
    report = trimtab.compress(
        "model", data=here / "held_out.txt", output=tmp_path / "small", ffn=32, progress=heard.append
    )
    assert report.parameters < report.source_parameters
    assert {event.stage for event in heard} == {"compress"}
    assert heard[-1].fraction == 1
    found = trimtab.evaluate(
        tmp_path / "small",
        data=Source(text="held_out.txt"),
        against="model",
        engine="transformers",
        weight_format="float32",
        window=32,
    )
    assert found.window_tokens == 32
    assert found.serving.engine == "transformers"
    assert capfd.readouterr().out == ""
    emit_json(found)
    assert json.loads(capfd.readouterr().out)["quality"]["tokens"] == found.quality.tokens


WRONG = [
    (
        lambda: trimtab.compress("model", data="text:held_out.txt", output="model", ffn=32),
        UsageError,
        "exists",
    ),
    (
        lambda: trimtab.compress("model", data="held_out.txt", output="x", ffn=32),
        UsageError,
        "Write text:FILE",
    ),
    (
        lambda: trimtab.compress("model", data="text:held_out.txt", output="x"),
        UsageError,
        "nothing is to be",
    ),
    (lambda: trimtab.compress("model", data="text:held_out.txt", output="x", ffn=0), UsageError, "--ffn"),
    (
        lambda: trimtab.compress("model", data="text:no.txt", output="x", ffn=32),
        DataError,
        "cannot be read",
    ),
    (
        lambda: trimtab.compress("nowhere", data="text:held_out.txt", output="x", ffn=32),
        ModelError,
        "nowhere",
    ),
    (lambda: trimtab.evaluate("model", data="text:held_out.txt", window=1), UsageError, "--window"),
    (lambda: trimtab.evaluate("model", data="text:held_out.txt", engine="vllm"), UsageError, "--engine"),
    (lambda: trimtab.evaluate("nowhere", data="text:held_out.txt"), ModelError, "nowhere"),
    (lambda: trimtab.serve("mock", port=70_000), UsageError, "--port"),
    (lambda: trimtab.serve("mock", replicas=0), UsageError, "--replicas"),
    (lambda: trimtab.serve("mock", "mock", port=0), UsageError, "named twice"),
    (lambda: trimtab.serve(port=0), UsageError, "No model is named"),
    (lambda: trimtab.serve("./nowhere", port=0), ModelError, "no such folder"),
    (lambda: trimtab.serve("nobody", port=0), NotFoundError, "nobody"),
    (lambda: trimtab.serve("mock", host="0.0.0.0", port=0), UsageError, "loopback"),
    (lambda: trimtab.load("nobody"), NotFoundError, "nobody"),
    (lambda: trimtab.optimize("model"), UsageError, "text to measure on"),
    (lambda: trimtab.optimize("train.txt", data="text:x"), UsageError, "model's folder"),
    (lambda: trimtab.plan_serving("mock", rate=1, concurrency=1), UsageError, "one of the two"),
    (lambda: trimtab.plan_serving("mock", rate=1, ttft_p95="soon"), UsageError, "--ttft-p95"),
    (lambda: trimtab.plan_serving("mock", rate=1), NotFoundError, "--measure"),
    (lambda: trimtab.plan_compression("model", steps=["dept"]), UsageError, "Did you mean 'depth'"),
    (lambda: trimtab.plan_compression("./model"), NotFoundError, "--measure"),
]


@pytest.mark.parametrize(
    ("call", "error", "words"), WRONG, ids=[f"{n} {row[2]}" for n, row in enumerate(WRONG)]
)
def test_what_is_wrong_is_an_error_of_its_kind(here, call, error, words):
    with pytest.raises(error, match=words):
        call()
    assert not (here / "x").exists()


def test_serve_takes_folders_and_names_and_ends_with_its_block(here):
    heard = []
    with trimtab.serve("mock", port=0, progress=heard.append) as service:
        assert service.models == ("mock",)
        assert service.pids()
    assert not service.pids()
    assert heard[-1].remark == "Loading mock …"


def test_a_service_level_is_planned_from_a_profile_in_hand(here, tmp_path):
    from trimtab.spec.engine_profile import EngineProfile, Wave
    from trimtab.spec.hardware import this_machine
    from trimtab.spec.serving import ServingConfiguration

    def wave(running, prompt):
        return Wave(
            running=running,
            prompt_tokens=prompt,
            output_tokens=48,
            ttft=0.003 + 2e-5 * prompt,
            tpot=0.001 + 1e-4 * running,
        )

    profile = EngineProfile(
        hardware=this_machine(),
        created="2026-11-25T00:00:00Z",
        trimtab_version="0",
        model="mock",
        name="mock",
        serving=ServingConfiguration(engine="mock"),
        waves=(wave(1, 16), wave(4, 16), wave(16, 16), wave(1, 64)),
        rounds=5,
        memory_bytes=10**8,
        context_length=4096,
    )
    asked = {"rate": 5.0, "price": 1.0}
    words = trimtab.plan_serving("mock", profile=profile, ttft_p95="300ms", memory="2GiB", **asked)
    numbers = trimtab.plan_serving("mock", profile=profile, ttft_p95=0.3, memory=2**31, **asked)
    assert words == numbers
    assert words.plan.feasible
    kept = tmp_path / "profile.json"
    kept.write_bytes(msgspec.json.encode(profile))
    assert trimtab.plan_serving("mock", profile=kept, **asked).profile == profile
    hard = trimtab.plan_serving("mock", profile=profile, tpot_p95="1us", **asked)
    assert not hard.plan.feasible
    assert hard.plan.nearest
