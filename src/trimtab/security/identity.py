"""Who is asking, and what they may do. Plain data; knows no key and no database."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Scope = Literal["infer", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A caller whose key was checked. `admin` does not include the other scopes: each is named."""

    key_id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes
