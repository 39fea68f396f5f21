"""STEM: unit conversion, formulas, elements, planets, geometry. The answer is a value with its unit, or a name.

Every formula is asked for each of its three quantities. What is known of elements and planets is told one by one, in
demonstrations and in the plain text, whose words the worked steps repeat before the answer; two of them compared, or the
planet some places after another, are combinations of it.
"""

from data.world.family import Family, Solution
from data.world.math import column_difference, column_sum, compared, product_steps

ELEMENTS = {"hydrogen": ("H", 1), "helium": ("He", 2), "lithium": ("Li", 3), "carbon": ("C", 6), "nitrogen": ("N", 7),
            "oxygen": ("O", 8), "neon": ("Ne", 10), "sodium": ("Na", 11), "sulfur": ("S", 16), "iron": ("Fe", 26),
            "copper": ("Cu", 29), "zinc": ("Zn", 30), "silver": ("Ag", 47), "gold": ("Au", 79), "lead": ("Pb", 82)}
PLANETS = ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]

# from, to, factor: 1 of `from` is `factor` of `to`
UNITS = [("km", "m", 1000), ("m", "cm", 100), ("cm", "mm", 10), ("kg", "g", 1000), ("g", "mg", 1000), ("l", "ml", 1000),
         ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7)]


def one(unit: str) -> str:
    """The singular: hours -> hour, km -> km."""
    return unit.removesuffix("s")


def conversion_problems():
    for big, small, factor in UNITS:
        round_factor = factor in (10, 100, 1000)
        for a in range(2, 90 if round_factor else 10):
            level = (1 if a < 10 else 2) if round_factor else 5 if factor == 24 else 3
            yield level, {"kind": "down", "a": a, "u": big, "v": small}
            # no run of zeros that has to be counted, no long division by 24
            if a % 10 and factor != 24:
                yield level + 1, {"kind": "up", "a": a * factor, "u": small, "v": big}


def conversion_solution(content: dict) -> Solution:
    a, u, v = content["a"], content["u"], content["v"]
    for big, small, factor in UNITS:
        if (u, v) == (big, small):
            return Solution(f"{a * factor} {v}", f"1 {one(u)}={factor} {v} {product_steps(a, factor) if factor < 100 else f'{a}*{factor}={a * factor}'}")
        if (u, v) == (small, big):
            return Solution(f"{a // factor} {v}", f"1 {one(v)}={factor} {u} {a}/{factor}={a // factor}")
    raise ValueError(f"no conversion from {u} to {v}")


def formula_problems():
    """Pairs for x * y = z; a formula asks for z (levels 1, 2, 3, 5), or for x or y (levels 3 and 4)."""
    for x in range(2, 10):
        for y in range(2, 10):
            yield (1 if min(x, y) < 4 else 2), {"kind": "z", "a": x, "b": y}
            yield (3 if min(x, y) < 5 else 4), {"kind": "x", "a": x * y, "b": y}
            yield (3 if min(x, y) < 5 else 4), {"kind": "y", "a": x * y, "b": x}
    for y in range(2, 10):
        for x in range(11, 40):
            yield (3 if x % 10 == 0 else 5), {"kind": "z", "a": x, "b": y}
        for x in range(40, 100, 10):
            yield 3, {"kind": "z", "a": x, "b": y}


