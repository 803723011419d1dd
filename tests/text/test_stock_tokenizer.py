"""A folder's tokenizer is `AutoTokenizer`'s: same ids, same text, or a refusal."""

import os
import warnings

import pytest
import tokenizer_folders as made
from tokenizer_folders import record

from trimtab.spec.errors import ModelError
from trimtab.text import stock_class, stock_parts
from trimtab.text.tokenizer import Tokenizer

FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
CHATML = ("<|im_start|>", "<|im_end|>")


def with_ordinary_chatml():
    rust = made.byte_level()
    rust.add_tokens(list(CHATML))  # not special in tokenizer.json
    return rust


def with_bos():
    rust = made.byte_level("<|endoftext|>", *CHATML)
    number = rust.token_to_id("<|endoftext|>")
    from tokenizers import processors

    rust.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", number)]
    )
    return rust


PLAIN_SIZE = made.byte_level().get_vocab_size()
LISTED = {
    "0": record("<|endoftext|>"),
    str(PLAIN_SIZE): record(CHATML[0]),
    str(PLAIN_SIZE + 1): record(CHATML[1]),
}

# name → tokenizer, tokenizer_config.json, other files
FOLDERS = {
    "nothing but tokenizer.json": (made.byte_level, None, {}),
    "nothing but tokenizer.json, of GPT-2": (made.byte_level, None, {"config": {"model_type": "gpt2"}}),
    "nothing but tokenizer.json, of Qwen2": (made.byte_level, None, {"config": {"model_type": "qwen2"}}),
    "generic": (made.byte_level, FAST, {}),
    "in added_tokens_decoder alone": (made.byte_level, {**FAST, "added_tokens_decoder": LISTED}, {}),
    "in added_tokens_decoder under other ids": (
        made.byte_level,
        {**FAST, "added_tokens_decoder": {"900": record("<b>"), "800": record("<a>", special=False)}},
        {},
    ),
    "in added_tokens.json alone": (
        made.byte_level,
        FAST,
        {"added_tokens": {CHATML[0]: PLAIN_SIZE, CHATML[1]: PLAIN_SIZE + 1}},
    ),
    "in added_tokens.json, named special elsewhere": (
        made.byte_level,
        FAST,
        {"added_tokens": {CHATML[1]: PLAIN_SIZE}, "special_tokens_map": {"eos_token": CHATML[1]}},
    ),
    "eos_token of the settings, in no list": (made.byte_level, {**FAST, "eos_token": CHATML[1]}, {}),
    "two in added_tokens.json under one id": (
        made.sentencepiece,
        {"tokenizer_class": "LlamaTokenizer", "eos_token": {"__type": "AddedToken", **record("<extra>")}},
        {"added_tokens": {"<extra>": 900, "<pad>": 900}},
    ),
    "additional_special_tokens": (made.byte_level, {**FAST, "additional_special_tokens": list(CHATML)}, {}),
    "extra_special_tokens by name": (
        made.byte_level,
        {**FAST, "extra_special_tokens": {"image_token": "<extra>"}},
        {},
    ),
    "extra_special_tokens as a list": (made.byte_level, {**FAST, "extra_special_tokens": ["<extra>"]}, {}),
    "a token of the model's own": (made.byte_level, {**FAST, "image_token": "<extra>"}, {}),
    "a token of the model's own, null": (made.byte_level, {**FAST, "image_token": None}, {}),
    "ordinary in tokenizer.json, special in the settings": (
        with_ordinary_chatml,
        {**FAST, "added_tokens_decoder": LISTED},
        {},
    ),
    "ordinary in both": (
        with_ordinary_chatml,
        {**FAST, "added_tokens_decoder": {k: {**v, "special": False} for k, v in LISTED.items()}},
        {},
    ),
    "special in tokenizer.json, ordinary in the settings": (
        lambda: made.byte_level("<|endoftext|>", *CHATML),
        {**FAST, "added_tokens_decoder": {"1": record(CHATML[0], special=False)}},
        {},
    ),
    "blanks beside a token": (
        made.byte_level,
        {**FAST, "added_tokens_decoder": {"900": record("<extra>", lstrip=True, rstrip=True)}},
        {},
    ),
    "normalized and single word": (
        made.byte_level,
        {**FAST, "added_tokens_decoder": {"900": record("<extra>", normalized=True, single_word=True)}},
        {},
    ),
    "special_tokens_map.json alone": (
        made.byte_level,
        FAST,
        {
            "special_tokens_map": {
                "bos_token": "<s>",
                "eos_token": "</s>",
                "additional_special_tokens": ["<extra>"],
            }
        },
    ),
    "special_tokens_map.json with records": (
        made.byte_level,
        FAST,
        {"special_tokens_map": {"bos_token": record("<s>"), "eos_token": record("</s>", lstrip=True)}},
    ),
    "special_tokens_map.json with extras": (
        made.byte_level,
        {**FAST, "extra_special_tokens": ["<s>"]},
        {"special_tokens_map": {"extra_special_tokens": ["<extra>", {"content": "</s>"}]}},
    ),
    "special_tokens_map.json beside added_tokens_decoder": (
        made.byte_level,
        {**FAST, "added_tokens_decoder": LISTED},
        {"special_tokens_map": {"bos_token": "<s>"}},
    ),
    "a token marked as one": (
        made.byte_level,
        {**FAST, "bos_token": {"__type": "AddedToken", **record("<s>", lstrip=True)}},
        {},
    ),
    "add_bos_token without a post-processor": (
        made.byte_level,
        {**FAST, "bos_token": "<|endoftext|>", "add_bos_token": True},
        {},
    ),
    "add_bos_token false with one that adds it": (
        with_bos,
        {**FAST, "bos_token": "<|endoftext|>", "add_bos_token": False, "add_eos_token": True},
        {},
    ),
    "split_special_tokens": (with_bos, {**FAST, "split_special_tokens": True}, {}),
    "Llama 3's class over bytes": (with_bos, {"tokenizer_class": "LlamaTokenizerFast"}, {}),
    "a class that nobody knows": (made.byte_level, {"tokenizer_class": "MyOwnTokenizer"}, {}),
    "a class in config.json": (
        made.sentencepiece,
        {},
        {"config": {"model_type": "llama", "tokenizer_class": "LlamaTokenizer"}},
    ),
    "Llama 2": (made.sentencepiece, {"tokenizer_class": "LlamaTokenizer"}, {}),
    "Llama 2, legacy": (made.sentencepiece, {"tokenizer_class": "LlamaTokenizer", "legacy": True}, {}),
    "Llama 2, not legacy": (
        made.sentencepiece,
        {"tokenizer_class": "LlamaTokenizerFast", "legacy": False},
        {},
    ),
    "Llama 2, no prefix": (
        made.sentencepiece,
        {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
        {},
    ),
    "Llama 2, tokens listed": (
        made.sentencepiece,
        {
            "tokenizer_class": "LlamaTokenizer",
            "pad_token": "<pad>",
            "added_tokens_decoder": {
                "0": record("<unk>"),
                "1": record("<s>"),
                "2": record("</s>"),
                "900": record("<extra>", normalized=True, special=False),
            },
        },
        {},
    ),
    "Llama 2 as PreTrainedTokenizerFast": (made.sentencepiece, FAST, {}),
    "Mistral": (
        made.sentencepiece,
        {"tokenizer_class": "LlamaTokenizer", "additional_special_tokens": ["[INST]"]},
        {"config": {"model_type": "mistral"}},
    ),
    "GPT-2": (
        made.byte_level,
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "pad_token": "<pad>"},
        {"config": {"model_type": "gpt2"}},
    ),
    "GPT-2 as PreTrainedTokenizerFast": (made.byte_level, FAST, {"config": {"model_type": "gpt2"}}),
    "GPT-2's class on a Llama": (made.byte_level, {"tokenizer_class": "GPT2TokenizerFast"}, {}),
    "GPT-2 with BERT's words": (
        made.wordpiece,
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "clean_up_tokenization_spaces": True},
        {"config": {"model_type": "gpt2"}},
    ),
    "Qwen2 as PreTrainedTokenizerFast": (with_ordinary_chatml, FAST, {"config": {"model_type": "qwen2"}}),
    "Qwen2": (
        lambda: made.byte_level("<|endoftext|>", *CHATML),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": CHATML[1],
            "additional_special_tokens": list(CHATML),
        },
        {"config": {"model_type": "qwen2"}},
    ),
    "Qwen3": (
        with_ordinary_chatml,
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": CHATML[1],
            "added_tokens_decoder": {**LISTED, "900": record("<extra>", special=False)},
        },
        {"config": {"model_type": "qwen3"}},
    ),
    "Qwen3 as PreTrainedTokenizerFast": (with_ordinary_chatml, FAST, {"config": {"model_type": "qwen3"}}),
    "Pythia's class": (
        made.byte_level,
        {"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": True},
        {},
    ),
    "Gemma's class": (lambda: made.sentencepiece(strip=False), {"tokenizer_class": "GemmaTokenizer"}, {}),
    "BERT": (made.wordpiece, {"tokenizer_class": "BertTokenizer"}, {"config": {"model_type": "bert"}}),
    "BERT, nothing said": (made.wordpiece, None, {"config": {"model_type": "bert"}}),
    "DistilBERT": (
        made.wordpiece,
        {"tokenizer_class": "DistilBertTokenizerFast", "do_lower_case": True, "strip_accents": True},
        {"config": {"model_type": "distilbert"}},
    ),
    "RoBERTa": (
        lambda: made.byte_level("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        {"tokenizer_class": "RobertaTokenizerFast"},
        {"config": {"model_type": "roberta"}},
    ),
    "words with clean-up": (made.wordpiece, {**FAST, "clean_up_tokenization_spaces": True}, {}),
    "bytes with clean-up": (made.byte_level, {**FAST, "clean_up_tokenization_spaces": True}, {}),
    "Unigram": (made.unigram, FAST, {}),
}


