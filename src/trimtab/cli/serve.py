"""`trimtab serve`: models behind the API, in the foreground, until SIGTERM or Ctrl-C. Words only."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer

from trimtab.cli.console import say
from trimtab.cli.output import emit_json
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import EngineName, WeightFormat

if TYPE_CHECKING:
    from trimtab.service.launch import Service


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
    trust_markup: Annotated[
        bool,
        typer.Option(
            "--trust-markup", help="Let chat messages write control tokens (<|im_end|>) themselves."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document when ready.")] = False,
) -> None:
    """Serve models over HTTP (OpenAI's API) until stopped."""
    from trimtab.models.served import serve as start

    signal.signal(signal.SIGTERM, _end)
    with start(
        *targets,
        port=port,
        host=host,
        engine=engine,
        weight_format=weight_format,
        replicas=replicas,
        threads=threads,
        insecure_http=insecure_http,
        cors_origins=cors_origin or (),
        trust_markup=trust_markup,
        progress=lambda event: say(event.remark),
    ) as service:
        if json:
            emit_json(Running(url=service.url, models=service.models))
        else:
            _explain(service)
        try:
            status = service.wait()
        except (KeyboardInterrupt, SystemExit):
            say("Stopping: running answers may end; Ctrl-C again cuts them.")
            raise
        raise EngineError(f"The service ended with status {status}.", remedy="The lines above say why.")


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _explain(service: Service) -> None:
    print(f"Serving {', '.join(service.models)} at {service.url}")
    print("A key:      trimtab keys create --name me")
    print(f"A question: curl {service.url}/v1/completions -H 'Authorization: Bearer KEY' \\")
    name = service.models[0]
    print(
        f"""              -H 'Content-Type: application/json' -d '{{"model": "{name}", "prompt": "def "}}'"""
    )
    print("Ctrl-C stops it.", flush=True)
