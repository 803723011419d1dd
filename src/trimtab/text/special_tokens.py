"""Which tokens a folder's files add to its vocabulary, and which of them are special: what transformers does.

Four files speak of them. `added_tokens_decoder` in `tokenizer_config.json` counts alone where there is one; else
`special_tokens_map.json` names, `added_tokens.json` lists, and `tokenizer.json` has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Tokenizer

from trimtab.spec.errors import ModelError
from trimtab.text.folder_files import ADDED, SETTINGS, SPECIAL_MAP, TokenizerFile, read_object

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Token = str | AddedToken


class SpecialTokens(msgspec.Struct, kw_only=True, frozen=True):
    """`named`: those with a part to play. `listed`: id → token. `options`: all that the settings say,
    and the class where they are silent.
    """

    named: dict[str, Token]
    extra: list[Token]
    listed: dict[int, AddedToken]
    options: dict[str, Any]

    def text(self, name: str) -> str | None:
        """The text of `eos_token` and the like; None where no file names one."""
        token = self.named.get(name)
        return None if token is None else str_of(token)

    def every(self) -> list[str]:
        return [str_of(token) for token in [*self.named.values(), *self.extra]]


def str_of(token: Token) -> str:
    return token if isinstance(token, str) else token.content


def read_special_tokens(
    folder: Path, file: TokenizerFile, defaults: Mapping[str, str | None]
) -> SpecialTokens:
    """`defaults` are those of the tokenizer's class. Raises `ModelError` for what transformers would not load."""
    try:
        return _read(folder, file, defaults)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(
            f"The special tokens cannot be read: {error}.",
            where=str(folder / SETTINGS),
            remedy="Save the tokenizer again with AutoTokenizer.from_pretrained(…).save_pretrained(…).",
        ) from error


def _read(folder: Path, file: TokenizerFile, defaults: Mapping[str, str | None]) -> SpecialTokens:
    found = read_object(folder / SETTINGS)
    _move_old_name(found)
    others = {key: found.pop(key) for key in _other_names(found) if isinstance(found[key], str)}
    if isinstance(found.get("extra_special_tokens"), dict):
        others |= found.pop("extra_special_tokens")
    saved = found.pop("model_specific_special_tokens", None) or {}
    others = others or saved
    if "added_tokens_decoder" in found:
        pairs = [(int(key), AddedToken(**value)) for key, value in found["added_tokens_decoder"].items()]
    else:
        others |= _take_special_map(found, read_object(folder / SPECIAL_MAP))
        pairs = _listed(found, read_object(folder / ADDED), file)
    found, others = _decoded(found), _decoded(others)
    if "extra_special_tokens" not in found and "additional_special_tokens" in found:
        found["extra_special_tokens"] = found.pop("additional_special_tokens")
    others = {key: found.pop(key) for key in _other_names(found) if isinstance(found[key], Token)} | others
    # A text counts also where another one has taken its id.
    by_text = {token.content: token for _, token in pairs}
    named = {}
    for key in NAMES:
        if (value := found[key] if key in found else defaults.get(key)) is not None:
            token = _checked(key, value)
            named[key] = by_text.get(str_of(token), token) if key in found else token
    named |= {key: _checked(key, value) for key, value in others.items()}
    extra = found.get("extra_special_tokens") or []
    if not isinstance(extra, list):
        raise TypeError(f"extra_special_tokens is {extra!r}")
    return SpecialTokens(
        named=named,
        extra=[_checked("extra_special_tokens", token) for token in extra],
        listed=dict(pairs),
        options={**defaults, **found},
    )


def _move_old_name(found: dict[str, Any]) -> None:
    if "additional_special_tokens" in found and not found.get("extra_special_tokens"):
        found["extra_special_tokens"] = found.pop("additional_special_tokens")


def _other_names(found: dict[str, Any]) -> list[str]:
    """Of tokens that a model has beside the usual ones, such as `image_token`."""
    return [key for key in found if key.endswith("_token") and key not in NAMES]


def _take_special_map(found: dict[str, Any], special: dict[str, Any]) -> dict[str, Any]:
    """Fold `special_tokens_map.json` into the settings. Returns its other named tokens."""
    for key, value in special.items():
        if key == "extra_special_tokens" and isinstance(value, list):
            merged = list(found.get(key) or [])
            for token in value:
                made = AddedToken(**token, special=True) if isinstance(token, dict) else token
                if made not in merged:
                    merged.append(made)
            found[key] = merged
        elif isinstance(value, dict) and key != "extra_special_tokens":
            found[key] = _special(value)
        else:
            found[key] = value
    return found.pop("extra_special_tokens") if isinstance(found.get("extra_special_tokens"), dict) else {}


def _special(record: dict[str, Any]) -> AddedToken:
    return AddedToken(**{key: value for key, value in record.items() if key != "special"}, special=True)


def _listed(
    found: dict[str, Any], added: dict[str, Any], file: TokenizerFile
) -> list[tuple[int, AddedToken]]:
    listed = []
    special = {_text(found[key]) for key in NAMES if found.get(key)}
    special.update(_text(token) for token in found.get("extra_special_tokens") or [])
    for text, number in added.items():
        is_special = text in special
        listed.append((int(number), AddedToken(text, normalized=not is_special, special=is_special)))
    for record in file.added_tokens:
        fields = {key: value for key, value in record.items() if key != "id"}
        listed.append((record["id"], AddedToken(**fields)))
    return listed


def _text(token: object) -> str:
    return token.content if isinstance(token, AddedToken) else str(token)


def _decoded(value: Any) -> Any:
    """Records that say of themselves that they are tokens become tokens, however deep they are."""
    if isinstance(value, dict):
        if value.get("__type") == "AddedToken":
            return _token(value)
        return {key: _decoded(each) for key, each in value.items()}
    return [_decoded(each) for each in value] if isinstance(value, list) else value


def _token(record: dict[str, Any]) -> AddedToken:
    return AddedToken(**{key: value for key, value in record.items() if key != "__type"})


def _checked(key: str, value: object) -> Token:
    # Older files have records that do not say what they are; transformers now refuses them.
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        return _token(value)
    if not isinstance(value, Token):
        raise TypeError(f"{key} is {value!r}, neither a text nor marked as a token")
    return value


def add_special_tokens(rust: Tokenizer, tokens: SpecialTokens) -> None:
    """Add every token that the files name and the tokenizer has not; flags are as the files say."""
    adding: list[Token] = [token for _, token in sorted(tokens.listed.items())]
    known = {token.content for token in rust.get_added_tokens_decoder().values()}
    known.update(map(str_of, adding))
    for token in [*tokens.named.values(), *tokens.extra]:
        if str_of(token) not in known and token not in adding:
            adding.append(token)
    named = set(map(str_of, tokens.named.values()))
    for place, token in enumerate(adding):
        if isinstance(token, str):
            adding[place] = AddedToken(token, special=True)
        elif token.content in named:
            token.special = True
    if adding:
        rust.add_tokens(adding)
