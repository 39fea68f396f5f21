"""Math: which number is larger and by how much, and how far apart the extremes of three are."""

from data.world import math_phrasings as phrasings
from data.world.family import Family, Solution
from data.world.steps import compared, comparison, gap_steps


def comparison_problems():
    for first in range(1, 100):
        for second in range(first % 2 + 1, 100, 2):
            if first != second:
                level = 1 if max(first, second) < 20 else 2
                yield level, {"kind": "two", "first": first, "second": second}
    for first in range(3, 100, 4):
        for second in range(5, 100, 5):
            for third in range(7, 100, 6):
                if len({first, second, third}) == 3:
                    yield 3, {"kind": "three", "first": first, "second": second, "third": third}
    for short in range(1, 10):
        for long in range(11, 100, 2):
            if long % 10 and short * 10 != long:
                yield 4, {"kind": "two", "first": f"0.{short}", "second": f"0.{long}"}
                yield 4, {"kind": "two", "first": f"0.{long}", "second": f"0.{short}"}


def comparison_solution(content: dict) -> Solution:
    """Which is larger and by how much: whoever only guesses the larger one has not answered."""
    first, second = content["first"], content["second"]
    if content["kind"] == "three":
        return range_solution(first, second, content["third"])
    if isinstance(first, int):
        larger = max(first, second)
        steps = f"{compared(first, second)} {gap_steps(first, second)}"
        return Solution(f"{larger} by {abs(first - second)}", steps)
    left = hundredths(first)
    right = hundredths(second)
    larger = first if left > right else second
    steps = f"{compared(left, right)} {gap_steps(left, right)}"
    return Solution(f"{larger} by {abs(left - right) / 100}", steps)


def range_solution(first: int, second: int, third: int) -> Solution:
    """The largest of three less the smallest.

    The tens are not compared by themselves: the steps have to end within a response's 64 tokens.
    """
    high = max(first, second)
    low = min(first, second)
    steps = [comparison(first, second), comparison(high, third)]
    if third < high:
        steps.append(comparison(low, third))
    most = max(high, third)
    least = min(low, third)
    return Solution(str(most - least), " ".join([*steps, gap_steps(most, least)]))


def compared_numbers(content: dict) -> list:
    return [content[key] for key in ("first", "second", "third") if key in content]


def restate_comparison(content: dict) -> str:
    return " ".join(map(str, compared_numbers(content)))


def bare_difference(content: dict) -> str:
    """The subtraction in a comparison, of decimals that of their hundredths.

    A comparison is so held out together with the same subtraction elsewhere.
    """
    numbers = compared_numbers(content)
    whole = [hundredths(value) if isinstance(value, str) else value for value in numbers]
    return f"{max(whole)}-{min(whole)}"


def hundredths(decimal: str) -> int:
    """0.7 -> 70, 0.65 -> 65."""
    return int(decimal[2:].ljust(2, "0"))


COMPARISON = Family(
    "comparison",
    "math",
    phrasings.COMPARISON,
    comparison_problems,
    comparison_solution,
    restate=restate_comparison,
    arithmetic=bare_difference,
)
