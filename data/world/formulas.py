"""STEM: formulas of three quantities, z = x * y, each asked for each of its quantities.

Which one is asked for is a content's kind: "z", "x" or "y". The prompt tells the other two.
"""

from data.world import stem_phrasings as phrasings
from data.world.family import Family, Solution
from data.world.steps import product_steps


def formula_family(name: str, quantities: tuple, templates: dict) -> Family:
    """The family of one formula.

    quantities: (field, letter, unit) of z, of x and of y, such as ("force", "F", "N").
    A content's kind says which of "z", "x" and "y" is asked for; the other two are given.
    """
    z, x, y = quantities
    given = {"z": (x, y), "x": (z, y), "y": (z, x)}  # kind -> what the prompt tells
    asked = {"z": z, "x": x, "y": y}

    def numbers(content: dict) -> list[int]:
        """The two numbers that are given."""
        return [content[field] for field, _, _ in given[content["kind"]]]

    def problems():
        def of(kind: str, first: int, second: int) -> dict:
            (first_field, _, _), (second_field, _, _) = given[kind]
            return {"kind": kind, first_field: first, second_field: second}

        for x_value in range(2, 10):
            for y_value in range(2, 10):
                product = x_value * y_value
                least = min(x_value, y_value)
                yield (1 if least < 4 else 2), of("z", x_value, y_value)
                yield (3 if least < 5 else 4), of("x", product, y_value)
                yield (3 if least < 5 else 4), of("y", product, x_value)
        for y_value in range(2, 10):
            for x_value in range(11, 40):
                yield (3 if x_value % 10 == 0 else 5), of("z", x_value, y_value)
            for x_value in range(40, 100, 10):
                yield 3, of("z", x_value, y_value)

    def solve(content: dict) -> Solution:
        kind = content["kind"]
        first, second = numbers(content)
        (_, first_letter, _), (_, second_letter, _) = given[kind]
        _, letter, unit = asked[kind]
        if kind == "z":
            steps = f"{letter}={first_letter}*{second_letter} {product_steps(first, second)}"
            return Solution(f"{first * second} {unit}", steps)
        quotient = first // second
        steps = f"{letter}={first_letter}/{second_letter} {first}/{second}={quotient}"
        return Solution(f"{quotient} {unit}", steps)

    def restate(content: dict) -> str:
        return " ".join(
            f"{letter} {content[field]} {unit}" for field, letter, unit in given[content["kind"]]
        )

    def arithmetic(content: dict) -> str:
        sign = "*" if content["kind"] == "z" else "/"
        return sign.join(map(str, numbers(content)))

    return Family(name, "stem", templates, problems, solve, restate=restate, arithmetic=arithmetic)


FORMULAS = [
    formula_family(
        "force",
        (("force", "F", "N"), ("mass", "m", "kg"), ("acceleration", "a", "m/s2")),
        phrasings.FORCE,
    ),
    formula_family(
        "distance",
        (("distance", "d", "km"), ("speed", "v", "km/h"), ("time", "t", "h")),
        phrasings.DISTANCE,
    ),
    formula_family(
        "density",
        (("mass", "m", "g"), ("density", "p", "g/cm3"), ("volume", "V", "cm3")),
        phrasings.DENSITY,
    ),
    formula_family(
        "ohm",
        (("voltage", "U", "V"), ("resistance", "R", "Ohm"), ("current", "I", "A")),
        phrasings.OHM,
    ),
]