def formula_family(name: str, letters: tuple[str, str, str], units: tuple[str, str, str], phrasings: dict) -> Family:
    """letters and units of (z, x, y) in z = x * y."""
    def solve(content: dict) -> Solution:
        a, b, kind = content["a"], content["b"], content["kind"]
        z, x, y = letters
        if kind == "z":
            return Solution(f"{a * b} {units[0]}", f"{z}={x}*{y} {product_steps(a, b)}")
        wanted, other, unit = (x, y, units[1]) if kind == "x" else (y, x, units[2])
        return Solution(f"{a // b} {unit}", f"{wanted}={z}/{other} {a}/{b}={a // b}")

    def restate(content: dict) -> str:
        (z, x, y), (u, v, w), a, b = letters, units, content["a"], content["b"]
        return {"z": f"{x} {a} {v} {y} {b} {w}", "x": f"{z} {a} {u} {y} {b} {w}", "y": f"{z} {a} {u} {x} {b} {v}"}[content["kind"]]

    return Family(name, "stem", phrasings, formula_problems, solve, restate=restate,
                  arithmetic=lambda c: f"{c['a']}{'*' if c['kind'] == 'z' else '/'}{c['b']}")


def element_problems():
    for i, name in enumerate(ELEMENTS):
        level = 1 + i // 4
        yield level, {"kind": "symbol", "e": name}
        yield level, {"kind": "name", "s": ELEMENTS[name][0]}
        yield level, {"kind": "number", "e": name}
        for other in ELEMENTS:
            if other != name:
                high, low = sorted((ELEMENTS[name][1], ELEMENTS[other][1]))[::-1]
                yield (3 if high < 20 else 4 if high % 10 >= low % 10 else 5), {"kind": "heavier", "e": name, "f": other}


def element_solution(content: dict) -> Solution:
    # what is recalled is told in the words of the plain text first, then the answer is read off it
    if content["kind"] == "symbol":
        symbol = ELEMENTS[content["e"]][0]
        return Solution(symbol, f"The symbol of {content['e']} is {symbol}.")
    if content["kind"] == "number":
        number = ELEMENTS[content["e"]][1]
        return Solution(str(number), f"The atomic number of {content['e']} is {number}.")
    if content["kind"] == "name":
        name = next(name for name, (symbol, _) in ELEMENTS.items() if symbol == content["s"])
        return Solution(name, f"{content['s']} is {name}.")
    e, f = content["e"], content["f"]
    n, m = ELEMENTS[e][1], ELEMENTS[f][1]
    high, low = max(n, m), min(n, m)
    return Solution(f"{e if n > m else f} by {high - low}",
                    f"{e} {n} {f} {m} {compared(n, m)} {high}-{low}: {column_difference(high, low)}")


def planet_problems():
    for i, planet in enumerate(PLANETS):
        yield 1, {"kind": "place", "p": planet}
        yield 2, {"kind": "nth", "n": ORDINALS[i]}
        if i < 7:
            yield 3, {"kind": "after", "p": planet}
        for j, other in enumerate(PLANETS):
            if i != j:
                yield 4, {"kind": "farther", "p": planet, "q": other}
            if abs(i - j) > 1:
                yield 5, {"kind": "later" if j > i else "earlier", "k": abs(i - j), "p": planet}


def planet_solution(content: dict) -> Solution:
    kind = content["kind"]
    if kind == "nth":
        planet = PLANETS[ORDINALS.index(content["n"])]
        return Solution(planet, f"The {content['n']} planet is {planet}.")
    i = PLANETS.index(content["p"])
    if kind == "place":
        return Solution(ORDINALS[i], f"{PLANETS[i]} is the {ORDINALS[i]} planet.")
    if kind == "after":
        return Solution(PLANETS[i + 1], f"After {PLANETS[i]} comes {PLANETS[i + 1]}.")
    if kind in ("later", "earlier"):
        sign, there = ("+", i + content["k"]) if kind == "later" else ("-", i - content["k"])
        return Solution(PLANETS[there], f"{PLANETS[i]} is planet {i + 1}. {i + 1}{sign}{content['k']}={there + 1} Planet {there + 1} is {PLANETS[there]}.")
    j = PLANETS.index(content["q"])
    high, low = max(i, j) + 1, min(i, j) + 1
    return Solution(f"{PLANETS[high - 1]} by {high - low}",
                    f"{PLANETS[i]} {i + 1} {PLANETS[j]} {j + 1} {compared(i + 1, j + 1)} {high}-{low}={high - low}")


