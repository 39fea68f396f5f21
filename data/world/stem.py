"""STEM: unit conversion, formulas, elements, planets, geometry.

The answer is a value with its unit, or a name. Every formula is asked for each of its three
quantities. What is known of elements and planets is told one by one, in demonstrations and in the
plain text, whose words the worked steps repeat before the answer. Two of them compared, or the
planet some places after another, are combinations of it.
"""

from data.world import stem_phrasings as phrasings
from data.world.family import Family, Solution
from data.world.formulas import FORMULAS
from data.world.steps import column_sum, compared, gap_steps, product_steps

# name -> symbol, atomic number
ELEMENTS = {
    "hydrogen": ("H", 1),
    "helium": ("He", 2),
    "lithium": ("Li", 3),
    "carbon": ("C", 6),
    "nitrogen": ("N", 7),
    "oxygen": ("O", 8),
    "neon": ("Ne", 10),
    "sodium": ("Na", 11),
    "sulfur": ("S", 16),
    "iron": ("Fe", 26),
    "copper": ("Cu", 29),
    "zinc": ("Zn", 30),
    "silver": ("Ag", 47),
    "gold": ("Au", 79),
    "lead": ("Pb", 82),
}
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()

# (big, small, factor): 1 of the big unit is `factor` of the small one
UNITS = [
    ("km", "m", 1000),
    ("m", "cm", 100),
    ("cm", "mm", 10),
    ("kg", "g", 1000),
    ("g", "mg", 1000),
    ("l", "ml", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
]


# ---- unit conversion ----


def singular(unit: str) -> str:
    """hours -> hour, km -> km."""
    return unit.removesuffix("s")


def conversion_problems():
    for big, small, factor in UNITS:
        round_factor = factor in (10, 100, 1000)
        for amount in range(2, 90 if round_factor else 10):
            if round_factor:
                level = 1 if amount < 10 else 2
            else:
                level = 5 if factor == 24 else 3
            yield level, {"kind": "down", "amount": amount, "unit": big, "target": small}
            # no run of zeros that has to be counted, no long division by 24
            if amount % 10 and factor != 24:
                total = amount * factor
                yield level + 1, {"kind": "up", "amount": total, "unit": small, "target": big}


def conversion_solution(content: dict) -> Solution:
    amount, unit, target = content["amount"], content["unit"], content["target"]
    for big, small, factor in UNITS:
        told = f"1 {singular(big)}={factor} {small}"
        if (unit, target) == (big, small):
            product = amount * factor
            steps = f"{amount}*{factor}={product}"  # a power of ten needs no steps
            if factor < 100:
                steps = product_steps(amount, factor)
            return Solution(f"{product} {small}", f"{told} {steps}")
        if (unit, target) == (small, big):
            quotient = amount // factor
            return Solution(f"{quotient} {big}", f"{told} {amount}/{factor}={quotient}")
    raise ValueError(f"no conversion from {unit} to {target}")


def restate_conversion(content: dict) -> str:
    return "{amount} {unit} in {target}".format(**content)


# ---- elements and planets ----
# What is recalled is told in the words of the plain text first, then the answer is read off it.


def element_problems():
    for i, (name, (symbol, number)) in enumerate(ELEMENTS.items()):
        level = 1 + i // 4
        yield level, {"kind": "symbol", "element": name}
        yield level, {"kind": "name", "symbol": symbol}
        yield level, {"kind": "number", "element": name}
        for other, (_, other_number) in ELEMENTS.items():
            if other != name:
                high = max(number, other_number)
                low = min(number, other_number)
                level_of_pair = 4 if high % 10 >= low % 10 else 5
                if high < 20:
                    level_of_pair = 3
                yield level_of_pair, {"kind": "heavier", "element": name, "other": other}


def element_solution(content: dict) -> Solution:
    if content["kind"] == "name":
        symbol = content["symbol"]
        name = next(name for name, known in ELEMENTS.items() if known[0] == symbol)
        return Solution(name, f"{symbol} is {name}.")
    element = content["element"]
    symbol, number = ELEMENTS[element]
    if content["kind"] == "symbol":
        return Solution(symbol, f"The symbol of {element} is {symbol}.")
    if content["kind"] == "number":
        return Solution(str(number), f"The atomic number of {element} is {number}.")
    other = content["other"]
    other_number = ELEMENTS[other][1]
    heavier = element if number > other_number else other
    steps = f"{element} {number} {other} {other_number} {compared(number, other_number)}"
    answer = f"{heavier} by {abs(number - other_number)}"
    return Solution(answer, f"{steps} {gap_steps(number, other_number)}")


def planet_problems():
    for i, planet in enumerate(PLANETS):
        yield 1, {"kind": "place", "planet": planet}
        yield 2, {"kind": "nth", "ordinal": ORDINALS[i]}
        if i < 7:
            yield 3, {"kind": "after", "planet": planet}
        for j, other in enumerate(PLANETS):
            places = abs(i - j)
            if places > 0:
                yield 4, {"kind": "farther", "planet": planet, "other": other}
            if places > 1:
                kind = "later" if j > i else "earlier"
                yield 5, {"kind": kind, "places": places, "planet": planet}


def planet_solution(content: dict) -> Solution:
    kind = content["kind"]
    if kind == "nth":
        ordinal = content["ordinal"]
        planet = PLANETS[ORDINALS.index(ordinal)]
        return Solution(planet, f"The {ordinal} planet is {planet}.")
    planet = content["planet"]
    place = PLANETS.index(planet) + 1
    if kind == "place":
        ordinal = ORDINALS[place - 1]
        return Solution(ordinal, f"{planet} is the {ordinal} planet.")
    if kind == "after":
        following = PLANETS[place]
        return Solution(following, f"After {planet} comes {following}.")
    if kind == "farther":
        other = content["other"]
        other_place = PLANETS.index(other) + 1
        high = max(place, other_place)
        low = min(place, other_place)
        steps = f"{planet} {place} {other} {other_place} {compared(place, other_place)}"
        return Solution(
            f"{PLANETS[high - 1]} by {high - low}", f"{steps} {high}-{low}={high - low}"
        )
    places = content["places"]
    sign = "+" if kind == "later" else "-"
    there = place + places if kind == "later" else place - places
    found = PLANETS[there - 1]
    steps = f"{planet} is planet {place}. {place}{sign}{places}={there}"
    return Solution(found, f"{steps} Planet {there} is {found}.")


# ---- geometry ----

# kind -> the sides that are given
SIDES = {
    "area": ("length", "width"),
    "perimeter": ("length", "width"),
    "triangle": ("base", "height"),
    "square": ("side",),
}


def geometry_problems():
    def of(kind: str, *numbers: int) -> dict:
        return {"kind": kind, **dict(zip(SIDES[kind], numbers))}

    for second in range(2, 10):
        for first in range(2, 30):
            level = 2 if first < 10 else 5
            if first < 6 and second < 6:
                level = 1
            yield level, of("area", first, second)
            total = first + second
            if total < 50:
                level = 3 if total < 20 else 4
                if total <= 10:
                    level = 2
                yield level, of("perimeter", first, second)
            product = first * second
            if product % 2 == 0 and first < 10:
                yield (3 if product <= 20 else 4), of("triangle", first, second)
    for side in (*range(2, 10), *range(20, 100, 10)):
        level = 2 if side < 10 else 5
        if side < 6:
            level = 1
        yield level, of("square", side)


def sides_of(content: dict) -> list[int]:
    return [content[field] for field in SIDES[content["kind"]]]


def geometry_solution(content: dict) -> Solution:
    kind = content["kind"]
    sides = sides_of(content)
    first, second = sides[0], sides[-1]  # the same one of a square
    product = first * second
    if kind in ("area", "square"):
        return Solution(f"{product} cm2", f"A=a*b {product_steps(first, second)}")
    if kind == "perimeter":
        total = first + second
        return Solution(f"{2 * total} cm", f"{column_sum(first, second)} {product_steps(total, 2)}")
    half = product // 2
    return Solution(f"{half} cm2", f"{first}*{second}={product} {product}/2={half}")


def restate_geometry(content: dict) -> str:
    return " ".join([content["kind"], *map(str, sides_of(content))])


# ---- the families ----

FAMILIES = [
    Family(
        "unit_conversion",
        "stem",
        {"down": phrasings.UNIT_CONVERSION, "up": phrasings.UNIT_CONVERSION},
        conversion_problems,
        conversion_solution,
        restate=restate_conversion,
    ),
    *FORMULAS,
    Family(
        "element",
        "stem",
        phrasings.ELEMENT,
        element_problems,
        element_solution,
        facts=("symbol", "name", "number"),
    ),
    Family(
        "planet",
        "stem",
        phrasings.PLANET,
        planet_problems,
        planet_solution,
        facts=("place", "nth", "after"),
    ),
    Family(
        "geometry",
        "stem",
        phrasings.GEOMETRY,
        geometry_problems,
        geometry_solution,
        restate=restate_geometry,
    ),
]


# ---- plain text ----


def rows_of_tables(rng) -> str:
    """Rows of both tables: what is compared later stands together here."""
    elements = [f"{name} {number}" for name, (_, number) in ELEMENTS.items()]
    planets = [f"{planet} {place}" for place, planet in enumerate(PLANETS, start=1)]
    return " ".join(rng.sample(elements, 4) + rng.sample(planets, 4))


def element_facts(rng) -> str:
    return " ".join(
        f"The symbol of {name} is {symbol}. "
        f"The atomic number of {name} is {number}. {symbol} is {name}."
        for name, (symbol, number) in rng.sample(list(ELEMENTS.items()), 2)
    )


def planet_facts(rng) -> str:
    i = rng.randrange(8)
    planet = PLANETS[i]
    ordinal = ORDINALS[i]
    text = f"{planet} is the {ordinal} planet. The {ordinal} planet is {planet}. "
    text += f"{planet} is planet {i + 1}. Planet {i + 1} is {planet}."
    if i < 7:
        text += f" After {planet} comes {PLANETS[i + 1]}."
    return text


def documents(rng, count: int) -> list[str]:
    """Plain sentences about elements and planets, rows of their tables, and lines of a notebook."""
    noted = [family for family in FAMILIES if family.name not in ("element", "planet")]
    texts = []
    for _ in range(count):
        kind = rng.randrange(5)
        if kind == 0:
            texts.append(element_facts(rng))
        elif kind == 1:
            texts.append(planet_facts(rng))
        elif kind == 4:
            texts.append(rows_of_tables(rng))
        else:
            texts.append(" ".join(rng.choice(noted).note(rng) for _ in range(2)))
    return texts
