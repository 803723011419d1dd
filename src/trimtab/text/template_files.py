"""Which chat template a model's folder brings, and the special tokens that it may name: as transformers reads them.

Everything here was written by strangers: sizes are checked before a file is read, and what cannot be understood is
refused with the file's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trimtab.spec.errors import ModelError

MAX_TEMPLATE_BYTES = 2**18
# Some list ten thousands of added tokens.
MAX_SETTINGS_BYTES = 2**24

SETTINGS, TOKENS_MAP, TOKENIZER = "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"
TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "chat_templates"
_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_GROUPS = ("model_specific_special_tokens", "extra_special_tokens")
_DEFAULT = "default"
# Settings that hold this were written by a version which needs no map beside them.
_NEWER = "added_tokens_decoder"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A template, the file it stands in, and the texts of the special tokens by name."""

    source: str
    path: Path
    variables: dict[str, str]


def find_template(folder: Path) -> Found | None:
    """None where there is no template, or several and none is the default.

    Files of their own come before `tokenizer_config.json`. Raises `ModelError`.
    """
    settings = _json(folder / SETTINGS)
    sources, path = _own_files(folder), folder / TEMPLATE
    if sources is None:
        path = folder / SETTINGS
        sources = _in_settings(settings.get("chat_template"), path)
    found = sources.get(_DEFAULT)
    if found is None:
        return None
    if len(found.encode(errors="replace")) > MAX_TEMPLATE_BYTES:
        raise _too_large(path, MAX_TEMPLATE_BYTES, "chat template")
    return Found(source=found, path=path, variables=_variables(folder, settings))


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


def _json(path: Path) -> dict[str, Any]:
    """What a template needs of a JSON file; the rest, which may be large, is never built."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise _too_large(path, MAX_SETTINGS_BYTES, "file")
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        kept = {name: msgspec.json.decode(raw) for name, raw in found.items() if _matters(name)}
        # That it is there is all that matters of it.
        return kept | dict.fromkeys(found.keys() & {_NEWER})
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


def _matters(name: str) -> bool:
    return name == "chat_template" or name.endswith("_token") or name in _GROUPS


def _variables(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """The named special tokens: the standard ones, and what a model adds under names of its own."""
    # The map is a file of old: what newer ones write in their settings goes before it.
    given = settings if _NEWER in settings else settings | _json(folder / TOKENS_MAP)
    named = {name: value for name, value in given.items() if name in _STANDARD or name.endswith("_token")}
    if "pad_token" not in named:
        named["pad_token"] = _padding_token(folder / TOKENIZER)
    for group in _GROUPS:
        if isinstance(more := given.get(group), dict):
            named |= more
    return {name: text for name, value in named.items() if (text := _token_text(value)) is not None}


def _token_text(found: object) -> str | None:
    """A special token is written as a text or as a record with `content`."""
    if isinstance(found, dict):
        found = found.get("content")
    return found if isinstance(found, str) else None
