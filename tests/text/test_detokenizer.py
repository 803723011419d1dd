"""However ids are cut, the text is the same; and an answer's text is what it adds to its prompt's."""

from itertools import pairwise

import pytest
import tokenizer_folders as made
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models

from trimtab.text.detokenizer import PieceDetokenizer, WindowDetokenizer, detokenizer, prompt_text
from trimtab.text.tokenizer import Tokenizer


def stripping_more():
    """Drops up to three first spaces; has no bytes."""
    rust = made.sentencepiece()
    rust.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 3, 0)])
    return rust


def without_decoder():
    return Rust(models.WordLevel(vocab={"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))


TOKENIZERS = {
    "bytes": Tokenizer(made.byte_level("<|end|>"), (0,)),
    "bytes, prefixed": Tokenizer(made.byte_level("<|end|>", prefix=True), (0,)),
    "256": Tokenizer.of_bytes(),
    "pieces": Tokenizer(made.sentencepiece(), (2,)),
    "pieces, always": Tokenizer(made.sentencepiece(scheme="always"), (2,)),
    "pieces, first": Tokenizer(made.sentencepiece(scheme="first"), (2,)),
    "pieces, never": Tokenizer(made.sentencepiece(scheme="never", strip=False), (2,)),
    "metaspace, always": Tokenizer(made.metaspace("always")),
    "metaspace, first": Tokenizer(made.metaspace("first")),
    "metaspace, never": Tokenizer(made.metaspace("never")),
    "strips more": Tokenizer(stripping_more()),
    "words": Tokenizer(made.wordpiece()),
    "words, cleaned up": Tokenizer(made.wordpiece(), cleans_up=True),
    "word ends": Tokenizer(made.word_ends()),
    "unigram": Tokenizer(made.unigram()),
    "no decoder": Tokenizer(without_decoder()),
}
BYTES = [name for name in TOKENIZERS if name.startswith(("bytes", "256"))]
PIECES = [name for name in TOKENIZERS if name.startswith("pieces")]
OTHERS = [name for name in TOKENIZERS if name not in BYTES + PIECES]
CUTS = st.lists(st.integers(0, 60), max_size=8)


def run(tokenizer, ids, cuts, before=()):
    detok = detokenizer(tokenizer, tokenizer.special_ids, before)
    edges = [0, *sorted(cut % (len(ids) + 1) for cut in cuts), len(ids)]
    parts = [detok.push(ids[a:b]) for a, b in pairwise(edges)]
    return "".join(parts) + detok.finish()


def check_answer(tokenizer, ids, start, cuts):
    """`ids` up to `start` are the prompt."""
    prompt, answer = ids[:start], ids[start:]
    shown = run(tokenizer, answer, cuts, prompt)
    whole, before = tokenizer.decode(ids), tokenizer.decode(prompt)
    assert prompt_text(tokenizer, tokenizer.special_ids, prompt) + shown == whole
    if not before.endswith("\N{REPLACEMENT CHARACTER}"):
        assert shown == whole[len(before) :]


@pytest.mark.parametrize("name", BYTES)
@given(data=st.data(), start=st.integers(0, 50), cuts=CUTS)
@settings(max_examples=150)
def test_an_answer_is_what_it_adds_to_its_prompt_whatever_the_bytes(name, data, start, cuts):
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size + 3), max_size=50))
    check_answer(tokenizer, ids, start, cuts)


@pytest.mark.parametrize("name", PIECES)
@given(data=st.data(), start=st.integers(0, 50), cuts=CUTS)
@settings(max_examples=150)
def test_an_answer_is_what_it_adds_to_its_prompt_in_pieces(name, data, start, cuts):
    """Runs of bytes are whole characters, or broken from their first byte to their last."""
    tokenizer = TOKENIZERS[name]
    size = tokenizer.vocabulary_size
    pieces = st.sampled_from([*range(3), *range(259, size + 2)]).map(lambda token: [token])
    characters = st.sampled_from("ß€🎉 a").map(lambda text: [3 + byte for byte in text.encode()])
    broken = st.sampled_from([[0xE2, 0x82], [0xFF], [0x82, 0xAC], [0xF0, 0x9F, 0x8E]]).map(
        lambda run: [*(3 + byte for byte in run), 260]
    )
    units = data.draw(
        st.lists(st.one_of(pieces, characters, broken.map(lambda run: [260, *run])), max_size=20)
    )
    check_answer(tokenizer, [token for unit in units for token in unit], start, cuts)


