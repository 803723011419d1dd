"""The published rows and the fit live beside the benchmarks; tests read the same files."""

import sys
from pathlib import Path

import pytest

from trimtab.planning.devices.accelerators import accelerator, machine_of
from trimtab.planning.training.architecture import architecture
from trimtab.planning.training.job import Job
from trimtab.planning.training.presets import preset

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def make_job():
    """`make_job("llama3-8b", devices=8)`, or a mapping in the place of the name."""

    def make(
        model="llama3-8b", *, on="h100-80gb", devices=8, length=8192, batch=64, per_node=None, **changes
    ):
        shape = (
            preset(model, where="test")
            if isinstance(model, str)
            else architecture(model, sequence_length=length, where="test")
        )
        return Job(
            architecture=shape,
            machine=machine_of(accelerator(on, where="test"), name=on, per_node=per_node),
            devices=devices,
            sequence_length=length,
            global_batch=batch,
            **changes,
        )

    return make
