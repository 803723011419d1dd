"""Flags of `trimtab plan train` → the job to be planned. Torch-free; nothing is fetched from a network."""

from __future__ import annotations

import json
import re
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


def read_architecture(model: str | None, arch: str | None, sequence_length: int) -> Architecture:
    """A config.json, its folder, a preset, a hub id that is in the local cache; or `--arch` as JSON."""
    from trimtab.models.planned import planned
    from trimtab.planning.training.architecture import architecture
    from trimtab.planning.training.presets import preset

    if (model is None) == (arch is None):
        raise UsageError(
            "name one model.",
            where="MODEL",
            remedy="A config.json, a preset such as llama3-70b, or --arch JSON.",
        )
    if arch is not None:
        try:
            values = json.loads(arch)
        except ValueError as error:
            raise UsageError("not JSON.", where="--arch", remedy='Such as {"family":"gpt",…}.') from error
        if not isinstance(values, dict):
            raise UsageError("not a JSON object.", where="--arch", remedy='Such as {"family":"gpt",…}.')
        return architecture(values, sequence_length=sequence_length, where="--arch")
    name = str(model)
    path = Path(name)
    if path.is_dir():
        return planned(path / "config.json")
    if path.is_file() or name.endswith(".json"):
        return planned(path)
    if re.fullmatch(r"(hf://)?[\w.-]+/[\w.-]+", name):
        return planned(_cached(name.removeprefix("hf://")))
    return preset(name, where="MODEL")


def beyond_its_context(model: str, sequence_length: int) -> str | None:
    """A warning where sequences are longer than a config's context; presets and `--arch` name none."""
    from trimtab.models.tables import check_length

    path = Path(model)
    folder = path.parent if path.is_file() else path
    if not (folder / "config.json").is_file() or (path.is_file() and path.name != "config.json"):
        return None
    return check_length(folder, sequence_length, where="--sequence-length")


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
    name: str | None,
    *,
    precision: Precision | None,
    per_node: int | None,
    link: str | None,
    network: str | None,
) -> Devices:
    """An accelerator by name; `this`, or nothing: the profile of this machine; or the file of one. And the precision:
    as asked, else bf16, or on a measured machine the one that training takes there.
    """
    from trimtab.planning.devices.accelerators import accelerator, machine_of
    from trimtab.store.home import home
    from trimtab.store.profiles import machine_profile_path

    measured = machine_profile_path(home())
    if name is None and not measured.is_file():
        raise UsageError(
            "no accelerator is named, and this machine was not measured.",
            where="--accelerator",
            remedy="Name one, such as h100-80gb, or measure this one: trimtab doctor --calibrate.",
        )
    if name in (None, THIS_MACHINE):
        return _measured(measured, precision, per_node, link, network)
    if name is not None and name.endswith(".json"):
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
    path: Path, precision: Precision | None, per_node: int | None, link: str | None, network: str | None
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


def _rate(text: str | None, where: str) -> float | None:
    """`450GB` → bytes a second."""
    if text is None:
        return None
    try:
        rate = parse_bytes(text.removesuffix("/s"))
    except ValueError as error:
        raise UsageError(f"{error}.", where=where) from error
    if rate <= 0:
        raise UsageError("no device could talk to another.", where=where, remedy="Such as 50GB.")
    return float(rate)
