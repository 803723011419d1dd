"""Measures, verdict, serving configuration, hardware, errors: the records that cross borders keep their shape."""

import os

import msgspec
import psutil
import pytest

from trimtab.spec import errors
from trimtab.spec.hardware import this_machine, usable_cores
from trimtab.spec.measures import Estimate, Load, Quality, Speed
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.verdict import Candidate, Verdict

ONE = Estimate(value=1.0, low=0.9, high=1.1)


def _candidate(**changes):
    quality = Quality(
        perplexity=ONE,
        perplexity_ratio=ONE,
        kl_mean=ONE,
        kl_p99=ONE,
        top1_agreement=ONE,
        flips_worse=ONE,
        flips_better=ONE,
        degenerate=0.0,
        tokens=7,
    )
    load = Load(
        concurrency=1,
        prompt_tokens=2,
        output_tokens=3,
        tokens_per_second=ONE,
        ttft_p50=1,
        ttft_p95=1,
        tpot_p50=1,
        tpot_p95=1,
    )
    speed = Speed(load_seconds=1, memory_bytes=1, weights_bytes=1, loads=(load,))
    fields = {
        "name": "a",
        "role": "baseline",
        "shape": {"layers": 2},
        "parameters": 1,
        "weights_bytes": 1,
        "serving": ServingConfiguration(cores=((0,), (1,))),
        "quality": quality,
        "speed": speed,
    }
    return Candidate(**(fields | changes))


def _verdict(**changes):
    fields = {
        "feasible": False,
        "name": "a",
        "baseline": _candidate(),
        "controls": (),
        "candidates": (_candidate(),),
        "winner": None,
        "noise": (0.9, 1.1),
        "hardware": this_machine(),
        "recipe_digest": "d",
        "trimtab_version": "1",
        "created": "now",
        "seconds": 1.0,
    }
    return Verdict(**(fields | changes))


def test_a_verdict_comes_back_as_it_was_saved(tmp_path):
    path = tmp_path / "verdict.json"
    _verdict().save(path)
    assert Verdict.load(path) == _verdict()
    assert list(tmp_path.iterdir()) == [path]


def test_records_refuse_what_they_do_not_know():
    for record in (ONE, _candidate(), _candidate().speed, ServingConfiguration(), _verdict()):
        encoded = msgspec.json.encode(msgspec.to_builtins(record) | {"more": 1})
        with pytest.raises(msgspec.ValidationError, match="more"):
            msgspec.json.decode(encoded, type=type(record))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"engine": "pickle"}', type=ServingConfiguration)


def test_an_estimate_shows_its_interval():
    assert str(Estimate(value=2.71828, low=2.5, high=2.9)) == "2.718 [2.5, 2.9]"


def test_hardware_knows_the_cores_we_may_use():
    machine = this_machine()
    assert machine.cores == usable_cores()
    assert machine.memory_bytes == psutil.virtual_memory().total
    assert str(len(machine.cores)) in str(machine)
    if hasattr(os, "sched_setaffinity") and len(machine.cores) > 1:
        os.sched_setaffinity(0, {machine.cores[0]})
        try:
            assert usable_cores() == machine.cores[:1]
        finally:
            os.sched_setaffinity(0, machine.cores)


def test_errors_say_what_where_and_what_to_do():
    error = errors.RecipeError("unknown key.", where="r.yaml:3 slo", remedy="Did you mean 'x'?")
    assert str(error) == "r.yaml:3 slo: unknown key. Did you mean 'x'?"
    assert str(errors.TrimtabError("plain.")) == "plain."
    assert errors.OverloadedError("full.", retry_after=2.5).retry_after == 2.5


def _all(kind):
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _all(child))]


def test_every_error_has_a_code_and_a_status():
    for kind in _all(errors.TrimtabError):
        assert kind.exit_code in {1, 2, 3}
        assert 400 <= kind.status <= 599
        assert kind.code.islower()
    assert errors.RefusedError.exit_code == 3
    assert errors.UsageError.exit_code == 2
    assert errors.AuthenticationError.status == 401
    assert errors.OverloadedError.status == 429
