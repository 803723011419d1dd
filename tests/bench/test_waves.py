import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.bench.load import Target
from trimtab.bench.waves import measure_waves, sizes
from trimtab.spec.errors import UsageError


@given(st.integers(8, 100_000), st.integers(1, 128))
def test_sizes_fit_the_context_and_tell_prompt_from_output(context, max_batch):
    found = sizes(context, max_batch)
    assert len(set(found)) == len(found)
    assert all(size.prompt_tokens + size.output_tokens <= context for size in found)
    assert all(1 <= size.running <= max_batch for size in found)
    assert len({size.prompt_tokens for size in found if size.running == 1}) >= 2


def test_a_context_that_is_too_short_is_refused():
    with pytest.raises(UsageError, match="too short"):
        sizes(6, 4)


def test_waves_are_measured_through_a_service(streaming):
    service = streaming(step_seconds=0.002)
    events = []
    wanted = [size for size in sizes(256, 4) if size.running in (1, 4)]
    found = measure_waves(
        Target(url=service.url, key="k", model="m"),
        wanted,
        workers=2,
        vocabulary_size=300,
        rounds=2,
        seconds=60,
        on_event=events.append,
    )
    assert found.rounds == 2
    assert [(wave.running, wave.prompt_tokens) for wave in found.waves] == [
        (size.running, size.prompt_tokens) for size in wanted
    ]
    # Two workers: a wave of four to each is eight requests at once.
    assert service.most == 8
    assert all(wave.tpot >= 0.0019 for wave in found.waves)
    assert events[-1].fraction == pytest.approx(1)


def test_time_that_is_over_ends_it_after_two_rounds(streaming):
    found = measure_waves(
        Target(url=streaming().url, key="k", model="m"),
        [sizes(256, 1)[0]],
        workers=1,
        vocabulary_size=300,
        rounds=50,
        seconds=0,
    )
    assert found.rounds == 2
