"""Every decoder family from a folder, under the strategies that cut its layers or sequences."""

import msgspec
import pytest
import torch

from trimtab.parallel.launching.launch import launch
from trimtab.spec.layout import Layout, parse_layout
from trimtab.training.parity.job import ParityJob, ParityResult

pytestmark = pytest.mark.slow
LAYOUTS = ("tensor=2,sequence=on", "pipeline=2", "context=2", "shard=2,recompute=full", "shard=2,tensor=2")


@pytest.fixture(scope="module")
def group():
    with launch(Layout(data=4), threads=1) as started:
        yield started


def shape(**more):
    return {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
    } | more


@pytest.fixture
def folder(tmp_path):
    """`folder(family)` → a tiny model with weights drawn at random, saved as a stock folder."""
    import transformers as t

    def make(family):
        kinds = {
            "llama": (t.LlamaConfig(**shape()), t.LlamaForCausalLM),
            "qwen2": (t.Qwen2Config(**shape(tie_word_embeddings=True)), t.Qwen2ForCausalLM),
            "qwen3": (t.Qwen3Config(**shape()), t.Qwen3ForCausalLM),
            "mistral": (t.MistralConfig(**shape()), t.MistralForCausalLM),
            "gpt2": (
                t.GPT2Config(
                    vocab_size=97,
                    n_embd=32,
                    n_layer=3,
                    n_head=4,
                    n_positions=64,
                    bos_token_id=0,
                    eos_token_id=0,
                    embd_pdrop=0.0,
                    attn_pdrop=0.0,
                    resid_pdrop=0.0,
                ),
                t.GPT2LMHeadModel,
            ),
        }
        config, kind = kinds[family]
        torch.manual_seed(0)
        kind(config).save_pretrained(tmp_path / family)
        return str(tmp_path / family)

    return make


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
def test_families(group, folder, family):
    job = ParityJob(layouts=tuple(parse_layout(text) for text in LAYOUTS), model=folder(family))
    answer = msgspec.convert(group.run("parity", msgspec.to_builtins(job)), ParityResult)
    for case in answer.cases:
        if family == "gpt2" and "tensor" in case.layout:
            assert "the layers of gpt2 cannot be split" in case.refused
        else:
            assert case.equal, case
