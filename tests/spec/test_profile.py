import pytest

from trimtab.spec.errors import UsageError
from trimtab.spec.hardware import this_machine
from trimtab.spec.profile import Comparison, GemmSample, Profile, load_profile, save_profile


def test_a_profile_is_kept_as_it_is(tmp_path):
    profile = Profile(
        name="here",
        hardware=this_machine(),
        measured_at="2026-11-25",
        per_node=1,
        memory_bytes=1,
        memory_bytes_per_second=1.0,
        gemm=(GemmSample(dtype="float32", m=1, n=2, k=3, seconds=0.5),),
        comparisons=(
            Comparison(layout="data=2", quantity="step_seconds", predicted=1.0, measured=1.1, model="m"),
        ),
    )
    path = tmp_path / "deep" / "profile.json"
    save_profile(profile, path)
    assert load_profile(path) == profile
    assert profile.gemm[0].flops == 12
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"]


@pytest.mark.parametrize("content", [None, b"{", b'{"name": "x"}'])
def test_what_is_no_profile_says_how_to_make_one(tmp_path, content):
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="doctor --calibrate"):
        load_profile(path)
