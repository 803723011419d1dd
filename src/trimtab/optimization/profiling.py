"""An engine's profile: the build served, loaded with waves, and what the planner has to know beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from trimtab.bench.load import Event
from trimtab.bench.waves import Waves, measure_waves, sizes
from trimtab.compression.variants import blank, single_cuts
from trimtab.engines.builds import ensure_build, weights_bytes
from trimtab.engines.openvino.runtime import CACHE_BLOCK_TOKENS, cache_token_bytes
from trimtab.models.info import inspect
from trimtab.optimization.speed import Rows, served
from trimtab.spec.artifact import content_digest
from trimtab.spec.clock import now
from trimtab.spec.engine_profile import CompressionProfile, EngineProfile, ShapeProfile
from trimtab.spec.hardware import this_machine
from trimtab.spec.serving import MockSettings, ServingConfiguration, WeightFormat
from trimtab.spec.version import __version__

ROUNDS, COMPRESSION_ROUNDS, SECONDS = 7, 5, 90.0


def measure_profiles(
    rows: Rows,
    home: Path,
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    on_event: Callable[[Event], None] | None = None,
) -> dict[str, EngineProfile]:
    """The profile of each row, by name, one service after the other, about `seconds` each at most.

    Raises what a build or a service that does not start raises.
    """
    found = {}
    for name, (artifact, serving) in rows.items():
        with served({name: (artifact, serving)}, home) as running:
            context, vocabulary = _limits(artifact, serving)
            waves = measure_waves(
                running[name].target,
                sizes(context, serving.max_batch),
                workers=serving.replicas,
                vocabulary_size=vocabulary,
                rounds=rounds,
                seconds=seconds,
                on_event=on_event,
            )
        found[name] = _profile(name, artifact, serving, waves, context, home)
    return found


def measure_compression(
    name: str,
    artifact: Path,
    serving: ServingConfiguration,
    formats: Sequence[WeightFormat],
    home: Path,
    *,
    on_event: Callable[[Event], None] | None = None,
) -> CompressionProfile:
    """The whole model as `serving` says and in each other format, and single cuts with random weights."""
    info = inspect(artifact)
    whole, *cuts = single_cuts(info)
    with tempfile.TemporaryDirectory(prefix="trimtab-shapes-", dir=home) as folder:
        rows = {name: (artifact, serving, whole)}
        for bits in formats:
            if bits != serving.weight_format:
                rows[bits] = (artifact, msgspec.structs.replace(serving, weight_format=bits), whole)
        for number, shape in enumerate(cuts):
            rows[str(shape)] = (blank(artifact, shape, Path(folder, str(number))), serving, shape)
        profiles = measure_profiles(
            {row: (path, how) for row, (path, how, _) in rows.items()},
            home,
            rounds=COMPRESSION_ROUNDS,
            seconds=SECONDS / 2,
            on_event=on_event,
        )
    return CompressionProfile(
        model=content_digest(artifact),
        name=name,
        shapes=tuple(
            ShapeProfile(**shape.sizes, profile=profiles[row]) for row, (_, _, shape) in rows.items()
        ),
    )


def _limits(artifact: Path | None, serving: ServingConfiguration) -> tuple[int, int]:
    """Context length and vocabulary."""
    if artifact is None:
        mock = serving.mock or MockSettings()
        return mock.context_length, mock.vocabulary_size
    info = inspect(artifact)
    return info.context, info.vocabulary


def _profile(
    name: str, artifact: Path | None, serving: ServingConfiguration, waves: Waves, context: int, home: Path
) -> EngineProfile:
    profile = EngineProfile(
        hardware=this_machine(),
        created=now(),
        trimtab_version=__version__,
        model="mock" if artifact is None else content_digest(artifact),
        name=name,
        serving=serving,
        waves=waves.waves,
        slowdowns=waves.slowdowns,
        rounds=waves.rounds,
        memory_bytes=waves.memory_bytes,
        context_length=context,
    )
    if artifact is None:
        return profile
    return _with_sizes(profile, artifact, home)


def _with_sizes(profile: EngineProfile, artifact: Path, home: Path) -> EngineProfile:
    info, serving = inspect(artifact), profile.serving
    # The transformers engine keeps keys and values in the weights' own precision.
    plain = "float32" if serving.weight_format == "float32" else "bf16"
    token = cache_token_bytes(
        serving.kv_precision if serving.engine == "openvino" else plain,
        layers=info.layers,
        kv_heads=info.kv_heads,
        head_dim=info.head_dim,
    )
    return msgspec.structs.replace(
        profile,
        weights_bytes=weights_bytes(ensure_build(artifact, serving, home)),
        parameters=info.parameters,
        layers=info.layers,
        cache_token_bytes=token,
        cache_block_tokens=CACHE_BLOCK_TOKENS,
    )
