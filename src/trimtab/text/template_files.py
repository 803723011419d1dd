"""Which chat template a model's folder brings, and the special tokens that it may name: as transformers reads them.

Everything here was written by strangers: sizes are checked before a file is read, and what cannot be understood is
refused with the file's name.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.spec.errors import ModelError
from trimtab.text.folder_files import SETTINGS, TOKENIZER

MAX_TEMPLATE_BYTES = 2**18
# Some list ten thousands of added tokens.
MAX_SETTINGS_BYTES = 2**24

TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "chat_templates"
_DEFAULT = "default"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A template, the file it stands in, and the texts of the special tokens by name."""

    source: str
    path: Path
    variables: dict[str, str]


def find_template(folder: Path) -> Found | None:
    """None where there is no template, or several and none is the default.

    Files of their own come before `tokenizer_config.json`. Raises `ModelError`.
    """
    named = _template_of(folder / SETTINGS)
    sources, path = _own_files(folder), folder / TEMPLATE
    if sources is None:
        path = folder / SETTINGS
        sources = _in_settings(named, path)
    found = sources.get(_DEFAULT)
    if found is None:
        return None
    if len(found.encode(errors="replace")) > MAX_TEMPLATE_BYTES:
        raise _too_large(path, MAX_TEMPLATE_BYTES, "chat template")
    return Found(source=found, path=path, variables=_variables(folder))


def _own_files(folder: Path) -> dict[str, str] | None:
    """Templates that are files, by name; None when there are none."""
    paths = {path.stem: path for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    if (folder / TEMPLATE).is_file():
        paths.setdefault(_DEFAULT, folder / TEMPLATE)
    # The others are for tools and retrieval, which we do not serve.
    return {name: _text(path) if name == _DEFAULT else "" for name, path in paths.items()} or None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise _too_large(path, MAX_TEMPLATE_BYTES, "chat template")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"The chat template is not UTF-8: {error.reason} at byte {error.start}.",
            where=str(path),
            remedy="Save the file as UTF-8.",
        ) from error
    except OSError as error:
        raise ModelError(f"The chat template cannot be read: {error.strerror}.", where=str(path)) from error


def _too_large(path: Path, limit: int, what: str) -> ModelError:
    return ModelError(f"The {what} is over {limit} bytes.", where=str(path))


def _in_settings(found: object, path: Path) -> dict[str, str]:
    """`chat_template` is a text, or named ones: a list of records, or an object."""
    if found is None:
        return {}
    if isinstance(found, str):
        return {_DEFAULT: found}
    if isinstance(found, list) and all(isinstance(each, dict) for each in found):
        found = {str(each.get("name")): each.get("template") for each in found}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ModelError(
            "chat_template is neither a text nor a list of named ones.",
            where=str(path),
            remedy="Write the template into chat_template.jinja.",
        )
    return found


def _template_of(path: Path) -> object:
    """`chat_template` of the settings; the rest, which may be large, is not built."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise _too_large(path, MAX_SETTINGS_BYTES, "file")
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        return msgspec.json.decode(found["chat_template"]) if "chat_template" in found else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ModelError(f"Not a JSON object: {error}.", where=str(path)) from error
    except OSError as error:
        raise ModelError(f"Cannot be read: {error.strerror}.", where=str(path)) from error


class _Padding(msgspec.Struct):
    pad_token: str | None = None


class _Tokenizer(msgspec.Struct):
    padding: _Padding | None = None


def _padding_token(path: Path) -> str | None:
    """The token that `tokenizer.json` itself pads with, which counts where the settings are silent."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Tokenizer)
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # what is wrong with it is told by the tokenizer
    return found.padding.pad_token if found.padding else None


def _variables(folder: Path) -> dict[str, str]:
    """The named special tokens, those of the tokenizer's class included; and what a model names itself."""
    # Not above: a template's process, which reads no folder, imports this file, and the library is large.
    from trimtab.text.special_tokens import str_of
    from trimtab.text.stock_tokenizer import read_named_tokens

    tokens = read_named_tokens(folder)
    named = {name: str_of(token) for name, token in tokens.named.items()}
    if (
        "pad_token" not in tokens.options | named
        and (padding := _padding_token(folder / TOKENIZER)) is not None
    ):
        named["pad_token"] = padding
    return named
