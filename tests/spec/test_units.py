import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300ms", 0.3),
        ("2h", 7200),
        ("1.5 min", 90),
        ("40 µs", 4e-5),
        ("7us", 7e-6),
        ("3d", 259200),
        (" 5s ", 5),
    ],
)
def test_durations(text, seconds):
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"), [("2GiB", 2**31), ("1MiB", 2**20), ("1.5kB", 1500), ("3 GB", 3 * 10**9), ("12B", 12)]
)
def test_sizes_tell_decimal_from_binary(text, count):
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "count"), [("600k", 600_000), ("2.5M", 2_500_000), ("8", 8), (7, 7), (0, 0)]
)
def test_counts(text, count):
    assert units.parse_count(text) == count


def test_fractions():
    assert units.parse_fraction("99%") == pytest.approx(0.99)
    assert units.parse_fraction("99.5 %") == pytest.approx(0.995)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (units.parse_duration, "300"),
        (units.parse_duration, 301),
        (units.parse_duration, "-3ms"),
        (units.parse_duration, "3 Ms"),
        (units.parse_duration, "1e3s"),
        (units.parse_bytes, "2gib"),
        (units.parse_bytes, "2"),
        (units.parse_bytes, None),
        (units.parse_fraction, "0.99"),
        (units.parse_fraction, 0.98),
        (units.parse_count, "600K"),
        (units.parse_count, -1),
        (units.parse_count, True),
        (units.parse_count, 1.5),
    ],
)
def test_what_is_not_a_quantity_is_named_with_an_example(parse, text):
    with pytest.raises(ValueError, match=r"is not a .*such as") as caught:
        parse(text)
    assert repr(text) in str(caught.value)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for parse in (units.parse_duration, units.parse_bytes, units.parse_fraction, units.parse_count):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert repr(text) in str(error)  # noqa: PT017 - either is right


@given(st.integers(0, 10**15), st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_whole_sizes_are_exact(number, unit):
    assert units.parse_bytes(f"{number}{unit}") == int(float(number) * units._BYTES[unit])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (75, "1 min 15 s"),
        (59.99, "60 s"),
        (3600, "1 h 0 min"),
        (math.inf, "unknown"),
    ],
)
def test_durations_read_well(seconds, text):
    assert units.format_duration(seconds) == text


def test_sizes_and_counts_read_well():
    assert units.format_bytes(1536) == "1.5 KiB"
    assert units.format_bytes(2**50) == "1024 TiB"
    assert units.format_count(1_234_567) == "1.23 M"
    assert units.format_count(999) == "999"


@given(st.floats(1, 2**60))
def test_a_formatted_size_is_near_what_it_says(count):
    number, unit = units.format_bytes(count).split()
    scale = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    assert float(number) * scale == pytest.approx(count, rel=1e-3)
