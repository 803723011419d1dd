"""The JSON body of a request as plain values, and what is wrong with one as a sentence."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from trimtab.spec.errors import UsageError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")


def read(body: bytes) -> dict[str, Any]:
    """Raises `UsageError`. A byte order mark is passed over, as RFC 8259 allows."""
    try:
        found = msgspec.json.decode(body.removeprefix(_BYTE_ORDER_MARK))
    except msgspec.DecodeError as error:
        if not json.detect_encoding(body).startswith("utf-8"):
            raise _not_utf8() from error
        raise _lone_surrogate(body) or UsageError(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise UsageError("The body is nested too deeply.") from error
    except UnicodeDecodeError as error:
        raise _not_utf8() from error
    if not isinstance(found, dict):
        raise UsageError("The body is not a JSON object.", remedy="Send {…} with the request's parameters.")
    return found


def _not_utf8() -> UsageError:
    return UsageError("The body is not UTF-8.", remedy="Send JSON in UTF-8.")


def whole_numbers(value: Any) -> Any:
    """The same with 2 for every 2.0: JSON has one kind of number, and some languages write all with a point."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole_numbers(each) for each in value]
    if isinstance(value, dict):
        return {name: whole_numbers(each) for name, each in value.items()}
    return value


def _lone_surrogate(body: bytes) -> UsageError | None:
    r"""The fault of a text that was cut inside a character, where that is what is wrong.

    JSON can write such halves, as \ud83d, but no text has them, and no tokenizer takes them.
    """
    try:
        # Unlike ours, this reader takes them.
        found = _half(json.loads(body))
    except (ValueError, RecursionError):
        return None
    if found is None:
        return None
    half, path = found
    where = "".join(reversed(path)).lstrip(".")
    what = f"'{where}'" if where else "The body"
    return UsageError(
        f"{what} holds half a character (\\u{half:04x}, a lone surrogate).",
        where=where or None,
        remedy="Send whole characters: a text was cut in the middle of one.",
    )


def _half(value: Any) -> tuple[int, list[str]] | None:
    """The first lone surrogate, and the way to it from the inside out."""
    if isinstance(value, str):
        found = _SURROGATE.search(value)
        return None if found is None else (ord(found[0]), [])
    if isinstance(value, dict):
        for name, each in value.items():
            if found := _half(name) or _half(each):
                found[1].append("." + _SURROGATE.sub("?", name))
                return found
    elif isinstance(value, list):
        for number, each in enumerate(value):
            if found := _half(each):
                found[1].append(f"[{number}]")
                return found
    return None
