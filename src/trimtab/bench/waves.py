"""How an engine's step grows: waves of equal requests sent together, so that all of a wave run side by side.

A wave of `n` to each worker has n sequences advance together for as long as they answer; its time per token is
the step's. Single requests of several prompt lengths tell what a prompt costs, and waves with *guests*, short requests
that come and go one after another meanwhile, what it costs that a batch changes. Rounds are interleaved and start
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
FEWEST_ROUNDS = 2
SHORT_TOKENS, ANSWER_TOKENS, LONGEST_TOKENS = 16, 48, 512
# A guest's first token comes with its prompt, the second from a step with all others. It takes as long as several
# steps, so that this many per token of the others' answers are gone before those end.
GUEST_TOKENS, GUESTS_PER_TOKEN = 2, 1 / 12


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One wave: `running` requests to each worker, and `guests` beside them."""

    running: int
    prompt_tokens: int
    output_tokens: int
    guests: int = 0


def sizes(context_length: int, max_batch: int) -> tuple[Size, ...]:
    """Levels of the batch at the shortest prompt; longer prompts, alone and in a small batch; guests of both."""
    answer = min(ANSWER_TOKENS, context_length // 4)
    short = min(SHORT_TOKENS, context_length // 8)
    if short < 1 or answer < 2:
        raise UsageError(f"a context of {context_length} tokens is too short to measure.", where="context")
    longest = min(LONGEST_TOKENS, context_length - answer)
    levels = [n for n in LEVELS if n <= max_batch]
    prompts = sorted({longest // 4, longest // 2, longest} - {short})
    waves = [(n, short) for n in levels] + [(1, prompt) for prompt in prompts]
    waves += [(n, longest) for n in levels if n == CONTEXT_LEVEL]
    found = [Size(running=n, prompt_tokens=prompt, output_tokens=answer) for n, prompt in waves]
    guests = int(answer * GUESTS_PER_TOKEN)
    # A guest needs a place in the batch.
    visited = [n for n in (1, CONTEXT_LEVEL) if guests and n in levels and n < max_batch]
    found += [Size(running=n, prompt_tokens=short, output_tokens=answer, guests=guests) for n in visited]
    return tuple(found)


class Waves(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. `memory_bytes` is the peak PSS of the target's processes; `slowdowns` as in `EngineProfile`."""

    waves: tuple[Wave, ...]
    slowdowns: tuple[float, ...]
    rounds: int
    memory_bytes: int


class WaveRounds:
    """Plays rounds of waves at one target and keeps what each wave saw: (first token, time per token), in seconds."""

    def __init__(
        self, target: Target, wanted: Sequence[Size], *, workers: int, vocabulary_size: int, seed: int = 0
    ) -> None:
        self._target, self._sizes, self._workers = target, wanted, workers
        self._vocabulary, self._seed = vocabulary_size, seed
        self._seen: dict[Size, list[tuple[float, float]]] = {size: [] for size in wanted}
        self.rounds = 0

    def play(
        self,
        generator: Generator,
        *,
        warm_up: bool = False,
        on_wave: Callable[[Size, float], None] | None = None,
    ) -> None:
        """One round, or a warm-up that is thrown away. `on_wave` hears of each wave and its tokens/s."""
        for place in range(len(self._sizes)):
            size = self._sizes[(place + self.rounds) % len(self._sizes)]
            outcome = generator.run(self._job(size, place))
            if not warm_up:
                self._seen[size].append(_seen(outcome, size))
            if on_wave is not None:
                on_wave(size, sum(outcome.tokens) / outcome.wall_seconds)
        self.rounds += not warm_up
        self._seed += len(self._sizes)

    def waves(self) -> tuple[Wave, ...]:
        """Medians over the rounds so far."""
        found = []
        for size, rounds in self._seen.items():
            ttft, tpot = (float(np.median(times)) for times in zip(*rounds, strict=True))
            found.append(Wave(**msgspec.structs.asdict(size), ttft=ttft, tpot=tpot))
        return tuple(found)

    def slowdowns(self) -> tuple[float, ...]:
        """Time per token of each wave and round ÷ the wave's median: 1 where the machine was always the same. A wave
        whose tokens came at once says nothing.
        """
        return tuple(
            tpot / median
            for rounds in self._seen.values()
            for median in [float(np.median([tpot for _, tpot in rounds]))]
            for _, tpot in rounds
            if median > 0
        )

    def _job(self, size: Size, place: int) -> Job:
        lasting, guests = size.running * self._workers, size.guests * self._workers
        return Job(
            **address(self._target.url)._asdict(),
            model=self._target.model,
            key=self._target.key,
            concurrency=lasting + (self._workers if guests else 0),
            requests=lasting + guests,
            answers=(size.output_tokens,) * lasting + (GUEST_TOKENS,) * guests,
            prompt_tokens=size.prompt_tokens,
            output_tokens=size.output_tokens,
            vocabulary_size=self._vocabulary,
            seed=self._seed + place,
        )


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
    """A warm-up and `rounds` rounds. None is begun once `seconds` are over, but two are always made."""
    peak, ends, done = Peak(target.pids), time.monotonic() + seconds, 0
    played = WaveRounds(target, wanted, workers=workers, vocabulary_size=vocabulary_size, seed=seed)

    def tell(size: Size, rate: float) -> None:
        nonlocal done
        done += 1
        if on_event is not None:
            on_event(
                Event(
                    fraction=done / (len(wanted) * (rounds + 1)),
                    target=f"{size.prompt_tokens} prompt tokens",
                    concurrency=size.running * workers,
                    round=played.rounds,
                    tokens_per_second=rate,
                )
            )

    with Generator() as generator:
        with peak:
            played.play(generator, warm_up=True, on_wave=tell)
        while played.rounds < rounds and (played.rounds < FEWEST_ROUNDS or time.monotonic() < ends):
            played.play(generator, on_wave=tell)
    peak.sample()
    return Waves(
        waves=played.waves(), slowdowns=played.slowdowns(), rounds=played.rounds, memory_bytes=peak.bytes
    )


def _seen(outcome: Outcome, size: Size) -> tuple[float, float]:
    """First token and time per token, medians over requests: the first to start sees others' prompts being taken in,
    the last to end runs alone. Guests do not count.
    """
    lasting = np.asarray(outcome.tokens) == size.output_tokens
    first, rest = np.asarray(outcome.first)[lasting], np.asarray(outcome.rest)[lasting]
    return float(np.median(first)), float(np.median(rest)) / max(size.output_tokens - 1, 1)
