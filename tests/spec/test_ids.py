import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec.errors import UsageError
from trimtab.spec.ids import NAME, Reference, check_name, digest, parse_reference, request_id

names = st.from_regex(NAME, fullmatch=True)


@given(names, st.one_of(st.none(), st.integers(1, 10**6)), names)
def test_references_are_written_as_they_are_read(name, version, alias):
    for reference in (Reference(name=name, version=version), Reference(name=name, alias=alias)):
        assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Upper",
        "a/b",
        "../a",
        "a@",
        "a@0",
        "a@-1",
        "a@x",
        "a@1@2",
        "a:",
        "a:b:c",
        "a b",
        "-a",
        ".a",
        "a" * 65,
        "a\n",
        "a@1\n",
        "a:b\n",
        "a@\N{SUPERSCRIPT TWO}",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError):
        parse_reference(text)


@given(st.text(max_size=80))
def test_a_name_is_safe_as_a_file_name(text):
    try:
        check_name(text)
    except UsageError:
        return
    assert not set(text) & set("/\\\0\n ")
    assert not text.startswith((".", "-"))


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=5))
def test_digests_do_not_see_the_order_of_keys(record):
    assert digest(record) == digest(dict(reversed(record.items())))


def test_digests_see_every_field():
    assert digest(Reference(name="a")) != digest(Reference(name="b"))
    assert digest(Reference(name="a")) == digest(Reference(name="a", version=None))


def test_request_ids_are_not_guessed():
    assert len({request_id() for _ in range(1000)}) == 1000
