"""What tokens are called in reports: their text where that is theirs alone, and never two alike in doubt."""

import pytest
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models

from trimtab.text.token_names import TokenNames
from trimtab.text.tokenizer import Tokenizer

BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
WORDS = ("▁", "A", "é", "▁the", "token_id:3", "bytes:\\xc3", "bytes:")
FALLBACK = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def sentencepiece(steps):
    vocabulary = BYTES | {word: 256 + number for number, word in enumerate(WORDS)}
    rust = Rust(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    rust.decoder = decoders.Sequence(steps)
    rust.add_special_tokens(["<s>", "<a▁b>"])
    return Tokenizer(rust)


# The second kind has no table of bytes: its tokens are decoded by the library.
KINDS = {"pieces": FALLBACK, "other": [*FALLBACK, decoders.Strip("x", 0, 0)]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_and_a_letter_are_two_names_and_padding_has_numbers(kind):
    tokenizer = sentencepiece(KINDS[kind])
    assert tokenizer.kind == kind
    special = {token: tokenizer.written(token) for token in tokenizer.special_ids}
    names = TokenNames(tokenizer, special)
    of = {word: names[256 + number] for number, word in enumerate(WORDS)}
    assert (of["A"].text, of["A"].octets) == ("A", b"A")
    assert (names[0x41].text, names[0x41].octets) == ("bytes:\\x41", b"A")
    assert (names[0xC3].text, names[0xC3].octets) == ("bytes:\\xc3", b"\xc3")
    assert (of["▁the"].text, of["▁"].text, of["é"].text, of["bytes:"].text) == (" the", " ", "é", "bytes:")
    # What only looks like a name of ours is called by its number.
    assert (of["token_id:3"].text, of["bytes:\\xc3"].text) == ("token_id:260", "token_id:261")
    first = 256 + len(WORDS)
    assert [names[first].text, names[first + 1].text] == ["<s>", "<a▁b>"]
    assert [names[first + 2], names[10**6]] == [(f"token_id:{first + 2}", None), ("token_id:1000000", None)]
    every = [names[token].text for token in range(first + 40)]
    assert len(set(every)) == len(every)


def test_of_bytes_and_without_a_tokenizer():
    names = TokenNames(Tokenizer.of_bytes(), {})
    assert (names[104].text, names[0xC3].text, names[0xC3].octets) == ("h", "bytes:\\xc3", b"\xc3")
    assert TokenNames(None, {})[7] == ("token_id:7", None)


def test_a_word_and_the_same_letters_inside_one_are_two_names_where_the_decoder_strips_the_first_space():
    rust = Rust(models.BPE(vocab={"▁a": 0, "a": 1}, merges=[]))
    rust.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(rust)
    names = TokenNames(tokenizer, {})
    assert tokenizer.kind == "other"
    assert [names[0].text, names[1].text] == [" a", "a"]
