"""The model that parity trains, always from the same weights, and a run of it under some layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from trimtab.data.loader import Loader
from trimtab.models.load import load
from trimtab.models.precise import keep_dtype
from trimtab.parallel.compose import lay_out
from trimtab.parallel.mesh import Grid
from trimtab.training.job import TrainJob
from trimtab.training.objectives.language_modelling import LanguageModelling
from trimtab.training.optimizers import Optimizers
from trimtab.training.parity.job import ParityJob
from trimtab.training.streams import begin_step

TINY, TINY_UNTIED = "tiny", "tiny-untied"
_TOKENS = 1 << 14
# Clips every step of a tiny model, so that the norm over all ranks matters to the result.
_CLIP = 0.5
_LEARNING_RATE = 3e-3


def seed_model(job: ParityJob) -> nn.Module:
    """The same weights at every call, in the job's type, whose norms and loss keep it."""
    made_here = job.model in (TINY, TINY_UNTIED)
    model = _tiny(tied=job.model == TINY, seed=job.seed) if made_here else load(Path(job.model))
    return keep_dtype(model.to(getattr(torch, job.dtype))).train()


def _tiny(*, tied: bool, seed: int) -> nn.Module:
    """Four layers, two key-value heads, and a vocabulary that no even number divides."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=97,
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


class Subject:
    """One run under one layout: as training does it, on tokens drawn at random."""

    def __init__(self, job: ParityJob, grid: Grid) -> None:
        self._job, self._grid = job, grid
        model = seed_model(job)
        vocabulary = model.config.vocab_size  # pyrefly: ignore[missing-attribute]
        self.distributed = lay_out(model, grid)
        settings = TrainJob(
            model="",
            data="",
            output="",
            tokens=1,
            optimizer="adamw",
            learning_rate=_LEARNING_RATE,
        )
        self.optimizers = Optimizers(model, self.distributed, settings, grid.ranks)
        tokens = np.random.Generator(np.random.PCG64(job.seed)).integers(
            vocabulary, size=_TOKENS, dtype=np.uint32
        )
        self.loader = Loader(
            tokens,
            length=job.sequence_length,
            batch=job.batch,
            seed=job.seed,
            rank=grid.share,
            world=grid.shares,
        )
        self._objective = LanguageModelling()
        # As the last step began.
        self.random_state = torch.get_rng_state()

    def step(self) -> float:
        """Mean loss per token of the whole batch, in nats, before the step."""
        begin_step(self._job.seed, self.loader.position // self._job.batch, self._grid.stream)
        self.random_state = torch.get_rng_state()
        windows = torch.from_numpy(self.loader.next()).to(self._grid.ranks.device)
        count = windows[:, 1:].numel()
        part = self.distributed.backward(windows[:, :-1], windows, self._loss, count)
        self.distributed.clip(_CLIP)
        self.optimizers.step(1.0)
        self.distributed.finish_step()
        return self.distributed.mean(part)

    def weights(self) -> dict[str, torch.Tensor]:
        """Whole copies of what this rank's stages hold. Ranks that share them must all call it."""
        return {name: whole(weight) for name, weight in self.distributed.weights().items()}

    def moments(self) -> dict[str, torch.Tensor]:
        return {name: whole(state) for name, state in self.optimizers.state().items()}

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Everything that a run goes on from, live; what it cannot be read into must be `adopt`ed."""
        weights = {f"model.{name}": weight for name, weight in self.distributed.weights().items()}
        state = {f"optimizer.{name}": value for name, value in self.optimizers.state().items()}
        return weights | state | {"data.position": torch.tensor(self.loader.position)}

    def adopt(self, read: dict[str, torch.Tensor]) -> None:
        """What a snapshot says of the place in the data, on which the random numbers depend too."""
        self.loader.position = int(read["data.position"])

    def _loss(self, logits: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return self._objective.loss(logits, windows[:, :-1], windows[:, 1:])


def whole(value: torch.Tensor) -> torch.Tensor:
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
