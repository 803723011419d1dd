import pytest
import torch
from torch.nn import functional

from trimtab.training.objectives.distillation import Distillation
from trimtab.training.objectives.divergence import CHUNK_TOKENS, IGNORED, divergence


def case(tokens=2 * CHUNK_TOKENS + 7, vocabulary=13, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (
        3 * torch.randn(tokens, vocabulary, dtype=dtype, generator=generator) for _ in range(2)
    )
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    targets[::5] = IGNORED
    return logits.requires_grad_(), targets, teacher


def naive(logits, targets, teacher, weight):
    """The formula as written, through autograd."""
    counted = targets != IGNORED
    cross_entropy = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    log_p, log_q = teacher.log_softmax(-1), logits.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)[counted].sum()
    return (1 - weight) * kl + weight * cross_entropy


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_loss_and_gradient_are_those_of_the_formula(weight):
    logits, targets, teacher = case()
    loss, cross_entropy = divergence(logits, targets, teacher=teacher, weight=weight)
    (3 * loss / 7).backward()
    found, logits.grad = logits.grad, None
    wanted = naive(logits, targets, teacher, weight)
    (3 * wanted / 7).backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(found, logits.grad, rtol=1e-10, atol=1e-12)
    wanted = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(cross_entropy.double(), wanted, rtol=1e-6, atol=0)


def test_without_a_teacher_it_is_cross_entropy():
    logits, targets, _ = case()
    loss, _ = divergence(logits, targets)
    loss.backward()
    found, logits.grad = logits.grad, None
    functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum").backward()
    torch.testing.assert_close(found, logits.grad, rtol=1e-10, atol=1e-12)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    logits, targets, _ = case(dtype=torch.float32)
    loss, _ = divergence(logits, targets, teacher=logits.detach().clone(), weight=0.0)
    loss.backward()
    assert abs(loss.item()) < 1e-3
    assert logits.grad.abs().max() < 1e-6


def test_half_precision_logits_keep_their_type():
    logits, targets, teacher = case(dtype=torch.bfloat16)
    loss, _ = divergence(logits, targets, teacher=teacher, weight=0.5)
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16
    wide = logits.detach().float().requires_grad_()
    naive(wide, targets, teacher.float(), 0.5).backward()
    torch.testing.assert_close(logits.grad.float(), wide.grad, rtol=0.02, atol=0.01)


@pytest.mark.parametrize(("student", "teacher"), [(13, 16), (16, 13)])
def test_a_padded_vocabulary_is_cut_to_what_both_know(student, teacher):
    logits, targets, _ = case(tokens=5, vocabulary=student)
    targets = targets.clamp(0, 12)
    taught = torch.randn(5, teacher, dtype=torch.float64)
    loss, _ = divergence(logits, targets, teacher=taught, weight=0.2)
    loss.backward()
    wanted = naive(logits.detach()[:, :13], targets, taught[:, :13], 0.2)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    assert logits.grad.shape == logits.shape


def test_the_teacher_gets_no_gradient_and_no_dropout(tiny):
    from trimtab.models.load import load

    teacher = load(tiny.teacher)
    teacher.train()
    objective = Distillation(teacher, 0.0)
    assert not teacher.training
    ids = torch.randint(0, 300, (2, 10))
    logits = torch.randn(2, 9, teacher.config.vocab_size, requires_grad=True)
    objective.loss(logits, ids).backward()
    assert logits.grad is not None
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_what_is_not_learned_is_read_by_teacher_and_student_and_is_in_no_loss(weight):
    """As messages of weight 0 are: inputs are whole, targets are not."""
    from trimtab.training.objectives.language_modelling import LanguageModelling

    rows = 13

    class Teacher(torch.nn.Module):
        def forward(self, input_ids, **_):
            assert (input_ids >= 0).all()
            return type("Output", (), {"logits": torch.eye(rows)[input_ids]})()

    windows = torch.arange(12).reshape(2, 6)
    targets = windows.clone()
    targets[0, 2:4] = targets[1] = IGNORED
    torch.manual_seed(0)
    for objective in (LanguageModelling(), Distillation(Teacher(), weight)):
        logits = torch.randn(2, 5, rows, requires_grad=True)
        inputs, wanted, count = objective.prepare({"windows": windows, "targets": targets})
        assert inputs.tolist() == windows[:, :-1].tolist()
        assert count == 3
        objective.loss(logits, wanted).backward()
        learned = logits.grad.abs().sum(-1) > 0
        assert learned.tolist() == (targets[:, 1:] != IGNORED).tolist()
        whole = objective.held_out(logits, objective.prepare({"windows": windows})[1])
        assert 0 < objective.held_out(logits, wanted) < whole
