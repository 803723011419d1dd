"""What stdout and stderr can carry. Text for people survives every encoding; what programs read is never changed.

A figure must not be lost over an arrow: characters that an encoding lacks are written as the nearest ASCII, or as
an escape. JSON is ASCII, which every encoding holds; documents are UTF-8 and paths their own bytes, whatever the
terminal's encoding.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import sys
from pathlib import Path
from typing import TextIO

import msgspec

_HANDLER = "trimtab.nearest"
# Typographic characters that our own sentences have.
_NEAREST = {
    "→": "->",
    "×": "x",
    "÷": "/",
    "–": "-",
    "—": "--",
    "…": "...",
    "·": "-",
    "µ": "u",
    "≤": "<=",
    "≥": ">=",
    "²": "2",
    "’": "'",  # noqa: RUF001 - it is what is replaced
    "“": '"',
    "”": '"',
}


def open_streams() -> None:
    """Make stdout and stderr fit for any text. One that was closed before we came is replaced by nothing."""
    codecs.register_error(_HANDLER, _nearest)
    sys.stdout = _fit(sys.stdout)
    sys.stderr = _fit(sys.stderr)


def _fit(stream: TextIO | None) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=_HANDLER)
    return stream


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_NEAREST.get(c) or _escaped(c) for c in missing), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


def printable(text: str, stream: TextIO) -> str:
    """As the stream will show it, so that columns can be measured beforehand."""
    encoding = stream.encoding or "ascii"
    return text.encode(encoding, _HANDLER if _is_known() else "backslashreplace").decode(encoding)


def _is_known() -> bool:
    try:
        codecs.lookup_error(_HANDLER)
    except LookupError:
        return False
    return True


def emit_json(record: object) -> None:
    """The one JSON document of a `--json` run, on stdout: ASCII, with escapes, so any encoding holds it. What is no
    number is null.
    """
    plain = _finite(msgspec.to_builtins(record, str_keys=True))
    sys.stdout.write(json.dumps(plain, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
    return value


def emit_document(text: str) -> None:
    """A file's text on stdout, in UTF-8."""
    _write(text.encode("utf-8"))


def emit_path(path: Path) -> None:
    """A path on stdout, by the bytes that name the file."""
    _write(os.fsencode(path) + b"\n")


def _write(data: bytes) -> None:
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(data.decode("utf-8", "surrogateescape"))
    else:
        buffer.write(data)
    sys.stdout.flush()
