"""A service by what people call models: a store's name, a folder, an artifact in hand, or the mock engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import msgspec

from trimtab.models.info import inspect
from trimtab.service.launch import ServedModel, Service, start
from trimtab.spec.checks import check_between, check_one_of
from trimtab.spec.errors import ModelError
from trimtab.spec.folder import model_name
from trimtab.spec.progress import Event, OnEvent, silent
from trimtab.spec.serving import EngineName, ServingConfiguration, WeightFormat
from trimtab.store.artifact import Artifact, as_stored, proven
from trimtab.store.home import home as default_home
from trimtab.store.store import Store

MOCK = "mock"
MOST_REPLICAS, MOST_THREADS = 64, 256
STAGE = "serve"


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """What replaces the proven configuration. None = as proven."""

    engine: EngineName | None = None
    weight_format: WeightFormat | None = None
    replicas: int | None = None
    threads: int | None = None

    def check(self) -> Overrides:
        """Raises `UsageError` naming the option. Returns itself."""
        check_between(self.replicas, 1, MOST_REPLICAS, "--replicas")
        check_between(self.threads, 1, MOST_THREADS, "--threads")
        check_one_of(self.engine, get_args(EngineName), "--engine")
        check_one_of(self.weight_format, get_args(WeightFormat), "--weight-format")
        return self


PROVEN = Overrides()


def serve(
    *models: Artifact | Path | str,
    port: int = 8000,
    host: str = "127.0.0.1",
    engine: EngineName | None = None,
    weight_format: WeightFormat | None = None,
    replicas: int | None = None,
    threads: int | None = None,
    insecure_http: bool = False,
    cors_origins: Sequence[str] = (),
    trust_markup: bool = False,
    home: Path | None = None,
    progress: OnEvent = silent,
) -> Service:
    """Start a service and wait until it is ready; use it as a context manager. Port 0 takes a free one.

    `models`: artifacts, names in the store (`support-bot:prod`), folders, or `"mock"`. `engine`, `weight_format`,
    `replicas` (worker processes) and `threads` (of each) replace what was proven. Without `insecure_http` only
    loopback is served; web pages of `cors_origins` may call it from a browser. With `trust_markup`, a chat's messages
    may write control tokens themselves. Workers start by exec, so this works in notebooks.
    Raises `UsageError` for a port in use or an address that keys must not travel to, `ModelError` for a folder that
    cannot be taken, `NotFoundError` for a name, `IntegrityError` for a changed artifact, `EngineError` for a model that
    cannot be loaded.
    """
    check_between(port, 0, 65535, "--port")
    overrides = Overrides(
        engine=engine, weight_format=weight_format, replicas=replicas, threads=threads
    ).check()
    place = home or default_home()
    served = [served_model(model, overrides, home=place, progress=progress) for model in models]
    names = ", ".join(model.name for model in served)
    progress(Event(stage=STAGE, fraction=0.0, remark=f"Loading {names} …"))
    return start(
        served,
        home=place,
        host=host,
        port=port,
        insecure_http=insecure_http,
        cors_origins=cors_origins,
        trust_markup=trust_markup,
    )


def served_model(
    model: Artifact | Path | str,
    overrides: Overrides = PROVEN,
    *,
    home: Path | None = None,
    progress: OnEvent = silent,
) -> ServedModel:
    """What `serve` is given → name, checked folder, configuration. Raises as `serve` does."""
    if model == MOCK:
        return ServedModel(
            name=MOCK, serving=ServingConfiguration(engine="mock", replicas=overrides.replicas or 1)
        )
    if isinstance(model, Artifact):
        folder, name = model.path, model.name
    elif is_folder(model):
        folder = _expanded(Path(model))
        name = model_name(folder)
    else:
        name = str(model)
        with Store(home).open(name) as folder:
            pass  # checked; it stays where it is
    inspect(folder)  # what no worker would take is told before one is started
    folder = folder.resolve()
    serving, remark = _configuration(folder, name, overrides)
    if remark and not isinstance(model, Artifact):
        progress(Event(stage=STAGE, fraction=0.0, remark=remark))
    return ServedModel(name=name, artifact=folder, serving=serving)


def is_folder(model: Path | str) -> bool:
    """A path, or text that can be no name of the store."""
    return isinstance(model, Path) or "/" in model or model in (".", "..")


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ModelError(
            "there is no home folder for '~'.", where=str(path), remedy="Write it out."
        ) from error


def _configuration(folder: Path, name: str, overrides: Overrides) -> tuple[ServingConfiguration, str]:
    """What was proven, else the model as it is stored, then what replaces it; and what is to be said of that."""
    is_proven = (found := proven(folder)) is not None
    found = found or as_stored(folder)
    changed = _changed(found, overrides)
    remark = ""
    if is_proven and changed:
        flags = ", ".join(f"--{key.replace('_', '-')} {value}" for key, value in changed.items())
        remark = f"{name}: {flags} is not the proven configuration."
    if not is_proven and not changed:
        remark = f"{name} is served as it is stored ({found.weight_format}); `trimtab optimize` finds what is faster."
    if changed.keys() & {"replicas", "threads"}:
        # The plan was made for another number of workers.
        return msgspec.structs.replace(found, **changed, cores=()), remark
    return msgspec.structs.replace(found, **changed), remark


def _changed(found: ServingConfiguration, overrides: Overrides) -> Mapping[str, object]:
    asked = {key: value for key, value in msgspec.structs.asdict(overrides).items() if value is not None}
    if overrides.engine == "transformers" and overrides.weight_format is None:
        asked["weight_format"] = "float32"  # it knows no low bits
    return {key: value for key, value in asked.items() if getattr(found, key) != value}
