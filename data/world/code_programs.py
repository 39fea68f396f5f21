"""The functions that the code problems ask for: data, no code.

Beside the reference answer stands an implementation that computes the expected values of the hidden
tests. Both are ours and trusted; neither is sent to the sandbox.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from data.world.family import WORDS

LETTERS = "abcdefghijklmnoprstuvwz"


@dataclass(frozen=True)
class Program:
    """One kind of function; in braces stand the content's fields."""

    says: str  # what the prompt says of f(x)
    body: str  # what f returns in the reference answer
    run: Callable  # the trusted implementation, called with x and the content's fields
    takes: type  # the kind of x: int, list or str
    contents: tuple  # (level, {field: value}) for every problem of this kind


def each(level: int, values: Iterable, field: str = "number") -> tuple:
    return tuple((level, {field: value}) for value in values)


def pairs(level: int, values: Iterable) -> tuple:
    return tuple((level, {"number": number, "another": another}) for number, another in values)


# family -> kind -> program; x is the argument, every other name a field of the content
PROGRAMS = {
    "code_arithmetic": {
        "add": Program(
            "adds {number} to x",
            "x + {number}",
            lambda x, number: x + number,
            int,
            each(1, range(1, 60)),
        ),
        "subtract": Program(
            "subtracts {number} from x",
            "x - {number}",
            lambda x, number: x - number,
            int,
            each(1, range(1, 60)),
        ),
        "multiply": Program(
            "multiplies x by {number}",
            "x * {number}",
            lambda x, number: x * number,
            int,
            each(2, range(2, 60)),
        ),
        "linear": Program(
            "multiplies x by {number} and adds {another}",
            "x * {number} + {another}",
            lambda x, number, another: x * number + another,
            int,
            pairs(3, ((a, b) for a in range(2, 12) for b in range(1, 12))),
        ),
        "bracket": Program(
            "adds {number} to x and multiplies by {another}",
            "(x + {number}) * {another}",
            lambda x, number, another: (x + number) * another,
            int,
            pairs(4, ((a, b) for a in range(1, 12) for b in range(2, 12))),
        ),
        "square": Program(
            "squares x and adds {number}",
            "x * x + {number}",
            lambda x, number: x * x + number,
            int,
            each(5, range(1, 60)),
        ),
    },
    "code_test": {
        "above": Program(
            "returns True if x is above {number}",
            "x > {number}",
            lambda x, number: x > number,
            int,
            each(1, range(1, 60)),
        ),
        "divides": Program(
            "returns True if x is divisible by {number}",
            "x % {number} == 0",
            lambda x, number: x % number == 0,
            int,
            each(2, range(2, 30)),
        ),
        "between": Program(
            "returns True if x is above {number} and below {another}",
            "{number} < x < {another}",
            lambda x, number, another: number < x < another,
            int,
            pairs(3, ((a, b) for a in range(1, 12) for b in range(a + 4, 60, 6))),
        ),
        "divides_both": Program(
            "returns True if {number} and {another} both divide x",
            "x % {number} == 0 and x % {another} == 0",
            lambda x, number, another: x % number == 0 and x % another == 0,
            int,
            pairs(5, ((a, b) for a in range(2, 10) for b in range(2, 10) if a != b)),
        ),
    },
    "code_limit": {
        "at_least": Program(
            "returns the larger of x and {number}",
            "max(x, {number})",
            lambda x, number: max(x, number),
            int,
            each(1, range(1, 60)),
        ),
        "at_most": Program(
            "returns the smaller of x and {number}",
            "min(x, {number})",
            lambda x, number: min(x, number),
            int,
            each(2, range(1, 60)),
        ),
        "gap": Program(
            "returns how far x is from {number}",
            "abs(x - {number})",
            lambda x, number: abs(x - number),
            int,
            each(3, range(1, 60)),
        ),
        "clip": Program(
            "keeps x from {number} to {another}",
            "max({number}, min(x, {another}))",
            lambda x, number, another: max(number, min(x, another)),
            int,
            pairs(5, ((a, b) for a in range(1, 12) for b in range(a + 3, 40, 5))),
        ),
    },
    "code_reduce": {
        "sum": Program(
            "sums the list x and adds {number}",
            "sum(x) + {number}",
            lambda x, number: sum(x) + number,
            list,
            each(2, range(1, 50)),
        ),
        "longest": Program(
            "adds {number} to the maximum of the list x",
            "max(x) + {number}",
            lambda x, number: max(x) + number,
            list,
            each(2, range(1, 50)),
        ),
        "least": Program(
            "multiplies the minimum of the list x by {number}",
            "min(x) * {number}",
            lambda x, number: min(x) * number,
            list,
            each(3, range(2, 50)),
        ),
        "length": Program(
            "multiplies the length of the list x by {number}",
            "len(x) * {number}",
            lambda x, number: len(x) * number,
            list,
            each(3, range(2, 50)),
        ),
        "sum_above": Program(
            "sums the items of x above {number}",
            "sum(i for i in x if i > {number})",
            lambda x, number: sum(i for i in x if i > number),
            list,
            each(5, range(1, 45)),
        ),
    },
    "code_map": {
        "add": Program(
            "adds {number} to each item of x",
            "[i + {number} for i in x]",
            lambda x, number: [i + number for i in x],
            list,
            each(2, range(1, 60)),
        ),
        "multiply": Program(
            "multiplies each item of x by {number}",
            "[i * {number} for i in x]",
            lambda x, number: [i * number for i in x],
            list,
            each(3, range(2, 60)),
        ),
        "both": Program(
            "multiplies each item of x by {number} and adds {another}",
            "[i * {number} + {another} for i in x]",
            lambda x, number, another: [i * number + another for i in x],
            list,
            pairs(4, ((a, b) for a in range(2, 12) for b in range(1, 12))),
        ),
    },
    "code_filter": {
        "above": Program(
            "keeps the items of x above {number}",
            "[i for i in x if i > {number}]",
            lambda x, number: [i for i in x if i > number],
            list,
            each(3, range(1, 45)),
        ),
        "below": Program(
            "keeps the items of x below {number}",
            "[i for i in x if i < {number}]",
            lambda x, number: [i for i in x if i < number],
            list,
            each(3, range(2, 46)),
        ),
        "without": Program(
            "drops every {number} from the list x",
            "[i for i in x if i != {number}]",
            lambda x, number: [i for i in x if i != number],
            list,
            each(4, range(1, 46)),
        ),
        "divisible": Program(
            "keeps the items of x divisible by {number}",
            "[i for i in x if i % {number} == 0]",
            lambda x, number: [i for i in x if i % number == 0],
            list,
            each(5, range(2, 21)),
        ),
    },
    "code_slice": {
        "first": Program(
            "returns the first {number} items of x",
            "x[:{number}]",
            lambda x, number: x[:number],
            list,
            each(1, range(2, 40)),
        ),
        "last": Program(
            "returns the last {number} items of x",
            "x[-{number}:]",
            lambda x, number: x[-number:],
            list,
            each(2, range(2, 40)),
        ),
        "skip": Program(
            "skips the first {number} items of x",
            "x[{number}:]",
            lambda x, number: x[number:],
            list,
            each(3, range(1, 40)),
        ),
        "slice": Program(
            "slices x from {number} to {another}",
            "x[{number}:{another}]",
            lambda x, number, another: x[number:another],
            list,
            pairs(4, ((a, b) for a in range(1, 7) for b in range(a + 2, 14))),
        ),
        "sorted": Program(
            "returns the {number} smallest items of x in order",
            "sorted(x)[:{number}]",
            lambda x, number: sorted(x)[:number],
            list,
            each(5, range(2, 40)),
        ),
    },
    "code_count": {
        "item": Program(
            "counts how often {number} is in the list x",
            "x.count({number})",
            lambda x, number: x.count(number),
            list,
            each(2, range(1, 60)),
        ),
        "letter": Program(
            "counts the letter {letter} in the text x",
            "x.count('{letter}')",
            lambda x, letter: x.count(letter),
            str,
            each(3, LETTERS, "letter"),
        ),
        "above": Program(
            "counts the items of x above {number}",
            "len([i for i in x if i > {number}])",
            lambda x, number: len([i for i in x if i > number]),
            list,
            each(5, range(1, 45)),
        ),
    },
    "code_text": {
        "append": Program(
            "adds the word {word} to the end of x",
            "x + '{word}'",
            lambda x, word: x + word,
            str,
            each(1, WORDS, "word"),
        ),
        "prepend": Program(
            "puts the word {word} before x",
            "'{word}' + x",
            lambda x, word: word + x,
            str,
            each(2, WORDS, "word"),
        ),
        "repeat": Program(
            "repeats the text x {number} times",
            "x * {number}",
            lambda x, number: x * number,
            str,
            each(2, range(2, 30)),
        ),
        "has": Program(
            "returns True if the text x has the word {word}",
            "'{word}' in x",
            lambda x, word: word in x,
            str,
            each(4, WORDS, "word"),
        ),
    },
    "code_case": {
        "upper": Program(
            "turns the text x to upper case and adds {word}",
            "x.upper() + '{word}'",
            lambda x, word: x.upper() + word,
            str,
            each(3, WORDS, "word"),
        ),
        "lower": Program(
            "turns the text x to lower case and adds {word}",
            "x.lower() + '{word}'",
            lambda x, word: x.lower() + word,
            str,
            each(3, WORDS, "word"),
        ),
        "reverse": Program(
            "reverses the text x and adds {word}",
            "x[::-1] + '{word}'",
            lambda x, word: x[::-1] + word,
            str,
            each(4, WORDS, "word"),
        ),
        "start": Program(
            "returns the first {number} letters of x in upper case",
            "x[:{number}].upper()",
            lambda x, number: x[:number].upper(),
            str,
            each(5, range(2, 32)),
        ),
    },
}
