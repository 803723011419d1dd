"""Overlap of test with train: the share of the test's 4-line shingles that train has too, at most 2 %.

Lines are compared without surrounding blanks, empty lines left out, so re-indented copies count. A document
of fewer than four lines is one shingle. Only the test's shingles are held in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from trimtab.spec.errors import DataError

SHINGLE_LINES = 4
MAX_SHARE = 0.02


def shingles(text: str) -> Iterator[bytes]:
    """8-byte digests of every run of four lines."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    for start in range(max(len(lines) - SHINGLE_LINES + 1, min(len(lines), 1))):
        window = "\n".join(lines[start : start + SHINGLE_LINES])
        yield hashlib.blake2b(window.encode(errors="replace"), digest_size=8).digest()


def overlap(train: Iterable[str], test: Iterable[str]) -> float:
    """Share of the test's distinct shingles that occur in train, 0 if test has none."""
    wanted = {shingle for text in test for shingle in shingles(text)}
    if not wanted:
        return 0.0
    found = {shingle for text in train for shingle in shingles(text) if shingle in wanted}
    return len(found) / len(wanted)


def check_overlap(share: float, *, what: str = f"{SHINGLE_LINES}-line passages") -> None:
    """Raises `DataError` above `MAX_SHARE`."""
    if share > MAX_SHARE:
        raise DataError(
            f"{share:.1%} of the test data's {what} are in the training data too; "
            f"at most {MAX_SHARE:.0%} may be.",
            where="data",
            remedy="Remove what is shared from one of the two; of one source that is divided, what it holds twice.",
        )
