"""What the OpenVINO engine adds to GenAI: bounded batches, a bounded cache, and settings that reach it."""

import shutil

import numpy as np
import pytest
from direct_engine import DirectEngine
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CONTEXT, VOCABULARY

from trimtab.engines.openvino.runtime import cache_blocks, properties
from trimtab.engines.registry import load_engine
from trimtab.spec.errors import EngineError, UsageError
from trimtab.spec.hardware import this_machine
from trimtab.spec.serving import ServingConfiguration

FLOAT32 = {"weight_format": "float32", "kv_precision": "float32"}
SIZES = {"layers": 2, "kv_heads": 2, "head_dim": 16}


def test_no_more_than_max_batch_run_together(build_of):
    engine = DirectEngine(load_engine(build_of("llama"), ServingConfiguration(max_batch=3, **FLOAT32)))
    for id_ in range(8):
        engine.generate(id_, [5, 6, 7 + id_], max_tokens=5, ignore_eos=True)
    most = 0
    while engine.engine.has_work:
        most = max(most, len({event.id for event in engine.engine.step()}))
    assert most == 3


def test_a_full_cache_makes_requests_wait_and_changes_no_token(build_of):
    """A cache of the least size, for one text of full length, and six that together need more."""
    small = DirectEngine(load_engine(build_of("llama"), ServingConfiguration(cache_bytes=1, **FLOAT32)))
    large = DirectEngine(load_engine(build_of("llama"), ServingConfiguration(cache_bytes=0, **FLOAT32)))
    for engine in (small, large):
        for id_ in range(6):
            engine.generate(id_, list(range(id_ + 3, id_ + 43)), max_tokens=CONTEXT, ignore_eos=True)
    answers = small.answers(*range(6))
    assert answers == large.answers(*range(6))
    assert {len(tokens) for tokens, _, _ in answers.values()} == {CONTEXT - 40}


def test_the_answer_ends_at_the_end_of_the_context(build_of):
    engine = DirectEngine(load_engine(build_of("gpt2"), ServingConfiguration(**FLOAT32)))
    engine.generate(1, [5] * (CONTEXT - 1), max_tokens=50, ignore_eos=True)
    tokens, _, finish = engine.answers(1)[1]
    assert (len(tokens), finish) == (1, "length")
    with pytest.raises(UsageError, match="context"):
        engine.generate(2, [5] * CONTEXT, max_tokens=1)


def test_ids_may_be_used_again_and_large(build_of):
    engine = DirectEngine(load_engine(build_of("gpt2"), ServingConfiguration(**FLOAT32)))
    for _ in range(2):
        engine.generate(2**40, [5, 6], max_tokens=3, ignore_eos=True)
        assert len(engine.answers(2**40)[2**40][0]) == 3


@pytest.mark.parametrize("weight_format", ["bf16", "int8", "int4"])
def test_other_formats_load_and_run(weight_format, build_of):
    serving = ServingConfiguration(weight_format=weight_format)
    engine = DirectEngine(load_engine(build_of("mistral", weight_format), serving))
    prompt = np.random.default_rng(0).integers(3, VOCABULARY, 40).tolist()
    engine.generate(1, prompt, max_tokens=8, ignore_eos=True, logprobs=True)
    tokens, logprobs, _ = engine.answers(1)[1]
    score = engine.score([*prompt, *tokens])
    # The scorer's cache is float32, generation's is not: a coarse check that both are the same model.
    assert np.abs(score.logprobs[-8:] - logprobs).max() < 0.3


def test_a_bf16_cache_runs_or_is_refused_in_a_sentence(build_of):
    serving = ServingConfiguration(weight_format="bf16", kv_precision="bf16")
    if not this_machine().bf16:
        with pytest.raises(EngineError, match="no bf16"):
            load_engine(build_of("mistral", "bf16"), serving)
        return
    engine = DirectEngine(load_engine(build_of("mistral", "bf16"), serving))
    engine.generate(1, [5, 6, 7], max_tokens=4, ignore_eos=True)
    assert len(engine.answers(1)[1][0]) == 4


def test_a_damaged_build_is_a_sentence(build_of, tmp_path):
    build = shutil.copytree(build_of("gpt2"), tmp_path / "build")
    (build / "openvino_model.xml").write_text("<net></net>")
    with pytest.raises(EngineError, match="cannot load"):
        load_engine(build, ServingConfiguration(**FLOAT32))


@given(st.integers(0, 2**34), st.integers(1, 10_000), st.sampled_from(["float32", "bf16", "u8", "default"]))
def test_blocks_hold_a_whole_text_and_stay_within_the_bytes(cache_bytes, context, kv_precision):
    blocks = cache_blocks(cache_bytes, context, kv_precision, **SIZES)
    if cache_bytes == 0:
        assert blocks == 0
        return
    least = -(-context // 32) + 1
    assert blocks >= least
    one = {"float32": 2 * 16 * 4, "bf16": 2 * 16 * 2}.get(kv_precision, 44) * 2 * 2 * 32
    assert blocks == least or blocks * one <= cache_bytes


def test_settings_of_the_plugin():
    chosen = properties("float32", "float32", 3)
    assert chosen["INFERENCE_NUM_THREADS"] == 3
    assert chosen["ENABLE_CPU_PINNING"] is False
    assert chosen["INFERENCE_PRECISION_HINT"] == "f32"
    assert chosen["KV_CACHE_PRECISION"] == "f32"
    assert not {"INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION"} & properties("int8", "default", 1).keys()
    with pytest.raises(UsageError, match="threads"):
        properties("int8", "default", 0)
