import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec.errors import EXIT_USAGE, RecipeError
from trimtab.spec.recipe import Recipe

SMALL = "version: 1\nname: bot\nmodel: store-name\ndata: {test: {text: held_out.txt}}\n"
WHOLE = """\
version: 1
name: support-bot
task: text-generation
model: {architecture: llama, layers: 6, hidden: 256, heads: 8, kv_heads: 4, ffn: 768}
data:
  train: {jsonl: chats.jsonl, messages: messages}
  test: {jsonl: held_out.jsonl, text: body}
training: {time: 5min, optimizer: muon, batch: 16}
quality: {retain: 95%, metrics: [perplexity]}
slo: {ttft_p95: 300ms, tpot_p95: 40ms, memory: 2GiB}
objective: latency
traffic: {concurrency: 4, prompt_tokens: 512, output_tokens: 128}
search: {methods: [depth, int8], distill_tokens: 600k, finalists: 2}
budget: {time: 2h}
parallel: {data: 2}
"""


def test_a_whole_recipe():
    recipe = Recipe.parse(WHOLE)
    assert recipe.slo.ttft_p95 == pytest.approx(0.3)
    assert recipe.slo.memory == 2**31
    assert recipe.quality.retain == pytest.approx(0.95)
    assert recipe.search.distill_tokens == 600_000
    assert recipe.training.time == 300
    assert recipe.model.kv_heads == 4


def test_defaults():
    recipe = Recipe.parse(SMALL)
    assert recipe.search.distill_tokens == "auto"
    assert recipe.traffic.concurrency == 16
    assert Recipe.parse(SMALL + "search: {distill_tokens: 0}").search.distill_tokens == 0


FAULTS = [
    ("qualty: {}\n", ":5 qualty", "'quality'"),
    ("quality:\n  retian: 95%\n", ":6 quality.retian", "Did you mean 'retain'?"),
    ("slo:\n  zzz: 1\n", ":6 slo.zzz", "Known here: ttft_p95, tpot_p95, memory"),
    ("slo: {memory: 2}\n", ":5 slo.memory", "2 is not a size"),
    ("slo: {memory: 2 gigs}\n", ":5 slo.memory", "such as 2GiB"),
    ("quality: {retain: 0.95}\n", ":5 quality.retain", "such as 99%"),
    ("quality: {retain: 150%}\n", ":5 quality.retain", "less than or equal to 1"),
    ("budget: {time: soon}\n", ":5 budget.time", "'soon' is not a duration"),
    ("training: {batch: '8'}\n", ":5 training.batch", "read as text"),
    ("training: {time: 1h, tokens: 1M}\n", ":5 training", "not both"),
    ("objective: speed\n", ":5 objective", "'throughput'"),
    ("search: {methods: [depth, magic]}\n", ":5 search.methods[1]", "'width'"),
    ("parallel: {data: 0}\n", ":5 parallel", "Use 1 or more"),
    ("parallel: {tensr: 2}\n", ":5 parallel", "Did you mean 'tensor'"),
    ("parallel: data=2,zero=3\n", ":5 parallel", "use shard=N"),
    ("name: again\n", ":5 name", "written twice"),
    ("slo: &a {memory: 1GiB}\nbudget: *a\n", "recipe", "aliases"),
    ("slo: !!python/object:os.system {}\n", ":5 slo", "not plain data"),
    ("slo: !!set {memory}\n", ":5 slo", "not plain data"),
    ("slo: {memory: !!python/name:os.system x}\n", ":5 slo.memory", "not plain data"),
    ("slo: {memory: !!int abc}\n", ":5 slo.memory", "'abc' cannot be read"),
    ("slo: {memory: !!bool abc}\n", ":5 slo.memory", "'abc' cannot be read"),
    ("slo: {memory: " + "1" * 5000 + "}\n", ":5 slo.memory", "cannot be read"),
    ("slo: " + "[" * 5000 + "]" * 5000 + "\n", "recipe", "nested too deeply"),
    ("12: 3\n", ":5 12", "not a word"),
    ("slo: [\n", ":6", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "place", "words"), FAULTS)
