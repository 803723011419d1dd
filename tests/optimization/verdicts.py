"""A made-up verdict with every kind of row, for the report's tests and for looking at the page."""

import math

from trimtab.spec.hardware import Hardware
from trimtab.spec.measures import Estimate, Load, Quality, Speed
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.verdict import Candidate, Verdict, Winner, WinnerQuality

MIB = 2**20


def about(value, spread=0.02):
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread))


def between(value, low, high):
    return Estimate(value=value, low=low, high=high)


def quality(perplexity, baseline=24.8, kl=0.1):
    return Quality(
        perplexity=about(perplexity, 0.03),
        perplexity_ratio=about(perplexity / baseline, 0.008),
        kl_mean=about(kl, 0.05),
        kl_p99=about(kl * 11, 0.07),
        top1_agreement=Estimate(value=1 - kl, low=1 - kl * 1.06, high=1 - kl * 0.94),
        flips_worse=about(kl * 0.22),
        flips_better=about(kl * 0.17),
        degenerate=0.02,
        tokens=41_984,
    )


def speed(rate, memory, weights):
    loads = tuple(
        Load(
            concurrency=concurrency,
            prompt_tokens=64,
            output_tokens=64,
            tokens_per_second=about(rate * factor, 0.03),
            ttft_p50=9.0 * concurrency / rate,
            ttft_p95=14.0 * concurrency / rate,
            tpot_p50=concurrency / (rate * factor),
            tpot_p95=1.3 * concurrency / (rate * factor),
        )
        for concurrency, factor in ((1, 1.0), (16, 4.1))
    )
    return Speed(load_seconds=0.8, memory_bytes=memory * MIB, weights_bytes=weights, loads=loads)


def candidate(
    name, role, weights, *, layers=6, ffn=1024, kv_heads=4, bits="int8", rate=None, perplexity=None, **more
):
    measured = rate is not None
    return Candidate(
        name=name,
        role=role,
        shape={"layers": layers, "ffn": ffn, "kv_heads": kv_heads},
        parameters=int(weights * MIB / (1 if bits == "int8" else 2)),
        weights_bytes=int(weights * MIB),
        serving=ServingConfiguration(weight_format=bits, replicas=2, threads=1),
        quality=quality(perplexity, kl=more.pop("kl", 0.1)) if measured else None,
        speed=speed(rate, more.pop("memory", 300), int(weights * MIB)) if measured else None,
        quick_perplexity=None if measured else perplexity,
        **more,
    )


def verdict(**changes):
    fields = {
        "feasible": True,
        "name": "codelm",
        "baseline": candidate(
            "baseline",
            "baseline",
            18.9,
            bits="bf16",
            rate=410,
            perplexity=24.8,
            kl=0.0004,
            memory=412,
            pareto=True,
        ),
        "controls": (
            candidate(
                "control",
                "control",
                18.9,
                bits="bf16",
                rate=409,
                perplexity=23.9,
                kl=0.06,
                trained_tokens=400_000,
            ),
            candidate(
                "int8_only", "int8_only", 9.6, rate=560, perplexity=24.9, kl=0.002, memory=365, pareto=True
            ),
        ),
        "candidates": (
            candidate(
                "depth6-int4",
                "candidate",
                5.2,
                bits="int4",
                rate=600,
                perplexity=29.7,
                kl=0.19,
                reason="quality.retain is 82.1 % at the bad end of its interval, 95.0 % is asked",
            ),
            candidate(
                "depth4-ffn768-kv2",
                "candidate",
                5.6,
                layers=4,
                ffn=768,
                kv_heads=2,
                rate=1130,
                perplexity=25.6,
                kl=0.13,
                memory=318,
                steps=(
                    "depth 6 → 4",
                    "FFN 1024 → 768",
                    "KV heads 4 → 2",
                    "refit",
                    "distilled, 400 k tokens",
                    "int8",
                ),
                trained_tokens=400_000,
                pareto=True,
            ),
            candidate(
                "depth3",
                "candidate",
                5.9,
                layers=3,
                perplexity=71.3,
                reason="perplexity 71.3 after the refit; depth4-ffn768-kv2 was more promising (38.0)",
            ),
        ),
        "winner": Winner(
            name="codelm",
            version=2,
            candidate="depth4-ffn768-kv2",
            task="text-generation",
            speedup={1: between(2.41, 2.32, 2.5), 16: between(2.76, 2.61, 2.87)},
            speedup_over_int8={1: between(1.8, 1.7, 1.9), 16: between(2.03, 1.96, 2.11)},
            quality=WinnerQuality(
                metric="perplexity",
                ratio=between(1.032, 1.024, 1.041),
                ratio_to_control=between(1.071, 1.062, 1.081),
                metrics={"top1_agreement": between(0.87, 0.862, 0.878)},
            ),
            weights_bytes_ratio=0.296,
            memory_ratio=0.75,
        ),
        "noise": (0.981, 1.024),
        "ngrams": {"unigram": 421.0, "bigram": 58.3, "trigram": 33.1},
        "hardware": Hardware(
            system="Linux x86_64",
            processor="AMD EPYC 9B45 (family 26 model 2)",
            cores=(0, 1),
            memory_bytes=24 * 2**30,
            bf16=True,
        ),
        "recipe_digest": "9f8a1c" * 10,
        "trimtab_version": "0.1.0",
        "created": "2026-11-24T21:03:11Z",
        "seconds": 508.0,
        "run": "codelm-4ac01d9b2f10",
    }
    return Verdict(**(fields | changes))


def falling(start, end, total, points=60, every=6, validation=0.08):
    curve = []
    for index in range(1, points + 1):
        part = index / points
        loss = end + (start - end) * math.exp(-5.5 * part) + 0.01 * end * math.sin(index * 2.3)
        known = index % every == 0
        curve.append(
            {
                "tokens": int(total * part),
                "loss": loss,
                "validation_loss": loss + validation if known else None,
            }
        )
    return curve


DISTILLED = "depth4-ffn768-kv2"


def curves():
    return {
        "baseline": falling(8.3, 2.95, 2_400_000),
        "control": falling(3.05, 2.9, 400_000, 30),
        DISTILLED: falling(1.4, 0.21, 400_000, 30, validation=2.8),
    }
