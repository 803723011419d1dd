"""Profiles made by the very formula that planning assumes, so that what it must find is known."""

from trimtab.spec.engine_profile import CompressionProfile, EngineProfile, ShapeProfile, Wave
from trimtab.spec.hardware import Hardware
from trimtab.spec.serving import ServingConfiguration

ANSWER, SHORT = 64, 16
HARDWARE = Hardware(system="Linux", processor="planted", cores=(0, 1), memory_bytes=2**34, bf16=False)
LEVELS = (1, 2, 4, 8, 16, 32)


def engine_profile(
    step=lambda n: 0.001 + 0.0002 * n,
    *,
    context_seconds=1e-7,
    prompt_seconds=2e-5,
    request_seconds=0.0,
    busy=1.0,
    change_seconds=0.0,
    outside_seconds=0.002,
    replicas=1,
    weight_format="int8",
    **changes,
):
    def wave(running, prompt, guests=0):
        once = prompt_seconds * prompt + request_seconds
        tpot = step(running) + context_seconds * running * (prompt - SHORT)
        if guests:
            more = (step(2 * running) - step(running)) / running
            tpot += guests * (busy * once + more + 3 * change_seconds) / (ANSWER - 1)
        return Wave(
            running=running,
            prompt_tokens=prompt,
            output_tokens=ANSWER,
            guests=guests,
            ttft=outside_seconds + step(1) + running * once + change_seconds,
            tpot=tpot,
        )

    fields = {
        "hardware": HARDWARE,
        "created": "2026-11-25T00:00:00Z",
        "trimtab_version": "0",
        "model": "planted",
        "name": "planted",
        "serving": ServingConfiguration(
            replicas=replicas, cores=tuple((i,) for i in range(replicas)), weight_format=weight_format
        ),
        "waves": (
            *(wave(n, SHORT) for n in LEVELS),
            wave(1, 128),
            wave(1, 256),
            wave(8, 256),
            wave(1, SHORT, guests=4),
            wave(8, SHORT, guests=4),
        ),
        "rounds": 9,
        "memory_bytes": 400_000_000 * replicas,
        "context_length": 1024,
        "weights_bytes": 10_000_000,
        "parameters": 10_000_000,
        "layers": 6,
        "cache_token_bytes": 1000.0,
        "cache_block_tokens": 32,
    }
    return EngineProfile(**(fields | changes))


def shape_profile(layers=6, ffn=768, kv_heads=4, weight_format="bf16", *, factor=1.0, replicas=1):
    """e + L (c + a f / f0 + b k / k0) in every quantity; `factor` is the format's."""

    def of(outside, each, per_ffn, per_kv):
        return factor * (outside + layers * (each + per_ffn * ffn / 768 + per_kv * kv_heads / 4))

    profile = engine_profile(
        lambda n: of(1e-3, 1e-4, 2e-4, 1e-4) * (1 + 0.2 * n),
        prompt_seconds=of(2e-5, 1e-6, 4e-6, 2e-6),
        context_seconds=of(0, 0, 0, 1e-8),
        outside_seconds=0.002,
        weight_format=weight_format,
        replicas=replicas,
        parameters=round(of(1e6, 1e5, 6e5, 2e5) / factor),
        weights_bytes=round(of(1e6, 1e5, 6e5, 2e5)),
        memory_bytes=round(of(2e8, 1e6, 6e6, 2e6)),
    )
    return ShapeProfile(layers=layers, ffn=ffn, kv_heads=kv_heads, profile=profile)


def compression_profile():
    shapes = (
        shape_profile(),
        shape_profile(weight_format="int8", factor=0.5),
        shape_profile(layers=3),
        shape_profile(ffn=384),
        shape_profile(kv_heads=2),
    )
    return CompressionProfile(model="planted", name="planted", shapes=shapes)
