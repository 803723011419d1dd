"""The models that a recipe can have trained from scratch, in the field's own words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trimtab.spec.part import Part


class Architecture(Part):
    """A decoder (Llama), and the tokenizer trained for it."""

    architecture: Literal["llama"]
    layers: int = Field(ge=1, le=512)
    hidden: int = Field(ge=8, le=65536)
    heads: int = Field(ge=1, le=512)
    kv_heads: int | None = Field(default=None, ge=1, le=512)
    ffn: int = Field(ge=8, le=262144)
    vocabulary: int = Field(default=4096, ge=300, le=262144)
    context: int = Field(default=1024, ge=16, le=1 << 20)
    tied: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> Architecture:
        _check_heads(self.hidden, self.heads)
        if (self.hidden // self.heads) % 2:
            raise ValueError("hidden ÷ heads must be even for rotary positions")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class BertArchitecture(Part):
    """An encoder (Devlin et al. 2019), and the tokenizer trained for it. `dropout` is of activations and attention."""

    architecture: Literal["bert"]
    layers: int = Field(ge=1, le=512)
    hidden: int = Field(ge=8, le=65536)
    heads: int = Field(ge=1, le=512)
    ffn: int = Field(ge=8, le=262144)
    vocabulary: int = Field(default=4096, ge=300, le=262144)
    context: int = Field(default=512, ge=16, le=1 << 20)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _divisible(self) -> BertArchitecture:
        _check_heads(self.hidden, self.heads)
        return self


class ResNetArchitecture(Part):
    """A residual network (He et al. 2016): blocks and channels of every stage.

    `basic` with `[2, 2, 2, 2]` is ResNet-18, `bottleneck` with `[3, 4, 6, 3]` ResNet-50. `widths` are those of the
    3 × 3 convolutions; a bottleneck's output is four times as wide.
    """

    architecture: Literal["resnet"]
    layers: list[Annotated[int, Field(ge=1, le=64)]] = Field(default=[2, 2, 2, 2], min_length=1, max_length=8)
    widths: list[Annotated[int, Field(ge=1, le=8192)]] = Field(
        default=[64, 128, 256, 512], min_length=1, max_length=8
    )
    block: Literal["basic", "bottleneck"] = "basic"

    @model_validator(mode="after")
    def _stages(self) -> ResNetArchitecture:
        if len(self.layers) != len(self.widths):
            raise ValueError(f"layers has {len(self.layers)} stages and widths {len(self.widths)}")
        return self


FromScratch = Annotated[
    Architecture | BertArchitecture | ResNetArchitecture, Field(discriminator="architecture")
]


def _check_heads(hidden: int, heads: int) -> None:
    if hidden % heads:
        raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
