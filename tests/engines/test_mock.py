"""The mock engine on a clock that the test turns: rates, order and limits without waiting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.engines.mock import MockEngine, prompt_seed, token_at
from trimtab.spec.serving import MockSettings, ServingConfiguration
from trimtab.spec.wire import Sampling, Submit


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def engine_at(clock, *, max_batch=4, max_batch_tokens=64, **settings):
    serving = ServingConfiguration(
        engine="mock", max_batch=max_batch, max_batch_tokens=max_batch_tokens, mock=MockSettings(**settings)
    )
    return MockEngine(serving, clock=clock)


def submit(engine, id_, prompt, **sampling):
    message = Submit(id=id_, kind="generate", sampling=Sampling(**sampling))
    engine.submit(message, np.asarray(prompt, np.int32))


def play(engine, clock):
    """Everything said until nothing is left: (moment, event)."""
    said = []
    while engine.has_work:
        clock.now += engine.pause_seconds
        said += [(clock.now, event) for event in engine.step()]
    return said


def test_tokens_come_at_the_set_rate():
    clock = Clock()
    engine = engine_at(clock, step_seconds=0.01, prefill_tokens_per_second=1000.0)
    submit(engine, 1, range(20), max_tokens=5)
    moments = [moment - 100.0 for moment, _ in play(engine, clock)]
    np.testing.assert_allclose(moments, [0.03, 0.04, 0.05, 0.06, 0.07])


def test_a_step_that_is_not_due_says_nothing():
    clock = Clock()
    engine = engine_at(clock, step_seconds=0.01)
    submit(engine, 1, [1], max_tokens=5)
    clock.now += 0.005
    assert engine.step() == []
    assert 0 < engine.pause_seconds <= 0.006


def test_a_long_prompt_is_taken_in_over_several_steps_while_others_go_on():
    clock = Clock()
    engine = engine_at(clock, max_batch_tokens=10, step_seconds=0.01)
    submit(engine, 1, [1], max_tokens=20)
    submit(engine, 2, range(35), max_tokens=1)
    said = play(engine, clock)
    first_of_2 = next(index for index, (_, event) in enumerate(said) if event.id == 2)
    assert 3 <= first_of_2 <= 5


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 50),
)
def test_every_request_ends_once_with_its_own_tokens(requests, max_batch, max_batch_tokens):
    clock = Clock()
    engine = engine_at(clock, max_batch=max_batch, max_batch_tokens=max_batch_tokens, context_length=45)
    for id_, (length, wanted) in enumerate(requests):
        submit(engine, id_, range(id_, id_ + length), max_tokens=wanted)
    said = play(engine, clock)
    for id_, (length, wanted) in enumerate(requests):
        mine = [event for _, event in said if event.id == id_]
        count = min(wanted, 45 - length)
        seed = prompt_seed(np.arange(id_, id_ + length, dtype=np.int32), 0)
        assert [token for event in mine for token in event.tokens] == [
            token_at(seed, i, 256) for i in range(count)
        ]
        assert [event.finish for event in mine] == [None] * (count - 1) + ["length"]


@given(st.integers(0, 2**48), st.integers(0, 10_000), st.integers(2, 100_000))
def test_tokens_lie_in_the_vocabulary(seed, index, vocabulary):
    assert 0 <= token_at(seed, index, vocabulary) < vocabulary


def test_text_of_a_byte_vocabulary_is_readable():
    text = bytes(token_at(5, index, 256) for index in range(500)).decode("ascii")
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ")
    assert len(set(text)) > 20


def test_seed_matters_only_when_drawing():
    prompt, answers = [1, 2, 3], []
    for temperature, seed in ((0.0, 1), (0.0, 2), (1.0, 1), (1.0, 2)):
        clock = Clock()
        engine = engine_at(clock)
        submit(engine, 1, prompt, max_tokens=8, temperature=temperature, seed=seed)
        answers.append([event.tokens for _, event in play(engine, clock)])
    assert answers[0] == answers[1]
    assert answers[2] != answers[3]


def test_without_a_seed_answers_differ_also_after_a_restart_and_between_choices():
    answers = []
    for _ in range(2):
        clock = Clock()
        engine = engine_at(clock)
        for id_ in (1, 2):
            submit(engine, id_, [1, 2, 3], max_tokens=24, temperature=1.0)
        said = play(engine, clock)
        answers += [tuple(event.tokens for _, event in said if event.id == id_) for id_ in (1, 2)]
    assert len(set(answers)) == 4


def test_steps_missed_in_a_stall_are_not_made_up_for():
    clock = Clock()
    engine = engine_at(clock, step_seconds=0.01)
    submit(engine, 1, [1], max_tokens=1000)
    clock.now += 60
    said = 0
    while engine.pause_seconds == 0:
        said += len(engine.step())
    assert said < 15
