"""`trimtab serve`: models behind the API, in the foreground, until SIGTERM or Ctrl-C. Words only."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer

from trimtab.cli.console import say
from trimtab.cli.output import emit_json
from trimtab.spec.errors import EngineError
from trimtab.spec.folder import model_name
from trimtab.spec.serving import EngineName, ServingConfiguration, WeightFormat

if TYPE_CHECKING:
    from trimtab.service.launch import ServedModel, Service

MOCK = "mock"


class Overrides(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Flags that replace what was proven. None = as proven."""

    engine: EngineName | None = None
    weight_format: WeightFormat | None = None
    replicas: int | None = None
    threads: int | None = None


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints once the service is ready."""

    url: str
    models: tuple[str, ...]


def serve(
    targets: Annotated[
        list[str], typer.Argument(metavar="NAME|FOLDER|mock…", help="Store names, ./FOLDERs, or 'mock'.")
    ],
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Loopback, unless --insecure-http.")] = "127.0.0.1",
    engine: Annotated[EngineName | None, typer.Option(help="Instead of the proven engine.")] = None,
    weight_format: Annotated[WeightFormat | None, typer.Option(help="Instead of the proven format.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, max=64, help="Worker processes.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="Threads of each worker.")] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Serve a network without TLS: keys travel unencrypted.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="Let web pages of https://app.example call; repeatable; '*' = all."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document when ready.")] = False,
) -> None:
    """Serve models over HTTP (OpenAI's API) until stopped."""
    from trimtab.service.launch import start
    from trimtab.store.home import home

    signal.signal(signal.SIGTERM, _end)
    overrides = Overrides(engine=engine, weight_format=weight_format, replicas=replicas, threads=threads)
    with ExitStack() as stack:
        models = [served_model(target, overrides, stack) for target in targets]
        say(f"Loading {', '.join(model.name for model in models)} …")
        service = stack.enter_context(
            start(
                models,
                home=home(),
                host=host,
                port=port,
                insecure_http=insecure_http,
                cors_origins=cors_origin or (),
            )
        )
        if json:
            emit_json(Running(url=service.url, models=tuple(model.name for model in models)))
        else:
            _explain(service, models)
        try:
            status = service.wait()
        except (KeyboardInterrupt, SystemExit):
            say("Stopping: running answers may end; Ctrl-C again cuts them.")
            raise
        raise EngineError(f"The service ended with status {status}.", remedy="The lines above say why.")


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def served_model(target: str, overrides: Overrides, stack: ExitStack) -> ServedModel:
    from trimtab.models.info import inspect
    from trimtab.service.launch import ServedModel

    if target == MOCK:
        return ServedModel(
            name=MOCK, serving=ServingConfiguration(engine="mock", replicas=overrides.replicas or 1)
        )
    if "/" in target or target in (".", ".."):
        folder, name = Path(target).expanduser(), model_name(Path(target))
    else:
        from trimtab.store.store import Store

        folder, name = stack.enter_context(Store().open(target)), target
    inspect(folder)  # what no worker would take is told before one is started
    folder = folder.resolve()
    return ServedModel(name=name, artifact=folder, serving=_configuration(folder, name, overrides))


def _configuration(folder: Path, name: str, overrides: Overrides) -> ServingConfiguration:
    """What was proven, else the model as it is stored; then the flags."""
    from trimtab.store.artifact import as_stored, proven

    is_proven = (found := proven(folder)) is not None
    found = found or as_stored(folder)
    asked = {key: value for key, value in msgspec.structs.asdict(overrides).items() if value is not None}
    if overrides.engine == "transformers" and overrides.weight_format is None:
        asked["weight_format"] = "float32"  # it knows no low bits
    changed = {key: value for key, value in asked.items() if getattr(found, key) != value}
    if is_proven and changed:
        flags = ", ".join(f"--{key.replace('_', '-')} {value}" for key, value in changed.items())
        say(f"{name}: {flags} is not the proven configuration.")
    if not is_proven and not changed:
        say(
            f"{name} is served as it is stored ({found.weight_format}); `trimtab optimize` finds what is faster."
        )
    if changed.keys() & {"replicas", "threads"}:
        changed["cores"] = ()  # the plan was made for another number of workers
    return msgspec.structs.replace(found, **changed)


def _explain(service: Service, models: list[ServedModel]) -> None:
    name = models[0].name
    print(f"Serving {', '.join(model.name for model in models)} at {service.url}")
    print("A key:      trimtab keys create --name me")
    print(f"A question: curl {service.url}/v1/completions -H 'Authorization: Bearer KEY' \\")
    print(
        f"""              -H 'Content-Type: application/json' -d '{{"model": "{name}", "prompt": "def "}}'"""
    )
    print("Ctrl-C stops it.", flush=True)
