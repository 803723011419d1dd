"""The five families: the tokens and log-probabilities that transformers float32 gives.

`openvino` goes through a real worker; `transformers`, whose start costs seconds, is stepped in this process.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from direct_engine import DirectEngine
from tiny_models import CONTEXT, FAMILIES, VOCABULARY
from transformers import AutoModelForCausalLM

from trimtab.engines.registry import load_engine
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.wire import Cancel, Chunk, Event, Step

FLOAT32 = {"weight_format": "float32", "kv_precision": "float32"}
# Nats: logits closer than this may swap places between two float32 implementations.
NEAR_TIE = 1e-3
PROMPTS, ANSWER = 4, 24


@pytest.fixture(scope="module")
def reference(artifacts):
    """family → the model in transformers float32."""
    loaded = {}

    def load(family):
        if family not in loaded:
            loaded[family] = AutoModelForCausalLM.from_pretrained(artifacts(family)).eval()
        return loaded[family]

    return load


@pytest.fixture
def serve(artifacts, build_of, start_worker):
    def serve(family, engine, **settings):
        if engine == "transformers":
            serving = ServingConfiguration(engine=engine, **FLOAT32, **settings)
            return DirectEngine(load_engine(artifacts(family), serving))
        build_of(family)
        gateway = start_worker(artifacts(family), engine=engine, **FLOAT32, **settings)
        gateway.hello()
        return gateway

    return serve


def logprobs_of(model, tokens):
    """Log-probabilities (length, vocabulary) after each token."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(tokens)[None]).logits[0]
    return torch.log_softmax(logits.float(), dim=-1).numpy()


def check_greedy(model, prompt, tokens):
    """Every token is the most probable one, or as good as that, given the tokens that came before it."""
    after = logprobs_of(model, [*prompt, *tokens[:-1]])[len(prompt) - 1 :]
    chosen = after[np.arange(len(tokens)), tokens]
    assert (after.max(axis=1) - chosen < NEAR_TIE).all()
    return chosen


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_and_log_probabilities(family, engine, serve, reference):
    model, draw = reference(family), np.random.default_rng(3)
    gateway = serve(family, engine, max_batch_tokens=32)
    assert gateway.capabilities.context_length == CONTEXT
    # Lengths differ so that a batch mixes them; the longest needs several pieces of `max_batch_tokens`.
    prompts = [draw.integers(3, VOCABULARY, length).tolist() for length in (1, 7, 33, 60)]
    for id_, prompt in enumerate(prompts):
        gateway.generate(id_, prompt, max_tokens=ANSWER, ignore_eos=True, logprobs=True)
    for id_, (tokens, logprobs, finish) in gateway.answers(*range(PROMPTS)).items():
        assert (len(tokens), finish) == (ANSWER, "length")
        np.testing.assert_allclose(logprobs, check_greedy(model, prompts[id_], tokens), atol=1e-3)
    text = draw.integers(0, VOCABULARY, CONTEXT)
    score = gateway.score(text, top=3)
    theirs = logprobs_of(model, text)[np.arange(CONTEXT - 1), text[1:]]
    assert np.isnan(score.logprobs[0])
    assert np.abs(score.logprobs[1:] - theirs).max() <= 1e-3
    best = np.sort(logprobs_of(model, text)[:-1], axis=1)[:, :-4:-1]
    assert np.abs(score.top_logprobs[1:] - best).max() <= 1e-3


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_every_end_token_of_a_list_ends_an_answer(engine, serve):
    """Whether a token ended an answer is told by the same draw with the end tokens ignored."""
    prompt = [5, 6, 7]
    gateway = serve("qwen2", engine)
    assert gateway.capabilities.eos_token_ids == (1, 2)
    answers = {}
    for seed in range(64):
        gateway.generate(seed, prompt, max_tokens=60, temperature=1.5, seed=seed)
        gateway.generate(100 + seed, prompt, max_tokens=60, temperature=1.5, seed=seed, ignore_eos=True)
    found = gateway.answers(*range(64), *range(100, 164))
    for seed in range(64):
        tokens, _, finish = found[seed]
        free, _, _ = found[100 + seed]
        assert len(free) == 60
        assert tokens == free[: len(tokens)]
        assert not set(tokens[:-1]) & {1, 2}
        answers.setdefault(finish, set()).add(tokens[-1])
    assert answers["stop"] == {1, 2}
    assert not answers["length"] & {1, 2}


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_a_model_without_end_tokens_writes_on(engine, serve):
    gateway = serve("mistral", engine)
    assert gateway.capabilities.eos_token_ids == ()
    gateway.generate(1, [5, 6, 7], max_tokens=50)
    tokens, _, finish = gateway.answers(1)[1]
    assert (len(tokens), finish) == (50, "length")


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_sampling(engine, serve, reference):
    """A seed repeats, seeds differ, a narrow top_p is greedy, and reported log-probabilities are the model's own."""
    model, prompt = reference("gpt2"), list(range(10, 30))
    gateway = serve("gpt2", engine)
    wishes = {
        1: {"temperature": 0.8, "seed": 11},
        2: {"temperature": 0.8, "seed": 11},
        3: {"temperature": 0.8, "seed": 12},
        4: {"temperature": 5.0, "top_p": 1e-6, "seed": 1},
        8: {"temperature": 1e-30, "top_p": 0.5, "seed": 1},
        5: {"temperature": 0.8},
        6: {"temperature": 0.8},
        7: {},
    }
    for id_, wish in wishes.items():
        gateway.generate(id_, prompt, max_tokens=16, ignore_eos=True, logprobs=True, **wish)
    found = gateway.answers(*wishes)
    assert found[1][0] == found[2][0]
    assert found[1][0] != found[3][0]
    assert found[5][0] != found[6][0]
    assert found[4][0] == found[8][0] == found[7][0]
    tokens, logprobs, _ = found[1]
    after = logprobs_of(model, [*prompt, *tokens[:-1]])[len(prompt) - 1 :]
    np.testing.assert_allclose(logprobs, after[np.arange(16), tokens], atol=1e-3)


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_drawn_tokens_follow_the_model(engine, serve, reference):
    """First tokens of many draws against the exact distribution at that temperature, cut to top_p."""
    gateway = serve("gpt2", engine)
    prompt, draws = [7, 8, 9], 320
    for id_ in range(draws):
        gateway.generate(id_, prompt, max_tokens=1, temperature=0.7, top_p=0.6, seed=id_, ignore_eos=True)
    counts = np.zeros(VOCABULARY)
    for tokens, _, _ in gateway.answers(*range(draws)).values():
        counts[tokens[0]] += 1
    weights = np.exp(logprobs_of(reference("gpt2"), prompt)[-1].astype(np.float64) / 0.7)
    weights /= weights.sum()
    order = np.argsort(-weights)
    kept = order[np.cumsum(weights[order]) - weights[order] < 0.6]
    assert counts[np.setdiff1d(order, kept)].sum() == 0
    expected = weights[kept] / weights[kept].sum() * draws
    # Half the sum of |seen minus expected| is about √(n·k) / 2 at most; twice that is beyond chance.
    assert np.abs(counts[kept] - expected).sum() / 2 < np.sqrt(draws * len(kept))


