"""Where special tokens are named, as stock `AutoTokenizer` finds them: files, the class, or a post-processor alone."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from trimtab.data.encode import Encoder
from trimtab.data.frame import frame_of
from trimtab.data.prepare import prepare
from trimtab.data.samples.masked import MaskedWindows
from trimtab.data.samples.texts import LabelledTexts
from trimtab.data.tokenizer import load_tokenizer, named_token
from trimtab.spec.errors import UsageError
from trimtab.spec.recipe_data import Data, Source

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = ["the", "cat", "sat", "on", "a", "mat"]


def word_piece(special, ends):
    vocabulary = {token: at for at, token in enumerate([*special, *"abcdefghijklmnopqrstuvwxyz", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=special[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return finished(tokenizer, special, ends)


def byte_level(special, ends=()):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return finished(tokenizer, special, ends)


def finished(tokenizer, special, ends):
    tokenizer.add_special_tokens(list(special))
    if ends:
        start, end = ends
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}",
            special_tokens=[(text, tokenizer.token_to_id(text)) for text in ends],
        )
    return tokenizer


@pytest.fixture
def folder(tmp_path):
    """`folder(tokenizer, {"config.json": {…}})`."""

    def make(tokenizer, files):
        made = tmp_path / "model"
        made.mkdir()
        tokenizer.save(str(made / "tokenizer.json"))
        for name, value in files.items():
            (made / name).write_text(json.dumps(value))
        return made

    return make


def encoder_kinds():
    """Hub folders of encoders: what they hold beside tokenizer.json."""
    bert = word_piece(BERT, ("[CLS]", "[SEP]"))
    roberta = byte_level(ROBERTA, ("<s>", "</s>"))
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERT, strict=True))
    plain = {"do_lower_case": True, "model_max_length": 512}
    return {
        "bert": (bert, {"config.json": {"model_type": "bert"}, "tokenizer_config.json": plain}),
        "bert without settings": (bert, {"config.json": {"model_type": "bert"}}),
        "distilbert": (bert, {"config.json": {"model_type": "distilbert"}, "tokenizer_config.json": plain}),
        "roberta": (roberta, {"config.json": {"model_type": "roberta"}}),
        "class alone": (
            bert,
            {
                "config.json": {"model_type": "bert"},
                "tokenizer_config.json": {"tokenizer_class": "DistilBertTokenizerFast"},
            },
        ),
        "map": (
            bert,
            {
                "config.json": {"model_type": "bert"},
                "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
                "special_tokens_map.json": named | {"mask_token": {"content": "[MASK]", "lstrip": False}},
            },
        ),
        "bert without post-processor": (
            word_piece(BERT, ()),
            {"config.json": {"model_type": "bert"}, "tokenizer_config.json": plain},
        ),
    }


def decoder_kinds():
    tokenizer = byte_level(("<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>"))
    eot = {"eos_token": "<|endoftext|>"}
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "gpt2": (tokenizer, {"config.json": {"model_type": "gpt2"}}),
        "qwen2": (tokenizer, {"config.json": {"model_type": "qwen2"}, "tokenizer_config.json": fast}),
        "qwen3": (tokenizer, {"config.json": {"model_type": "qwen3"}}),
        "llama": (tokenizer, {"config.json": {"model_type": "llama"}}),
        "llama 3": (
            tokenizer,
            {
                "config.json": {"model_type": "llama"},
                "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"},
            },
        ),
        "map over settings": (
            tokenizer,
            {
                "config.json": {"model_type": "llama"},
                "tokenizer_config.json": fast | eot,
                "special_tokens_map.json": {"eos_token": "</s>"},
            },
        ),
        "settings with their tokens over the map": (
            tokenizer,
            {
                "config.json": {"model_type": "llama"},
                "tokenizer_config.json": fast
                | eot
                | {"added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": True}}},
                "special_tokens_map.json": {"eos_token": "</s>"},
            },
        ),
        "named to be none": (
            tokenizer,
            {"config.json": {"model_type": "gpt2"}, "tokenizer_config.json": {"bos_token": None}},
        ),
    }


KINDS = encoder_kinds() | decoder_kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_named_as_stock_names_them(folder, kind):
    from transformers import AutoTokenizer

    made = folder(*KINDS[kind])
    stock = AutoTokenizer.from_pretrained(made)
    for name in NAMES:
        assert named_token(made, load_tokenizer(made), name) == getattr(stock, f"{name}_id")


def alone():
    """A post-processor names start and end, and nothing else anything."""
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "bert": (
            word_piece(BERT, ("[CLS]", "[SEP]")),
            {"config.json": {"model_type": "bert"}, "tokenizer_config.json": fast},
        ),
        "roberta": (
            byte_level(ROBERTA, ("<s>", "</s>")),
            {"config.json": {"model_type": "roberta"}, "tokenizer_config.json": fast},
        ),
    }


@pytest.mark.parametrize("kind", ["stock " + kind for kind in encoder_kinds()] + list(alone()))
def test_encoders_train_wherever_their_tokens_are_named(folder, tmp_path, write_lines, kind):
    """Prepared, masked and padded; the frame is what stock puts around a text."""
    from transformers import AutoTokenizer

    tokenizer, files = KINDS[kind.removeprefix("stock ")] if kind.startswith("stock") else alone()[kind]
    made = folder(tokenizer, files)
    rows = [{"t": f"the cat sat {'on a mat ' * (n + 1)}{chr(97 + n)}", "l": n % 2} for n in range(20)]
    jsonl = write_lines("a.jsonl", rows)
    prepared = prepare(
        Data(train=Source(jsonl=jsonl, text="t")), tmp_path / "p", tokenizer=made, vocabulary=None
    )
    frame = frame_of(prepared.tokenizer_folder)
    stock = AutoTokenizer.from_pretrained(made)
    ids = load_tokenizer(made).encode("the cat", add_special_tokens=False).ids
    assert [*frame.starts, *ids, *frame.ends] == stock("the cat").input_ids
    assert len(frame.starts) == len(frame.ends) == 1
    assert prepared.record.eos_id == frame.ends[0]
    pad, mask = ("[PAD]", "[MASK]") if tokenizer.token_to_id("[PAD]") is not None else ("<pad>", "<mask>")
    assert (frame.pad, frame.mask) == (tokenizer.token_to_id(pad), tokenizer.token_to_id(mask))
    masked = MaskedWindows(prepared.tokens("train"), frame, length=8, vocabulary=prepared.vocabulary, seed=0)
    assert frame.mask in masked.take([0, 1, 2], [0, 1, 2])["input_ids"]
    labelled = prepare(
        Data(train=Source(jsonl=jsonl, text="t", label="l")), tmp_path / "l", tokenizer=made, vocabulary=None
    )
    texts = LabelledTexts(
        labelled.tokens("train"), labelled.offsets("train"), labelled.labels("train"), frame, length=64
    )
    assert texts.take([0, 1, 2], [0, 1, 2])["input_ids"].shape[0] == 3


def test_faults_of_a_models_tokenizer_name_its_own_folder(folder, tmp_path, write_lines):
    made = folder(byte_level(("<a>",)), {"tokenizer_config.json": {}})
    source = Source(jsonl=write_lines("a.jsonl", [{"t": "the cat"}]), text="t")
    for file, text in (
        ("tokenizer_config.json", "{}"),
        ("tokenizer_config.json", "["),
        ("tokenizer.json", "{}"),
    ):
        (made / file).write_text(text)
        with pytest.raises(UsageError) as caught:
            prepare(Data(test=source), tmp_path / "p", tokenizer=made, vocabulary=None)
        assert str(caught.value).startswith(str(made))
        assert ".part" not in str(caught.value)
    assert not list(tmp_path.glob(".p*"))


def test_ids_with_gaps_are_counted_by_the_largest(tmp_path, write_lines, folder):
    tokenizer = byte_level(("<|endoftext|>",))
    made = folder(tokenizer, {"tokenizer_config.json": {"eos_token": "<|endoftext|>"}})
    text = json.loads((made / "tokenizer.json").read_text())
    text["model"]["vocab"]["Ā"] = 70_000
    (made / "tokenizer.json").write_text(json.dumps(text))
    encoder = Encoder(made)
    assert encoder.vocabulary == 70_001
    assert encoder.token_type == "<u4"
