import re

import pytest

from trimtab.cli import console
from trimtab.spec.progress import Event


def _event(fraction: float) -> Event:
    return Event(stage="train", fraction=fraction, note="loss 3.1")


def test_a_stage_that_broke_off_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        with console.stages() as show:
            show(_event(0.1))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    with console.stages() as show:
        show(_event(0.1))
    assert capsys.readouterr().err.count("done in") == 1


def test_time_left_is_of_what_was_done_in_this_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 110.0, 120.0, 130.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.stages() as show:
        show(_event(0.5))  # resumed half-way
        show(_event(0.6))
    lines = capsys.readouterr().err.splitlines()
    assert "left" not in lines[1]
    # A tenth took 20 s, so four tenths take 80.
    assert re.search(r"60%.* 1 min 20 s left", lines[2])


def test_a_remark_is_a_line_of_its_own_and_no_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with console.stages() as show:
        show(Event(stage="serve", fraction=0.0, remark="as it is stored"))
        show(Event(stage="serve", fraction=0.0, warning="that is slow"))
    assert capsys.readouterr().err.splitlines() == ["as it is stored", "warning: that is slow"]
