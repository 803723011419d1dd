"""Where measured profiles lie under a home: this machine's, and one for every engine, model and configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from trimtab.spec.engine_profile import CompressionProfile, EngineProfile
from trimtab.spec.errors import NotFoundError, UsageError
from trimtab.spec.hardware import this_machine
from trimtab.spec.ids import digest
from trimtab.spec.profile import Comparison, load_profile, save_profile
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.durable import replace_bytes

# Old runs are forgotten: the machine and the code move on.
MOST_COMPARISONS = 200
Kind = TypeVar("Kind", EngineProfile, CompressionProfile)


def machine_profile_path(home: Path) -> Path:
    """What `doctor --calibrate` measured of this machine."""
    return home / "profile.json"


def append_comparisons(home: Path, rows: Sequence[Comparison]) -> bool:
    """What a run was predicted to take and took, for the planner to learn from; False without a calibration."""
    path = machine_profile_path(home)
    if not path.exists():
        return False
    profile = load_profile(path)
    kept = (*profile.comparisons, *rows)[-MOST_COMPARISONS:]
    save_profile(msgspec.structs.replace(profile, comparisons=kept), path)
    return True


def engine_profile_path(home: Path, model: str, serving: ServingConfiguration) -> Path:
    """`model` is a content digest. Batch and queue bounds are what planning changes, so they are no part of it."""
    return _path(home, "engine", model, serving)


def compression_profile_path(home: Path, model: str, serving: ServingConfiguration) -> Path:
    return _path(home, "compression", model, serving)


def save_engine_profile(profile: EngineProfile, home: Path) -> Path:
    return _save(profile, engine_profile_path(home, profile.model, profile.serving))


def save_compression_profile(profile: CompressionProfile, home: Path) -> Path:
    serving = profile.shapes[0].profile.serving
    return _save(profile, compression_profile_path(home, profile.model, serving))


def load_engine_profile(path: Path) -> EngineProfile:
    """Raises `NotFoundError` where none was measured, `UsageError` for a file that is none."""
    return _load(path, EngineProfile)


def load_compression_profile(path: Path) -> CompressionProfile:
    """Raises as `load_engine_profile` does."""
    return _load(path, CompressionProfile)


def _path(home: Path, kind: str, model: str, serving: ServingConfiguration) -> Path:
    decides = (
        this_machine(),
        model,
        serving.engine,
        serving.weight_format,
        serving.kv_precision,
        serving.replicas,
        serving.threads,
        serving.cores,
        serving.mock,
    )
    return home / "profiles" / f"{kind}-{digest(decides)[:12]}.json"


def _save(profile: EngineProfile | CompressionProfile, path: Path) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    replace_bytes(path, msgspec.json.format(msgspec.json.encode(profile), indent=2))
    return path


def _load(path: Path, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise NotFoundError(
            "this model has not been measured on this machine with this configuration.",
            where=str(path),
            remedy="Add --measure; it takes a minute or a few.",
        ) from error
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"not a profile: {error}.", where=str(path), remedy="Measure it with --measure."
        ) from error
