"""Log-probabilities (nats) in the two forms that OpenAI gives them. Not on the hot path: only on request."""

from __future__ import annotations

import codecs
from typing import Any

import msgspec

from trimtab.text.tokenizer import Tokenizer

# OpenAI's word for "next to impossible"; JSON has no infinity.
LOWEST = -9999.0
_utf8 = codecs.getincrementaldecoder("utf-8")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A token, its log-probability (None for a text's first one), the most probable ones at its place."""

    id: int
    logprob: float | None
    alternatives: list[tuple[int, float]] | None = None


def piece_bytes(tokenizer: Tokenizer | None, token: int) -> bytes:
    return f"token_id:{token}".encode() if tokenizer is None else tokenizer.pieces[token]


def token_name(piece: bytes) -> str:
    """The token's text; part of a character is written out in bytes, so that no two tokens look alike."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _bounded(logprob: float) -> float:
    return max(logprob, LOWEST)


def completion_logprobs(tokenizer: Tokenizer | None, told: list[Told], offset: int) -> dict[str, Any]:
    """`{tokens, token_logprobs, top_logprobs, text_offset}`; offsets count characters from `offset`."""
    tokens, offsets, tops = [], [], []
    characters = _utf8("replace")
    for each in told:
        piece = piece_bytes(tokenizer, each.id)
        tokens.append(token_name(piece))
        offsets.append(offset)
        offset += len(characters.decode(piece))
        tops.append(
            None
            if each.alternatives is None
            else {
                token_name(piece_bytes(tokenizer, token)): _bounded(value)
                for token, value in each.alternatives
            }
        )
    return {
        "tokens": tokens,
        "token_logprobs": [None if each.logprob is None else _bounded(each.logprob) for each in told],
        "top_logprobs": tops if any(top is not None for top in tops) else None,
        "text_offset": offsets,
    }


def _chat_token(tokenizer: Tokenizer | None, token: int, logprob: float | None) -> dict[str, Any]:
    piece = piece_bytes(tokenizer, token)
    return {
        "token": token_name(piece),
        "logprob": LOWEST if logprob is None else _bounded(logprob),
        "bytes": list(piece),
    }


def chat_logprobs(tokenizer: Tokenizer | None, told: list[Told]) -> dict[str, Any]:
    """`{content: [{token, logprob, bytes, top_logprobs}]}`."""
    content = [
        {
            **_chat_token(tokenizer, each.id, each.logprob),
            "top_logprobs": [
                _chat_token(tokenizer, token, value) for token, value in each.alternatives or ()
            ],
        }
        for each in told
    ]
    return {"content": content, "refusal": None}
