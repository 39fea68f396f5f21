"""Exact arithmetic on short text: the agent's calculator tool and the verifier's reading of numbers.

    expression = term   { ("+" | "-") term }
    term       = factor { ("*" | "/") factor }         also written with the signs for times and divided by
    factor     = "-" factor | "(" expression ")" | number

A recursive-descent parser over `fractions.Fraction`, one function a rule. There is no power and no name, so 64 characters
can cost nothing; `eval` has both.
"""

import re
from fractions import Fraction

MAX_CHARACTERS = 64
MAX_NUMBER_DIGITS = 12
MAX_RESULT_DIGITS = 15  # of the numerator, and of the denominator

# [0-9] and not \d, which matches the digits of every script.
TOKEN = re.compile(r" *([0-9]+(?:\.[0-9]+)?|[-+*/()])")
NUMBER = re.compile(r"-?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]+)?")
FRACTION = re.compile(r"-?[0-9]+/[0-9]+")


def calculate(text):
    """'2 * (3 + 4)' -> '14'; 'error' for whatever is not such an expression, divides by zero or has too many digits."""
    if len(text) > MAX_CHARACTERS:
        return "error"
    text = text.replace("\u00d7", "*").replace("\u00f7", "/").rstrip(" ")
    tokens, place = [], 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if not match or sum(c.isdigit() for c in match[1]) > MAX_NUMBER_DIGITS:
            return "error"
        tokens.append(match[1])
        place = match.end()
    tokens.append("")
    try:
        result = expression(tokens)
    except (ValueError, ZeroDivisionError):
        return "error"
    if tokens != [""] or max(abs(result.numerator), result.denominator) >= 10**MAX_RESULT_DIGITS:
        return "error"
    return format_number(result)


def expression(tokens):
    value = term(tokens)
    while tokens[0] in ("+", "-"):
        value += term(tokens) if tokens.pop(0) == "+" else -term(tokens)
    return value


def term(tokens):
    value = factor(tokens)
    while tokens[0] in ("*", "/"):
        value = value * factor(tokens) if tokens.pop(0) == "*" else value / factor(tokens)
    return value


def factor(tokens):
    token = tokens[0]
    if token == "":
        raise ValueError("unexpected end")
    tokens.pop(0)
    if token == "-":
        return -factor(tokens)
    if token != "(":
        return Fraction(token)  # raises ValueError for an operator
    value = expression(tokens)
    if tokens[0] != ")":
        raise ValueError("missing )")
    tokens.pop(0)
    return value


def parse_number(text):
    """'12', '-3', '0.5', '1/2' or '1,234' as a Fraction; None for anything else. Spaces around it are ignored."""
    text = text.strip(" \n")
    if len(text) > MAX_CHARACTERS:
        return None
    if NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    if FRACTION.fullmatch(text) and int(text.split("/")[1]) != 0:
        return Fraction(text)
    return None


def same_number(a, b):
    """Whether both texts are numbers and equal: '0.5' and '1/2' are, 'x' and 'x' are not."""
    first, second = parse_number(a), parse_number(b)
    return first is not None and first == second


def format_number(value):
    """A Fraction as an integer, as a decimal of at most six places if that is exact, else as 'a/b'. `parse_number` reads it."""
    if (value * 10**6).denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**6 // value.denominator).zfill(7)
    text = f"{digits[:-6]}.{digits[-6:]}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text
