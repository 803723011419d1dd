"""What parity trains when it is given no folder: a tiny model of each kind, and samples drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from trimtab.data.frame import Frame
from trimtab.data.samples.base import Samples
from trimtab.data.samples.masked import MaskedWindows
from trimtab.data.samples.pictures import Pictures
from trimtab.data.samples.texts import LabelledTexts
from trimtab.data.samples.windows import Windows
from trimtab.training.objectives.base import Objective
from trimtab.training.objectives.classification import ImageClassification, TextClassification
from trimtab.training.objectives.language_modelling import LanguageModelling
from trimtab.training.objectives.masked_language_modelling import MaskedLanguageModelling
from trimtab.training.parity.job import ParityJob

_TOKENS = 1 << 14
# No even number divides it.
_VOCABULARY, _CLASSES = 97, 3
_LABELS = {number: str(number) for number in range(_CLASSES)}
_FRAME = Frame(starts=(1,), ends=(2,), pad=0, mask=3, special=frozenset(range(4)))
_TEXTS, _LONGEST, _IMAGES, _SIDE = 128, 24, 96, 16


def _decoder(*, tied: bool) -> nn.Module:
    """Four layers, two key-value heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def _encoder(kind: str) -> nn.Module:
    """Two layers. Without dropout, whose numbers depend on how a batch is shared."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=_LABELS,
    )
    return getattr(transformers, kind)(config)


def _image_model() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=_LABELS
    )
    return ResNetForImageClassification(config)


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "tiny": lambda: _decoder(tied=True),
    "tiny-untied": lambda: _decoder(tied=False),
    "tiny-fill-mask": lambda: _encoder("BertForMaskedLM"),
    "tiny-text-classification": lambda: _encoder("BertForSequenceClassification"),
    "tiny-image-classification": _image_model,
}


def task_of(job: ParityJob, model: Any) -> tuple[Objective, Samples]:
    """What a model is trained for, and on which samples: a model folder's is language modelling."""
    random = np.random.Generator(np.random.PCG64(job.seed))
    if job.model == "tiny-image-classification":
        pixels = random.integers(256, size=(_IMAGES, 3, _SIDE, _SIDE), dtype=np.uint8)
        labels = random.integers(_CLASSES, size=_IMAGES, dtype=np.int32)
        scale = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
        return ImageClassification(*scale, dtype=getattr(torch, job.dtype)), Pictures(pixels, labels)
    tokens = random.integers(model.config.vocab_size, size=_TOKENS, dtype=np.uint32)
    if job.model == "tiny-text-classification":
        lengths = random.integers(1, _LONGEST, size=_TEXTS)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        labels = random.integers(_CLASSES, size=_TEXTS, dtype=np.int32)
        texts = LabelledTexts(tokens, offsets, labels, _FRAME, length=job.sequence_length)
        return TextClassification(), texts
    if job.model == "tiny-fill-mask":
        masked = MaskedWindows(
            tokens, _FRAME, length=job.sequence_length, vocabulary=_VOCABULARY, seed=job.seed
        )
        return MaskedLanguageModelling(), masked
    return LanguageModelling(), Windows(tokens, job.sequence_length)
