import pytest

from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, check_layout, parse_layout


def test_a_layout_is_written_as_it_is_read():
    assert parse_layout("data=4") == Layout(data=4)
    assert parse_layout(str(Layout(data=3))).world == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tensor=2", "Known: data"),
        ("data=x", "whole number"),
        ("data=", "whole number"),
        ("data=0", "Use 1 or more"),
        ("", "no key"),
        ("data=-1", "whole number"),
        ("data=\N{SUPERSCRIPT TWO}", "whole number"),
    ],
)
def test_faults_name_the_remedy(text, words):
    with pytest.raises(UsageError, match=words):
        parse_layout(text)


def test_a_record_is_checked_too():
    with pytest.raises(UsageError, match="recipe:3 parallel"):
        check_layout(Layout(data=0), where="recipe:3 parallel")
