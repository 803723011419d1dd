"""The slot cache against transformers' own: rows of all lengths, rows used again, and layers that see a window."""

import numpy as np
import pytest
import torch
from direct_engine import DirectEngine
from tiny_models import VOCABULARY, make_artifact
from transformers import AutoModelForCausalLM

from trimtab.engines.registry import load_engine
from trimtab.spec.errors import ModelError
from trimtab.spec.serving import ServingConfiguration

SERVING = {"engine": "transformers", "weight_format": "float32"}


def greedy(model, prompt, count):
    """Token after token with the whole text each time: no cache of any kind."""
    tokens = list(prompt)
    for _ in range(count):
        with torch.inference_mode():
            tokens.append(
                int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
            )
    return tokens[len(prompt) :]


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("mistral", {"sliding_window": 6}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    ],
    ids=["every layer", "some layers"],
)
def test_windows_are_kept(family, change, tmp_path):
    artifact = make_artifact(tmp_path / "model", family, **change)
    model = AutoModelForCausalLM.from_pretrained(artifact).eval()
    engine = DirectEngine(load_engine(artifact, ServingConfiguration(max_batch_tokens=5, **SERVING)))
    prompts = [list(range(10, 10 + length)) for length in (3, 9, 17)]
    for id_, prompt in enumerate(prompts):
        engine.generate(id_, prompt, max_tokens=12, ignore_eos=True)
    for id_, (tokens, _, _) in engine.answers(0, 1, 2).items():
        assert tokens == greedy(model, prompts[id_], 12)


def test_rows_used_again_carry_nothing_over(artifacts):
    """Many requests through two rows, in waves of different lengths."""
    model = AutoModelForCausalLM.from_pretrained(artifacts("qwen3")).eval()
    engine = DirectEngine(load_engine(artifacts("qwen3"), ServingConfiguration(max_batch=2, **SERVING)))
    draw = np.random.default_rng(0)
    prompts = [draw.integers(3, VOCABULARY, length).tolist() for length in (70, 2, 40, 1, 90, 5)]
    for id_, prompt in enumerate(prompts):
        engine.generate(id_, prompt, max_tokens=6, ignore_eos=True)
    for id_, (tokens, _, _) in engine.answers(*range(6)).items():
        assert tokens == greedy(model, prompts[id_], 6)


def test_the_cache_limit_holds_requests_back_but_none_for_ever(artifacts):
    engine = DirectEngine(
        load_engine(artifacts("llama"), ServingConfiguration(cache_bytes=20_000, max_batch=8, **SERVING))
    )
    for id_ in range(4):
        engine.generate(id_, [5, 6, 7], max_tokens=10, ignore_eos=True)
    most = 0
    while engine.engine.has_work:
        engine.engine.step()
        most = max(most, engine.engine.status().running)
    # 13 tokens x 2 layers x 2 heads x 16 x 2 x 4 bytes = 6,656 bytes a request.
    assert most == 3


def test_positions_that_depend_on_the_length_are_refused(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    artifact = make_artifact(tmp_path / "model", "llama", rope_parameters=rope)
    with pytest.raises(ModelError, match="dynamic"):
        load_engine(artifact, ServingConfiguration(**SERVING))


def test_bf16_runs(artifacts):
    engine = DirectEngine(
        load_engine(artifacts("gpt2"), ServingConfiguration(engine="transformers", weight_format="bf16"))
    )
    engine.generate(1, [5, 6, 7], max_tokens=4, ignore_eos=True, logprobs=True)
    tokens, logprobs, finish = engine.answers(1)[1]
    assert (len(tokens), finish) == (4, "length")
    assert np.isfinite(logprobs).all()
