"""However ids are cut, the text is the same; and it is the library's own text."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers, trainers

from trimtab.text.detokenizer import PieceDetokenizer, WindowDetokenizer, detokenizer
from trimtab.text.tokenizer import Tokenizer

TEXTS = ["def read(self):\n    return self.ok", "größer als 5 €", "日本語のテキスト", "a 🎉 b", "x = 'é'"] * 3


def byte_level():
    rust = Rust(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(TEXTS, trainer)
    return Tokenizer(rust, (0,))


def sentencepiece(*, strip=True):
    vocabulary = {"<unk>": 0, "</s>": 1} | {f"<0x{byte:02X}>": 2 + byte for byte in range(256)}
    for piece in ("▁", "▁the", "a", "b", "▁cat", "é", "日", "s"):
        vocabulary[piece] = len(vocabulary)
    rust = Rust(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    rust.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    rust.add_special_tokens(["</s>"])
    return Tokenizer(rust, (1,))


def wordpiece():
    words = ["[UNK]", "[SEP]", "hello", "##ly", "world", ",", "##s"]
    rust = Rust(models.WordPiece(vocab={word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    rust.decoder = decoders.WordPiece()
    rust.add_special_tokens(["[SEP]"])
    return Tokenizer(rust)


TOKENIZERS = {
    "bytes": byte_level(),
    "pieces": sentencepiece(),
    "pieces, no strip": sentencepiece(strip=False),
    "other": wordpiece(),
    "256": Tokenizer.of_bytes(),
}


def run(tokenizer, ids, cuts):
    made = detokenizer(tokenizer, tokenizer.special_ids)
    edges = [0, *sorted(cut % (len(ids) + 1) for cut in cuts), len(ids)]
    parts = [made.push(ids[a:b]) for a, b in pairwise(edges)]
    return "".join(parts) + made.finish()


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data(), cuts=st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_split_gives_the_same_text(name, data, cuts):
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=50))
    assert run(tokenizer, ids, cuts) == run(tokenizer, ids, [])


@pytest.mark.parametrize("name", ["bytes", "256"])
@given(data=st.data(), cuts=st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=200, deadline=None)
def test_equals_the_library_on_any_ids(name, data, cuts):
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size + 3), max_size=50))
    assert run(tokenizer, ids, cuts) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["pieces", "pieces, no strip"])
@given(text=st.text(alphabet="ab é日s▁🎉ß", max_size=30), cuts=st.lists(st.integers(0, 90), max_size=8))
@settings(max_examples=200, deadline=None)
def test_sentencepiece_equals_the_library_on_text(name, text, cuts):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert run(tokenizer, ids, cuts) == tokenizer.decode(ids)


@given(ids=st.lists(st.integers(0, 6), max_size=20), cuts=st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=100, deadline=None)
def test_window_equals_the_library(ids, cuts):
    tokenizer = TOKENIZERS["other"]
    assert run(tokenizer, ids, cuts) == tokenizer.decode(ids)


def test_kinds_are_told_apart():
    kinds = {name: type(detokenizer(each, frozenset())) for name, each in TOKENIZERS.items()}
    assert kinds.pop("other") is WindowDetokenizer
    assert set(kinds.values()) == {PieceDetokenizer}


def test_half_a_character_waits():
    tokenizer = Tokenizer.of_bytes()
    made = detokenizer(tokenizer, frozenset())
    first, second = tokenizer.encode("é")
    assert made.push([first]) == ""
    assert made.push([second]) == "é"
    assert made.push([first]) == ""
    assert made.finish() == "\N{REPLACEMENT CHARACTER}"
