"""Code: short functions from a description, what a line prints, and broken lines to mend.

A function is checked by hidden tests in the sandbox. So any correct program passes, whatever it
looks like, and no constant does.
"""

import itertools

from data.world.code_programs import PROGRAMS
from data.world.family import LEVELS, WORDS, Family, Solution
from data.world.steps import column_sum, quotient_steps

# ---- functions from a description ----

FUNCTION_FRAMES = (
    "Write f(x) that {}.",
    "Give me a Python function f(x) that {}.",
    "I need f(x): it {}.",
    "Code a function f(x) which {}.",
    "Please program f(x) so that it {}.",
)


def without_kind(content: dict) -> dict:
    return {field: value for field, value in content.items() if field != "kind"}


def function_family(name: str) -> Family:
    kinds = PROGRAMS[name]

    def problems():
        for kind, program in kinds.items():
            for level, content in program.contents:
                yield level, {"kind": kind, **content}

    def solve(content: dict) -> Solution:
        body = kinds[content["kind"]].body.format(**without_kind(content))
        return Solution(f"def f(x): return {body}")

    templates = {
        kind: tuple(frame.format(program.says) for frame in FUNCTION_FRAMES)
        for kind, program in kinds.items()
    }
    facts = ("letter",) if name == "code_count" else ()
    return Family(name, "code", templates, problems, solve, facts=facts)


# ---- what a line prints ----

PRINT_FRAMES = (
    "What does print({}) print?",
    "What is the output of print({})?",
    "Run print({}) in your head.",
    "Output of print({})?",
    "If Python runs print({}), what appears?",
)


def printed(template: str) -> tuple:
    """The five phrasings that ask what a line prints."""
    return tuple(frame.format(template) for frame in PRINT_FRAMES)


def print_problems():
    def of(expression: str) -> dict:
        return {"kind": "sum", "expression": expression}

    for second in range(2, 10):
        for first in range(1, 40):
            yield 1, of(f"{first} + {second}")
        for first in range(1, 10):
            for third in range(2, 6):
                yield 2, of(f"{first} + {second} * {third}")
        for first in range(10 * second, 100):  # two digits, each in a step of its own
            yield 3, of(f"{first} % {second}")
            yield 3, of(f"{first} // {second}")