def test_faults_name_line_key_and_remedy(text, place, words):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(SMALL + text)
    assert place in str(caught.value.where)
    assert words in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("version: 1\n", "version: 2\n", ":1 version", "1"),
        ("name: bot\n", "", "recipe", "'name' is missing"),
        ("name: bot", "name: Bot!", ":2 name", "'Bot!' is not a name"),
        ("{text: held_out.txt}", "{}", ":4 data.test", "name a source"),
        ("{text: held_out.txt}", "{jsonl: a}", ":4 data.test", "messages: FIELD"),
        ("{text: held_out.txt}", "{jsonl: a, text: b, messages: c}", ":4 data.test", "one of"),
        ("{test: {text: held_out.txt}}", "{}", ":4 data", "train or test"),
        ("{test: {text: held_out.txt}}", "{stdlib: python, test: {text: a}}", ":4 data", "stands alone"),
        (
            "model: store-name",
            "model: {architecture: llama, layers: 2, hidden: 64, heads: 5, ffn: 128}",
            ":3 model",
            "multiple of heads",
        ),
        (
            "model: store-name",
            "model: {architecture: llama, layers: 2, hidden: 64, heads: 4, ffn: 128}",
            "",
            "train",
        ),
        (
            "model: store-name",
            "model: {architecture: llama, layer: 2, hidden: 64, heads: 4, ffn: 128}",
            ":3 model.layer",
            "'layers'",
        ),
        (
            "model: store-name",
            "model: {architecture: llama, hidden: 64, heads: 4, ffn: 128}",
            ":3 model",
            "'layers' is missing",
        ),
    ],
)
def test_faults_in_what_must_be_there(old, new, place, words):
    assert old in SMALL
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(SMALL.replace(old, new))
    assert place in str(caught.value.where)
    assert words in str(caught.value)


def test_files_that_are_no_recipe(tmp_path):
    path = tmp_path / "r.yaml"
    with pytest.raises(RecipeError, match="No such file"):
        Recipe.load(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path)
    for content, words in (
        (b"", "mapping"),
        (b"[1]", "mapping"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: b: c", "not valid"),
    ):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=words):
            Recipe.load(path)
    path.write_text("a: " + "x" * (1 << 20))
    with pytest.raises(RecipeError, match="over"):
        Recipe.load(path)


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_recipe_error(text):
    for recipe in (text, SMALL + text):
        try:
            Recipe.parse(recipe)
        except RecipeError as error:
            assert str(error)  # noqa: PT017 - either is right


def test_paths_are_those_of_the_file(tmp_path):
    path = tmp_path / "sub" / "r.yaml"
    path.parent.mkdir()
    path.write_text(
        WHOLE.replace(
            "model: {architecture: llama, layers: 6, hidden: 256, heads: 8, kv_heads: 4, ffn: 768}",
            "model: ../Model",
        )
    )
    recipe = Recipe.load(path)
    assert recipe.model == str(tmp_path / "Model")
    assert recipe.data.train.jsonl == str(tmp_path / "sub" / "chats.jsonl")
    assert recipe.data.test.jsonl == str(tmp_path / "sub" / "held_out.jsonl")
    # Beside jsonl, `text` names a field.
    assert recipe.data.test.text == "body"
    assert Recipe.parse(SMALL, folder=tmp_path).model == "store-name"


def test_a_digest_sees_meaning_only():
    same = "# a comment\n" + WHOLE.replace("5min", "300s").replace("2GiB", "2048MiB").replace(
        "600k", "600000"
    )
    assert Recipe.parse(same).digest() == Recipe.parse(WHOLE).digest()
    assert Recipe.parse(WHOLE.replace("95%", "96%")).digest() != Recipe.parse(WHOLE).digest()


BERT = "{architecture: bert, layers: 1, hidden: 32, heads: 2, ffn: 64}"
RESNET = "{architecture: resnet, layers: [1, 1], widths: [8, 16]}"
LABELLED = "{train: {jsonl: a, text: t, label: y}}"


def other(model, data, rest=""):
    return f"version: 1\nname: it\nmodel: {model}\ndata: {data}\n{rest}"


