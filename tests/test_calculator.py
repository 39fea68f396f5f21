from fractions import Fraction

import pytest

from data.world.calculator import calculate, format_number, parse_number, same_number


@pytest.mark.parametrize(
    "text, result",
    [
        ("1+2*3", "7"),
        ("(1+2)*3", "9"),
        ("10-3-2", "5"),
        ("100/5/2", "10"),
        ("2*-3", "-6"),
        ("--3", "3"),
        ("-(2+3)", "-5"),
        ("0.1+0.2", "0.3"),
        ("1/3", "1/3"),
        ("1/3*3", "1"),
        ("1/8", "0.125"),
        ("-1/8", "-0.125"),
        ("1/1000000", "0.000001"),
        ("1/10000000", "1/10000000"),
        (" 6 \u00d7 7 \u00f7 2 ", "21"),
        ("007", "7"),
        ("100", "100"),
        ("0", "0"),
        ("-0", "0"),
        ("999999999999", "999999999999"),
        ("999999999999*100", "99999999999900"),
        ("1" + "+1" * 31, "32"),
        ("(" * 31 + "1" + ")" * 31, "1"),
    ],
)
def test_calculate_is_exact(text, result):
    assert calculate(text) == result


# many short texts in a line: one a line would be a page long
@pytest.mark.parametrize(
    "text",
    [
        "", " ", "(", ")", "()", "1+", "*1", "+1", "1 2", "1..2", ".5", "5.", "1,000", "(1", "1)",
        "2(3)", "1=1", "1//2", "2**3", "9**9**9", "1/0", "1/(2-2)", "1e9", "0x10", "1_000",
        "abs(1)", "x", "inf", "nan", "__import__('os')", "1;2", "1\n+1", "1\t+1", "1\0",
        "\u0661+\u0661", "\uff11+1", "\u00b2", "1\u2212" + "1",
        "1234567890123", "123456.7890123", "1" + "+1" * 32, "(" * 32 + "1" + ")" * 32,
        "(" * 64, "-" * 64, " " * 65, "1" * 65,
        "999999999999*999999999999", "1/999999999999/999999999999",
    ],
)  # fmt: skip
def test_anything_else_is_an_error(text):
    assert calculate(text) == "error"


def test_the_longest_text_has_64_characters():
    text = "1" + "+1" * 31
    assert len(text) == 63 and calculate(text + " ") == "32" and calculate(text + "  ") == "error"


@pytest.mark.parametrize(
    "text, value",
    [
        ("12", 12),
        ("-3", -3),
        ("0.5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-2/4", Fraction(-1, 2)),
        ("1,234", 1234),
        ("1,234,567.25", Fraction(4938269, 4)),
        (" 7\n", 7),
    ],
)
def test_parse_number(text, value):
    assert parse_number(text) == value


# many short texts in a line: one a line would be a page long
@pytest.mark.parametrize(
    "text",
    [
        "", "012a", "12a", "a12", "1,23", "12,34", ",123", "1/0", "1/2/3", "1.5/2", "--1", "1e3",
        "0x1", "1_0", "inf", "nan", "1 2", "1.", ".5", "\u0661", "\uff11", "1" * 65, "1+1",
        "12 apples",
    ],
)  # fmt: skip
def test_junk_is_no_number(text):
    assert parse_number(text) is None


def test_same_number_compares_values_and_junk_equals_nothing():
    assert same_number("0.5", "1/2") and same_number("1,000", "1000.0") and same_number("012", "12")
    assert (
        not same_number("12", "012a")
        and not same_number("x", "x")
        and not same_number("0.333333", "1/3")
    )


def test_format_number_is_read_back_unchanged():
    for numerator in range(-50, 51):
        for denominator in (1, 2, 3, 7, 8, 64, 1000, 10**6, 10**7):
            value = Fraction(numerator, denominator)
            assert parse_number(format_number(value)) == value