def print_solution(content: dict) -> Solution:
    terms = content["expression"].split()
    first, operator, second = int(terms[0]), terms[1], int(terms[2])
    if len(terms) == 5:
        third = int(terms[4])
        product = second * third
        total = first + product
        return Solution(str(total), f"{second}*{third}={product} {first}+{product}={total}")
    if operator == "%":
        return Solution(str(first % second), quotient_steps(first, second))
    if operator == "//":
        return Solution(str(first // second), quotient_steps(first, second))
    return Solution(str(first + second), column_sum(first, second))


def restate_print(content: dict) -> str:
    return content["expression"].replace(" ", "")


def print_list_problems():
    def index(items: list[int], place: int) -> dict:
        return {"kind": "index", "items": str(items), "place": place}

    def call(function: str, items: list[int]) -> dict:
        return {"kind": "call", "items": str(items), "function": function}

    for first, second, shift in itertools.product(range(1, 10), range(1, 10), range(0, 10, 2)):
        three = [first, second, (first * 7 + second * 3 + shift) % 10]
        four = [*three, (first + second * 5) % 10]
        yield 1, index(three, (first + second) % 3)
        yield 2, call("max", three)
        yield 2, call("min", three)
        yield 4, call("sum", three)
        yield 3, call("sorted", three)
        yield 4, index(four, (first * second) % 4)
        yield 5, call("sorted", four)


def print_list_solution(content: dict) -> Solution:
    items = [int(item) for item in content["items"][1:-1].split(", ")]
    if content["kind"] == "index":
        place = content["place"]
        steps = " ".join(f"{i}:{items[i]}" for i in range(place + 1))
        return Solution(str(items[place]), steps)
    if content["function"] == "sum":
        first, second, third = items
        total = first + second
        steps = f"{first}+{second}={total} {total}+{third}={total + third}"
        return Solution(str(total + third), steps)
    if content["function"] == "sorted":
        return Solution(str(sorted(items)), sorting_steps(items))
    largest = content["function"] == "max"
    return Solution(str(max(items) if largest else min(items)))


def sorting_steps(items: list[int]) -> str:
    """The smallest item, then the list without it, until one is left."""
    steps = []
    while len(items) > 1:
        least = min(items)
        place = items.index(least)
        items = items[:place] + items[place + 1 :]
        steps.append(f"{least} {items}")
    return " ".join(steps)


# ---- lines to mend ----

MEND_FRAMES = (
    "Mend this line: {line}",
    "This line does not run, repair it: {line}",
    "Fix the error in: {line}",
    "Correct this Python line: {line}",
    "What should this line be? {line}",
)

# kind -> a right line, the same line broken in one place, and what it computes
BREAKS = {
    "colon": (
        "def f(x): return x + {number}",
        "def f(x) return x + {number}",
        lambda x, number: x + number,
    ),
    "bracket": (
        "def f(x): return max(x, {number})",
        "def f(x): return max(x, {number}",
        lambda x, number: max(x, number),
    ),
    "equals": (
        "def f(x): return x == {number}",
        "def f(x): return x = {number}",
        lambda x, number: x == number,
    ),
    "def": (
        "def f(x): return x * {number}",
        "f(x): return x * {number}",
        lambda x, number: x * number,
    ),
    "return": (
        "def f(x): return x - {number}",
        "def f(x): retrun x - {number}",
        lambda x, number: x - number,
    ),
}


def mend_problems():
    for level, kind in enumerate(BREAKS, start=1):
        for number in range(2, 60):
            yield level, {"kind": kind, "number": number}


def mend_solution(content: dict) -> Solution:
    right, _, _ = BREAKS[content["kind"]]
    return Solution(right.format(number=content["number"]))


# ---- the families ----

FAMILIES = [
    *(function_family(name) for name in PROGRAMS),
    Family(
        "code_print",
        "code",
        {"sum": printed("{expression}")},
        print_problems,
        print_solution,
        restate=restate_print,
    ),
    Family(
        "code_print_list",
        "code",
        {"index": printed("{items}[{place}]"), "call": printed("{function}({items})")},
        print_list_problems,
        print_list_solution,
    ),
    Family(
        "code_mend",
        "code",
        {
            kind: tuple(frame.format(line=broken) for frame in MEND_FRAMES)
            for kind, (_, broken, _) in BREAKS.items()
        },
        mend_problems,
        mend_solution,
    ),
]
BY_NAME = {family.name: family for family in FAMILIES}


# ---- the check of a function ----


def inputs_for(takes: type, values: list) -> list:
    """Values of x at and beside every boundary that a problem can have.

    values: the numbers, words and letters that the problem names.
    Numbers, items and lengths are one below, at and one above each number. Texts are with and
    without each word or letter.
    """
    if takes is int:
        return [-40, -3, *range(121)]
    numbers = [value for value in values if isinstance(value, int)]
    words = [value for value in values if isinstance(value, str)]
    near = [number + step for number in numbers for step in (-1, 0, 1)]
    lengths = [length for length in near if length > 0]
    if takes is str:
        long = "the quick brown fox jumps over the lazy dog and runs away"
        inputs = ["sun", "Tree", "a", "green lamp", "banana"]
        inputs += [long[:length] for length in lengths]
        for word in words:
            inputs += [word, f"see {word} and {word}", word[:-1] + "y"]
        return inputs
    mixed = [i * 37 % 61 for i in range(61)]  # every number from 0 to 60, in no order
    inputs = [[3, 9, 4, 12, 9, 1], [5], [1, 2, 3, 4], mixed, near + numbers]
    return inputs + [mixed[:length] for length in lengths]


def hidden_tests(family: str, content: dict) -> list[tuple[str, object]] | None:
    """(expression, expected value) pairs for a function problem.

    None where the answer is what a line prints.
    """
    kind = content["kind"]
    fields = without_kind(content)
    if family in PROGRAMS:
        takes = PROGRAMS[family][kind].takes
        run = PROGRAMS[family][kind].run
    elif family == "code_mend":
        takes = int
        run = BREAKS[kind][2]
    else:
        return None
    inputs = inputs_for(takes, list(fields.values()))
    expected = [run(value, **fields) for value in inputs]
    return [(f"[f(v) for v in {inputs!r}]", expected)]


# ---- plain text ----


def drawn(rng, family: Family) -> dict:
    """A content of the training part."""
    return family.draw(rng, "train", LEVELS, (0,)).fields


def function_text(rng) -> str:
    """A function with its description as a comment."""
    name = rng.choice(list(PROGRAMS))
    content = drawn(rng, BY_NAME[name])
    program = PROGRAMS[name][content["kind"]]
    fields = without_kind(content)
    return f"# {program.says.format(**fields)}\ndef f(x): return {program.body.format(**fields)}"


def list_text(rng) -> str:
    """`max([2, 8, 8]) gives 8`."""
    family = BY_NAME["code_print_list"]
    content = drawn(rng, family)
    template = "{items}[{place}]" if content["kind"] == "index" else "{function}({items})"
    return f"{template.format(**content)} gives {family.solution(content).answer}"


def word_text(rng) -> str:
    """What three expressions make of one word."""
    word = rng.choice(WORDS)
    lines = [
        f"'{word}'.upper() gives '{word.upper()}'",
        f"'{word}'[::-1] gives '{word[::-1]}'",
        f"'{word}' * 2 gives '{word * 2}'",
    ]
    return "\n".join(lines)


def documents(rng, count: int) -> list[str]:
    """Lines of code with what they give, as in an interpreter session."""
    texts = []
    for _ in range(count):
        kind = rng.randrange(8)
        if kind > 2:
            texts.append(function_text(rng))
        elif kind == 0:
            texts.append(list_text(rng))
        elif kind == 1:
            texts.append(" ".join(BY_NAME["code_print"].note(rng) for _ in range(2)))
        else:
            texts.append(word_text(rng))
    return texts
