"""`trimtab plan`: what would be done, how long it would take and how sure that is, before anything is done."""

from __future__ import annotations

import typer

from trimtab.cli import plan_compress, plan_serve, plan_train

app = typer.Typer(help="Predict: layouts, compression, serving. Nothing is run.", no_args_is_help=True)
app.command("train")(plan_train.train)
app.command("compress")(plan_compress.compress)
app.command("serve")(plan_serve.serve)
