import os
import sys

import pytest
from test_client import job

from trimtab.bench.generator import Generator
from trimtab.spec.errors import EngineError


def test_many_jobs_one_process_and_a_failure_does_not_end_it(streaming):
    service, refusing = streaming(), streaming(status=429, body={"error": {"message": "busy."}})
    with Generator() as generator:
        assert generator.run(job(service)).tokens == (8,) * 10
        with pytest.raises(EngineError, match="busy"):
            generator.run(job(refusing))
        assert generator.run(job(service, requests=2)).tokens == (8, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="cores are set on Linux")
def test_it_runs_on_the_cores_it_is_given(streaming):
    core = max(os.sched_getaffinity(0))
    with Generator() as generator:
        generator.run(job(streaming(), cores=(core,)))
        assert os.sched_getaffinity(generator.pid) == {core}
    assert core in os.sched_getaffinity(0)


def test_a_dead_load_process_is_told(streaming):
    with Generator() as generator:
        os.kill(generator.pid, 9)
        with pytest.raises(EngineError, match="code -9"):
            generator.run(job(streaming()))


def test_the_key_is_in_no_argument_list(streaming):
    with Generator() as generator:
        generator.run(job(streaming(), key="tt_1_hidden"))
        with open(f"/proc/{generator.pid}/cmdline", "rb") as file:  # noqa: PTH123
            assert b"hidden" not in file.read()
