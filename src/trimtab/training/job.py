"""One piece of training as data: what a group of ranks is told, and what it answers. No torch.

A job names folders, so it can be sent to another process and compared by its digest. A sample is what the data
order counts, one endless row of them (`data.loader`) of which a job takes a stretch: a sequence of text, or an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from trimtab.spec.ids import digest
from trimtab.spec.layout import Layout
from trimtab.spec.tasks import Task, classifies

Objective = Literal[
    "language_modelling",
    "distillation",
    "masked_language_modelling",
    "text_classification",
    "image_classification",
]
TASKS: Mapping[Objective, Task] = {
    "language_modelling": "text-generation",
    "distillation": "text-generation",
    "masked_language_modelling": "fill-mask",
    "text_classification": "text-classification",
    "image_classification": "image-classification",
}
OptimizerName = Literal["adamw", "muon"]

# Where things lie and how a run is kept; what the files hold has digests of its own (`training.origin`).
_NOT_SETTINGS = (
    "model",
    "data",
    "teacher",
    "output",
    "checkpoints",
    "checkpoint_seconds",
    "keep",
    "keep_best",
    "resume",
    "accept_changes",
    "watching",
    "layout",
    "offload",
)


class Watching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where figures of every step go: `log` is a file of JSON lines, `tensorboard` a folder, `mlflow` a tracking
    address; `profile` is a folder for traces of a few steps. None: nowhere.
    """

    log: str | None = None
    tensorboard: str | None = None
    mlflow: str | None = None
    profile: str | None = None


class TrainJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`, `teacher`, `data` (prepared), `output` and `checkpoints` are folders. Its length is that of `tokens`,
    whose sequences are all full, or for a classifier that of `samples`.

    `start_sequence` is the place in the data order at which to begin, so that later jobs see fresh text.
    `batch` counts samples over all ranks; `micro_batch` bounds those of one rank's forward pass (0: all
    at once). `sequence_length` is in tokens. `learning_rate` is that of matrices under Muon, of everything under AdamW;
    `embedding_learning_rate` is that of embeddings, norms and biases under Muon. `warmup` and `decay` are
    fractions of the steps. `cross_entropy_weight` w makes distillation's loss (1 - w) KL(teacher ‖ student)
    + w cross-entropy. `layout` None: data-parallel over all ranks; its `micro_batch`, if any, is the one that counts.
    `compile`: layers are compiled, one by one. `offload`: what `shard` shares stays in host memory.
    A checkpoint is saved every `checkpoint_seconds` (0: after every step); the last `keep` stay and, with
    `keep_best`, the one of lowest held-out loss. `accept_changes` goes on from a checkpoint of another model,
    tokenizer, data or settings.
    """

    model: str
    data: str
    output: str
    tokens: int = 0
    samples: int = 0
    checkpoints: str | None = None
    teacher: str | None = None
    objective: Objective = "language_modelling"
    cross_entropy_weight: float = 0.0
    optimizer: OptimizerName = "muon"
    learning_rate: float = 0.02
    embedding_learning_rate: float = 0.02
    weight_decay: float = 0.05
    warmup: float = 0.05
    decay: float = 0.5
    gradient_clip: float = 1.0
    batch: int = 8
    micro_batch: int = 0
    layout: Layout | None = None
    sequence_length: int = 256
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: bool = False
    offload: bool = False
    seed: int = 0
    start_sequence: int = 0
    validation_points: int = 10
    validation_samples: int = 8
    checkpoint_seconds: float = 30.0
    keep: int = 2
    keep_best: bool = False
    resume: bool = False
    accept_changes: bool = False
    watching: Watching = Watching()

    @property
    def task(self) -> Task:
        return TASKS[self.objective]

    @property
    def sample_tokens(self) -> int:
        """Tokens of every sample; 0 where samples are counted themselves."""
        return 0 if classifies(self.task) else self.sequence_length

    @property
    def steps(self) -> int:
        """Optimizer steps: whole batches nearest to `tokens` or `samples`, at least one."""
        samples = self.tokens / self.sample_tokens if self.sample_tokens else self.samples
        return max(1, round(samples / self.batch))

    def layout_for(self, world: int) -> Layout:
        """The layout in a group of `world` ranks."""
        layout = self.layout or Layout(data=world)
        return msgspec.structs.replace(layout, micro_batch=layout.micro_batch or self.micro_batch or None)

    def settings_digest(self) -> str:
        """Digest of what decides the weights, given one layout and the files that the job names."""
        plain = msgspec.to_builtins(self)
        for name in _NOT_SETTINGS:
            del plain[name]
        return digest(plain)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The curve at one time: mean objective since the last point, and cross-entropy on held-out samples; a classifier
    also tells the share of them that it gets right. `tokens` is 0 for a classifier.
    """

    tokens: int
    samples: int
    loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


class TrainResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`seconds` are those spent in steps, over all resumed parts. `stopped`: asked to stop early,
    checkpoint saved.

    `next_sequence` is where the next job goes on in the data order. Losses are in nats per token, or per sample of a
    classifier, whose `tokens` and `tokens_per_second` are 0.
    `optimizer_share` is the fraction of the step time that the optimizer took. `precision` is what was
    chosen. `peak_memory_bytes` is the fullest rank's. `step_seconds` is the median of the steps since the run was
    last resumed, None if there were none.
    """

    steps: int
    tokens: int
    samples: int
    seconds: float
    tokens_per_second: float
    samples_per_second: float
    loss: float
    validation_loss: float | None
    curve: tuple[Point, ...]
    next_sequence: int
    precision: str
    optimizer_share: float
    peak_memory_bytes: int
    step_seconds: float | None = None
    stopped: bool = False


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """`setup_seconds`: loading model, teacher and data. `step_seconds` is a median, `peak_memory_bytes` the fullest
    rank's.
    """

    tokens_per_second: float
    samples_per_second: float
    step_seconds: float
    setup_seconds: float
    precision: str
    peak_memory_bytes: int
