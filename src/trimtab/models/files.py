"""Which files travel with a model from folder to folder: tokenizer, licence, generation settings.

Names only; knows nothing of weights.
"""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
LICENCE = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*", "ATTRIBUTION*")
COMPANIONS = (*TOKENIZER, "generation_config.json", *LICENCE)


def copy_companions(source: Path, folder: Path) -> list[str]:
    """Copies what belongs to a model but is not its weights or config. Returns the names, sorted."""
    copied = []
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in COMPANIONS):
            shutil.copyfile(path, folder / path.name)
            copied.append(path.name)
    return copied
