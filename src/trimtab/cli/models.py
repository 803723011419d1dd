"""`trimtab models`: what is in the store, and how it gets in and out. Words only; the work is in `store`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from trimtab.cli.console import say, table
from trimtab.cli.output import emit_json, emit_path
from trimtab.spec.artifact import PASSPORT, SERVING
from trimtab.spec.errors import UsageError
from trimtab.spec.folder import store_name
from trimtab.spec.ids import parse_reference
from trimtab.spec.units import format_bytes, format_count

if TYPE_CHECKING:
    from trimtab.store.store import Store
    from trimtab.store.version import Version

REPORT = "report.html"

app = typer.Typer(help="Models in the store: list, import, export, check, name.", no_args_is_help=True)

Ref = Annotated[str, typer.Argument(metavar="REF", help="NAME (newest), NAME@3 or NAME:alias.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def _store() -> Store:
    from trimtab.store.store import Store

    return Store()


def _show(version: Version, words: str, *, json: bool) -> None:
    """The outcome of a command about one version."""
    if json:
        emit_json(version)
    else:
        print(words)


@app.command("ls")
def ls(*, json: Json = False) -> None:
    """List every version."""
    versions = _store().versions()
    if json:
        emit_json({"versions": versions})
    elif not versions:
        say("The store is empty. 'trimtab models import FOLDER' or 'trimtab optimize' put a model in.")
    else:
        rows = [[v.reference, ", ".join(v.aliases), format_bytes(v.bytes), v.created] for v in versions]
        table("Models", ["version", "aliases", "size", "created"], rows)


@app.command("show")
def show(ref: Ref, *, json: Json = False) -> None:
    """Show a version: where it came from, what was measured, how it is served. Checks it first."""
    store = _store()
    version = store.resolve(ref)
    with store.open(version.reference) as folder:
        passport, serving = (_record(folder / name) for name in (PASSPORT, SERVING))
    records = store.records(version.reference)
    if json:
        emit_json({"version": version, "passport": passport, "serving": serving, "records": records})
        return
    print(f"{version.reference}  {format_bytes(version.bytes)}  {version.created}")
    print(f"aliases         {', '.join(version.aliases) or '-'}")
    print(f"content digest  {version.content_digest}")
    print(f"version digest  {version.version_digest}")
    print(f"records         {', '.join(records) or '-'}")
    for title, record in (("passport", passport), ("serving", serving)):
        print(f"\n{title}")
        for key, value in (record or {}).items():
            if value not in (None, [], ""):
                print(f"  {key:16} {_word(key, value)}")


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(help="A model folder in Hugging Face layout, with safetensors weights.")
    ],
    name: Annotated[str | None, typer.Option(help="Name in the store (default: the folder's).")] = None,
    *,
    json: Json = False,
) -> None:
    """Copy a model folder into the store, as a new version. Pickles and remote code are refused."""
    from trimtab.models.info import check_folder

    parameters = check_folder(folder)
    version = _store().import_folder(folder, name or store_name(folder), parameters=parameters)
    _show(version, f"imported as {version.reference} ({format_bytes(version.bytes)})", json=json)


@app.command("export")
def export(
    ref: Ref,
    destination: Annotated[Path, typer.Argument(help="Folder to make; it must not exist.")],
    *,
    json: Json = False,
) -> None:
    """Write a checked copy of a version as a plain folder that transformers loads."""
    version = _store().export(ref, destination)
    _show(version, f"{version.reference} is in {destination}", json=json)


@app.command("alias")
def alias(
    target: Annotated[str, typer.Argument(metavar="NAME:ALIAS", help="The alias to set.")],
    version: Annotated[int | None, typer.Argument(help="Version it points at (default: the newest).")] = None,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Take the alias away.")] = False,
    json: Json = False,
) -> None:
    """Point an alias at a version, wherever it pointed before."""
    wanted = parse_reference(target)
    if wanted.alias is None:
        raise UsageError(f"{target!r} names no alias.", remedy="Write NAME:ALIAS, such as support-bot:prod.")
    store = _store()
    if delete:
        store.drop_alias(wanted.name, wanted.alias)
        if json:
            emit_json({"deleted": str(wanted)})
        else:
            print(f"{wanted} is gone")
        return
    found = store.alias(wanted.name, wanted.alias, version)
    _show(found, f"{wanted} is now {found.reference}", json=json)


@app.command("verify")
def verify(
    ref: Annotated[str, typer.Argument(metavar="REF|FOLDER", help="A version, or a folder (with a '/').")],
    *,
    json: Json = False,
) -> None:
    """Check signature and files: that nothing changed since this machine signed it, not who made it."""
    store = _store()
    files = store.verify_folder(Path(ref)) if "/" in ref or ref in (".", "..") else store.verify(ref)
    if json:
        emit_json({"verified": ref, "files": files})
    else:
        print(f"{ref}: {len(files)} files are as they were signed")


@app.command("report")
def report(
    ref: Ref,
    *,
    browse: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: Json = False,
) -> None:
    """Print where the report of a version is."""
    path = _store().record(ref, REPORT)
    if json:
        emit_json({"report": str(path)})
    else:
        emit_path(path)
    if browse:
        typer.launch(path.as_uri())


@app.command("rm")
def rm(ref: Ref, *, json: Json = False) -> None:
    """Delete a version. Refused while an alias points at it."""
    version = _store().remove(ref)
    _show(version, f"{version.reference} is deleted", json=json)


def _record(path: Path) -> dict[str, Any] | None:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.is_file() else None


def _word(key: str, value: object) -> str:
    if key == "parameters" and isinstance(value, int):
        return format_count(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