@pytest.mark.parametrize("name", OTHERS)
@given(data=st.data(), start=st.integers(0, 50), cuts=CUTS)
@settings(max_examples=150)
def test_an_answer_is_what_it_adds_to_its_prompt_by_windows(name, data, start, cuts):
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size + 2), max_size=50))
    if name == "words, cleaned up":
        ids = [
            token for token in ids if tokenizer.pieces[token] not in (b"'", b"t", b"s")
        ]  # rewrite earlier text
    check_answer(tokenizer, ids, start, cuts)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data(), start=st.integers(0, 50), cuts=CUTS)
@settings(max_examples=80)
def test_any_split_gives_the_same_text(name, data, start, cuts):
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=50))
    assert run(tokenizer, ids[start:], cuts, ids[:start]) == run(tokenizer, ids[start:], [], ids[:start])


@pytest.mark.parametrize("name", PIECES)
@given(text=st.text(alphabet="ab é日s▁🎉ß", max_size=30), cuts=st.lists(st.integers(0, 90), max_size=8))
@settings(max_examples=100)
def test_sentencepiece_equals_the_library_on_text(name, text, cuts):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert run(tokenizer, ids, cuts) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["pieces", "pieces, always", "metaspace, first", "metaspace, always"])
def test_the_first_space_of_a_continuation_is_not_lost(name):
    tokenizer = TOKENIZERS[name]
    prompt = tokenizer.encode("Hello")
    answer = tokenizer.encode("Hello world and", add_special_tokens=False)[1:]
    assert run(tokenizer, answer, [], prompt) == " world and"
    assert run(tokenizer, answer, [], None) == " world and"  # after a text that is not known
    assert run(tokenizer, answer, [], ()) == "world and"  # as a message of its own
    assert run(tokenizer, answer, [], [1, 1]) == "world and"  # special tokens are no text


def test_bytes_that_are_wrong_leave_what_was_shown():
    """The library would take back a whole character that stands before a wrong byte."""
    tokenizer = TOKENIZERS["pieces"]
    ids = [3 + byte for byte in b"\xc3\xa9\x80"]
    assert run(tokenizer, ids, []) == run(tokenizer, ids, [1, 2]) == "é\N{REPLACEMENT CHARACTER}"
    assert tokenizer.decode(ids) == 3 * "\N{REPLACEMENT CHARACTER}"


def test_a_space_that_cleaning_takes_away_is_held_back():
    tokenizer = TOKENIZERS["words, cleaned up"]
    ids = [tokenizer.encode(word, add_special_tokens=False)[0] for word in ("hello", "'", "##s", "world")]
    assert run(tokenizer, ids, [1, 2, 3]) == tokenizer.decode(ids)
    assert run(tokenizer, ids[:2], [1]) == tokenizer.decode(ids[:2])


@pytest.mark.parametrize("token", [260, 3 + 0xE2, 9999])
def test_a_window_stays_short(token):
    """Whatever comes for ever: spaces, beginnings of characters, ids without text."""
    rust = made.sentencepiece()
    rust.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer, longest = Tokenizer(rust), 0
    assert tokenizer.kind == "other"
    detok = detokenizer(tokenizer, tokenizer.special_ids, [token] * 500)
    decode = detok._decode

    def measured(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    detok._decode = measured
    for _ in range(200):
        detok.push([token])
    assert longest <= 32


def test_kinds_are_told_apart():
    kinds = {name: type(detokenizer(each, frozenset())) for name, each in TOKENIZERS.items()}
    assert {kinds[name] for name in OTHERS} == {WindowDetokenizer}
    assert {kinds[name] for name in BYTES + PIECES} == {PieceDetokenizer}


def test_half_a_character_waits():
    tokenizer = Tokenizer.of_bytes()
    detok = detokenizer(tokenizer, frozenset(), ())
    first, second = tokenizer.encode("é")
    assert detok.push([first]) == ""
    assert detok.push([second]) == "é"
    assert detok.push([first]) == ""
    assert detok.finish() == "\N{REPLACEMENT CHARACTER}"
    assert detokenizer(tokenizer, frozenset(), [first]).push([second]) == "é"
