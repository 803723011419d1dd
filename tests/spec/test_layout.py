import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, check_layout, layout_from, parse_layout

_SIZES = st.integers(1, 64)
_LAYOUTS = st.builds(
    Layout,
    data=_SIZES,
    shard=st.integers(2, 64),
    reshard=st.booleans(),
    zero=st.integers(0, 2),
    tensor=st.integers(2, 64),
    sequence=st.booleans(),
    pipeline=st.integers(2, 64),
    virtual=st.integers(2, 8),
    schedule=st.sampled_from(["interleaved", "zero_bubble"]),
    context=_SIZES,
    micro_batch=st.none() | _SIZES,
    recompute=st.sampled_from(["none", "selective", "full"]),
)


@given(_LAYOUTS)
def test_a_layout_is_written_as_it_is_read(layout):
    assert parse_layout(str(layout)) == layout
    assert (
        layout_from(msgspec.to_builtins(layout) | {"micro_batch": layout.micro_batch or 1}).world
        == layout.world
    )


def test_what_is_not_named_takes_the_least():
    assert parse_layout("data=1") == Layout()
    assert str(Layout()) == "data=1"
    assert parse_layout("data=32,tensor=8,pipeline=8,virtual=3,schedule=interleaved").world == 2048


def test_a_recipe_may_write_switches_as_words_or_truths():
    assert layout_from({"tensor": 2, "sequence": "on"}) == layout_from({"tensor": 2, "sequence": True})
    assert not layout_from({"tensor": 2, "sequence": "off"}).sequence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tensr=2", "mean 'tensor'"),
        ("expert=2", "Known: data"),
        ("data=x", "whole number"),
        ("data=", "whole number"),
        ("data=0", "Use 1 or more"),
        ("", "no key"),
        ("data=-1", "whole number"),
        ("data=2,data=2", "twice"),
        ("data=\N{SUPERSCRIPT TWO}", "whole number"),
        ("shard=2,reshard=maybe", "on or off"),
        ("tensor=2,sequence=1", "on or off"),
        ("pipeline=2,schedule=dualpipe", "gpipe, 1f1b"),
        ("recompute=some", "selective"),
        ("zero=3", "use shard=N"),
        ("micro_batch=0", "Use 1 or more"),
        ("reshard=on", "needs shard above 1"),
        ("sequence=on", "needs tensor above 1"),
        ("virtual=2,schedule=interleaved", "pipeline=2"),
        ("pipeline=2,virtual=2", "schedule=interleaved"),
        ("pipeline=2,schedule=interleaved", "virtual=2"),
    ],
)
def test_faults_name_the_remedy(text, words):
    with pytest.raises(UsageError, match=words):
        parse_layout(text)


def test_a_record_is_checked_too():
    with pytest.raises(UsageError, match="recipe:3 parallel"):
        check_layout(Layout(data=0), where="recipe:3 parallel")
