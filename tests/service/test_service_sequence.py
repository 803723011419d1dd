"""One answer in the making: text, stops and counts, however the engine cuts its tokens into events."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

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


def made(stops=()):
    owner = Owner()
    return owner, Sequence(
        owner,
        0,
        Prompt(ids=[1]),
        detokenizer(TOKENIZER, frozenset()),
        StopStrings(stops) if stops else None,
        {},
        10,
    )


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