@pytest.fixture(scope="module")
def auto():
    os.environ["HF_HUB_OFFLINE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        yield AutoTokenizer


@pytest.fixture
def load():
    opened = []

    def loaded(folder):
        opened.append(Tokenizer.load(folder))
        return opened[-1]

    yield loaded
    for each in opened:
        each.close()


@pytest.mark.parametrize("name", FOLDERS)
def test_equals_auto_tokenizer(name, auto, load, tmp_path):
    make, config, files = FOLDERS[name]
    folder = made.write(tmp_path, make(), config, **files)
    stock, ours = auto.from_pretrained(folder), load(folder)
    for text in made.SAMPLES:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special)
            assert ids == stock(text, add_special_tokens=special)["input_ids"], text
        assert ours.decode(ids) == stock.decode(ids, skip_special_tokens=True), text
        assert ours.decode_all(ids) == stock.decode(ids, skip_special_tokens=False), text
    assert ours.vocabulary_size == len(stock)
    assert ours.guarded == (name == "Unigram")
    if stock.eos_token is not None:
        expected = stock.eos_token_id
        assert (expected in ours.eos_ids) or expected >= len(stock)


def test_a_named_token_may_be_a_record(tmp_path):
    """transformers refuses those that do not say that they are tokens; older folders have them."""
    folder = made.write(
        tmp_path, made.byte_level(), {**FAST, "eos_token": {"content": "<end>", "lstrip": True}}
    )
    tokenizer = Tokenizer.load(folder)
    (number,) = tokenizer.eos_ids[1:]
    assert tokenizer.encode("a <end>")[-1] == number
    assert number in tokenizer.special_ids


