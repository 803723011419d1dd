"""`trimtab keys`: API keys of this home's services. Words only; the work is in `security.keys`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import say, table
from trimtab.cli.output import emit_json
from trimtab.spec.errors import UsageError
from trimtab.spec.units import parse_duration

if TYPE_CHECKING:
    from trimtab.security.keys import KeyRing

app = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def _ring() -> KeyRing:
    from trimtab.security.keys import KeyRing

    return KeyRing()


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="Who or what will use the key.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="infer, read or admin; may be repeated (default: infer and read)."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Valid for so long, such as 30d.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Make a key and show it, this once."""
    from trimtab.security.keys import DEFAULT_SCOPES

    created = _ring().create(name, scopes=scope or DEFAULT_SCOPES, expires=_moment(expires))
    if json:
        emit_json(created)
        return
    print(created.key)
    say(f"Key {created.id} for {name} ({', '.join(created.scopes)}). It is not shown again.")
    say("Send it as 'Authorization: Bearer …'.")


@app.command("ls")
def ls(*, json: Json = False) -> None:
    """List the keys, without their secrets."""
    entries = _ring().list()
    if json:
        emit_json({"keys": entries})
    elif not entries:
        say("There are no keys. 'trimtab keys create --name NAME' makes one.")
    else:
        rows = [
            [
                entry.id,
                entry.name,
                ", ".join(entry.scopes),
                entry.created,
                entry.expires or "-",
                entry.revoked or "-",
            ]
            for entry in entries
        ]
        table("Keys", ["id", "name", "scopes", "created", "expires", "revoked"], rows)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id that 'trimtab keys ls' shows.")],
    *,
    json: Json = False,
) -> None:
    """End a key for ever."""
    from trimtab.security.verifier import REVOKED_WITHIN_SECONDS

    entry = _ring().revoke(key_id)
    if json:
        emit_json(entry)
    else:
        print(f"key {entry.id} ({entry.name}) is revoked")
        say(f"A running service refuses it within {REVOKED_WITHIN_SECONDS:.0f} s.")


def _moment(expires: str | None) -> datetime | None:
    if expires is None:
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=parse_duration(expires))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{error}.", where="--expires") from error
