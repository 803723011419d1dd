"""One answer in the making: text, stops and counts, however the engine cuts its tokens into events."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers

from trimtab.service.orders import Order, Prompt
from trimtab.service.sequence import Sequence
from trimtab.spec.wire import Event, Sampling
from trimtab.text.detokenizer import detokenizer
from trimtab.text.stops import StopStrings
from trimtab.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.of_bytes()


class Owner:
    def __init__(self):
        self.failure, self.stopped, self.notes = None, 0, 0

    def notify(self, _sequence):
        self.notes += 1

    def fail(self, error):
        self.failure = error

    def stop(self, _sequence):
        self.stopped += 1


def made(stops=(), tokenizer=TOKENIZER, markup=None):
    owner, markup = Owner(), markup or {}
    text = detokenizer(tokenizer, frozenset(markup))
    matched = StopStrings(stops) if stops else None
    return owner, Sequence(owner, 0, Prompt(ids=[1]), text, matched, markup, 10)


def feed(sequence, tokens, cuts, *, take_between):
    """Send tokens in events cut at `cuts`; the text that was taken."""
    edges = sorted({0, len(tokens), *(cut % (len(tokens) + 1) for cut in cuts)})
    text = ""
    for start, end in pairwise(edges):
        last = end == len(tokens)
        part = tuple(tokens[start:end])
        sequence.on_event(
            Event(id=1, tokens=part, logprobs=(-1.0,) * len(part), finish="length" if last else None)
        )
        if take_between:
            text += sequence.take()
    return text + sequence.take()


texts = st.text(alphabet="abcé ", min_size=1, max_size=40)


@given(texts, st.lists(st.integers(0, 60), max_size=10), st.booleans())
def test_the_text_is_that_of_the_tokens(text, cuts, take_between):
    owner, sequence = made()
    tokens = list(text.encode())
    assert feed(sequence, tokens, cuts, take_between=take_between) == text
    assert (sequence.finish, sequence.tokens, len(sequence.logprobs)) == ("length", tokens, len(tokens))
    assert owner.failure is None


@given(texts, st.lists(st.integers(0, 60), max_size=10), st.booleans())
def test_a_stop_ends_text_tokens_and_logprobs_together(text, cuts, take_between):
    owner, sequence = made(("ab", "c "))
    tokens = list(text.encode())
    ends = [text.find(stop) + len(stop) for stop in ("ab", "c ") if stop in text]
    shown = feed(sequence, tokens, cuts, take_between=take_between)
    if not ends:
        assert (shown, sequence.finish, owner.stopped) == (text, "length", 0)
        return
    assert shown == text[: min(ends) - 2]
    assert sequence.finish == "stop"
    assert sequence.tokens == list(text[: min(ends)].encode())
    assert len(sequence.logprobs) == len(sequence.tokens)
    assert owner.stopped <= 1


def with_special_tokens(*special):
    """Bytes, and behind them special tokens: ids 256, 257, …"""
    rust = Rust(models.BPE(vocab={TOKENIZER.written(byte): byte for byte in range(256)}, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(list(special))
    return Tokenizer(rust), {256 + number: markup for number, markup in enumerate(special)}


END, STRANGE = "<|im_end|>", "<\uff5cend▁of▁text\uff5c>"
SPECIAL, MARKUP = with_special_tokens(END, STRANGE)
answers = st.lists(st.sampled_from([*b"abfo<|", 256, 257]), min_size=1, max_size=30)
stop_lists = st.lists(
    st.sampled_from(
        [END, STRANGE, "foo" + END, END + "a", "a" + END + STRANGE, "o<", "|im", "ab", "<\uff5cend"]
    ),
    min_size=1,
    max_size=3,
).map(tuple)


def with_markup(tokens):
    return "".join(MARKUP.get(token) or chr(token) for token in tokens)


@given(answers, stop_lists, st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_a_stop_may_be_or_hold_or_touch_a_special_token(tokens, stops, cuts, take_between):
    """Text, ids and log-probabilities end where the stop does in the text with all markup; markup is never shown."""
    _, sequence = made(stops, SPECIAL, MARKUP)
    shown = feed(sequence, tokens, cuts, take_between=take_between)
    ends = [
        count for count in range(1, len(tokens) + 1) if any(s in with_markup(tokens[:count]) for s in stops)
    ]
    if not ends:
        assert (shown, sequence.finish) == ("".join(map(chr, [t for t in tokens if t < 256])), "length")
        return
    kept = tokens[: ends[0]]
    assert (sequence.tokens, len(sequence.logprobs), sequence.finish) == (kept, len(kept), "stop")
    whole = with_markup(kept)
    end = min(whole.find(s) + len(s) for s in stops if s in whole)
    start = min(end - len(s) for s in stops if whole[:end].endswith(s))
    visible = [token < 256 for token in kept for _ in with_markup([token])]
    assert shown == "".join(letter for letter, seen in zip(whole[:start], visible, strict=False) if seen)


def test_an_end_token_named_as_a_stop_ends_as_it_does_without():
    """`</s>` as a stop and as the model's own end: the same text, count and reason."""
    for stops in ((), (END,), ("b" + END,)):
        _, sequence = made(stops, SPECIAL, MARKUP)
        sequence.on_event(Event(id=1, tokens=(97, 98, 256), logprobs=(-1.0,) * 3, finish="stop"))
        assert (sequence.take(), sequence.finish, len(sequence.tokens)) == (
            "a" if stops == ("b" + END,) else "ab",
            "stop",
            3,
        )


@given(st.lists(st.sampled_from([*b"ab", 256]), max_size=2000), st.booleans())
def test_the_pieces_of_a_finished_text_are_the_text(tokens, stopped):
    _, sequence = made(("zz",) if stopped else (), SPECIAL, MARKUP)
    sequence.on_event(Event(id=1, tokens=tuple(tokens), finish="length"))
    assert "".join(sequence.pieces()) == "".join(map(chr, [t for t in tokens if t < 256]))


def test_nothing_counts_after_the_end():
    owner, sequence = made(("b",))
    sequence.on_event(Event(id=1, tokens=tuple(b"abc")))
    sequence.on_event(Event(id=1, tokens=tuple(b"def"), finish="length"))
    assert (sequence.take(), sequence.finish, sequence.tokens) == ("a", "stop", list(b"ab"))
    assert (owner.notes, owner.stopped) == (1, 1)


def test_an_engine_that_gives_up_is_a_failure():
    owner, sequence = made()
    sequence.on_event(Event(id=1, finish="error", error="secret"))
    assert owner.failure is not None
    assert "secret" not in str(owner.failure)


def test_when_scores_are_needed():
    def order(alternatives, *, echo=False, temperature=0.0):
        return Order(
            prompts=(Prompt(ids=[1]),),
            sampling=Sampling(max_tokens=1, temperature=temperature),
            alternatives=alternatives,
            echo=echo,
        ).needs_scores

    assert not order(None)
    assert not order(None, echo=True)
    assert not order(0)
    assert not order(1)
    assert order(0, echo=True)
    assert order(1, temperature=0.5)
    assert order(2)
