"""Quantities: what people write, to the last printed digit."""

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archspec.quantities import humanize, parse_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value", "step"),
    [
        ("1.5G", "count", 1_500_000_000, 100_000_000),
        ("28M", "count", 28_000_000, 1_000_000),
        ("640k", "count", 640_000, 1_000),
        ("640K", "count", 640_000, 1_000),
        ("2T", "count", 2 * 10**12, 10**12),
        ("22", "count", 22, 1),
        ("0", "count", 0, 1),
        ("10.767M", "count", 10_767_000, 1_000),
        ("4.6 Mi", "count", Decimal("4823449.6"), Decimal("104857.6")),
        ("1ki", "count", 1024, 1024),
        (" 5M ", "count", 5_000_000, 1_000_000),
        (".5M", "count", 500_000, 100_000),
        ("1.50M", "count", 1_500_000, 10_000),
        ("1e9", "count", 10**9, 10**9),
        (22, "count", 22, 1),
        (1e9, "count", 10**9, 1),
        (0.25, "count", Decimal("0.25"), Decimal("0.01")),
        ("2GiB", "bytes", 2**31, 2**30),
        ("1.5 GB", "bytes", 1_500_000_000, 100_000_000),
        ("64KB", "bytes", 64_000, 1_000),
        ("64kiB", "bytes", 65_536, 1_024),
        ("512B", "bytes", 512, 1),
        ("20ms", "seconds", Decimal("0.020"), Decimal("0.001")),
        ("3us", "seconds", Decimal("0.000003"), Decimal("0.000001")),
        ("3µs", "seconds", Decimal("0.000003"), Decimal("0.000001")),  # the micro sign
        ("3μs", "seconds", Decimal("0.000003"), Decimal("0.000001")),  # the Greek letter
        ("7ns", "seconds", Decimal("7e-9"), Decimal("1e-9")),
        ("1.5h", "seconds", 5400, 360),
        ("2 min", "seconds", 120, 60),
    ],
)
def test_a_quantity_is_read_exactly(text, dimension, value, step):
    quantity = parse_quantity(text, dimension)
    assert quantity.value == value
    assert quantity.step == step
    assert quantity.text == str(text).strip() or not isinstance(text, str)


@pytest.mark.parametrize(
    ("text", "dimension", "rule"),
    [
        ("", "count", "'' is not a number with a unit, such as 28M"),
        ("fast", "seconds", "'fast' is not a number with a unit, such as 20ms"),
        ("nan", "count", "'nan' is not a number"),
        ("inf", "count", "'inf' is not a number"),
        (float("nan"), "count", "nan is not a quantity"),
        (float("inf"), "count", "inf is not a quantity"),
        (True, "count", "true is not a quantity"),
        ("-5M", "count", "'-5M' is negative"),
        (-5, "count", "'-5' is negative"),
        ("1.5X", "count", "has the unknown unit 'X' (known: none, k, M, G, T, Ki, Mi, Gi)"),
        ("1.5g", "count", "did you mean '1.5G'?"),
        ("28m", "count", "did you mean '28M'?"),
        ("1,5G", "count", "'1,5G' has the unknown unit ',5G'"),
        ("1_000", "count", "unknown unit '_000'"),
        ("5 M M", "count", "unknown unit 'M M'"),
        ("١M", "count", "is not a number"),
        ("20MS", "seconds", "did you mean '20ms'?"),
        ("20", "seconds", "'20' has no unit (known: ns, us, µs, ms, s, min, h)"),
        (20, "bytes", "'20' has no unit (known: B, kB, MB, GB, KiB, MiB, GiB)"),
        ("16G", "bytes", "did you mean '16GB'?"),
        ("16gib", "bytes", "did you mean '16GiB'?"),
        ("2GiB", "count", "unknown unit 'GiB'"),
        ("1e40", "count", "too large"),
    ],
)
def test_what_is_no_quantity_says_why(text, dimension, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        parse_quantity(text, dimension)


def test_endless_digits_are_refused_in_a_short_message():
    for number in ("9" * 10_000, "0." + "0" * 10_000 + "1", 10**5000):
        with pytest.raises(ValueError, match="too large") as caught:
            parse_quantity(number)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "exact", "rounding", "printed"),
    [
        ("22.1M", 22_050_664, "rounded", "22.1M"),  # DeiT-S's parameters, 22.05 million
        ("22.1M", 22_050_664, "truncated", "22.0M"),
        ("22M", 22_050_664, "truncated", "22M"),
        ("22M", 21_999_999, "truncated", "21M"),
        ("4.6G", 4_650_000_000, "rounded", "4.7G"),  # half goes up
        ("4.6G", 4_650_000_000, "truncated", "4.6G"),
        ("21.0Mi", 22_050_664, "rounded", "21.0Mi"),  # 22,050,664 / 2^20 = 21.029...
        ("1.50k", 1_500, "rounded", "1.50k"),
        ("22", 21.5, "rounded", "22"),
        ("1.00000000000000000001", 10**15, "rounded", "1000000000000000.00000000000000000000"),
        ("20ms", 0.0195001, "rounded", "20ms"),
        ("2GiB", 2**31 - 1, "truncated", "1GiB"),
        ("1.0Gi", 2**30 * 1_050_000_000_000_000_000 // 10**18 - 1, "rounded", "1.0Gi"),
    ],
)
def test_an_exact_value_beside_a_printed_one(text, exact, rounding, printed):
    dimension = "seconds" if text.endswith("s") else "bytes" if text.endswith("B") else "count"
    quantity = parse_quantity(text, dimension)
    assert quantity.rendered(exact, rounding) == printed
    assert quantity.agrees(exact, rounding) == (printed == text)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from(["", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_a_quantity_agrees_with_its_own_value(thousandths, unit):
    quantity = parse_quantity(f"{thousandths / 1000:.3f}{unit}")
    assert quantity.agrees(quantity.value)
    assert quantity.agrees(quantity.value, "truncated")
    assert not quantity.agrees(quantity.value + quantity.step)
    assert quantity.rendered(quantity.value) == quantity.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (22_456_000, "22.456M"),
        (5_464_500_000, "5.465G"),  # half goes up
        (640_000, "640.000k"),
        (640, "640"),
        (0, "0"),
        (0.5, "0.500"),
        (999_999, "999.999k"),
        (999_999.9, "1.000M"),
        (-1_234, "-1.234k"),
        (2 * 10**15, "2000.000T"),
    ],
)
def test_a_count_in_a_table(value, text):
    assert humanize(value) == text


def test_a_table_chooses_its_digits():
    assert humanize(22_456_000, digits=1) == "22.5M"
    assert humanize(22_456_000, digits=0) == "22M"