def geometry_problems():
    for b in range(2, 10):
        for a in range(2, 30):
            level = 1 if a < 6 and b < 6 else 2 if a < 10 else 5
            yield level, {"kind": "area", "a": a, "b": b}
            if a + b < 50:
                yield (2 if a + b <= 10 else 3 if a + b < 20 else 4), {"kind": "perimeter", "a": a, "b": b}
            if a * b % 2 == 0 and a < 10:
                yield (3 if a * b <= 20 else 4), {"kind": "triangle", "a": a, "b": b}
    for a in (*range(2, 10), *range(20, 100, 10)):
        yield (1 if a < 6 else 2 if a < 10 else 5), {"kind": "square", "a": a}


def geometry_solution(content: dict) -> Solution:
    a = content["a"]
    b = content.get("b", a)
    if content["kind"] in ("area", "square"):
        return Solution(f"{a * b} cm2", f"A=a*b {product_steps(a, b)}")
    if content["kind"] == "perimeter":
        return Solution(f"{2 * (a + b)} cm", f"{column_sum(a, b)} {product_steps(a + b, 2)}")
    return Solution(f"{a * b // 2} cm2", f"{a}*{b}={a * b} {a * b}/2={a * b // 2}")


FAMILIES = [
    Family("unit_conversion", "stem",
           {kind: ("Convert {a} {u} to {v}.", "How many {v} are {a} {u}?", "Write {a} {u} in {v}.", "{a} {u} = ? {v}",
                   "Express {a} {u} as {v}.") for kind in ("down", "up")},
           conversion_problems, conversion_solution, restate=lambda c: f"{c['a']} {c['u']} in {c['v']}"),
    formula_family("force", ("F", "m", "a"), ("N", "kg", "m/s2"), {
        "z": ("A mass of {a} kg speeds up by {b} m/s2. What is the force?",
              "What force gives {a} kg an acceleration of {b} m/s2?", "Find F for m = {a} kg and a = {b} m/s2.",
              "A cart of {a} kg accelerates at {b} m/s2. How strong is the push?",
              "How many N move {a} kg at {b} m/s2?"),
        "x": ("A force of {a} N causes {b} m/s2. What is the mass?", "Which mass gets {b} m/s2 from {a} N?",
              "Find m for F = {a} N and a = {b} m/s2.", "A push of {a} N gives a cart {b} m/s2. How heavy is it?",
              "How many kg does {a} N move at {b} m/s2?"),
        "y": ("A force of {a} N acts on {b} kg. What is the acceleration?",
              "Which acceleration does {a} N give to {b} kg?", "Find a for F = {a} N and m = {b} kg.",
              "A push of {a} N moves a cart of {b} kg. How fast does it speed up?",
              "At what rate does {a} N speed up {b} kg?")}),
    formula_family("distance", ("d", "v", "t"), ("km", "km/h", "h"), {
        "z": ("A car drives {a} km/h for {b} h. How far does it go?", "How far is {b} h at {a} km/h?",
              "Find d for v = {a} km/h and t = {b} h.", "A train at {a} km/h travels {b} h. What is the distance?",
              "What distance does a bus cover in {b} h at {a} km/h?"),
        "x": ("A car drives {a} km in {b} h. What is its speed?", "Which speed covers {a} km in {b} h?",
              "Find v for d = {a} km and t = {b} h.", "A train travels {a} km in {b} h. How fast is it?",
              "What speed does a bus need for {a} km in {b} h?"),
        "y": ("A car drives {a} km at {b} km/h. How long does it take?", "How long do {a} km take at {b} km/h?",
              "Find t for d = {a} km and v = {b} km/h.", "A train travels {a} km at {b} km/h. What is the time?",
              "What time does a bus need for {a} km at {b} km/h?")}),
    formula_family("density", ("m", "p", "V"), ("g", "g/cm3", "cm3"), {
        "z": ("A block has {a} g/cm3 and {b} cm3. What is its mass?", "Which mass has a density of {a} g/cm3 at {b} cm3?",
              "Find m for p = {a} g/cm3 and V = {b} cm3.", "A stone of {b} cm3 has a density of {a} g/cm3. How heavy is it?",
              "How many g are {b} cm3 at {a} g/cm3?"),
        "x": ("A block has {a} g and {b} cm3. What is its density?", "Which density has {a} g in {b} cm3?",
              "Find p for m = {a} g and V = {b} cm3.", "A stone of {b} cm3 weighs {a} g. How dense is it?",
              "How dense is a body of {a} g and {b} cm3?"),
        "y": ("A block has {a} g and {b} g/cm3. What is its volume?", "Which volume do {a} g have at {b} g/cm3?",
              "Find V for m = {a} g and p = {b} g/cm3.", "A stone of {b} g/cm3 weighs {a} g. How big is it?",
              "What space do {a} g of {b} g/cm3 fill?")}),
    formula_family("ohm", ("U", "R", "I"), ("V", "Ohm", "A"), {
        "z": ("A current of {b} A flows through {a} Ohm. What is the voltage?", "Which voltage drives {b} A through {a} Ohm?",
              "Find U for R = {a} Ohm and I = {b} A.", "A lamp of {a} Ohm draws {b} A. How high is the voltage?",
              "How many V push {b} A through {a} Ohm?"),
        "x": ("At {a} V a current of {b} A flows. What is the resistance?", "Which resistance draws {b} A at {a} V?",
              "Find R for U = {a} V and I = {b} A.", "A lamp draws {b} A at {a} V. How high is its resistance?",
              "How many Ohm let {b} A pass at {a} V?"),
        "y": ("A voltage of {a} V lies on {b} Ohm. What is the current?", "Which current flows through {b} Ohm at {a} V?",
              "Find I for U = {a} V and R = {b} Ohm.", "A lamp of {b} Ohm hangs on {a} V. How much current does it draw?",
              "How many A pass {b} Ohm at {a} V?")}),
    Family("element", "stem", {
        "symbol": ("What is the symbol of {e}?", "Give the chemical symbol for {e}.", "Which symbol stands for {e}?",
                   "{e}: what is its symbol?", "How is {e} written in chemistry?"),
        "name": ("Which element has the symbol {s}?", "Name the element {s}.", "What element is {s}?",
                 "{s}: which element is it?", "What does {s} stand for in chemistry?"),
        "number": ("What is the atomic number of {e}?", "Give the atomic number of {e}.", "Which atomic number belongs to {e}?",
                   "{e}: what is its atomic number?", "How many protons does {e} have?"),
        "heavier": ("Which has the higher atomic number, {e} or {f}, and by how much?", "Which element is heavier, {e} or {f}, and by how many protons?",
                    "Name the heavier element and by how many protons: {e} or {f}.", "{e} or {f}: which has more protons, and how many more?",
                    "Of {e} and {f}, which stands later in the table, and by how many places?")}, element_problems, element_solution,
           facts=("symbol", "name", "number")),
    Family("planet", "stem", {
        "place": ("In what place from the Sun is {p}?", "Give the place of {p} from the Sun.", "Counted from the Sun, which planet is {p}?",
                  "{p}: what is its place from the Sun?", "At what place does {p} circle the Sun?"),
        "nth": ("Which planet is the {n} from the Sun?", "Name the {n} planet.", "What is the {n} planet from the Sun?",
                "The {n} planet: what is it called?", "What do we call the {n} planet?"),
        "after": ("Which planet comes after {p}?", "Name the planet that follows {p}.", "What planet is next after {p}?",
                  "{p}: which planet is next?", "Going outwards, what follows {p}?"),
        "farther": ("Which is farther from the Sun, {p} or {q}, and by how many places?", "Name the farther planet and by how many places: {p} or {q}.",
                    "{p} or {q}: which lies farther out, and by how many places?", "Compare {p} and {q}: which is farther out, and by how many places?",
                    "Of {p} and {q}, which circles farther from the Sun, and by how many places?"),
        "later": ("Which planet comes {k} places after {p}?", "Name the planet {k} places after {p}.", "What planet is {k} places farther out than {p}?",
                  "{p}, then {k} places on: which planet is it?", "Going {k} places outwards from {p}, which planet do we reach?"),
        "earlier": ("Which planet comes {k} places before {p}?", "Name the planet {k} places before {p}.", "What planet is {k} places nearer to the Sun than {p}?",
                    "{p}, then {k} places back: which planet is it?", "Going {k} places inwards from {p}, which planet do we reach?")}, planet_problems, planet_solution,
           facts=("place", "nth", "after")),
    Family("geometry", "stem", {
        "area": ("What is the area of a rectangle of {a} cm by {b} cm?", "Find the area of a {a} cm by {b} cm rectangle.",
                 "A rectangle is {a} cm long and {b} cm wide. What is its area?", "Rectangle, {a} cm and {b} cm: area?",
                 "How much does a sheet of {a} cm by {b} cm cover?"),
        "perimeter": ("What is the perimeter of a rectangle of {a} cm by {b} cm?", "Find the perimeter of a {a} cm by {b} cm rectangle.",
                      "A rectangle is {a} cm long and {b} cm wide. What is its perimeter?", "Rectangle, {a} cm and {b} cm: perimeter?",
                      "How long is the edge around a sheet of {a} cm by {b} cm?"),
        "triangle": ("What is the area of a triangle with base {a} cm and height {b} cm?", "Find the area of a triangle, base {a} cm, height {b} cm.",
                     "A triangle has a base of {a} cm and is {b} cm high. What is its area?", "Triangle, base {a} cm, height {b} cm: area?",
                     "How much does a triangle of base {a} cm and height {b} cm cover?"),
        "square": ("What is the area of a square with sides of {a} cm?", "Find the area of a {a} cm square.",
                   "A square has sides of {a} cm. What is its area?", "Square, side {a} cm: area?",
                   "How much does a square of {a} cm cover?")}, geometry_problems, geometry_solution, restate=lambda c: f"{c['kind']} {c['a']}" + (f" {c['b']}" if "b" in c else "")),
]


