import msgspec
import pytest

from machine_profiles import machine_profile
from trimtab.spec.engine_profile import EngineProfile
from trimtab.spec.errors import NotFoundError, UsageError
from trimtab.spec.hardware import this_machine
from trimtab.spec.profile import Comparison, load_profile, save_profile
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.profiles import (
    MOST_COMPARISONS,
    append_comparisons,
    engine_profile_path,
    load_compression_profile,
    load_engine_profile,
    machine_profile_path,
    save_engine_profile,
)

ROW = Comparison(layout="data=2", quantity="step_seconds", predicted=1.0, measured=1.1)


def engine_profile(**serving):
    return EngineProfile(
        hardware=this_machine(),
        created="",
        trimtab_version="0",
        model="digest",
        name="m",
        serving=ServingConfiguration(**serving),
        waves=(),
        rounds=1,
        memory_bytes=1,
        context_length=64,
    )


def test_what_is_saved_is_found_by_what_decides_speed(tmp_path):
    saved = engine_profile(threads=2)
    path = save_engine_profile(saved, tmp_path)
    assert load_engine_profile(path) == saved
    # Bounds are what a plan changes; threads and formats are other profiles.
    same = msgspec.structs.replace(saved.serving, max_queue=7, max_batch=3)
    assert engine_profile_path(tmp_path, "digest", same) == path
    for other in ({"threads": 1}, {"threads": 2, "weight_format": "int4"}, {"threads": 2, "replicas": 2}):
        assert engine_profile_path(tmp_path, "digest", ServingConfiguration(**other)) != path
    assert engine_profile_path(tmp_path, "other", saved.serving) != path
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_missing_and_broken_files_say_what_to_do(tmp_path):
    with pytest.raises(NotFoundError, match="--measure"):
        load_engine_profile(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    for load in (load_engine_profile, load_compression_profile):
        with pytest.raises(UsageError, match=r"broken\.json: not a profile"):
            load(broken)


def test_comparisons_are_appended_and_old_ones_forgotten(tmp_path):
    assert append_comparisons(tmp_path, [ROW]) is False
    assert not machine_profile_path(tmp_path).exists()
    save_profile(machine_profile(), machine_profile_path(tmp_path))
    assert append_comparisons(tmp_path, [ROW, ROW])
    assert append_comparisons(tmp_path, [msgspec.structs.replace(ROW, measured=2.0)])
    assert [row.measured for row in load_profile(machine_profile_path(tmp_path)).comparisons] == [
        1.1,
        1.1,
        2.0,
    ]
    append_comparisons(tmp_path, [ROW] * MOST_COMPARISONS)
    kept = load_profile(machine_profile_path(tmp_path)).comparisons
    assert kept == (ROW,) * MOST_COMPARISONS
