import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.devices.machine import Link
from trimtab.planning.training.communication import all_gather, all_reduce, send
from trimtab.planning.training.schedule import bubble, held
from trimtab.spec.layout import Layout

_LINK = Link(latency_seconds=1e-5, bytes_per_second=1e9)


@pytest.mark.parametrize(
    ("layout", "micro_batches", "expected"),
    [
        (Layout(), 8, 0),
        (Layout(pipeline=2), 12, 0.083),
        (Layout(pipeline=8, virtual=2, schedule="interleaved"), 48, 0.073),
        (Layout(pipeline=35, virtual=3, schedule="interleaved"), 280, 0.040),
        (Layout(pipeline=4, schedule="zero_bubble"), 8, 0.125),
    ],
)
def test_bubbles(layout, micro_batches, expected):
    assert bubble(layout, micro_batches) == pytest.approx(expected, abs=5e-4)


@given(
    pipeline=st.integers(2, 16), virtual=st.integers(2, 4), factor=st.integers(1, 8), stage=st.integers(0, 15)
)
def test_what_a_rank_holds(pipeline, virtual, factor, stage):
    stage %= pipeline
    count = pipeline * factor
    gpipe, plain = (held(Layout(pipeline=pipeline, schedule=s), count, stage) for s in ("gpipe", "1f1b"))
    interleaved = held(Layout(pipeline=pipeline, virtual=virtual, schedule="interleaved"), count, stage)
    assert 1 <= plain <= gpipe == count
    assert 0 < interleaved <= count
    if stage == 0 and factor > 1:
        assert interleaved == pytest.approx(pipeline * (1 + (pipeline - 1) / (pipeline * virtual)))


@given(st.floats(1, 1e12), st.integers(2, 4096))
def test_a_ring(size, ranks):
    assert all_reduce(size, ranks, _LINK) == pytest.approx(2 * all_gather(size, ranks, _LINK))
    share = (ranks - 1) / ranks * size / 1e9
    assert all_gather(size, ranks, _LINK) == pytest.approx((ranks - 1) * 1e-5 + share)


def test_a_ring_of_one_costs_nothing_and_a_message_its_latency():
    assert all_gather(1e9, 1, _LINK) == 0
    assert send(0, _LINK) == 1e-5


def test_ranks_of_a_node_share_its_ports(make_job):
    machine = make_job(on="a100-80gb").machine
    inside, alone, pairs, all_of_it = (
        machine.link(ranks, stride).bytes_per_second for ranks, stride in ((8, 1), (32, 8), (32, 4), (32, 1))
    )
    assert alone == machine.between.bytes_per_second
    assert pairs == 2 * alone
    assert inside > all_of_it == 8 * alone
