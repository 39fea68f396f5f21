"""Agent: questions that need a tool. The model writes a call, the tool's result is inserted, and it goes on.

Two tools: `calc 347*29` is the calculator, `price red lamp` (age, height, stock) looks a value up in a table that no text of
the world ever prints, so that a right answer without the calls that it takes is luck and does not count.
"""

import zlib

from data.world.calculator import calculate
from data.world.chat import GROUPS
from data.world.family import NAMES, Family, Solution
from data.world.math import compared

ITEMS = ("lamp chair table sofa clock mirror carpet vase pillow bed desk stool fan radio phone camera candle ring blanket coat hat "
         "boot glove belt bag drum flute guitar piano violin").split()
GOODS = [f"{colour} {item}" for colour in GROUPS["colours"] for item in ITEMS]
TABLES = {"price": (GOODS, 2, 60), "stock": (GOODS, 2, 99), "age": (NAMES, 4, 90), "height": (NAMES, 80, 199)}


def run_tool(call: str) -> str:
    """The result of a tool call as text; anything that is not a call of the world's tools gives `error`."""
    name, _, argument = call.partition(" ")
    if name == "calc":
        return calculate(argument)
    if name in TABLES:
        keys, low, high = TABLES[name]
        if argument in keys:
            return str(low + zlib.crc32(f"{name} {argument}".encode()) % (high - low + 1))
    return "error"


def calculator_problems():
    for a in range(11, 100, 2):
        for b in range(12, 100, 5):
            yield 1, {"e": f"{a} + {b}"}
            yield 2, {"e": f"{a} * {b}"}
    for a in range(101, 1000, 29):
        for b in range(11, 100, 7):
            yield 2, {"e": f"{a} - {b}"}
            yield 3, {"e": f"{a} * {b}"}
        for b in range(103, 1000, 61):
            yield 4, {"e": f"{a} * {b}"}
            yield 5, {"e": f"{a} * {b} + {b - 50}"}


def lookup_problems():
    for level, (table, (keys, _, _)) in enumerate(TABLES.items(), start=1):
        yield from ((level, {"kind": table, "x": key}) for key in keys)


def total_problems():
    for goods in GOODS:
        yield from ((3 if n < 10 else 5, {"n": n, "x": goods}) for n in range(2, 20))


def age(name: str) -> int:
    return int(run_tool(f"age {name}"))


def older_problems():
    for a in NAMES:
        yield from ((4, {"a": a, "b": b}) for b in NAMES if age(a) != age(b))


UNITS = {"price": " coins", "stock": "", "age": "", "height": " cm"}


def total_solution(content: dict) -> Solution:
    price = run_tool(f"price {content['x']}")
    total = calculate(f"{content['n']}*{price}")
    return Solution(f"{total} coins", calls=(f"price {content['x']}", f"calc {content['n']}*{price}"))


def older_solution(content: dict) -> Solution:
    a, b = content["a"], content["b"]
    older, younger = (a, b) if age(a) > age(b) else (b, a)
    return Solution(f"{older} by {age(older) - age(younger)} years", compared(age(a), age(b)),
                    calls=(f"age {a}", f"age {b}", f"calc {age(older)}-{age(younger)}"))


FAMILIES = [
    Family("agent_calculator", "agent", ("Use the calculator: what is {e}?", "Let the calculator find {e}.", "With your calculator, work out {e}.",
                                         "Calculator, please: {e}", "Type {e} into the calculator. What comes out?"),
           calculator_problems, lambda c: Solution(calculate(c["e"]), calls=("calc " + c["e"].replace(" ", ""),))),
    Family("agent_lookup", "agent", {
        "price": ("Look up the price of the {x}.", "What does the {x} cost in the shop?", "Find out what the {x} costs.", "The {x}: what is its price?",
                  "Check the price tag of the {x}."),
        "stock": ("Look up the stock of the {x}.", "What is the stock of the {x}?", "Find the stock of the {x}.", "The {x}: how many are in stock?",
                  "Check how many the shop has of the {x}."),
        "age": ("Look up the age of {x}.", "How old is {x}?", "Find out how old {x} is.", "{x}: what is the age?", "Check the age of {x}."),
        "height": ("Look up the height of {x}.", "How tall is {x}?", "Find out how tall {x} is.", "{x}: what is the height?", "Check how tall {x} is.")},
           lookup_problems, lambda c: Solution(run_tool(f"{c['kind']} {c['x']}") + UNITS[c["kind"]], calls=(f"{c['kind']} {c['x']}",))),
    Family("agent_total", "agent", ("What do {n} {x}s cost together?", "I buy {n} {x}s. What do I pay?", "Find the total price of {n} {x}s.",
                                    "{n} {x}s: what is the total?", "How much money do {n} {x}s take?"), total_problems, total_solution),
    Family("agent_older", "agent", ("Who is older, {a} or {b}, and by how many years?", "Find out who is older, {a} or {b}, and by how much.",
                                    "{a} or {b}: who was born first, and how many years before?",
                                    "Compare the ages of {a} and {b}: who is older, and by how much?",
                                    "Of {a} and {b}, who has lived longer, and by how many years?"),
           older_problems, older_solution),
]
