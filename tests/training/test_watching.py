import json
import sys

import pytest
import torch

from trimtab.models.load import load
from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import UsageError
from trimtab.training.job import Watching
from trimtab.training.watching.meter import Meter, Step
from trimtab.training.watching.utilization import flops_per_token
from trimtab.training.watching.writers import writers


def test_every_step_has_its_line(make_job, here, tmp_path):
    log = tmp_path / "deep" / "log.jsonl"
    result = here(make_job(watching=Watching(log=str(log))))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(line["gradient_norm"] > 0 and line["tokens_per_second"] > 0 for line in lines)
    assert all(line["memory_bytes"] > 1 << 20 and line["mfu"] is None for line in lines)
    # Means of the lines between two points are the curve.
    losses = [line["loss"] for line in lines]
    means = [sum(losses[at : at + 4]) / 4 for at in (0, 4, 8)]
    assert means == pytest.approx([point.loss for point in result.curve], rel=1e-12)
    held_out = [line["validation_loss"] for line in lines if line["validation_loss"] is not None]
    assert held_out == [point.validation_loss for point in result.curve]


def test_a_warning_is_a_line_too(tmp_path):
    (writer,) = writers(Watching(log=str(tmp_path / "log")), "run")
    writer.tell("step-3 is torn")
    writer.close()
    assert json.loads((tmp_path / "log").read_text())["message"] == "step-3 is torn"


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_missing_extra_is_a_sentence(monkeypatch, name, module, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="is not installed") as caught:
        writers(Watching(**{name: str(tmp_path)}), "run")
    assert f"trimtab[{name}]" in caught.value.remedy


def test_tensorboard_has_the_figures(make_job, here, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = here(make_job(watching=Watching(tensorboard=str(tmp_path / "tb"))))
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert len(events.Scalars("loss")) == 12
    assert events.Scalars("validation_loss")[-1].value == pytest.approx(result.validation_loss, rel=1e-6)


def test_mlflow_has_the_figures(make_job, here, tmp_path):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    address = f"sqlite:///{tmp_path}/mlflow.db"
    result = here(make_job(watching=Watching(mlflow=address)))
    client = MlflowClient(tracking_uri=address)
    (run,) = client.search_runs([client.get_experiment_by_name("trimtab").experiment_id])
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in losses] == list(range(1, 13))
    assert run.data.metrics["validation_loss"] == result.validation_loss


def test_a_profile_is_a_trace(make_job, here, tmp_path):
    here(make_job(watching=Watching(profile=str(tmp_path / "traces"))))
    (trace,) = (tmp_path / "traces").iterdir()
    assert trace.name == "output-rank0.trace.json"
    names = {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}
    assert any("aten::mm" in name or "aten::addmm" in name for name in names)


def test_flops_of_a_token_are_those_of_its_matrices(tiny):
    """Counted by torch's own counter, forward only, which leaves two thirds to the backward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, length = load(tiny.model), 32
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, length, dtype=torch.int64), use_cache=False)
    assert flops_per_token(model, length) == pytest.approx(3 * counter.get_total_flops() / length, rel=0.01)


def test_a_writer_that_fails_is_told_once_and_dropped(make_job):
    class Broken:
        def write(self, *_):
            raise OSError("no space left")

    told, broken = [], Broken()
    meter = Meter(make_job(), Ranks(), torch.nn.Linear(1, 1), [broken], told.append)
    for number in (1, 2):
        meter.step(Step(number=number, seconds=1.0, learning_rate=0.1, gradient_norm=1.0), 2.0)
    warnings = [event for event in told if event["kind"] == "warning"]
    assert len(warnings) == 1
    assert "Broken: no space left" in warnings[0]["message"]
