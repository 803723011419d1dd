"""`trimtab`: the door. One file a group of commands; what costs to import is imported inside a command."""

from __future__ import annotations

from typing import Annotated

import typer

from trimtab.cli import (
    bench,
    compress,
    demo,
    doctor,
    evaluate,
    keys,
    models,
    optimize,
    parity,
    plan,
    serve,
    train,
)
from trimtab.cli.door import run
from trimtab.spec.version import __version__

app = typer.Typer(
    name="trimtab",
    help="Turns a large model into a fast, small, proven, secured service.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"trimtab {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(compress.compress)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(evaluate.evaluate)
app.command()(optimize.optimize)
app.command()(parity.parity)
app.command()(serve.serve)
app.command()(train.train)
app.add_typer(bench.app, name="bench")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(plan.app, name="plan")


def main() -> None:
    run(app)
