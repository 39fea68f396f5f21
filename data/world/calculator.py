"""Exact arithmetic on short text: the agent's calculator, and the verifier's reading of numbers.

    expression = term   { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }
    factor     = "-" factor | "(" expression ")" | number

The printed signs for times and divided by are read as * and /.
This is a recursive-descent parser over `fractions.Fraction`, one function a rule. It has no power
and no name, so 64 characters can cost nothing. Python's `eval` has both.
"""

import re
from fractions import Fraction

MAX_CHARACTERS = 64
MAX_NUMBER_DIGITS = 12
MAX_RESULT_DIGITS = 15  # of the numerator, and of the denominator

# [0-9] and not \d, which matches the digits of every script
TOKEN = re.compile(r" *([0-9]+(?:\.[0-9]+)?|[-+*/()])")
NUMBER = re.compile(r"-?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]+)?")
FRACTION = re.compile(r"-?[0-9]+/[0-9]+")


def calculate(text: str) -> str:
    """'2 * (3 + 4)' -> '14'.

    'error' for whatever is not such an expression, divides by zero or has too many digits.
    """
    tokens = tokens_of(text)
    if tokens is None:
        return "error"
    try:
        result = expression(tokens)
    except (ValueError, ZeroDivisionError):
        return "error"
    largest = max(abs(result.numerator), result.denominator)
    if tokens != [""] or largest >= 10**MAX_RESULT_DIGITS:
        return "error"
    return format_number(result)


def tokens_of(text: str) -> list[str] | None:
    """Numbers, signs and brackets, then "" for the end; None where the text holds anything else."""
    if len(text) > MAX_CHARACTERS:
        return None
    text = text.replace("\u00d7", "*").replace("\u00f7", "/").rstrip(" ")
    tokens = []
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None or sum(c.isdigit() for c in match[1]) > MAX_NUMBER_DIGITS:
            return None
        tokens.append(match[1])
        place = match.end()
    return [*tokens, ""]


# The three rules of the grammar: each takes its tokens off the front of the list.


def expression(tokens: list[str]) -> Fraction:
    value = term(tokens)
    while tokens[0] in ("+", "-"):
        if tokens.pop(0) == "+":
            value += term(tokens)
        else:
            value -= term(tokens)
    return value


def term(tokens: list[str]) -> Fraction:
    value = factor(tokens)
    while tokens[0] in ("*", "/"):
        if tokens.pop(0) == "*":
            value *= factor(tokens)
        else:
            value /= factor(tokens)
    return value


def factor(tokens: list[str]) -> Fraction:
    if tokens[0] == "":
        raise ValueError("unexpected end")
    token = tokens.pop(0)
    if token == "-":
        return -factor(tokens)
    if token != "(":
        return Fraction(token)  # raises ValueError for an operator
    value = expression(tokens)
    if tokens[0] != ")":
        raise ValueError("missing )")
    tokens.pop(0)
    return value


def parse_number(text: str) -> Fraction | None:
    """'12', '-3', '0.5', '1/2' or '1,234' as a Fraction, with or without spaces around it.

    None for anything else.
    """
    text = text.strip(" \n")
    if len(text) > MAX_CHARACTERS:
        return None
    if NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    if FRACTION.fullmatch(text) and int(text.split("/")[1]) != 0:
        return Fraction(text)
    return None


def same_number(first: str, second: str) -> bool:
    """Whether both texts are numbers and equal: '0.5' and '1/2' are, 'x' and 'x' are not."""
    value = parse_number(first)
    other = parse_number(second)
    return value is not None and value == other


def format_number(value: Fraction) -> str:
    """An integer, a decimal of at most six places where that is exact, else 'a/b'.

    `parse_number` reads each of them.
    """
    if (value * 10**6).denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**6 // value.denominator).zfill(7)
    text = f"{digits[:-6]}.{digits[-6:]}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text
