"""The model card of a published version: what it is, where it came from, what was measured, how to use it."""

from __future__ import annotations

from trimtab.spec.artifact import Passport
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.units import format_bytes, format_count, format_duration


def model_card(name: str, passport: Passport, serving: ServingConfiguration) -> str:
    """Markdown with the metadata block that model hubs read."""
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "---",
        f"# {name}",
        "",
        (
            f"{passport.architecture} with {format_count(passport.parameters)} parameters, made by Trimtab "
            f"{passport.trimtab_version} on {passport.created}."
        ),
        "",
        "## How it came to be",
        "",
        *(f"1. {step}" for step in passport.steps or ("taken as it was",)),
        "",
        "## Measured",
        "",
        *_figures(passport),
        "",
        "## Use",
        "",
        (
            f"Proven with the {serving.engine} engine in {serving.weight_format}, {serving.replicas} × "
            f"{serving.threads} threads (`serving.json`). The folder also loads with stock `transformers`."
        ),
        "",
    ]
    return "\n".join(lines)


def _figures(passport: Passport) -> list[str]:
    quality, speed = passport.quality, passport.speed
    lines = []
    if quality:
        lines += [
            (
                f"- perplexity {quality.perplexity} on {format_count(quality.tokens)} held-out tokens, "
                f"{quality.perplexity_ratio} × the baseline's"
            ),
            f"- KL to the baseline {quality.kl_mean} nats a token, top-1 agreement {quality.top1_agreement}",
        ]
    if speed:
        lines += [
            f"- {load.tokens_per_second} output tokens/s at {load.concurrency} concurrent, first token "
            f"{format_duration(load.ttft_p50)} (p50)"
            for load in speed.loads
        ]
        lines.append(
            f"- {format_bytes(speed.memory_bytes)} of memory, {format_bytes(speed.weights_bytes)} of weights"
        )
    return lines or ["Nothing was measured."]
