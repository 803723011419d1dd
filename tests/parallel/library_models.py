"""Encoders and image models under data and sharded parallel, in rank processes. Run by `test_library_models`."""

import torch
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from trimtab.parallel.compose import parallelize
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import Layout, parse_layout

LAYOUTS = ("data=2", "data=2,micro_batch=2", "data=2,zero=1", "shard=2", "shard=2,reshard=on,micro_batch=2")


def encoder(kind):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=61,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
    )
    return kind(config).double().train()


def images():
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return ResNetForImageClassification(config).double().train()


def masked_language_modelling(generator):
    ids = torch.randint(0, 61, (8, 12), generator=generator)
    masked = torch.rand(8, 12, generator=generator) < 0.3
    inputs = {"input_ids": ids.masked_fill(masked, 3), "attention_mask": torch.ones_like(ids)}
    return inputs, ids.masked_fill(~masked, -100)


def text_classification(generator):
    ids = torch.randint(0, 61, (8, 12), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return inputs, torch.randint(0, 3, (8,), generator=generator)


def image_classification(generator):
    pixels = torch.randn(8, 3, 16, 16, generator=generator, dtype=torch.float64)
    return {"pixel_values": pixels}, torch.randint(0, 3, (8,), generator=generator)


SUBJECTS = {
    "masked language modelling": (lambda: encoder(BertForMaskedLM), masked_language_modelling),
    "text classification": (lambda: encoder(BertForSequenceClassification), text_classification),
    "image classification": (images, image_classification),
}


def cross_entropy(logits, targets):
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")


def losses(make, draw, layout, ranks):
    distributed = parallelize(make(), layout, ranks=ranks)
    optimizer = torch.optim.AdamW(distributed.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(2)
    seen = []
    for _ in range(5):
        inputs, targets = draw(generator)
        inputs = {name: distributed.share(values) for name, values in inputs.items()}
        targets = distributed.share(targets)
        count = (targets != -100).sum().item()
        seen.append(distributed.mean(distributed.backward(inputs, targets, cross_entropy, count)))
        distributed.clip(1.0)
        distributed.step(optimizer)
    statistics = [held for name, held in distributed.weights().items() if name.endswith("running_var")]
    return [*seen, *(held.sum().item() for held in statistics)]


def compared(layout, ranks):
    for name, (make, draw) in SUBJECTS.items():
        wanted = losses(make, draw, Layout(), Ranks())
        for text in LAYOUTS:
            if name == "image classification" and "micro_batch" in text:
                # Batch norms see a micro-batch at a time, so these train in another way.
                continue
            found = losses(make, draw, parse_layout(text), ranks)
            worst = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
            assert worst <= 1e-12, (name, text, worst)
