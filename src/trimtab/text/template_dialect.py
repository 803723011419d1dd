"""The Jinja2 that chat templates are written for: transformers', in the immutable sandbox.

Same filters, globals, tags and variables, down to the order of arguments and the scope of a block; its source is
`transformers/utils/chat_template_utils.py`, and a test renders templates with both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2.utils import Namespace

from trimtab.text.templates import Call

# Names under which a message's reasoning comes. The first is the one that templates read.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks an answer for training; it renders as what it encloses, in a scope of its own."""

    tags = {"generation"}  # noqa: RUF012 - what the base class declares

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` without its attributes."""

    def __call__(self, *values: Any, **named: Any) -> dict[Any, Any]:
        return dict(*values, **named)

    def fromkeys(self, *values: Any) -> dict[Any, Any]:
        return dict.fromkeys(*values)


class _Namespace(Namespace):
    """`namespace` that keeps nothing under a name with an underscore in front."""

    def __init__(*values: Any, **named: Any) -> None:  # so that it takes `self` as a name, too
        self, *rest = values
        kept = dict(*rest, **named)
        for name in kept:
            _check_name(name)
        Namespace.__init__(self, kept)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace keeps no name like {name!r}")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 - local time without a zone, as templates expect


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _tojson
    added: dict[str, Any] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    made.globals.update(added)
    return made


def variables_of(call: Call, tokens: Mapping[str, str]) -> dict[str, Any]:
    """What a template sees: the messages, `tools`, `documents` (none), and the special tokens by name."""
    given = {
        "messages": [_message(each) for each in call.messages],
        "tools": call.tools,
        "documents": None,
        "add_generation_prompt": call.add_generation_prompt,
    }
    return {**tokens, **given}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null, which templates take for missing; reasoning under the name that they read."""
    plain = {key: value for key, value in message.items() if value is not None}
    reasoning = next((plain[key] for key in _REASONING if key in plain), None)
    if reasoning is None:
        return plain
    return {"thinking": reasoning, **plain, "reasoning_content": reasoning}