def documents(rng, count: int) -> list[str]:
    """Plain sentences about elements and planets, rows of their tables, and lines of a notebook."""
    texts = []
    noted = [family for family in FAMILIES if family.name not in ("element", "planet")]
    for _ in range(count):
        kind = rng.randrange(5)
        if kind == 4:  # rows of a table: what is compared later stands together here
            table = [f"{name} {number}" for name, (_, number) in ELEMENTS.items()]
            planets = [f"{planet} {i}" for i, planet in enumerate(PLANETS, start=1)]
            texts.append(" ".join(rng.sample(table, 4) + rng.sample(planets, 4)))
        elif kind == 0:
            texts.append(" ".join(f"The symbol of {name} is {symbol}. The atomic number of {name} is {number}. {symbol} is {name}."
                                  for name, (symbol, number) in rng.sample(list(ELEMENTS.items()), 2)))
        elif kind == 1:
            i = rng.randrange(8)
            text = f"{PLANETS[i]} is the {ORDINALS[i]} planet. The {ORDINALS[i]} planet is {PLANETS[i]}. "
            text += f"{PLANETS[i]} is planet {i + 1}. Planet {i + 1} is {PLANETS[i]}."
            if i < 7:
                text += f" After {PLANETS[i]} comes {PLANETS[i + 1]}."
            texts.append(text)
        else:
            texts.append(" ".join(rng.choice(noted).note(rng) for _ in range(2)))
    return texts
