"""The decoder families we know: where each keeps its parts, and along which axis each part may be cut.

Data only: no torch, no files. Modules are named as stock transformers does, so a cut model stays a stock
model. Names inside a layer are relative to `Family.layer(i)`. Linear weights are (out, in), except GPT-2's
Conv1D, which are (in, out); `Cut.axis` takes that into account, so nobody else has to.
"""

from __future__ import annotations

import msgspec

from trimtab.spec.errors import ModelError


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a layer and the axis along which a group of units (FFN neurons, heads) lies."""

    tensor: str
    axis: int


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """How `config.json` calls each dimension; `None`: the family has no such key."""

    layers: str = "num_hidden_layers"
    hidden: str = "hidden_size"
    heads: str = "num_attention_heads"
    kv_heads: str | None = "num_key_value_heads"
    head_dim: str | None = "head_dim"
    ffn: str = "intermediate_size"
    context: str = "max_position_embeddings"


# Tensor → the sizes of its axes, by name.
Shapes = dict[str, tuple[str, ...]]

_LLAMA_TENSORS: Shapes = {
    "input_layernorm.weight": ("hidden",),
    "self_attn.q_proj.weight": ("queries", "hidden"),
    "self_attn.k_proj.weight": ("keys", "hidden"),
    "self_attn.v_proj.weight": ("keys", "hidden"),
    "self_attn.o_proj.weight": ("hidden", "queries"),
    "post_attention_layernorm.weight": ("hidden",),
    "mlp.gate_proj.weight": ("ffn", "hidden"),
    "mlp.up_proj.weight": ("ffn", "hidden"),
    "mlp.down_proj.weight": ("hidden", "ffn"),
}
_INPUT_BIASES: Shapes = {
    "self_attn.q_proj.bias": ("queries",),
    "self_attn.k_proj.bias": ("keys",),
    "self_attn.v_proj.bias": ("keys",),
}
_ATTENTION_BIASES: dict[str, Shapes] = {
    "attention_bias": {**_INPUT_BIASES, "self_attn.o_proj.bias": ("hidden",)}
}
_MLP_BIASES: dict[str, Shapes] = {
    "mlp_bias": {
        "mlp.gate_proj.bias": ("ffn",),
        "mlp.up_proj.bias": ("ffn",),
        "mlp.down_proj.bias": ("hidden",),
    }
}
_HEAD_NORMS: Shapes = {"self_attn.q_norm.weight": ("head_dim",), "self_attn.k_norm.weight": ("head_dim",)}
_GPT2_TENSORS: Shapes = {
    "ln_1.weight": ("hidden",),
    "ln_1.bias": ("hidden",),
    "attn.c_attn.weight": ("hidden", "three_hidden"),
    "attn.c_attn.bias": ("three_hidden",),
    "attn.c_proj.weight": ("hidden", "hidden"),
    "attn.c_proj.bias": ("hidden",),
    "ln_2.weight": ("hidden",),
    "ln_2.bias": ("hidden",),
    "mlp.c_fc.weight": ("hidden", "ffn"),
    "mlp.c_fc.bias": ("ffn",),
    "mlp.c_proj.weight": ("ffn", "hidden"),
    "mlp.c_proj.bias": ("hidden",),
}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One family. `norms` are a layer's two norms in order; `gates` the FFN's inputs, `down` its output.

    `tied` is what an absent `tie_word_embeddings` means; `defaults` what other absent config values mean, as the
    stock config class has it; `not_null` are keys that it takes no null for, `aliases` second names of keys, which
    win. `free_head_dim`: heads × head_dim need not be the hidden size. `layer_tensors` and `layer_biases` are the
    shapes of a layer's weights, in sizes named by `models.expected`; a bias is there if its config key says so.
    `kv_cuts` is empty where the config cannot say that heads are fewer than hidden ÷ head_dim.
    `rotary` makes rotary position embeddings, `positions` learned ones, followed by `embedding_dropout`.
    Tensor parallelism splits the outputs of `columns` and the inputs of `rows`; `head_norms` then see a rank's
    heads alone. Without `columns` a family's layers cannot be split.
    """

    name: str
    architecture: str
    keys: Keys = Keys()
    base: str = "model"
    layers: str = "model.layers"
    embedding: str = "model.embed_tokens.weight"
    final_norm: str = "model.norm"
    head: str = "lm_head.weight"
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    attention: str = "self_attn"
    mlp: str = "mlp"
    gates: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    attention_out: str = "self_attn.o_proj"
    ffn_cuts: tuple[Cut, ...] = (
        Cut(tensor="mlp.gate_proj.weight", axis=0),
        Cut(tensor="mlp.gate_proj.bias", axis=0),
        Cut(tensor="mlp.up_proj.weight", axis=0),
        Cut(tensor="mlp.up_proj.bias", axis=0),
        Cut(tensor="mlp.down_proj.weight", axis=1),
    )
    query_cuts: tuple[Cut, ...] = (
        Cut(tensor="self_attn.q_proj.weight", axis=0),
        Cut(tensor="self_attn.q_proj.bias", axis=0),
        Cut(tensor="self_attn.o_proj.weight", axis=1),
    )
    kv_cuts: tuple[Cut, ...] = (
        Cut(tensor="self_attn.k_proj.weight", axis=0),
        Cut(tensor="self_attn.k_proj.bias", axis=0),
        Cut(tensor="self_attn.v_proj.weight", axis=0),
        Cut(tensor="self_attn.v_proj.bias", axis=0),
    )
    rotary: str | None = "model.rotary_emb"
    positions: str | None = None
    embedding_dropout: str | None = None
    columns: tuple[str, ...] = (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
    )
    rows: tuple[str, ...] = ("self_attn.o_proj", "mlp.down_proj")
    head_norms: tuple[str, ...] = ()
    tied: bool = False
    defaults: dict[str, int] = {}
    aliases: dict[str, str] = {}
    not_null: tuple[str, ...] = ("intermediate_size",)
    free_head_dim: bool = True
    layer_tensors: Shapes = msgspec.field(default_factory=lambda: _LLAMA_TENSORS)
    layer_biases: dict[str, Shapes] = {}

    def layer(self, index: int) -> str:
        """`model.layers.3`."""
        return f"{self.layers}.{index}"