@pytest.mark.parametrize(
    ("model", "data", "rest", "of_folder", "task"),
    [
        (BERT, "{train: {text: a}}", "", None, "fill-mask"),
        (BERT, LABELLED, "training: {epochs: 3}", None, "text-classification"),
        (RESNET, "{train: {npz: a}}", "training: {samples: 1k}", None, "image-classification"),
        ("./m", "{train: {images: a, size: 32}}", "", None, "image-classification"),
        ("./m", "{train: {text: a}}", "", "fill-mask", "fill-mask"),
        # What is labelled is to be classified, though the folder has another head.
        ("./m", LABELLED, "", "fill-mask", "text-classification"),
        ("./m", "{train: {text: a}}", "", None, "text-generation"),
        ("./m", "{train: {text: a}}", "task: fill-mask", "text-classification", "fill-mask"),
    ],
)
def test_the_task_is_the_one_named_or_that_of_data_architecture_or_folder(model, data, rest, of_folder, task):
    assert Recipe.parse(other(model, data, rest)).for_model(of_folder).task == task


@pytest.mark.parametrize(
    ("model", "data", "rest", "says"),
    [
        (BERT, "{train: {npz: a}}", "", "a bert is for fill-mask or text-classification, not for image"),
        (
            RESNET,
            "{train: {text: a}}",
            "",
            "image-classification takes images, {images: FOLDER} or {npz: FILE}",
        ),
        (BERT, LABELLED, "task: fill-mask", "fill-mask takes text, {text: FILE}"),
        ("./m", "{train: {text: a}}", "task: text-classification", "takes labelled text, {jsonl: FILE, text"),
        (BERT, LABELLED, "training: {tokens: 1M}", "training.samples or training.epochs, not tokens"),
        (BERT, "{train: {text: a}}", "training: {epochs: 1}", "fill-mask counts training.tokens"),
        (BERT, LABELLED, "training: {samples: 9, epochs: 1}", "give samples or epochs, not both"),
        (RESNET, "{train: {npz: a}}", "training: {batch: 1}", "batch of 2 or more"),
        (
            BERT,
            "{train: {jsonl: a, text: t, label: y}, test: {text: b}}",
            "",
            "all splits must be of one kind",
        ),
        (BERT, "{train: {text: a, label: y}}", "", "label names a field beside a text's"),
        (RESNET, "{train: {npz: a, size: 9}}", "", "npz stands alone"),
        (RESNET, "{train: {npz: a, images: b}}", "", "stands alone"),
        (RESNET.replace("[8, 16]", "[8]"), "{train: {npz: a}}", "", "layers has 2 stages and widths 1"),
        (
            RESNET.replace("block", "blok").replace("layers", "blok"),
            "{train: {npz: a}}",
            "",
            "Did you mean 'block'",
        ),
        (BERT.replace("hidden: 32", "hidden: 33"), "{train: {text: a}}", "", "must be a multiple of heads"),
        (BERT.replace("layers: 1, ", ""), "{train: {text: a}}", "", "'layers' is missing"),
        (
            BERT.replace("ffn: 64", "ffn: 64, context: 64"),
            "{train: {text: a}}",
            "",
            "beyond the model's context (64)",
        ),
        ("{layers: 2}", "{train: {text: a}}", "", "'architecture' is missing"),
        (BERT.replace("bert", "vit"), "{train: {text: a}}", "", "'llama', 'bert', 'resnet'"),
        (BERT, "{train: {text: a}}", "task: translation", "'fill-mask'"),
    ],
)
def test_what_does_not_go_together(model, data, rest, says):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(other(model, data, rest))
    assert says in str(caught.value)


def test_what_only_the_folder_tells():
    with pytest.raises(RecipeError, match="takes labelled text"):
        Recipe.parse(other("./m", "{train: {text: a}}")).for_model("text-classification")


def test_paths_of_images_are_relative_to_the_recipe(tmp_path):
    recipe = Recipe.parse(other(RESNET, "{train: {images: a}, test: {npz: b}}"), folder=tmp_path)
    assert recipe.data.train.images == str(tmp_path / "a")
    assert recipe.data.test.npz == str(tmp_path / "b")
