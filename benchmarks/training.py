"""Step time of Trimtab's loop against a bare torch loop, Accelerate and Lightning Fabric: 2 processes over gloo.

    pip install accelerate lightning-fabric          # beside trimtab[torch]
    python benchmarks/training.py                    # about 8 minutes on 2 idle cores

All sides train the same model on the same batches in the same two processes, one after the other in every round,
in an order that changes. The bare loop runs twice: its ratio to itself is the noise. Ours does all that a user's
run does: it agrees on stops, counts valid tokens over ranks, writes a line a step, beats for the watch. Writes
`benchmarks/results/training.json`. Exit 1 where the claim does not hold.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from trimtab.data.loader import Loader
from trimtab.data.prepare import prepare
from trimtab.data.prepared import Prepared
from trimtab.data.samples.windows import Windows
from trimtab.models.create import create
from trimtab.models.load import load
from trimtab.parallel.launching.pulse import RECORDER, Pulse
from trimtab.parallel.ranks import Ranks, meet
from trimtab.spec.architectures import Architecture
from trimtab.spec.clock import now
from trimtab.spec.hardware import this_machine
from trimtab.spec.recipe_data import Data
from trimtab.stats.paired import CLAIM_ROUNDS, noise, ratio
from trimtab.training.job import TrainJob, Watching
from trimtab.training.loop import Run

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
WORLD = 2
# The claim: at most this much of a bare loop's step, and no slower than a peer beyond the interval.
ALLOWED = 1.02
LENGTH, BATCH, RATE, CLIP = 128, 8, 3e-4, 1.0
SHAPE = Architecture(
    architecture="llama", layers=4, hidden=256, heads=4, kv_heads=2, ffn=768, vocabulary=2048, context=256
)
# Takes so many steps and returns this rank's part of the last one's loss.
Side = Callable[[int], float]


def bare(model_folder: Path, data: Prepared, rank: int) -> Side:
    model = load(model_folder).train()
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = _adamw(model)
    loader = _loader(data, rank)

    def take(steps: int) -> float:
        value = 0.0
        for _ in range(steps):
            loss = _loss(wrapped, torch.from_numpy(loader.next()["windows"]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            value = loss.item()
        return value

    return take


def accelerated(model_folder: Path, data: Prepared, rank: int) -> Side:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = load(model_folder).train()
    model, optimizer = accelerator.prepare(model, _adamw(model))
    loader = _loader(data, rank)

    def take(steps: int) -> float:
        value = 0.0
        for _ in range(steps):
            loss = _loss(model, torch.from_numpy(loader.next()["windows"]))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            value = loss.item()
        return value

    return take


def fabricated(model_folder: Path, data: Prepared, rank: int) -> Side:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=WORLD, strategy="ddp")
    fabric.launch()
    model = load(model_folder).train()
    wrapped, optimizer = fabric.setup(model, _adamw(model))
    loader = _loader(data, rank)

    def take(steps: int) -> float:
        value = 0.0
        for _ in range(steps):
            loss = _loss(wrapped, torch.from_numpy(loader.next()["windows"]))
            fabric.backward(loss)
            fabric.clip_gradients(wrapped, optimizer, max_norm=CLIP, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
            value = loss.item()
        return value

    return take


def ours(model_folder: Path, data: Prepared, folder: Path, ranks: Ranks) -> Side:
    job = TrainJob(
        model=str(model_folder),
        data=str(data.folder),
        output=str(folder / "output"),
        tokens=10**9,
        optimizer="adamw",
        learning_rate=RATE,
        weight_decay=0.01,
        warmup=0.0,
        decay=0.0,
        gradient_clip=CLIP,
        batch=BATCH,
        sequence_length=LENGTH,
        precision="float32",
        watching=Watching(log=str(folder / "log.jsonl")),
    )
    run = Run(job, ranks, lambda _: None)

    def take(steps: int) -> float:
        for _ in range(steps):
            run.agree(wants_stop=False)
            run.advance()
        # Parts add up over ranks, where the other sides' means are averaged.
        return run.part_of_loss * WORLD

    return take


def _adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.01, fused=True)


def _loader(data: Prepared, rank: int) -> Loader:
    return Loader(Windows(data.tokens("train"), LENGTH), batch=BATCH, seed=0, rank=rank, world=WORLD)


def _loss(model: torch.nn.Module, windows: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def work(folder: Path, rounds: int, steps: int) -> None:
    """One of the two processes: all sides, round after round. Rank 0 writes `times.json`."""
    torch.set_num_threads(1)
    store, rank, world = next(dist.rendezvous("env://"))
    pulse = Pulse(folder, rank)
    ranks = meet(store, rank, world, rank, pulse)
    data = Prepared.load(folder / "data")
    model = folder / "model"
    sides: dict[str, Side] = {
        "bare": bare(model, data, rank),
        "bare_again": bare(model, data, rank),
        "ours": ours(model, data, folder, ranks),
        "accelerate": accelerated(model, data, rank),
        "fabric": fabricated(model, data, rank),
    }
    pulse.start()
    times: dict[str, list[float]] = {name: [] for name in sides}
    losses = {name: take(2) for name, take in sides.items()}
    names = list(sides)
    for number in range(rounds):
        # Every side is first equally often, and its neighbours change.
        order = names[number % len(names) :] + names[: number % len(names)]
        for name in order if number % 2 else order[::-1]:
            dist.barrier()
            started = time.perf_counter()
            losses[name] = sides[name](steps)
            dist.barrier()
            times[name].append((time.perf_counter() - started) / steps)
        if rank == 0:
            shown = ", ".join(f"{name} {values[-1] * 1e3:.1f} ms" for name, values in times.items())
            print(f"round {number + 1} of {rounds}: {shown}", file=sys.stderr, flush=True)
    pulse.stop()
    if rank == 0:
        (folder / "times.json").write_text(json.dumps({"times": times, "losses": losses}))
    dist.barrier()


def judge(times: dict[str, list[float]], losses: dict[str, float], steps: int) -> dict[str, object]:
    """Ratios of step times, paired by round, and whether the claim holds."""
    against_bare = ratio(times["ours"], times["bare"])
    peers = {name: ratio(times["ours"], times[name]) for name in ("accelerate", "fabric")}
    spread = max(losses.values()) - min(losses.values())
    return {
        "date": now(),
        "machine": this_machine(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("trimtab", "torch", "transformers", "accelerate", "lightning-fabric")
        },
        "model": SHAPE.model_dump(),
        "setup": f"{WORLD} processes over gloo, 1 thread each, batch {BATCH} × {LENGTH} tokens, float32, AdamW",
        "rounds": len(times["bare"]),
        "steps_per_round": steps,
        "median_step_seconds": {name: statistics.median(values) for name, values in times.items()},
        "noise": noise(times["bare_again"], times["bare"]),
        "ours_to_bare": against_bare,
        "ours_to_peers": peers,
        "peers_to_bare": {name: ratio(times[name], times["bare"]) for name in peers},
        # All have taken equal steps on equal batches.
        "loss_spread": spread,
        "holds": against_bare.value <= ALLOWED and all(peer.low <= 1 for peer in peers.values()),
        "step_seconds": times,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--steps", type=int, default=2, help="of each side in each round")
    parser.add_argument("--try", dest="trial", action="store_true", help="a short run that writes no results")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.rounds, arguments.steps)
        return 0
    if not arguments.trial and arguments.rounds < CLAIM_ROUNDS:
        parser.error(f"a claim needs {CLAIM_ROUNDS} rounds or more")
    with tempfile.TemporaryDirectory(prefix="trimtab-training-") as name:
        folder = Path(name)
        data = prepare(Data(stdlib="python"), folder / "data", tokenizer=None, vocabulary=SHAPE.vocabulary)
        create(SHAPE, data.tokenizer_folder, folder / "model", 0)
        _run_workers(folder, arguments.rounds, arguments.steps)
        kept = json.loads((folder / "times.json").read_text())
    result = judge(kept["times"], kept["losses"], arguments.steps)
    text = msgspec.json.format(msgspec.json.encode(result), indent=2).decode()
    if not arguments.trial:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(text + "\n")
    del result["step_seconds"]
    print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    return 0 if result["holds"] else 1


def _run_workers(folder: Path, rounds: int, steps: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Fabric takes the environment for a launcher's only with these.
        "TORCHELASTIC_RUN_ID": "benchmark",
        "GROUP_RANK": "0",
        **RECORDER,
    }
    command = [sys.executable, __file__, "--worker", folder, "--rounds", rounds, "--steps", steps]
    workers = [
        subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(WORLD)
    ]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        sys.exit(f"the workers ended with {codes}")


if __name__ == "__main__":
    sys.exit(main())
