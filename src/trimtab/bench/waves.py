"""How an engine's step grows: waves of equal requests sent together, so that all of a wave run side by side.

A wave of `n` to each worker has n sequences advance together for as long as they answer; its time per token is
the step's. Single requests of several prompt lengths tell what a prompt costs. Rounds are interleaved and start
at another wave each time, so that a slow moment of the machine hits none of them in all rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from trimtab.bench.generator import Generator
from trimtab.bench.job import Job, Outcome, address
from trimtab.bench.load import Event, Target
from trimtab.bench.memory import Peak
from trimtab.spec.engine_profile import Wave
from trimtab.spec.errors import UsageError

LEVELS = (1, 2, 4, 8, 16, 32, 64)
# Sequences a worker where the cost of context is measured: enough of them to show, few enough to hold.
CONTEXT_LEVEL = 8
SHORT_TOKENS, ANSWER_TOKENS, LONGEST_TOKENS = 16, 48, 512


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One wave: `running` requests to each worker."""

    running: int
    prompt_tokens: int
    output_tokens: int


def sizes(context_length: int, max_batch: int) -> tuple[Size, ...]:
    """Levels of the batch at the shortest prompt; longer prompts, alone and in a small batch."""
    answer = min(ANSWER_TOKENS, context_length // 4)
    short = min(SHORT_TOKENS, context_length // 8)
    if short < 1 or answer < 2:
        raise UsageError(f"a context of {context_length} tokens is too short to measure.", where="context")
    longest = min(LONGEST_TOKENS, context_length - answer)
    levels = [n for n in LEVELS if n <= max_batch]
    prompts = sorted({longest // 4, longest // 2, longest} - {short})
    waves = [(n, short) for n in levels] + [(1, prompt) for prompt in prompts]
    waves += [(n, longest) for n in levels if n == CONTEXT_LEVEL]
    return tuple(Size(running=n, prompt_tokens=prompt, output_tokens=answer) for n, prompt in waves)


class Waves(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. `memory_bytes` is the peak PSS of the target's processes."""

    waves: tuple[Wave, ...]
    rounds: int
    memory_bytes: int


def measure_waves(
    target: Target,
    wanted: Sequence[Size],
    *,
    workers: int,
    vocabulary_size: int,
    rounds: int,
    seconds: float,
    seed: int = 0,
    on_event: Callable[[Event], None] | None = None,
) -> Waves:
    """Round 0 warms up. No round is begun once `seconds` are over, but two are always made."""
    peak, seen = Peak(target.pids), {size: ([], []) for size in wanted}
    done, ends = 0, time.monotonic() + seconds
    with Generator() as generator:
        for number in range(rounds + 1):
            if number > 2 and time.monotonic() > ends:
                break
            for place in range(len(wanted)):
                size = wanted[(place + number) % len(wanted)]
                job = _job(target, size, workers, vocabulary_size, seed + number * len(wanted) + place)
                if number == 0:
                    with peak:
                        outcome = generator.run(job)
                else:
                    outcome = generator.run(job)
                    seen[size][0].append(float(np.median(outcome.first)))
                    seen[size][1].append(_step_seconds(outcome))
                if on_event is not None:
                    fraction = (number * len(wanted) + place + 1) / (len(wanted) * (rounds + 1))
                    rate = sum(outcome.tokens) / outcome.wall_seconds
                    on_event(
                        Event(
                            fraction=fraction,
                            target=f"{size.prompt_tokens} prompt tokens",
                            concurrency=job.concurrency,
                            round=number,
                            tokens_per_second=rate,
                        )
                    )
            done = number
    peak.sample()
    return Waves(
        waves=tuple(
            Wave(**msgspec.structs.asdict(size), ttft=float(np.median(ttft)), tpot=float(np.median(tpot)))
            for size, (ttft, tpot) in seen.items()
        ),
        rounds=done,
        memory_bytes=peak.bytes,
    )


def _step_seconds(outcome: Outcome) -> float:
    """Median over requests: the first to start sees others' prompts being taken in, the last to end runs alone."""
    times = [rest / max(tokens - 1, 1) for rest, tokens in zip(outcome.rest, outcome.tokens, strict=True)]
    return float(np.median(times))


def _job(target: Target, size: Size, workers: int, vocabulary_size: int, seed: int) -> Job:
    requests = size.running * workers
    return Job(
        **address(target.url)._asdict(),
        model=target.model,
        key=target.key,
        concurrency=requests,
        requests=requests,
        prompt_tokens=size.prompt_tokens,
        output_tokens=size.output_tokens,
        vocabulary_size=vocabulary_size,
        seed=seed,
    )
