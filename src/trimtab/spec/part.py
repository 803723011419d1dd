"""The base of every part of a recipe: unknown keys are faults, values are never guessed, nothing changes later."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
