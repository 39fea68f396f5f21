"""Math: seven kinds of problems with worked steps, checked by exact value.

Steps stand between the think marks: 47 + 38 is worked as `47+38: 7+8=15 4+3=7 7+1=8` and answered
`85`. Each family has one function that lists its problems by level and one that solves a problem.
"""

from data.world import math_phrasings as phrasings
from data.world.comparison import COMPARISON
from data.world.family import NAMES, THINGS, Family, Solution
from data.world.steps import (
    column_difference,
    column_sum,
    product_steps,
    quotient_steps,
    quotient_text,
)

# ---- the four operations ----


def operands(first: int, second: int) -> dict:
    return {"first": first, "second": second}


def sum_problems():
    for first in range(1, 10):
        for second in range(1, 10):
            yield 1, operands(first, second)
    for first in range(10, 100):
        for second in range(1, 10):
            yield 2, operands(first, second)
        for second in range(10, 100):
            carries = first % 10 + second % 10 >= 10
            yield (4 if carries else 3), operands(first, second)
    for first in range(100, 1000, 7):
        for second in range(101, 900, 37):
            yield 5, operands(first, second)


def sum_solution(content: dict) -> Solution:
    first, second = content["first"], content["second"]
    return Solution(str(first + second), column_sum(first, second))


def difference_problems():
    for first in range(2, 19):
        for second in range(1, min(first, 10)):
            yield 1, operands(first, second)
    for first in range(20, 100):
        for second in range(1, 10):
            yield 2, operands(first, second)
        for second in range(10, first):
            borrows = first % 10 < second % 10
            yield (4 if borrows else 3), operands(first, second)
    for first in range(200, 1000, 7):
        for second in range(101, first, 37):
            yield 5, operands(first, second)


def difference_solution(content: dict) -> Solution:
    first, second = content["first"], content["second"]
    return Solution(str(first - second), column_difference(first, second))


def product_problems():
    for first in range(2, 10):
        for second in range(2, 10):
            yield (1 if min(first, second) <= 5 else 2), operands(first, second)
    for large in range(11, 100):
        for small in range(2, 10):
            level = 5
            if large < 50:
                level = 4
            if large < 30 and small < 6:
                level = 3
            yield level, operands(large, small)
            yield level, operands(small, large)


def product_solution(content: dict) -> Solution:
    first, second = content["first"], content["second"]
    return Solution(str(first * second), product_steps(first, second))


def quotient_problems():
    def division(dividend: int, divisor: int) -> dict:
        return {"dividend": dividend, "divisor": divisor}

    for divisor in range(2, 10):
        for quotient in range(2, 10):
            dividend = divisor * quotient
            yield (1 if dividend <= 25 else 2), division(dividend, divisor)
        for quotient in range(10, 60):
            yield (4 if quotient < 30 else 5), division(divisor * quotient, divisor)
    for dividend in range(3, 80, 2):
        yield 3, division(dividend, 2)
    for dividend in range(3, 60):
        if dividend % 5:
            yield 4, division(dividend, 5)


def quotient_solution(content: dict) -> Solution:
    return division_solution(content["dividend"], content["divisor"])


def division_solution(dividend: int, divisor: int) -> Solution:
    """Digit by digit, in one form for all; the rest of a division by 2 or 5 ends in a decimal."""
    steps = [quotient_steps(dividend, divisor)]
    rest = dividend % divisor
    if rest:
        steps.append(f"{rest}/{divisor}={quotient_text(rest, divisor)}")
    return Solution(quotient_text(dividend, divisor), " ".join(steps).strip())


# ---- expressions ----


def expression_problems():
    def of(kind: str, first: int, second: int, third: int) -> dict:
        return {"kind": kind, "first": first, "second": second, "third": third}

    for first in range(1, 13):
        for second in range(2, 10):
            for third in range(2, 10):
                if third < first + second:
                    yield 1, of("chain", first, second, third)
                level = 2 if second * third < 30 else 3
                yield level, of("product_first", first, second, third)
                if first + second <= 10:
                    yield (3 if third < 6 else 4), of("bracket", first, second, third)
    for first in range(20, 60, 3):
        for second in range(2, 8):
            for third in range(2, 8):
                if second * third < first:
                    yield 4, of("less_product", first, second, third)
    for first in range(10, 20):
        for second in range(2, 10):
            for third in range(2, 10):
                yield 5, of("bracket", first, second, third)