REFUSED = {
    "a class of its own": (made.unigram, {"tokenizer_class": "T5Tokenizer"}, "T5Tokenizer"),
    "a class for other vocabularies": (made.unigram, {"tokenizer_class": "LlamaTokenizer"}, "Unigram"),
    "code": (made.byte_level, {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map"),
    "a named token that is a record": (
        made.byte_level,
        {**FAST, "bos_token": {"text": "<s>"}},
        "bos_token",
    ),
    "a list of numbers": (made.byte_level, {**FAST, "extra_special_tokens": [7]}, "extra_special_tokens"),
    "a listed token that is a text": (
        made.byte_level,
        {**FAST, "added_tokens_decoder": {"7": "x"}},
        "special",
    ),
    "an id that is none": (made.byte_level, {**FAST, "added_tokens_decoder": {"x": record("x")}}, "special"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_equal_is_refused(name, tmp_path):
    make, config, word = REFUSED[name]
    folder = made.write(tmp_path, make(), config)
    with pytest.raises(ModelError, match=word) as caught:
        Tokenizer.load(folder)
    assert "tokenizer" in str(caught.value.where)
    assert "AutoTokenizer" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b"\xff\xfe"),
        ("special_tokens_map.json", b"{"),
        ("added_tokens.json", b"[" * 100_000),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'),
        ("tokenizer.json", b'{"model": {"type": "Unigram", "vocab": [], "unk_id": 3}}'),
    ],
)
def test_a_broken_file_is_named(name, content, tmp_path):
    folder = made.write(tmp_path, made.byte_level(), FAST)
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Tokenizer.load(folder)
    assert name in str(caught.value.where)


def test_numbers_that_json_has_not_are_no_fault(tmp_path):
    folder = made.write(tmp_path, made.byte_level(), FAST)
    (folder / "config.json").write_text('{"model_type": "llama", "eos_token_id": 3, "router_z": NaN}')
    assert 3 in Tokenizer.load(folder).eos_ids


def test_what_a_file_has_twice_counts_once(tmp_path):
    folder = made.write(tmp_path, made.byte_level(), FAST)
    path = folder / "tokenizer.json"
    twice = path.read_text().rstrip().removesuffix("}") + ', "normalizer": {"type": "Lowercase"}}'
    path.write_text(twice)
    assert Tokenizer.load(folder).encode("AB") == Tokenizer.load(folder).encode("ab")


def stock_names():
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    exported = {name for name in dir(transformers) if name.endswith(("Tokenizer", "TokenizerFast"))}
    return {name.removesuffix("Fast") for name in {*TOKENIZER_MAPPING_NAMES.values(), *exported} if name}


def stock_class_of(name):
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    found = tokenizer_class_from_name(name) or tokenizer_class_from_name(name + "Fast")
    return found.__name__ if found is not None else "PythonBackend"


@pytest.mark.slow
def test_the_tables_of_classes_are_transformers(auto):
    from transformers.models.auto.tokenization_auto import (
        MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
        TOKENIZER_MAPPING_NAMES,
    )

    from trimtab.models.families import ENCODERS, FAMILIES

    for model in (*FAMILIES, *ENCODERS):
        assert stock_class.OF_MODEL.get(model) == TOKENIZER_MAPPING_NAMES.get(model)
        assert (model in stock_class.DECIDED_BY_MODEL) == (model in MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS)
    generic = {"TokenizersBackend", "PythonBackend", "PreTrainedTokenizerFast"}
    own = {name for name in stock_names() if stock_class_of(name) not in generic}
    assert own == stock_class.OTHERS | stock_class.BUILT | set(stock_class.SAME_AS)
    assert set(stock_parts.DEFAULTS) == stock_class.BUILT


def ids_of(auto, folder):
    """None where stock does not take a folder, whatever it raises then."""
    try:
        stock = auto.from_pretrained(folder)
        return [stock(text)["input_ids"] for text in made.SAMPLES]
    except Exception:  # noqa: BLE001
        return None


@pytest.mark.slow
def test_each_class_is_chosen_as_auto_tokenizer_chooses(auto, tmp_path):
    """Every class we build, on every model type we know, over its own kind of vocabulary."""
    from trimtab.models.families import ENCODERS, FAMILIES

    compared = 0
    for name in sorted(stock_class.BUILT | set(stock_class.SAME_AS)):
        words = stock_parts.MODEL_KINDS[stock_class.SAME_AS.get(name, name)] == "WordPiece"
        for make in (made.wordpiece,) if words else (made.byte_level, made.sentencepiece):
            # Qwen2's class over WordPiece is what stock makes of some of these, and what we refuse.
            for model in {*FAMILIES, *ENCODERS} - (stock_class.DECIDED_BY_MODEL if words else set()):
                folder = tmp_path / f"{name}-{make.__name__}-{model}"
                made.write(folder, make(), {"tokenizer_class": name}, config={"model_type": model})
                theirs = ids_of(auto, folder)
                if theirs is None:
                    continue
                ours, compared = Tokenizer.load(folder), compared + 1
                assert [ours.encode(text) for text in made.SAMPLES] == theirs, folder.name
    assert compared > 50
