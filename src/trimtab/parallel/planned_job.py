"""A model and a machine by what people call them → what planning computes with. Torch-free; nothing is fetched from a
network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trimtab.spec.errors import UsageError
from trimtab.spec.units import parse_bytes

if TYPE_CHECKING:
    from trimtab.planning.devices.machine import Machine
    from trimtab.planning.devices.refit import Fitness
    from trimtab.planning.training.architecture import Architecture
    from trimtab.planning.training.job import Precision

THIS_MACHINE = "this"


class Model(NamedTuple):
    """`kind` as our training calls it (`model_type`); `context`: tokens it was made for, where that is said."""

    architecture: Architecture
    kind: str
    context: int | None = None


def read_model(
    model: str | Path | None, arch: str | Mapping[str, object] | None, sequence_length: int
) -> Model:
    """A config.json, its folder, a preset, a hub id that is in the local cache; or `arch`, as JSON or a mapping."""
    from trimtab.planning.training.architecture import architecture
    from trimtab.planning.training.presets import preset

    if (model is None) == (arch is None):
        raise UsageError(
            "name one model.",
            where="MODEL",
            remedy="A config.json, a preset such as llama3-70b, or --arch JSON.",
        )
    if arch is not None:
        return _of_family(architecture(_mapping(arch), sequence_length=sequence_length, where="--arch"))
    name = str(model)
    path = Path(name)
    if path.is_dir():
        return _of_config(path / "config.json")
    if path.is_file() or name.endswith(".json"):
        return _of_config(path)
    if re.fullmatch(r"(hf://)?[\w.-]+/[\w.-]+", name):
        return _of_config(_cached(name.removeprefix("hf://")))
    return _of_family(preset(name, where="MODEL"))


def _mapping(arch: str | Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(arch, str):
        return arch
    try:
        values = json.loads(arch)
    except ValueError as error:
        raise UsageError("not JSON.", where="--arch", remedy='Such as {"family":"gpt",…}.') from error
    if not isinstance(values, dict):
        raise UsageError("not a JSON object.", where="--arch", remedy='Such as {"family":"gpt",…}.')
    return values


def _of_config(config_file: Path) -> Model:
    from trimtab.models.info import read_shape
    from trimtab.models.planned import planned

    shape = read_shape(config_file)
    return Model(planned(config_file), shape.family, shape.context)


def _of_family(shape: Architecture) -> Model:
    """`gpt` stands for GPT-2's layers; those of a llama are the same to all decoders like it."""
    if shape.family == "gpt":
        return Model(shape, "gpt2", shape.positions)
    return Model(shape, "llama")


def _cached(name: str) -> Path:
    """The config of a hub's model, if some tool has fetched it to this machine before."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        found = None
    else:
        found = try_to_load_from_cache(name, "config.json")
    if not isinstance(found, str):
        raise UsageError(
            f"{name} is not on this machine, and models are not fetched from a hub.",
            where="MODEL",
            remedy="Give the path of its config.json.",
        )
    return Path(found)


class Devices(NamedTuple):
    """What is planned for. `fitness`: how right plans of a measured machine were so far; None for a datasheet."""

    machine: Machine
    precision: Precision
    fitness: list[Fitness] | None = None


def read_machine(
    name: str | Path | None,
    *,
    precision: Precision | None,
    per_node: int | None,
    link: str | float | None,
    network: str | float | None,
    home: Path,
) -> Devices:
    """An accelerator by name; `this`, or nothing: the profile of this machine; or the file of one. And the precision:
    as asked, else bf16, or on a measured machine the one that training takes there.
    """
    from trimtab.planning.devices.accelerators import accelerator, machine_of
    from trimtab.store.profiles import machine_profile_path

    measured = machine_profile_path(home)
    if name is None and not measured.is_file():
        raise UsageError(
            "no accelerator is named, and this machine was not measured.",
            where="--accelerator",
            remedy="Name one, such as h100-80gb, or measure this one: trimtab doctor --calibrate.",
        )
    if name in (None, THIS_MACHINE):
        return _measured(measured, precision, per_node, link, network)
    if name is not None and str(name).endswith(".json"):
        return _measured(Path(name), precision, per_node, link, network)
    known, precision = str(name), precision or "bf16"
    machine = machine_of(
        accelerator(known, where="--accelerator"),
        name=known,
        single_precision=precision == "fp32",
        per_node=per_node,
        link=_rate(link, "--link"),
        network=_rate(network, "--network"),
    )
    return Devices(machine, precision)


def _measured(
    path: Path,
    precision: Precision | None,
    per_node: int | None,
    link: str | float | None,
    network: str | float | None,
) -> Devices:
    from trimtab.planning.devices.profiles import is_faster_in_16_bits
    from trimtab.planning.devices.refit import fitness
    from trimtab.planning.training.calibrated import calibrated_machine
    from trimtab.spec.profile import load_profile

    for value, flag in ((link, "--link"), (network, "--network")):
        if value is not None:
            raise UsageError(
                "a measured machine's links were measured.",
                where=flag,
                remedy="Leave it out, or name an accelerator.",
            )
    profile = load_profile(path)
    chosen = precision or ("mixed" if is_faster_in_16_bits(profile) else "fp32")
    machine = calibrated_machine(profile, single_precision=chosen == "fp32", per_node=per_node)
    return Devices(machine, chosen, fitness(profile))


def _rate(rate: str | float | None, where: str) -> float | None:
    """`450GB`, or a number → bytes a second."""
    if rate is None:
        return None
    try:
        rate = parse_bytes(rate.removesuffix("/s")) if isinstance(rate, str) else float(rate)
    except ValueError as error:
        raise UsageError(f"{error}.", where=where) from error
    if not 0 < rate < float("inf"):
        raise UsageError("no device could talk to another.", where=where, remedy="Such as 50GB.")
    return float(rate)
