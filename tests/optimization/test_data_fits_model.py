"""Whether data and model fit is asked before anything is trained: ids, positions, and every split that is used."""

import json

import pytest
import transformers

from trimtab.cli.main import app
from trimtab.data.tokenizer import train_bpe
from trimtab.evaluation.folders import evaluate
from trimtab.models.create import create
from trimtab.optimization.data_fits_model import check_amounts, check_tables
from trimtab.optimization.run import optimize
from trimtab.spec.architectures import Architecture
from trimtab.spec.errors import DataError, ModelError
from trimtab.spec.recipe import Recipe
from trimtab.spec.recipe_data import Source
from trimtab.spec.serving import ServingConfiguration
from trimtab.text.tokenizer import Tokenizer

NEW = {"architecture": "llama", "layers": 1, "hidden": 16, "heads": 2, "ffn": 16, "vocabulary": 300}


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"line {n} has {n * n} words or so\n" for n in range(2000)))
    return str(tmp_path / "text.txt")


@pytest.fixture
def model(tmp_path):
    """`model("gpt2")` → a folder with positions or a context of 32 tokens."""

    def make(kind="llama"):
        tokenizer = train_bpe(["line 1 has 2 words or so\n"], 300, tmp_path / "tokenizer")
        if kind == "llama":
            return create(Architecture(**NEW, context=32), tokenizer, tmp_path / kind, 0)
        rows = Tokenizer.load(tokenizer).vocabulary_size
        config = transformers.GPT2Config(
            vocab_size=rows, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
        )
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / kind)
        for path in tokenizer.iterdir():
            (tmp_path / kind / path.name).write_bytes(path.read_bytes())
        return tmp_path / kind

    return make


def recipe(text, model, *, length=16, task=None, **data):
    return Recipe.model_validate(
        {
            "version": 1,
            "name": "fitting",
            "task": task,
            "model": model if isinstance(model, dict) else str(model),
            "data": {"train": {"text": text}, **data},
            "training": {"tokens": 64, "sequence_length": length, "batch": 2},
            "search": {"distill_tokens": 64},
        }
    )


def with_a_token_more(folder, *, special=True):
    """As `add_special_tokens` leaves it without `resize_token_embeddings`."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    number = 1 + max(tokenizer["model"]["vocab"].values())
    added = tokenizer["added_tokens"][0] | {"id": number, "content": "<more>", "special": special}
    tokenizer["added_tokens"].append(added)
    path.write_text(json.dumps(tokenizer))
    return folder


def with_an_eos_more(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"eos_token": "<more>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return with_a_token_more(folder)


def with_a_chat_marker_more(folder):
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<more>{{ m.content }}{% endfor %}")
    return with_a_token_more(folder)


def with_a_word_more(folder):
    """A word of the vocabulary itself."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["zzzz"] = 1 + max(tokenizer["model"]["vocab"].values())
    path.write_text(json.dumps(tokenizer))
    return folder


def with_an_end_beyond(folder):
    """The config's end of text is of another vocabulary."""
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 99999]}')
    return folder


@pytest.mark.parametrize(
    "change", [with_an_eos_more, with_a_chat_marker_more, with_a_word_more, with_an_end_beyond]
)
def test_ids_beyond_the_embedding_are_refused_before_anything_starts(model, text, tmp_path, change):
    folder = change(model())
    with pytest.raises(ModelError, match="embedding has") as caught:
        optimize(recipe(text, folder), output=tmp_path / "run", home=tmp_path / "home")
    assert caught.value.where == str(folder)
    assert not (tmp_path / "run" / "models").exists()
    serving = ServingConfiguration(engine="transformers", weight_format="float32")
    with pytest.raises(ModelError, match="embedding has"):
        evaluate(folder, Source(text=text), serving=serving, home=tmp_path / "home", length=16)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("train", "ids"),
        ("train", "positions"),
        ("compress", "ids"),
        ("evaluate", "ids"),
        ("evaluate", "positions"),
        ("plan", "positions"),
    ],
)
def test_every_command_refuses_them_with_code_2_and_starts_nothing(
    model, text, tmp_path, monkeypatch, capsys, command, fault
):
    from trimtab.cli.door import run

    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    folder = model("gpt2")
    if fault == "ids":
        with_an_eos_more(folder)
    length = "16" if fault == "ids" else "33"
    (tmp_path / "r.yaml").write_text(
        f"version: 1\nname: fitting\nmodel: ./gpt2\ndata: {{train: {{text: text.txt}}}}\n"
        f"training: {{tokens: 64, sequence_length: {length}, batch: 2}}\n"
    )
    commands = {
        "train": ["train", str(tmp_path / "r.yaml"), "--processes", "2"],
        "compress": [
            "compress",
            str(folder),
            "--data",
            f"text:{text}",
            "--output",
            str(tmp_path / "o"),
            "--ffn",
            "16",
        ],
        "evaluate": ["evaluate", str(folder), "--data", f"text:{text}", "--window", length],
        "plan": [
            "plan",
            "train",
            str(folder),
            "--devices",
            "2",
            "--accelerator",
            "a100-80gb",
            "--global-batch",
            "2",
            "--sequence-length",
            length,
        ],
    }
    with pytest.raises(SystemExit) as left:
        run(lambda: app(commands[command]))
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert ("embedding has" if fault == "ids" else "positions for 32 tokens") in said
    assert not (tmp_path / "o").exists()


