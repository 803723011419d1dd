"""Both examples, as a reader runs them: same losses, and they fall."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def losses(name):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, check=True, timeout=300
    )
    return [float(value) for value in re.findall(r"^step \d+: loss ([\d.]+)$", done.stdout, re.MULTILINE)]


def test_data_and_model_parallel_print_the_same_falling_losses():
    one, other = losses("data_parallel.py"), losses("model_parallel.py")
    assert one == other
    assert len(one) == 5
    assert one == sorted(one, reverse=True)
    assert one[-1] < one[0]


def test_they_are_short():
    for path in EXAMPLES.glob("*_parallel.py"):
        assert len(path.read_text().splitlines()) <= 25