def expression_solution(content: dict) -> Solution:
    kind, first = content["kind"], content["first"]
    second, third = content["second"], content["third"]
    total = first + second
    product = second * third
    if kind == "chain":
        result = total - third
        return Solution(str(result), f"{first}+{second}={total} {total}-{third}={result}")
    if kind == "product_first":
        result = first + product
        return Solution(str(result), f"{second}*{third}={product} {first}+{product}={result}")
    if kind == "less_product":
        steps = f"{second}*{third}={product} {first}-{product}: {column_difference(first, product)}"
        return Solution(str(first - product), steps)
    steps = f"{first}+{second}={total} {product_steps(total, third)}"
    return Solution(str(total * third), steps)


def restate_expression(content: dict) -> str:
    return phrasings.EXPRESSIONS[content["kind"]].replace(" ", "").format(**content)


# ---- word problems ----

SIGNS = {"more": "+", "fewer": "-", "boxes": "*", "shares": "/"}


def word_problems():
    for first in range(2, 60):
        for second in range(2, 30, 3 if first > 20 else 1):
            digit = second < 10
            if first + second < 80:
                level = 2 if digit else 4
                if first + second < 20:
                    level = 1
                yield level, {"kind": "more", **operands(first, second)}
            if second < first:
                level = 2 if digit and first % 10 >= second else 4
                if first < 20:
                    level = 1
                yield level, {"kind": "fewer", **operands(first, second)}
    for first in range(2, 10):
        for second in range(2, 10):
            yield 3, {"kind": "boxes", **operands(first, second)}
            yield 3, {"kind": "shares", **operands(first * second, second)}
        for second in range(11, 50, 2):
            yield 5, {"kind": "boxes", **operands(first, second)}


def word_solution(content: dict) -> Solution:
    if content["kind"] == "more":
        return sum_solution(content)
    if content["kind"] == "fewer":
        return difference_solution(content)
    if content["kind"] == "boxes":
        return product_solution(content)
    return division_solution(content["first"], content["second"])


def restate_word_problem(content: dict) -> str:
    return f"{content['first']}{SIGNS[content['kind']]}{content['second']}"


# ---- the families ----


def in_short(template: str):
    return lambda content: template.format(**content)


FAMILIES = [
    Family(
        "sum",
        "math",
        phrasings.SUM,
        sum_problems,
        sum_solution,
        restate=in_short("{first}+{second}"),
    ),
    Family(
        "difference",
        "math",
        phrasings.DIFFERENCE,
        difference_problems,
        difference_solution,
        restate=in_short("{first}-{second}"),
    ),
    Family(
        "product",
        "math",
        phrasings.PRODUCT,
        product_problems,
        product_solution,
        restate=in_short("{first}*{second}"),
    ),
    Family(
        "quotient",
        "math",
        phrasings.QUOTIENT,
        quotient_problems,
        quotient_solution,
        restate=in_short("{dividend}/{divisor}"),
    ),
    Family(
        "expression",
        "math",
        {
            kind: tuple(frame.format(text) for frame in phrasings.EXPRESSION_FRAMES)
            for kind, text in phrasings.EXPRESSIONS.items()
        },
        expression_problems,
        expression_solution,
        restate=restate_expression,
    ),
    COMPARISON,
    Family(
        "word_problem",
        "math",
        phrasings.WORD_PROBLEM,
        word_problems,
        word_solution,
        dressing={"name": NAMES, "thing": THINGS},
        restate=restate_word_problem,
    ),
]


# ---- plain text ----


def table(rng) -> str:
    """A few single steps of one table, on which all worked steps rest, or a few divisions."""
    number = rng.randint(1, 9)
    others = rng.sample(range(10), 6)
    kind = rng.randrange(6)
    if kind > 3:
        divisor = max(number, 2)
        dividends = [rng.randrange(divisor, 10 * divisor) for _ in range(3)]
        return " ".join(quotient_steps(dividend, divisor) for dividend in dividends)
    if kind == 0:
        return " ".join(f"{number}+{other}={number + other}" for other in others)
    if kind == 1:
        return " ".join(f"{number + other}-{other}={number}" for other in others)
    if kind == 2:
        products = [f"{number}*{other}={number * other}" for other in others[:4]]
        products += [f"{other}0*{number}={number * other}0" for other in others[4:] if other]
        return " ".join(products)
    return " ".join(f"{number * other}/{number}={other}" for other in others)


def page(rng, noted: list[Family]) -> str:
    """A page of a book of tables, or two lines of a notebook."""
    if rng.random() < 0.55:
        return table(rng)
    return " ".join(rng.choice(noted).note(rng) for _ in range(2))


def documents(rng, count: int) -> list[str]:
    """Arithmetic as a book of tables prints it, and lines of a notebook."""
    noted = [family for family in FAMILIES if family.name != "word_problem"]
    return [page(rng, noted) for _ in range(count)]
