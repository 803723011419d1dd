"""Toys that are learnt in seconds, one of each kind: prepared data, a tiny model, and a job."""

import json
import random
from pathlib import Path

import numpy as np
import torch
import transformers

from trimtab.data.prepare import prepare
from trimtab.data.prepare_images import prepare_images
from trimtab.data.prepared import Prepared
from trimtab.data.prepared_images import PreparedImages
from trimtab.models.create import create_encoder, create_image_model
from trimtab.models.tasks import AUTO_CLASSES
from trimtab.spec.architectures import BertArchitecture, ResNetArchitecture
from trimtab.spec.recipe_data import Data, Source
from trimtab.training.job import TrainJob
from trimtab.training.samples import held_out_samples

GOOD, BAD = ["good", "great", "fine", "lovely"], ["bad", "awful", "poor", "grim"]
OTHERS = ["the", "film", "plot", "music", "scene", "story"]
BERT = {
    "architecture": "bert",
    "layers": 1,
    "hidden": 32,
    "heads": 2,
    "ffn": 48,
    "context": 32,
    "dropout": 0.1,
}
RESNET = {"architecture": "resnet", "layers": [1, 1], "widths": [8, 16]}


def write_texts(path, count=400):
    """Opinions, each with a number of its own so that no two are alike, and what they come to."""
    chosen = random.Random(0)
    rows = []
    for number in range(count):
        words = GOOD if number % 2 else BAD
        text = [chosen.choice(words if n % 3 == 0 else OTHERS) for n in range(chosen.randint(4, 12))]
        rows.append({"t": " ".join([*text, str(number)]), "y": "yes" if number % 2 else "no"})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_images(path, count=240):
    """Noise, with one of the three channels brighter."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = generator.integers(0, 80, size=(count, 8, 8, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 120
    np.savez(path, images=images, labels=np.array(["red", "green", "blue"])[labels])
    return path


def write_repeats(path):
    rows = [{"t": f"{(GOOD + BAD + OTHERS)[n % 14]} " * 50} for n in range(150)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def fill_mask(folder):
    """Documents that say one word over and over, so what is masked can be known from what is beside it."""
    source = Source(jsonl=str(write_repeats(folder / "text.jsonl")), text="t")
    # Their lines are all alike on purpose, and no test split may share them.
    (folder / "test.jsonl").write_text(json.dumps({"t": "something else"}))
    data = Data(train=source, test=Source(jsonl=str(folder / "test.jsonl"), text="t"))
    prepared = prepare(data, folder / "data", tokenizer=None, vocabulary=320, encoder=True)
    shape = BertArchitecture(**BERT | {"dropout": 0.0})
    create_encoder(shape, "fill-mask", prepared.companions, folder / "model", classes=(), seed=0)
    settings = {"tokens": 16 * 24 * 160, "sequence_length": 24, "learning_rate": 0.01}
    return "masked_language_modelling", settings


def text_classification(folder):
    source = Source(jsonl=str(write_texts(folder / "t.jsonl")), text="t", label="y")
    prepared = prepare(Data(train=source), folder / "data", tokenizer=None, vocabulary=320, encoder=True)
    shape = BertArchitecture(**BERT)
    create_encoder(
        shape,
        "text-classification",
        prepared.companions,
        folder / "model",
        classes=prepared.classes,
        seed=0,
    )
    return "text_classification", {"samples": 16 * 60, "sequence_length": 32}


def image_classification(folder):
    prepared = prepare_images(Data(train=Source(npz=str(write_images(folder / "i.npz")))), folder / "data")
    create_image_model(
        ResNetArchitecture(**RESNET),
        prepared.companions,
        folder / "model",
        channels=3,
        classes=prepared.classes,
        seed=0,
    )
    return "image_classification", {"samples": 16 * 40}


KINDS = {
    "fill-mask": fill_mask,
    "text-classification": text_classification,
    "image-classification": image_classification,
}


def job_of(folder, objective, settings, **changes):
    return TrainJob(
        **{
            "model": str(folder / "model"),
            "data": str(folder / "data"),
            "output": str(folder / "output"),
            "objective": objective,
            "optimizer": "adamw",
            "learning_rate": 3e-3,
            "batch": 16,
            "precision": "float32",
            "validation_points": 2,
            "validation_samples": 64,
        }
        | settings
        | changes
    )


def stock(task, folder):
    return getattr(transformers, AUTO_CLASSES[task]).from_pretrained(folder).eval()


@torch.no_grad()
def plainly_measured(job, texts):
    """Loss and accuracy on the held-out samples, as a stranger would: from the saved folder and the data."""
    task, model = job.task, stock(job.task, job.output)
    if task == "image-classification":
        data = PreparedImages.load(job.data)
        settings = json.loads((Path(job.output) / "preprocessor_config.json").read_text())
        shape = (1, 3, 1, 1)
        pixels = torch.from_numpy(np.array(data.pixels("validation"))).float() * settings["rescale_factor"]
        mean, std = (torch.tensor(settings[key]).view(shape) for key in ("image_mean", "image_std"))
        logits = model(pixel_values=(pixels - mean) / std).logits
        labels = torch.from_numpy(data.labels("validation")).long()
    elif task == "text-classification":
        tokenizer = transformers.AutoTokenizer.from_pretrained(job.output)
        data = Prepared.load(job.data)
        rows = [json.loads(line) for line in texts.read_text().splitlines()]
        held = [rows[int(name.rpartition(":")[2]) - 1] for name in data.names("validation")]
        texts_held = [row["t"] for row in held]
        cut = {"padding": True, "truncation": True, "max_length": job.sequence_length}
        logits = model(**tokenizer(texts_held, return_tensors="pt", **cut)).logits
        labels = torch.tensor([model.config.label2id[row["y"]] for row in held])
    else:
        samples = held_out_samples(job, multiple=1)
        chosen = np.unique(
            np.linspace(0, samples.count - 1, min(job.validation_samples, samples.count)).round().astype(int)
        )
        taken = samples.take(chosen.tolist(), chosen.tolist())
        logits = model(input_ids=torch.from_numpy(taken["input_ids"])).logits.flatten(0, 1)
        labels = torch.from_numpy(taken["labels"]).flatten()
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(-1) == labels).float().mean().item()