def test_the_openvino_worker_imports_no_torch_and_keeps_to_its_cores(artifacts, build_of, start_worker):
    build_of("llama")
    core = max(os.sched_getaffinity(0))
    cores = ["--cores", str(core)]
    gateway = start_worker(artifacts("llama"), engine="openvino", threads=2, arguments=cores, **FLOAT32)
    hello = gateway.hello()
    gateway.generate(1, [5, 6, 7], max_tokens=20)
    gateway.answers(1)
    gateway.score([1, 2, 3])
    process = Path(f"/proc/{hello.pid}")
    mapped = (process / "maps").read_text()
    assert "openvino" in mapped
    assert "libtorch" not in mapped
    threads = [int(task.name) for task in (process / "task").iterdir()]
    assert len(threads) > 2
    assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset({core})}


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_cancel_frees_the_place_for_who_waits(engine, artifacts, build_of, start_worker):
    build_of("llama")
    gateway = start_worker(artifacts("llama"), engine=engine, max_batch=2, **FLOAT32)
    gateway.hello()
    for id_ in range(3):
        gateway.generate(id_, [5, 6, 7], max_tokens=100, ignore_eos=True)
    gateway.wait_for(Chunk)
    gateway.send(Cancel(id=0))
    gateway.wait_for(Chunk, events=(Event(id=0, finish="cancelled"),))
    answers = gateway.answers(1, 2)
    assert [answers[id_][2] for id_ in (1, 2)] == ["length", "length"]
    gateway.wait_for(Step, running=0, waiting=0)
    gateway.drain()
    assert gateway.process.wait(10) == 0
    assert gateway.words() == ""


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_unseeded_answers_do_not_repeat_after_a_restart(engine, serve):
    answers = []
    for _ in range(2):
        gateway = serve("gpt2", engine)
        for id_ in (1, 2):
            gateway.generate(id_, [10, 11, 12], max_tokens=24, temperature=1.0, ignore_eos=True)
        found = gateway.answers(1, 2)
        answers += [tuple(found[id_][0]) for id_ in (1, 2)]
    assert len(set(answers)) == 4
