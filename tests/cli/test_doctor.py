import json

import pytest
from test_plan_serve import trimtab

from trimtab.spec.profile import load_profile


def test_doctor_says_what_is_there_without_torch(tmp_path):
    done = trimtab("doctor", "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["profile"] is None
    assert found["packages"]["torch"]
    assert found["hardware"]["cores"]
    shown = trimtab("doctor", home=tmp_path / "home")
    assert "doctor --calibrate" in shown.stdout


def test_a_correction_needs_a_calibration(tmp_path):
    done = trimtab("doctor", "--refit", home=tmp_path / "home")
    assert done.returncode == 2
    assert "doctor --calibrate" in done.stderr
    assert trimtab("doctor", "--calibrate", "--processes", "0", home=tmp_path / "home").returncode == 2


@pytest.mark.slow
def test_calibration_is_kept_and_judged(tmp_path):
    from trimtab.spec.profile import Comparison
    from trimtab.store.profiles import append_comparisons

    home = tmp_path / "home"
    done = trimtab("doctor", "--calibrate", "--processes", "1", "--json", home=home, timeout=400)
    assert done.returncode == 0, done.stderr
    kept = load_profile(home / "profile.json")
    assert json.loads(done.stdout)["profile"]["measured_at"] == kept.measured_at
    row = Comparison(layout="data=1", quantity="step_seconds", predicted=1.0, measured=2.0)
    assert append_comparisons(home, [row] * 3)
    found = json.loads(trimtab("doctor", "--json", home=home).stdout)["fitness"][0]
    assert (found["mean_error"], found["factor"]) == (0.5, 2.0)
    assert trimtab("doctor", "--refit", home=home).returncode == 0
    found = json.loads(trimtab("doctor", "--json", home=home).stdout)["fitness"][0]
    assert found["mean_error"] == 0
