"""Log-probabilities (nats) in the two forms that OpenAI gives them. Not on the hot path: only on request."""

from __future__ import annotations

from typing import Any

import msgspec

from trimtab.text.token_names import TokenNames, numbered

# OpenAI's word for "next to impossible"; JSON has no infinity.
LOWEST = -9999.0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A token, its log-probability (None for a text's first one), the most probable ones at its place, best first.

    `start` is where its text begins, in characters.
    """

    id: int
    logprob: float | None
    alternatives: list[tuple[int, float]] | None = None
    start: int = 0


def _bounded(logprob: float) -> float:
    return max(logprob, LOWEST)


def _row(names: TokenNames, told: Told) -> tuple[str, dict[str, tuple[int, float]]]:
    """What the chosen token is called, and name → id and log-probability of the alternatives.

    Of two that have the same text the better one is called by it, the other by its number.
    """
    row: dict[str, tuple[int, float]] = {}
    chosen = None
    for token, logprob in told.alternatives or ():
        name = names[token].text
        if name in row:
            name = numbered(token)
        row[name] = (token, _bounded(logprob))
        if token == told.id:
            chosen = name
    if chosen is None:
        chosen = names[told.id].text
        if chosen in row:
            chosen = numbered(told.id)
    return chosen, row


def completion_logprobs(names: TokenNames, told: list[Told], *, tables: bool) -> dict[str, list[Any]]:
    """`{tokens, token_logprobs, text_offset}`, and with `tables` also `top_logprobs`.

    A token's table holds the alternatives and the token itself; it is None where nothing is known of any.
    """
    rows = [_row(names, each) for each in told]
    found: dict[str, list[Any]] = {
        "tokens": [chosen for chosen, _ in rows],
        "token_logprobs": [None if each.logprob is None else _bounded(each.logprob) for each in told],
        "text_offset": [each.start for each in told],
    }
    if tables:
        found["top_logprobs"] = [_table(each, *row) for each, row in zip(told, rows, strict=True)]
    return found


def _table(told: Told, chosen: str, row: dict[str, tuple[int, float]]) -> dict[str, float] | None:
    if told.alternatives is None:
        return None
    table = {name: logprob for name, (_, logprob) in row.items()}
    if told.logprob is not None:
        table.setdefault(chosen, _bounded(told.logprob))
    return table


def chat_logprobs(names: TokenNames, told: list[Told]) -> list[dict[str, Any]]:
    """`[{token, logprob, bytes, top_logprobs}]`."""
    content = []
    for each in told:
        chosen, row = _row(names, each)
        logprob = LOWEST if each.logprob is None else _bounded(each.logprob)
        entry = _entry(names, chosen, each.id, logprob)
        entry["top_logprobs"] = [_entry(names, name, *found) for name, found in row.items()]
        content.append(entry)
    return content


def _entry(names: TokenNames, name: str, token: int, logprob: float) -> dict[str, Any]:
    octets = names[token].octets
    return {"token": name, "logprob": logprob, "bytes": None if octets is None else list(octets)}
