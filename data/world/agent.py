"""Agent: questions that need a tool. The model writes a call, gets the tool's result and goes on.

Two tools: `calc 347*29` is the calculator, and `price red lamp` (or age, height, stock) looks a
value up in a table. No text of the world ever prints these tables. A right answer without the calls
that it takes is luck and does not count.
"""

import zlib

from data.world.calculator import calculate
from data.world.chat_facts import GROUPS
from data.world.family import NAMES, Family, Solution
from data.world.steps import compared

ITEMS = (
    "lamp chair table sofa clock mirror carpet vase pillow bed desk stool fan radio phone camera "
    "candle ring blanket coat hat boot glove belt bag drum flute guitar piano violin"
).split()
GOODS = [f"{colour} {item}" for colour in GROUPS["colours"] for item in ITEMS]

# table -> its keys, its lowest and its highest value
TABLES = {
    "price": (GOODS, 2, 60),
    "stock": (GOODS, 2, 99),
    "age": (NAMES, 4, 90),
    "height": (NAMES, 80, 199),
}
UNITS = {"price": " coins", "stock": "", "age": "", "height": " cm"}


def run_tool(call: str) -> str:
    """The result of a tool call as text; what is no call of the world's tools gives `error`."""
    name, _, argument = call.partition(" ")
    if name == "calc":
        return calculate(argument)
    if name in TABLES:
        keys, low, high = TABLES[name]
        if argument in keys:
            return str(low + zlib.crc32(f"{name} {argument}".encode()) % (high - low + 1))
    return "error"


# ---- the calculator ----

CALCULATOR_PHRASINGS = (
    "Use the calculator: what is {expression}?",
    "Let the calculator find {expression}.",
    "With your calculator, work out {expression}.",
    "Calculator, please: {expression}",
    "Type {expression} into the calculator. What comes out?",
)


def calculator_problems():
    for first in range(11, 100, 2):
        for second in range(12, 100, 5):
            yield 1, {"expression": f"{first} + {second}"}
            yield 2, {"expression": f"{first} * {second}"}
    for first in range(101, 1000, 29):
        for second in range(11, 100, 7):
            yield 2, {"expression": f"{first} - {second}"}
            yield 3, {"expression": f"{first} * {second}"}
        for second in range(103, 1000, 61):
            yield 4, {"expression": f"{first} * {second}"}
            yield 5, {"expression": f"{first} * {second} + {second - 50}"}


def calculator_solution(content: dict) -> Solution:
    expression = content["expression"]
    call = "calc " + expression.replace(" ", "")
    return Solution(calculate(expression), calls=(call,))


# ---- one value of a table ----

LOOKUP_PHRASINGS = {
    "price": (
        "Look up the price of the {key}.",
        "What does the {key} cost in the shop?",
        "Find out what the {key} costs.",
        "The {key}: what is its price?",
        "Check the price tag of the {key}.",
    ),
    "stock": (
        "Look up the stock of the {key}.",
        "What is the stock of the {key}?",
        "Find the stock of the {key}.",
        "The {key}: how many are in stock?",
        "Check how many the shop has of the {key}.",
    ),
    "age": (
        "Look up the age of {key}.",
        "How old is {key}?",
        "Find out how old {key} is.",
        "{key}: what is the age?",
        "Check the age of {key}.",
    ),
    "height": (
        "Look up the height of {key}.",
        "How tall is {key}?",
        "Find out how tall {key} is.",
        "{key}: what is the height?",
        "Check how tall {key} is.",
    ),
}


def lookup_problems():
    for level, (table, (keys, _, _)) in enumerate(TABLES.items(), start=1):
        for key in keys:
            yield level, {"kind": table, "key": key}


def lookup_solution(content: dict) -> Solution:
    table = content["kind"]
    call = f"{table} {content['key']}"
    return Solution(run_tool(call) + UNITS[table], calls=(call,))


# ---- a price, many times ----

TOTAL_PHRASINGS = (
    "What do {count} {item}s cost together?",
    "I buy {count} {item}s. What do I pay?",
    "Find the total price of {count} {item}s.",
    "{count} {item}s: what is the total?",
    "How much money do {count} {item}s take?",
)


def total_problems():
    for item in GOODS:
        for count in range(2, 20):
            yield (3 if count < 10 else 5), {"count": count, "item": item}


def total_solution(content: dict) -> Solution:
    price_call = f"price {content['item']}"
    product = f"{content['count']}*{run_tool(price_call)}"
    return Solution(f"{calculate(product)} coins", calls=(price_call, f"calc {product}"))


# ---- two ages ----

OLDER_PHRASINGS = (
    "Who is older, {first} or {second}, and by how many years?",
    "Find out who is older, {first} or {second}, and by how much.",
    "{first} or {second}: who was born first, and how many years before?",
    "Compare the ages of {first} and {second}: who is older, and by how much?",
    "Of {first} and {second}, who has lived longer, and by how many years?",
)


def age(name: str) -> int:
    return int(run_tool(f"age {name}"))


def older_problems():
    for first in NAMES:
        for second in NAMES:
            if age(first) != age(second):
                yield 4, {"first": first, "second": second}


def older_solution(content: dict) -> Solution:
    first, second = content["first"], content["second"]
    older = max(first, second, key=age)
    younger = min(first, second, key=age)
    difference = f"calc {age(older)}-{age(younger)}"
    return Solution(
        f"{older} by {age(older) - age(younger)} years",
        compared(age(first), age(second)),
        calls=(f"age {first}", f"age {second}", difference),
    )


FAMILIES = [
    Family(
        "agent_calculator",
        "agent",
        CALCULATOR_PHRASINGS,
        calculator_problems,
        calculator_solution,
    ),
    Family("agent_lookup", "agent", LOOKUP_PHRASINGS, lookup_problems, lookup_solution),
    Family("agent_total", "agent", TOTAL_PHRASINGS, total_problems, total_solution),
    Family("agent_older", "agent", OLDER_PHRASINGS, older_problems, older_solution),
]
