"""STEM: formulas of three quantities, z = x * y, each asked for each of its quantities.

Which one is asked for is a content's kind: "z", "x" or "y". The prompt tells the other two. A
kind's letter is a value that the split hashes, so it stays a letter.
"""

from typing import NamedTuple

from data.world import stem_phrasings as phrasings
from data.world.family import Family, Solution
from data.world.steps import product_steps

SIGNS = {"z": "*", "x": "/", "y": "/"}  # what is asked for -> what is done with the other two


class Quantity(NamedTuple):
    """One quantity of a formula: the content's field, the formula's letter, the unit."""

    field: str
    letter: str
    unit: str


def formula_family(name: str, z: Quantity, x: Quantity, y: Quantity, templates: dict) -> Family:
    """The family of one formula z = x * y."""
    given = {"z": (x, y), "x": (z, y), "y": (z, x)}  # kind -> what the prompt tells
    asked = {"z": z, "x": x, "y": y}

    def numbers(content: dict) -> list[int]:
        """The two numbers that are given."""
        return [content[quantity.field] for quantity in given[content["kind"]]]

    def problems():
        def of(kind: str, *values: int) -> dict:
            fields = [quantity.field for quantity in given[kind]]
            return {"kind": kind, **dict(zip(fields, values))}

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
        sign = SIGNS[kind]
        formula = f"{asked[kind].letter}={sign.join(quantity.letter for quantity in given[kind])}"
        if kind == "z":
            steps = product_steps(first, second)
            return Solution(f"{first * second} {z.unit}", f"{formula} {steps}")
        quotient = first // second
        steps = f"{first}/{second}={quotient}"
        return Solution(f"{quotient} {asked[kind].unit}", f"{formula} {steps}")

    def restate(content: dict) -> str:
        told = given[content["kind"]]
        return " ".join(f"{one.letter} {content[one.field]} {one.unit}" for one in told)

    def arithmetic(content: dict) -> str:
        return SIGNS[content["kind"]].join(map(str, numbers(content)))

    return Family(name, "stem", templates, problems, solve, restate=restate, arithmetic=arithmetic)


FORMULAS = [
    formula_family(
        "force",
        Quantity("force", "F", "N"),
        Quantity("mass", "m", "kg"),
        Quantity("acceleration", "a", "m/s2"),
        phrasings.FORCE,
    ),
    formula_family(
        "distance",
        Quantity("distance", "d", "km"),
        Quantity("speed", "v", "km/h"),
        Quantity("time", "t", "h"),
        phrasings.DISTANCE,
    ),
    formula_family(
        "density",
        Quantity("mass", "m", "g"),
        Quantity("density", "p", "g/cm3"),
        Quantity("volume", "V", "cm3"),
        phrasings.DENSITY,
    ),
    formula_family(
        "ohm",
        Quantity("voltage", "U", "V"),
        Quantity("resistance", "R", "Ohm"),
        Quantity("current", "I", "A"),
        phrasings.OHM,
    ),
]
