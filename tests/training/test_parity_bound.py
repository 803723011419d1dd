"""What `parity` takes for equal: rounding that Adam blows up is, a gradient that is wrong by a trace is not."""

import pytest
import torch

from trimtab.parallel.distributed import Distributed
from trimtab.parallel.mesh import Grid
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import Layout
from trimtab.training.parity.job import ParityJob
from trimtab.training.parity.subject import Subject
from trimtab.training.parity.task import _case, refer

KEY_BIAS = "model.layers.1.self_attn.k_proj.bias"


@pytest.fixture
def job(tmp_path):
    """Of a model with biases: the gradient of a key's is next to nothing, whatever its value."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    config = LlamaConfig(**sizes, bos_token_id=0, eos_token_id=0, attention_bias=True, mlp_bias=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return ParityJob(layouts=(Layout(),), model=str(tmp_path / "model"), steps=3)


def against(job, monkeypatch, wrong):
    """The case of a run whose gradients `wrong` changes (name, gradient), against one that is right."""
    reference = refer(job)
    finish = Distributed._finish_gradients

    def spoiled(self):
        finish(self)
        for name, part in self.parts.items():
            wrong(name, part.local.grad)

    monkeypatch.setattr(Distributed, "_finish_gradients", spoiled)
    return _case(job, Grid(layout=Layout(), ranks=Ranks()), reference)


def test_what_rounding_can_do_is_worked_out_for_each_element(job):
    subject = Subject(job, Grid(layout=Layout(), ranks=Ranks()))
    subject.step()
    size = subject.moments()[f"adamw.{KEY_BIAS}.exp_avg_sq"].div(1 - 0.95).sqrt()
    # Learning rate, times 1e-15, over the gradient's size and Adam's epsilon.
    torch.testing.assert_close(subject.reach()[KEY_BIAS], 3e-3 * 1e-15 / (size + 1e-8))
    assert subject.reach()[KEY_BIAS].max() > 1e-11
    # Where there is a gradient to speak of, the bound is the tolerance.
    assert subject.reach()["model.layers.1.mlp.up_proj.weight"].median() < 1e-12


def test_rounding_that_adam_divides_by_nothing_is_equal(job, monkeypatch):
    noise = torch.Generator().manual_seed(1)

    def round_off(name, gradient):
        if name.endswith("k_proj.bias"):
            gradient.add_(2e-17 * torch.randn(gradient.shape, dtype=gradient.dtype, generator=noise))

    case = against(job, monkeypatch, round_off)
    assert case.max_abs_parameter_difference > 1e-12
    assert case.unexplained_parameter_difference <= 1e-12
    assert case.max_abs_loss_difference <= 1e-12
    assert case.equal


@pytest.mark.parametrize("error", [1e-3, 1e-9, 1e-12])
def test_a_trace_of_a_wrong_gradient_is_found_and_named(job, monkeypatch, error):
    def spoil(name, gradient):
        if name == KEY_BIAS:
            gradient.add_(error)

    case = against(job, monkeypatch, spoil)
    assert not case.equal
    assert case.first_difference.step == 1
    # The norm that gradients are clipped by holds all of them, so a large error shows in others as well.
    assert error == 1e-3 or case.first_difference.parameter == KEY_BIAS


@pytest.mark.parametrize(
    "lost", ["model.embed_tokens.weight", "model.layers.0.mlp.down_proj.bias", "model.norm.weight"]
)
def test_half_of_a_sum_that_is_lost_is_found(job, monkeypatch, lost):
    def halve(name, gradient):
        if name == lost:
            gradient.mul_(0.5)

    case = against(job, monkeypatch, halve)
    assert not case.equal
    assert case.first_difference.parameter is not None