def test_a_token_that_was_only_added_matters_where_the_text_comes_to_it(model, tmp_path, text):
    """Many folders have a padding token that the embedding has no row for, and nothing ever comes to it."""
    folder = with_a_token_more(model(), special=False)
    (tmp_path / "marked.txt").write_text("a line with <more> in it\n" * 50)
    serving = ServingConfiguration(engine="transformers", weight_format="float32")
    evaluate(folder, Source(text=text), serving=serving, home=tmp_path / "home", length=16)
    with pytest.raises(ModelError, match="the text comes to the tokenizer's id"):
        evaluate(
            folder,
            Source(text=str(tmp_path / "marked.txt")),
            serving=serving,
            home=tmp_path / "home",
            length=16,
        )
    asked = recipe(text, folder, test={"text": str(tmp_path / "marked.txt")})
    with pytest.raises(ModelError, match="the text comes to the tokenizer's id"):
        optimize(asked, output=tmp_path / "run", home=tmp_path / "home")
    assert not (tmp_path / "run" / "models").exists()


def test_a_rotary_model_beyond_its_context_is_trained_with_a_warning(model, text):
    for of, ready in ((model(), model()), (NEW | {"context": 32}, None)):
        events = []
        check_tables(recipe(text, of, length=33).for_model(None), ready, events.append)
        (event,) = events
        assert "sequence_length is 33" in event.warning
        assert "context is 32" in event.warning
        check_tables(recipe(text, of, length=32).for_model(None), ready, events.append)
        assert len(events) == 1


def test_evaluation_stays_within_learned_positions(model, text, tmp_path):
    """Sample answers too, which are longer than the windows."""
    serving = ServingConfiguration(engine="transformers", weight_format="float32")
    found = evaluate(model("gpt2"), Source(text=text), serving=serving, home=tmp_path / "home", length=32)
    assert found.quality.perplexity_ratio.value == pytest.approx(1)


def test_evaluation_beyond_a_rotary_context_warns_once(model, text, tmp_path):
    told, serving = [], ServingConfiguration(engine="transformers", weight_format="float32")
    evaluate(
        model(), Source(text=text), serving=serving, home=tmp_path / "home", length=40, on_warning=told.append
    )
    (warning,) = told
    assert "--window is 40" in warning


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("a b c", "the train split has .* tokens, less than one sequence of 64"),
        ("one two three " * 60, "the data has no test split"),
    ],
)
def test_a_split_that_is_empty_or_short_is_told_before_optimize_trains(tmp_path, words, says):
    (tmp_path / "few.txt").write_text(words)
    asked = recipe(str(tmp_path / "few.txt"), NEW | {"context": 64}, length=64)
    with pytest.raises(DataError, match=says):
        optimize(asked, output=tmp_path / "run", home=tmp_path / "home")
    assert not (tmp_path / "run" / "models").exists()


def test_a_named_test_split_that_is_too_short_is_told_before_optimize_trains(tmp_path, text):
    (tmp_path / "test.txt").write_text("short")
    asked = recipe(text, NEW | {"context": 64}, test={"text": str(tmp_path / "test.txt")})
    with pytest.raises(DataError, match=r"the test split has . tokens, less than a window of 16"):
        optimize(asked, output=tmp_path / "run", home=tmp_path / "home")
    assert not (tmp_path / "run" / "models").exists()


def test_that_nothing_is_held_out_is_said_at_the_start(tmp_path, text):
    from trimtab.data.prepare import prepare

    (tmp_path / "short.txt").write_text("short")
    for validation, warned in (({"text": str(tmp_path / "short.txt")}, True), ({"text": text}, False)):
        asked = recipe(text, NEW | {"context": 64}, validation=validation, test=validation).for_model(None)
        if not warned:
            asked = recipe(text, NEW | {"context": 64}).for_model(None)
        events = []
        data = prepare(asked.data, tmp_path / "p", tokenizer=None, vocabulary=300)
        check_amounts(asked, data, None, events.append)
        assert [bool("held-out" in event.warning) for event in events] == [True] * warned


def test_a_corpus_in_one_line_is_enough_for_optimize_to_begin(tmp_path):
    """All three splits hold windows; so it is found out at the start, and not after training, that all is there."""
    from trimtab.data.prepare import prepare

    (tmp_path / "line.txt").write_text(" ".join(f"word-{n}" for n in range(20_000)))
    asked = recipe(str(tmp_path / "line.txt"), NEW | {"context": 64}).for_model(None)
    data = prepare(asked.data, tmp_path / "p", tokenizer=None, vocabulary=300)
    events = []
    check_amounts(asked, data, None, events.append, measures=True)
    assert not events
