import itertools
import json
import math

import msgspec
import pytest
import torch

from trimtab.models.load import load
from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import TrimtabError, UsageError
from trimtab.training.rate import measure


def test_it_learns_and_saves_a_stock_model(make_job, here, tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    events = []
    job = make_job(tokens=4 * 16 * 60)
    result = here(job, on_event=events.append)
    first, last = result.curve[0], result.curve[-1]
    assert (result.steps, result.tokens, result.next_sequence) == (60, 4 * 16 * 60, 240)
    # Untrained it would be the logarithm of the vocabulary, 5.7.
    assert last.validation_loss < first.validation_loss < 3.5
    assert last.validation_loss == result.validation_loss
    assert last.loss < first.loss
    assert 0 < result.optimizer_share < 1
    assert not result.stopped
    model = AutoModelForCausalLM.from_pretrained(job.output).eval()
    assert AutoTokenizer.from_pretrained(job.output).eos_token == "<|endoftext|>"
    ids = torch.randint(0, 300, (1, 8))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, load(job.output)(ids).logits)
    assert {event["kind"] for event in events} == {"progress"}
    assert events[-1]["step"] == events[-1]["steps"] == 60
    assert events[-1]["seconds_left"] == 0
    held_out = [event["validation_loss"] for event in events if event["validation_loss"] is not None]
    assert held_out == [point.validation_loss for point in result.curve]
    assert json.dumps(events)


def test_the_curve_measures_the_saved_model(make_job, here, tiny):
    """The last held-out loss is that of the model on disk, on the same windows, computed the plain way."""
    from trimtab.data.prepared import Prepared

    job = make_job(validation_samples=1000)
    result = here(job)
    windows = torch.from_numpy(Prepared.load(tiny.data).windows("validation", 16)[0]).long()
    with torch.no_grad():
        logits = load(job.output)(windows).logits[:, :-1]
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert math.isclose(result.validation_loss, wanted, rel_tol=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resuming_gives_the_same_weights_bit_for_bit(make_job, here, weights, tmp_path, optimizer):
    settings = {"optimizer": optimizer, "learning_rate": 0.02 if optimizer == "muon" else 0.003}
    here(make_job(**settings, output=str(tmp_path / "whole")))
    part = make_job(**settings, checkpoints=str(tmp_path / "checkpoints"), output=str(tmp_path / "resumed"))
    asked = itertools.count()
    stopped = here(part, wants_stop=lambda: next(asked) == 5)
    assert stopped.stopped
    assert stopped.steps == 5
    assert not (tmp_path / "resumed").exists()
    result = here(msgspec.structs.replace(part, resume=True))
    assert (result.steps, result.stopped) == (12, False)
    assert len(result.curve) == 3
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_dropout_resumes_too(make_job, here, weights, tmp_path, tiny):
    """A model with dropout draws random numbers, each step the same whether or not the run was cut off before."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from trimtab.models.load import save

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=320, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    model = str(save(GPT2LMHeadModel(config), tmp_path / "gpt2", tiny.model))
    here(make_job(model=model, output=str(tmp_path / "whole")))
    part = make_job(model=model, checkpoints=str(tmp_path / "c"), output=str(tmp_path / "resumed"))
    asked = itertools.count()
    here(part, wants_stop=lambda: next(asked) == 5)
    torch.manual_seed(99)
    here(msgspec.structs.replace(part, resume=True))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_checkpoints_are_kept_two_and_belong_to_their_job(make_job, here, tmp_path):
    folder = tmp_path / "checkpoints"
    job = make_job(checkpoints=str(folder), checkpoint_seconds=0.0)
    here(job)
    assert sorted(path.name for path in folder.iterdir()) == ["step-11", "step-12"]
    assert {path.suffix for path in folder.rglob("*.*") if path.is_file()} == {".json", ".safetensors"}
    other = msgspec.structs.replace(job, resume=True, learning_rate=0.01)
    with pytest.raises(UsageError, match="another job"):
        here(other)


def test_micro_batches_change_nothing(make_job, here, weights, tmp_path):
    here(make_job(output=str(tmp_path / "whole"), optimizer="adamw", learning_rate=0.003))
    here(make_job(output=str(tmp_path / "parts"), optimizer="adamw", learning_rate=0.003, micro_batch=1))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-3, atol=2e-4)


def test_start_sequence_takes_up_where_another_job_ended(make_job, here):
    first = here(make_job(seed=3))
    second = here(make_job(seed=3, start_sequence=first.next_sequence))
    assert second.next_sequence == 2 * first.next_sequence
    assert second.curve[0].loss != first.curve[0].loss


def test_distillation_brings_a_student_to_its_teacher(make_job, here, tiny, tmp_path):
    taught = make_job(
        teacher=str(tiny.teacher),
        objective="distillation",
        tokens=4 * 16 * 40,
        output=str(tmp_path / "student"),
    )
    result = here(taught)
    assert result.curve[-1].loss < 0.5 * result.curve[0].loss
    same = make_job(
        model=str(tiny.teacher), teacher=str(tiny.teacher), objective="distillation", learning_rate=0.0
    )
    same = msgspec.structs.replace(same, embedding_learning_rate=0.0)
    assert abs(here(same).loss) < 1e-5


def test_distillation_without_a_teacher(make_job, here):
    with pytest.raises(UsageError, match="needs a teacher"):
        here(make_job(objective="distillation"))


def test_a_loss_that_is_no_number_stops_with_a_sentence(make_job, here):
    with pytest.raises(TrimtabError, match=r"no longer a number at step \d+ of 12") as caught:
        here(make_job(optimizer="adamw", learning_rate=1e30))
    assert "learning_rate" in caught.value.remedy


def test_rate_is_measured_and_moves_nothing(make_job, tmp_path):
    rate = measure(make_job(), Ranks())
    assert rate.tokens_per_second == pytest.approx(4 * 16 / rate.step_seconds)
    assert rate.precision == "float32"
    assert not (tmp_path / "output").exists()
