"""Whether a model has a row for every token that its tokenizer can give."""

from __future__ import annotations

from pathlib import Path

from trimtab.spec.errors import ModelError
from trimtab.text.folder_files import CONFIG, TOKENIZER, read_object
from trimtab.text.tokenizer import Tokenizer

_NAMED = 5  # so many are named


def check_rows(tokenizer: Tokenizer, template: str, folder: Path) -> list[str]:
    """Warnings: tokens without a row that only a client could write; a request with one is refused.

    Raises `ModelError` where ordinary text, the chat template or the tokenizer itself comes to such a token. Many
    folders have one or two more tokens than rows, such as a `[PAD]` for training, and are served well.
    """
    rows = read_object(folder / CONFIG).get("vocab_size")
    if not isinstance(rows, int) or isinstance(rows, bool):
        return []
    beyond = {token: text for token, text in tokenizer.every_token().items() if token >= rows}
    if not beyond:
        return []
    own = set(tokenizer.encode("")) & set(beyond)
    needed = {
        token: text
        for token, text in beyond.items()
        if token not in tokenizer.added or token in own or text in template
    }
    if needed:
        raise ModelError(
            f"The tokenizer has tokens that the model has no row for: {_named(needed)}; "
            f"its embedding ends at {rows - 1}.",
            where=str(folder / TOKENIZER),
            remedy="Resize the model's embedding (resize_token_embeddings), or give the tokenizer it was trained with.",
        )
    return [
        f"the tokenizer adds tokens that the model has no row for: {_named(beyond)}; texts with them are refused"
    ]


def _named(tokens: dict[int, str]) -> str:
    first = ", ".join(f"{text!r} ({token})" for token, text in sorted(tokens.items())[:_NAMED])
    return first + (f" and {len(tokens) - _NAMED} more" if len(tokens) > _NAMED else "")