def _defaults(*, vocabulary: int, ffn: int, context: int, kv_heads: int | None = None) -> dict[str, int]:
    """What the stock config class of a Llama-like family fills in; without `kv_heads` as many as heads."""
    common = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    sizes = {"vocab_size": vocabulary, "intermediate_size": ffn, "max_position_embeddings": context}
    return common | sizes | ({"num_key_value_heads": kv_heads} if kv_heads else {})


_GPT2 = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    keys=Keys(
        layers="n_layer",
        hidden="n_embd",
        heads="n_head",
        kv_heads=None,
        head_dim=None,
        ffn="n_inner",
        context="n_positions",
    ),
    base="transformer",
    layers="transformer.h",
    embedding="transformer.wte.weight",
    final_norm="transformer.ln_f",
    norms=("ln_1", "ln_2"),
    attention="attn",
    gates=("mlp.c_fc",),
    down="mlp.c_proj",
    attention_out="attn.c_proj",
    ffn_cuts=(
        Cut(tensor="mlp.c_fc.weight", axis=1),
        Cut(tensor="mlp.c_fc.bias", axis=0),
        Cut(tensor="mlp.c_proj.weight", axis=0),
    ),
    query_cuts=(),
    kv_cuts=(),
    rotary=None,
    positions="transformer.wpe",
    embedding_dropout="transformer.drop",
    columns=(),
    rows=(),
    tied=True,
    defaults={"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12},
    aliases={
        "n_embd": "hidden_size",
        "n_positions": "max_position_embeddings",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
    },
    not_null=(),
    free_head_dim=False,
    layer_tensors=_GPT2_TENSORS,
)

FAMILIES: dict[str, Family] = {
    "llama": Family(
        name="llama",
        architecture="LlamaForCausalLM",
        defaults=_defaults(vocabulary=32_000, ffn=11_008, context=2048),
        free_head_dim=False,
        layer_biases=_ATTENTION_BIASES | _MLP_BIASES,
    ),
    "qwen2": Family(
        name="qwen2",
        architecture="Qwen2ForCausalLM",
        defaults=_defaults(vocabulary=151_936, ffn=22_016, context=32_768, kv_heads=32),
        not_null=("intermediate_size", "head_dim"),
        layer_tensors=_LLAMA_TENSORS | _INPUT_BIASES,
    ),
    "qwen3": Family(
        name="qwen3",
        architecture="Qwen3ForCausalLM",
        head_norms=("self_attn.q_norm", "self_attn.k_norm"),
        defaults=_defaults(vocabulary=151_936, ffn=22_016, context=32_768, kv_heads=32) | {"head_dim": 128},
        not_null=("intermediate_size", "head_dim"),
        layer_tensors=_LLAMA_TENSORS | _HEAD_NORMS,
        layer_biases=_ATTENTION_BIASES,
    ),
    "mistral": Family(
        name="mistral",
        architecture="MistralForCausalLM",
        defaults=_defaults(vocabulary=32_000, ffn=14_336, context=131_072, kv_heads=8),
        not_null=("intermediate_size", "num_key_value_heads"),
    ),
    "gpt2": _GPT2,
}


# Known to training alone: what reads masked text or classifies, and what classifies images. Each with what absent
# config keys mean, as the stock config class has it.
_BERT_DEFAULTS = {"vocab_size": 30_522, "max_position_embeddings": 512}
ENCODER_DEFAULTS = {
    "bert": _BERT_DEFAULTS,
    "distilbert": _BERT_DEFAULTS,
    "roberta": _BERT_DEFAULTS | {"vocab_size": 50_265, "pad_token_id": 1},
}
ENCODERS = tuple(ENCODER_DEFAULTS)
IMAGE_MODELS = ("resnet",)


def family(model_type: str, *, where: str) -> Family:
    """The family of a config's `model_type`. Raises `ModelError` for one that we do not know."""
    if model_type in (*ENCODERS, *IMAGE_MODELS):
        raise ModelError(
            f"a {model_type} model is trained, and not yet compressed, optimized or served.",
            where=where,
            remedy=f"Use `trimtab train`, or a decoder: {', '.join(FAMILIES)}.",
        )
    if model_type not in FAMILIES:
        raise ModelError(
            f"the architecture {model_type!r} is not one of those that are known.",
            where=where,
            remedy=f"Known: {', '.join(FAMILIES)}.",
        )
    return FAMILIES[model_type]
