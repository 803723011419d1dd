from trimtab.parallel.ranks import Ranks
from trimtab.training import precision


def test_what_is_asked_for_is_taken_and_auto_is_what_is_clearly_faster(monkeypatch):
    assert precision.choose_precision("bf16", Ranks()) == "bf16"
    assert precision.choose_precision("float32", Ranks()) == "float32"
    for gain, wanted in ((0.1, "float32"), (1.1, "float32"), (2.0, "bf16")):
        monkeypatch.setattr(precision, "_gain", lambda _, gain=gain: gain)
        assert precision.choose_precision("auto", Ranks()) == wanted


def test_bf16_trains(make_job, here):
    result = here(make_job(precision="bf16"))
    assert result.precision == "bf16"
    assert result.curve[-1].loss < result.curve[0].loss
