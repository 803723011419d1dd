"""Published memory, to the printed digit, and what must hold of any."""

import msgspec
import published
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.planning.training.activations import layer_bytes
from trimtab.planning.training.memory import memory_of
from trimtab.planning.training.schedule import held
from trimtab.planning.training.stages import (
    can_split,
    different_ranks,
    layers_of_ranks,
    published_split,
    trained_split,
)
from trimtab.planning.training.states import states
from trimtab.spec.layout import Layout, parse_layout

_GIB = 2**30


@pytest.mark.parametrize("row", published.KORTHIKANTI, ids=lambda row: f"{row.billions}B")
def test_korthikantis_twelve_values(make_job, row):
    shape = {"family": "gpt", "layers": row.layers, "hidden": row.hidden, "heads": row.heads, "vocab": 51200}
    job = make_job(shape, on="a100-80gb", devices=row.devices, length=2048, batch=row.global_batch)
    layout = parse_layout(row.layout)
    layers = row.layers // layout.pipeline
    # The table counts the layers' matrices alone.
    matrices = layers * job.architecture.layer_matrices / layout.tensor
    assert states("bf16", "adamw", layout).total * matrices / _GIB == pytest.approx(row.states_gib, abs=1e-4)
    in_flight = held(layout, row.global_batch, 0) * layers
    whole = layer_bytes(job, layout, "classic") * in_flight
    assert whole / _GIB == pytest.approx(row.activations_gib, abs=1e-4)
    selective = parse_layout(row.layout + ",sequence=on,recompute=selective")
    assert layer_bytes(job, selective, "classic") * in_flight / _GIB == pytest.approx(
        row.selective_gib, abs=1e-4
    )


# Parameters in billions, ranks, and GB a device of ZeRO's stages 1, 2 and 3, as printed in its table 1.
_ZERO = [
    (7.5, 4, ("52.5", "41.3", "30")),
    (7.5, 16, ("35.6", "21.6", "7.5")),
    (7.5, 64, ("31.4", "16.6", "1.88")),
    (7.5, 256, ("30.4", "15.4", "0.47")),
    (7.5, 1024, ("30.1", "15.1", "0.12")),
    (128, 4, ("896", "704", "512")),
    (128, 64, ("536", "284", "32")),
    (128, 1024, ("513", "257", "2")),
    (1000, 4, ("7000", "5500", "4000")),
    (1000, 64, ("4187", "2218", "250")),
    (1000, 1024, ("4011", "2013", "15.6")),
]


@pytest.mark.parametrize(("billions", "ranks", "printed"), _ZERO)
def test_the_table_of_zero(billions, ranks, printed):
    stages = (Layout(data=ranks, zero=1), Layout(data=ranks, zero=2), Layout(shard=ranks, reshard=True))
    for layout, text in zip(stages, printed, strict=True):
        digits = len(text.partition(".")[2])
        found = billions * states("fp16", "adamw", layout).total
        # The table rounds some of its figures and cuts others off.
        assert found == pytest.approx(float(text), abs=10.0**-digits)


@given(
    tensor=st.sampled_from([1, 2, 4, 8]),
    shard=st.sampled_from([1, 8]),
    pipeline=st.sampled_from([1, 2, 4]),
    micro_batch=st.sampled_from([1, 2, 4]),
    recompute=st.sampled_from(["none", "selective", "full"]),
)
def test_terms_sum_to_the_total_and_grow_with_the_micro_batch(
    make_job, tensor, shard, pipeline, micro_batch, recompute
):
    job = make_job("llama3-8b", devices=tensor * shard * pipeline, batch=512)

    def of(size):
        layout = Layout(tensor=tensor, shard=shard, pipeline=pipeline, micro_batch=size, recompute=recompute)
        return memory_of(job, layout, layers_of_ranks(job, layout), 8)

    found, larger = of(micro_batch), of(2 * micro_batch)
    terms = [getattr(found, name) for name in found.__struct_fields__ if name != "total"]
    assert sum(terms) == pytest.approx(found.total, abs=len(terms))
    assert all(term >= 0 for term in terms)
    assert larger.total > found.total


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("tensor=8,sequence=on,micro_batch=1", "tensor=8,micro_batch=1"),
        ("tensor=8,micro_batch=1", "tensor=4,data=2,micro_batch=1"),
        ("data=8,zero=1", "data=8"),
        ("data=8,zero=2", "data=8,zero=1"),
        ("shard=8,reshard=on", "shard=8"),
        ("shard=8,reshard=on,recompute=full", "shard=8,reshard=on"),
        ("data=8,zero=2,context=1", "data=8"),
    ],
)
def test_what_shares_more_needs_less(make_job, less, more):
    job = make_job()
    found = [memory_of(job, parse_layout(text), (32,), 8).total for text in (less, more)]
    assert found[0] < found[1]


def test_optimizers_and_precisions():
    plain = Layout()
    assert states("bf16", "adamw", plain).total == 18
    assert states("fp16", "adamw", plain).total == 16
    assert states("fp32", "adamw", plain).total == 16
    assert states("bf16", "muon", plain).total == 14
    assert states("bf16", "adamw", Layout(data=8, zero=1)).total == 6 + 12 / 8
    assert states("bf16", "adamw", Layout(shard=8, reshard=True)).total == 16 / 8


@pytest.mark.parametrize(
    ("layers", "pipeline", "virtual", "expected"),
    [
        (32, 4, 1, (8, 8, 8, 8)),
        (32, 4, 2, (8, 8, 8, 8)),
        (126, 16, 1, (7, *[8] * 14, 7)),
        (126, 16, 4, (7, *[8] * 14, 7)),
        (30, 4, 1, (7, 8, 8, 7)),
        (31, 4, 1, (8, 8, 8, 7)),
        (31, 2, 4, (16, 15)),
        (29, 4, 1, None),
        (2, 4, 1, None),
        (32, 1, 1, (32,)),
    ],
)
def test_published_stages(layers, pipeline, virtual, expected):
    assert published_split(layers, pipeline, virtual) == expected


def test_our_own_stages(make_job):
    assert trained_split(make_job("llama3-405b").architecture, 16, 1) == (7, *[8] * 14, 7)
    # The head weighs as much as two layers and a half of 8B.
    assert trained_split(make_job("llama3-8b").architecture, 4, 1) == (8, 9, 9, 6)
    # Stages 0 and 2 are the first rank's.
    assert trained_split(make_job("llama3-8b").architecture, 2, 2) == (17, 15)


def test_the_rule_is_that_of_the_software(make_job):
    uneven = {"family": "llama", "layers": 29, "hidden": 256, "heads": 4, "ffn": 768, "vocab": 2048}
    job, layout = make_job(uneven, devices=4), Layout(pipeline=4)
    assert not can_split(job, layout)
    ours = msgspec.structs.replace(job, software="torch")
    assert can_split(ours, layout)
    assert sum(layers_of_ranks(ours, layout)) == 29


def test_one_rank_of_each_kind():
    assert different_ranks((7, 8, 8, 9, 8, 7)) == [0, 1, 3, 5]
    assert different_ranks((4,)) == [0]
