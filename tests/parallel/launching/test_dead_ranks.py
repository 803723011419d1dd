"""What is said of a rank that is gone: its own cause, whatever its neighbours do, and a remedy that is true."""

import os
import resource
import signal

import msgspec
import psutil
import pytest
import torch

from trimtab.parallel.launching.again import LOOK_CLOSER, start_again
from trimtab.parallel.launching.launch import launch
from trimtab.parallel.launching.lines import Crashed, decode_up, encode
from trimtab.parallel.launching.rank import attempt
from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import EngineError, RankLostError
from trimtab.spec.layout import Layout

NOWHERE = {"model": "/nowhere", "data": "/nowhere", "output": "/nowhere", "tokens": 1}


class Raises:
    def __init__(self, error):
        self.error = error

    def run(self, *_):
        raise self.error


def said_of(error):
    answer = attempt(Raises(error), {}, Ranks(rank=1, world=2), lambda _: None, lambda: False)
    assert decode_up(encode(answer)) == answer
    return answer


def test_an_unexpected_fault_is_told_with_its_words_and_no_promise():
    answer = said_of(KeyError("lm_head"))
    assert isinstance(answer, Crashed)
    assert "test_dead_ranks.py" in answer.trace
    fault = answer.to_error()
    assert isinstance(fault, RankLostError)
    assert fault.message == "rank 1 of 2 failed: KeyError: 'lm_head'"
    assert fault.where == f"process {os.getpid()} on {os.uname().nodename}"
    assert fault.remedy == LOOK_CLOSER
    assert said_of(ValueError()).error == "ValueError"
    assert len(said_of(ValueError("page\n" * 9000)).to_error().message) < 1000


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
    ],
)
def test_memory_that_runs_out_is_not_told_as_a_lost_rank(error):
    fault = said_of(error).to_error()
    assert type(fault) is EngineError
    assert "rank 1 of 2 ran out of memory" in fault.message
    assert "micro_batch" in fault.remedy


def test_the_cause_is_known_with_two_ranks():
    """torch puts a hook around a rank's own that swallows its traceback in a group of more than one."""
    with launch(Layout(data=2), threads=1) as group:
        with pytest.raises(
            RankLostError, match=r"rank [01] of 2 failed: ValidationError: Expected `str`"
        ) as caught:
            group.run("train", NOWHERE | {"model": 5})
        assert caught.value.remedy == LOOK_CLOSER


def test_a_rank_that_runs_out_of_memory_is_told_and_not_its_neighbour():
    small = {"layouts": [msgspec.to_builtins(Layout(data=2))], "steps": 1}
    with launch(Layout(data=2), threads=1) as group:
        group.run("parity", small)
        victim = group.pids[1]
        most = psutil.Process(victim).memory_info().vms + (8 << 20)
        resource.prlimit(victim, resource.RLIMIT_AS, (most, most))
        # A tensor of its logits alone takes 25 MB.
        with pytest.raises(EngineError, match="rank 1 of 2 ran out of memory") as caught:
            group.run("parity", small | {"batch": 512, "sequence_length": 128})
    assert type(caught.value) is EngineError


@pytest.mark.parametrize(
    ("how", "remedy"),
    [(signal.SIGKILL, "Start again."), (signal.SIGTERM, "Start again."), (signal.SIGSEGV, LOOK_CLOSER)],
)
def test_starting_again_is_advised_where_it_may_help(how, remedy):
    with launch(Layout(data=1), threads=1) as group:
        os.kill(group.pids[0], how)
        with pytest.raises(RankLostError, match=f"was killed by {how.name}") as caught:
            group.run("parity", {"layouts": [msgspec.to_builtins(Layout())]})
        assert caught.value.remedy == remedy


def test_a_last_checkpoint_is_promised_only_where_there_is_one(tmp_path):
    job = {"checkpoints": str(tmp_path / "c")}
    assert start_again({}) == start_again({"checkpoints": None}) == "Start again."
    assert "there is no checkpoint yet" in start_again(job)
    (tmp_path / "c" / "step-10-backup").mkdir(parents=True)
    (tmp_path / "c" / ".step-12.part").mkdir()
    assert "there is no checkpoint yet" in start_again(job)
    (tmp_path / "c" / "step-9").mkdir()
    (tmp_path / "c" / "step-11").mkdir()
    assert start_again(job) == "Start again: training goes on from step 11."
