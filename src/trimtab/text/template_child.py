"""Process "template": renders one chat template, over stdin and stdout, until stdin ends.

It runs text that came with a model, so it limits itself first: memory, no file written, no core dump. It
must not import anything but Jinja2 and the records of `templates`.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from datetime import datetime
from typing import Any, BinaryIO, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
import msgspec

from trimtab.text.templates import Call, Reply, Setup, frame

MEMORY_BYTES = 512 * 2**20
_LENGTH = struct.Struct("<I")


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks an answer for training; it renders as what it encloses."""

    tags = {"generation"}  # noqa: RUF012 - what the base class declares

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object, indent: int | None = None, *, ensure_ascii: bool = False, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """The environment that chat templates are written for (transformers'), in the immutable sandbox."""
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _tojson
    added: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    made.globals.update(added)
    return made


def _limit() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _receive(stream: BinaryIO) -> bytes | None:
    header = stream.read(_LENGTH.size)
    return stream.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else None


def _render(template: jinja2.Template, setup: Setup, call: Call) -> Reply:
    try:
        text = template.render(
            messages=call.messages, add_generation_prompt=call.add_generation_prompt, **setup.variables
        )
    except Exception as error:  # noqa: BLE001 - a template may raise anything; the answer is that it did
        return Reply(error=str(error)[:300] or type(error).__name__)
    if len(text.encode()) > setup.max_text_bytes:
        return Reply(error=f"the rendered text is over {setup.max_text_bytes} bytes")
    return Reply(text=text)


def main() -> None:
    _limit()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = _receive(source)
    if first is None:
        return
    setup = msgspec.json.decode(first, type=Setup)
    template = None
    try:
        template = environment().from_string(setup.template)
        reply = Reply()
    except jinja2.TemplateError as error:
        reply = Reply(error=str(error)[:300])
    while True:
        sink.write(frame(reply))
        sink.flush()
        asked = _receive(source)
        if asked is None or template is None:
            return
        reply = _render(template, setup, msgspec.json.decode(asked, type=Call))


if __name__ == "__main__":
    main()
