"""A model's chat template, rendered in a child process that can be killed.

Templates come with models, so they are not trusted: Jinja2's immutable sandbox, no network or files of ours
in reach of a variable, bounded memory, output and time. The child is started on first use, and again after a
template ran over its time.
"""

from __future__ import annotations

import select
import struct
import subprocess
import threading
import time
from pathlib import Path

import msgspec

from trimtab.spec import processes
from trimtab.spec.errors import ModelError, UsageError

RENDER_SECONDS = 2.0  # a template takes well under a millisecond; the rest is a busy machine
START_SECONDS = 20.0
MAX_TEXT_BYTES = 2**20
MAX_TEMPLATE_BYTES = 2**18
_LENGTH = struct.Struct("<I")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told first."""

    template: str
    variables: dict[str, str]
    max_text_bytes: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    messages: list[dict[str, str]]
    add_generation_prompt: bool


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`text`, or in `error` why there is none."""

    text: str | None = None
    error: str | None = None


def frame(record: Setup | Call | Reply) -> bytes:
    """Length (uint32, little-endian) and JSON: what goes over the pipes."""
    body = msgspec.json.encode(record)
    return _LENGTH.pack(len(body)) + body


class ChatTemplate:
    """Safe to use from several threads; renders one at a time. The child ends with this process."""

    def __init__(self, source: str, variables: dict[str, str]) -> None:
        self._setup = Setup(template=source, variables=variables, max_text_bytes=MAX_TEXT_BYTES)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """None when the model has no chat template."""
        settings = _settings(folder / "tokenizer_config.json")
        path = folder / "chat_template.jinja"
        source = (
            path.read_text(encoding="utf-8") if path.is_file() else _source(settings.get("chat_template"))
        )
        if source is None:
            return None
        if len(source) > MAX_TEMPLATE_BYTES:
            raise ModelError(
                f"The chat template is longer than {MAX_TEMPLATE_BYTES} characters.", where=str(path)
            )
        return cls(source, {name: text for name in _SPECIAL if (text := _token_text(settings.get(name)))})

    @property
    def source(self) -> str:
        return self._setup.template

    def render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Raises `UsageError` when the template refuses the messages, or takes too long or too much."""
        with self._lock:
            reply = self._ask(Call(messages=messages, add_generation_prompt=add_generation_prompt))
        if reply.text is None:
            raise UsageError(
                f"The model's chat template refused the messages: {reply.error}.",
                where="messages",
                remedy="Send messages in the order and the roles that this model was trained on.",
            )
        return reply.text

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, call: Call) -> Reply:
        if self._child is None or self._child.poll() is not None:
            self._start()
        try:
            self._write(frame(call))
            return self._read(RENDER_SECONDS)
        except (TimeoutError, OSError, EOFError):
            self._end()
            return Reply(error="rendering took too long or too much memory")

    def _start(self) -> None:
        self._end()
        self._child = processes.start("template", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._write(frame(self._setup))
            reply = self._read(START_SECONDS)
        except (TimeoutError, OSError, EOFError) as error:
            self._end()
            raise ModelError("The chat template's process did not start.") from error
        if reply.error:
            self._end()
            raise ModelError(f"The model's chat template cannot be read: {reply.error}.")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _write(self, data: bytes) -> None:
        if self._child is None or self._child.stdin is None:
            raise EOFError
        self._child.stdin.write(data)
        self._child.stdin.flush()

    def _read(self, seconds: float) -> Reply:
        until = time.monotonic() + seconds
        (length,) = _LENGTH.unpack(self._read_exactly(_LENGTH.size, until))
        if length > 8 * MAX_TEXT_BYTES:
            raise EOFError
        return msgspec.json.decode(self._read_exactly(length, until), type=Reply)

    def _read_exactly(self, count: int, until: float) -> bytes:
        if self._child is None or self._child.stdout is None:
            raise EOFError
        data = bytearray()
        while len(data) < count:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._child.stdout], [], [], left)[0]:
                raise TimeoutError
            part = self._child.stdout.raw.read(count - len(data))  # pyrefly: ignore[missing-attribute]
            if not part:
                raise EOFError
            data += part
        return bytes(data)


def _settings(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise ModelError(f"Not a JSON object: {error}.", where=str(path)) from error


def _source(found: object) -> str | None:
    """`chat_template` is a text, or a list of named ones of which `default` counts."""
    if isinstance(found, str):
        return found
    if isinstance(found, list):
        named = {str(each.get("name")): each.get("template") for each in found if isinstance(each, dict)}
        source = named.get("default")
        return source if isinstance(source, str) else None
    return None


def _token_text(found: object) -> str | None:
    """A special token is written as a text or as a record with `content`."""
    if isinstance(found, dict):
        found = found.get("content")
    return found if isinstance(found, str) else None
