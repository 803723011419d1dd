"""Where measured profiles lie under a home: this machine's, and one for every engine, model and configuration."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.spec.engine_profile import EngineProfile
from trimtab.spec.errors import NotFoundError, UsageError
from trimtab.spec.hardware import this_machine
from trimtab.spec.ids import digest
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.durable import replace_bytes


def machine_profile_path(home: Path) -> Path:
    """Of this machine, whatever else shares the home."""
    return home / "profiles" / f"machine-{digest(this_machine())[:12]}.json"


def engine_profile_path(home: Path, model: str, serving: ServingConfiguration) -> Path:
    """`model` is a content digest. Batch and queue bounds are what planning changes, so they are no part of it."""
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
    return home / "profiles" / f"engine-{digest(decides)[:12]}.json"


def save_engine_profile(profile: EngineProfile, home: Path) -> Path:
    path = engine_profile_path(home, profile.model, profile.serving)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    replace_bytes(path, msgspec.json.format(msgspec.json.encode(profile), indent=2))
    return path


def load_engine_profile(path: Path) -> EngineProfile:
    """Raises `NotFoundError` where none was measured, `UsageError` for a file that is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=EngineProfile)
    except OSError as error:
        raise NotFoundError(
            "this model has not been measured on this machine with this configuration.",
            where=str(path),
            remedy="Add --measure; it takes about a minute.",
        ) from error
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"not an engine profile: {error}.", where=str(path), remedy="Measure again with --measure."
        ) from error
