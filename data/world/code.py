"""Code: short functions from a description, what a line prints, and broken lines to mend.

A function is checked by hidden tests in the sandbox, so any correct program passes, whatever it looks like, and no
constant does. The reference implementations below are ours and trusted; they supply the expected values and are never
sent to the sandbox.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from data.world.family import Family, Solution
from data.world.math import column_sum, quotient_steps

FRAMES = ("Write f(x) that {}.", "Give me a Python function f(x) that {}.", "I need f(x): it {}.",
          "Code a function f(x) which {}.", "Please program f(x) so that it {}.")


@dataclass(frozen=True)
class Program:
    """One kind of function: what the prompt says, the reference answer, the trusted implementation, the kind of x."""

    says: str
    body: str
    run: Callable
    takes: type  # int, list or str
    contents: tuple  # (level, {field: value}) for every problem of this kind


def each(level: int, values, name: str = "k") -> tuple:
    return tuple((level, {name: value}) for value in values)


def pairs(level: int, first, second) -> tuple:
    return tuple((level, {"k": a, "j": b}) for a in first for b in second)


WORDS = ("cat dog sun tea red top map pin log cup fox box jam net owl pot rug van web zip ant bee elf hat ice key lip "
         "mud nut oak").split()
LETTERS = "abcdefghijklmnoprstuvwz"


# family -> kind -> program; "x" is the argument, k and j come from the content
PROGRAMS = {
    "code_arithmetic": {
        "add": Program("adds {k} to x", "x + {k}", lambda x, k: x + k, int, each(1, range(1, 60))),
        "subtract": Program("subtracts {k} from x", "x - {k}", lambda x, k: x - k, int, each(1, range(1, 60))),
        "multiply": Program("multiplies x by {k}", "x * {k}", lambda x, k: x * k, int, each(2, range(2, 60))),
        "linear": Program("multiplies x by {k} and adds {j}", "x * {k} + {j}", lambda x, k, j: x * k + j, int,
                          pairs(3, range(2, 12), range(1, 12))),
        "bracket": Program("adds {k} to x and multiplies by {j}", "(x + {k}) * {j}", lambda x, k, j: (x + k) * j, int,
                           pairs(4, range(1, 12), range(2, 12))),
        "square": Program("squares x and adds {k}", "x * x + {k}", lambda x, k: x * x + k, int, each(5, range(1, 60))),
    },
    "code_test": {
        "above": Program("returns True if x is above {k}", "x > {k}", lambda x, k: x > k, int, each(1, range(1, 60))),
        "divides": Program("returns True if x is divisible by {k}", "x % {k} == 0", lambda x, k: x % k == 0, int, each(2, range(2, 30))),
        "between": Program("returns True if x is above {k} and below {j}", "{k} < x < {j}", lambda x, k, j: k < x < j,
                           int, tuple((3, {"k": a, "j": b}) for a in range(1, 12) for b in range(a + 4, 60, 6))),
        "divides_both": Program("returns True if {k} and {j} both divide x", "x % {k} == 0 and x % {j} == 0",
                                lambda x, k, j: x % k == 0 and x % j == 0, int,
                                tuple((5, {"k": a, "j": b}) for a in range(2, 10) for b in range(2, 10) if a != b)),
    },
    "code_limit": {
        "at_least": Program("returns the larger of x and {k}", "max(x, {k})", lambda x, k: max(x, k), int, each(1, range(1, 60))),
        "at_most": Program("returns the smaller of x and {k}", "min(x, {k})", lambda x, k: min(x, k), int, each(2, range(1, 60))),
        "gap": Program("returns how far x is from {k}", "abs(x - {k})", lambda x, k: abs(x - k), int, each(3, range(1, 60))),
        "clip": Program("keeps x from {k} to {j}", "max({k}, min(x, {j}))", lambda x, k, j: max(k, min(x, j)), int,
                        tuple((5, {"k": a, "j": b}) for a in range(1, 12) for b in range(a + 3, 40, 5))),
    },
    "code_reduce": {
        "sum": Program("sums the list x and adds {k}", "sum(x) + {k}", lambda x, k: sum(x) + k, list, each(2, range(1, 50))),
        "longest": Program("adds {k} to the maximum of the list x", "max(x) + {k}", lambda x, k: max(x) + k, list, each(2, range(1, 50))),
        "least": Program("multiplies the minimum of the list x by {k}", "min(x) * {k}", lambda x, k: min(x) * k, list, each(3, range(2, 50))),
        "length": Program("multiplies the length of the list x by {k}", "len(x) * {k}", lambda x, k: len(x) * k, list, each(3, range(2, 50))),
        "sum_above": Program("sums the items of x above {k}", "sum(i for i in x if i > {k})", lambda x, k: sum(i for i in x if i > k),
                             list, each(5, range(1, 45))),
    },
    "code_map": {
        "add": Program("adds {k} to each item of x", "[i + {k} for i in x]", lambda x, k: [i + k for i in x], list, each(2, range(1, 60))),
        "multiply": Program("multiplies each item of x by {k}", "[i * {k} for i in x]", lambda x, k: [i * k for i in x], list, each(3, range(2, 60))),
        "both": Program("multiplies each item of x by {k} and adds {j}", "[i * {k} + {j} for i in x]",
                        lambda x, k, j: [i * k + j for i in x], list, pairs(4, range(2, 12), range(1, 12))),
    },
    "code_filter": {
        "above": Program("keeps the items of x above {k}", "[i for i in x if i > {k}]", lambda x, k: [i for i in x if i > k], list, each(3, range(1, 45))),
        "below": Program("keeps the items of x below {k}", "[i for i in x if i < {k}]", lambda x, k: [i for i in x if i < k], list, each(3, range(2, 46))),
        "without": Program("drops every {k} from the list x", "[i for i in x if i != {k}]", lambda x, k: [i for i in x if i != k],
                           list, each(4, range(1, 46))),
        "divisible": Program("keeps the items of x divisible by {k}", "[i for i in x if i % {k} == 0]", lambda x, k: [i for i in x if i % k == 0],
                             list, each(5, range(2, 21))),
    },
    "code_slice": {
        "first": Program("returns the first {k} items of x", "x[:{k}]", lambda x, k: x[:k], list, each(1, range(2, 40))),
        "last": Program("returns the last {k} items of x", "x[-{k}:]", lambda x, k: x[-k:], list, each(2, range(2, 40))),
        "skip": Program("skips the first {k} items of x", "x[{k}:]", lambda x, k: x[k:], list, each(3, range(1, 40))),
        "slice": Program("slices x from {k} to {j}", "x[{k}:{j}]", lambda x, k, j: x[k:j], list,
                         tuple((4, {"k": a, "j": b}) for a in range(1, 7) for b in range(a + 2, 14))),
        "sorted": Program("returns the {k} smallest items of x in order", "sorted(x)[:{k}]", lambda x, k: sorted(x)[:k], list, each(5, range(2, 40))),
    },
    "code_count": {
        "item": Program("counts how often {k} is in the list x", "x.count({k})", lambda x, k: x.count(k),
                        list, each(2, range(1, 60))),
        "letter": Program("counts the letter {k} in the text x", "x.count('{k}')", lambda x, k: x.count(k),
                          str, each(3, LETTERS)),
        "above": Program("counts the items of x above {k}", "len([i for i in x if i > {k}])", lambda x, k: len([i for i in x if i > k]),
                         list, each(5, range(1, 45))),
    },
    "code_text": {
        "append": Program("adds the word {k} to the end of x", "x + '{k}'", lambda x, k: x + k, str, each(1, WORDS)),
        "prepend": Program("puts the word {k} before x", "'{k}' + x", lambda x, k: k + x, str, each(2, WORDS)),
        "repeat": Program("repeats the text x {k} times", "x * {k}", lambda x, k: x * k, str, each(2, range(2, 30))),
        "has": Program("returns True if the text x has the word {k}", "'{k}' in x", lambda x, k: k in x,
                       str, each(4, WORDS)),
    },
    "code_case": {
        "upper": Program("turns the text x to upper case and adds {k}", "x.upper() + '{k}'", lambda x, k: x.upper() + k, str, each(3, WORDS)),
        "lower": Program("turns the text x to lower case and adds {k}", "x.lower() + '{k}'", lambda x, k: x.lower() + k, str, each(3, WORDS)),
        "reverse": Program("reverses the text x and adds {k}", "x[::-1] + '{k}'", lambda x, k: x[::-1] + k, str, each(4, WORDS)),
        "start": Program("returns the first {k} letters of x in upper case", "x[:{k}].upper()", lambda x, k: x[:k].upper(),
                         str, each(5, range(2, 32))),
    },
}


def print_problems():
    for b in range(2, 10):
        yield from ((1, {"kind": "sum", "e": f"{a} + {b}"}) for a in range(1, 40))
        for a in range(1, 10):
            yield from ((2, {"kind": "sum", "e": f"{a} + {b} * {c}"}) for c in range(2, 6))
        for a in range(10 * b, 100):  # two digits, each in a step of its own
            yield from ((3, {"kind": "sum", "e": f"{a} {operator} {b}"}) for operator in ("%", "//"))


def print_solution(content: dict) -> Solution:
    a, operator, *rest = content["e"].split()
    if operator == "+" and len(rest) == 3:
        b, c = int(rest[0]), int(rest[2])
        return Solution(str(int(a) + b * c), f"{b}*{c}={b * c} {a}+{b * c}={int(a) + b * c}")
    b = int(rest[0])
    if operator == "%":
        return Solution(str(int(a) % b), quotient_steps(int(a), b))
    if operator == "//":
        return Solution(str(int(a) // b), quotient_steps(int(a), b))
    return Solution(str(int(a) + b), column_sum(int(a), b))


def print_list_problems():
    for a, b, third in itertools.product(range(1, 10), range(1, 10), range(0, 10, 2)):
        c = (a * 7 + b * 3 + third) % 10
        items = f"[{a}, {b}, {c}]"
        yield 1, {"kind": "index", "l": items, "i": (a + b) % 3}
        yield 2, {"kind": "call", "l": items, "g": "max"}
        yield 2, {"kind": "call", "l": items, "g": "min"}
        yield 4, {"kind": "call", "l": items, "g": "sum"}
        yield 3, {"kind": "call", "l": items, "g": "sorted"}
        d = (a + b * 5) % 10
        yield 4, {"kind": "index", "l": f"[{a}, {b}, {c}, {d}]", "i": (a * b) % 4}
        yield 5, {"kind": "call", "l": f"[{a}, {b}, {c}, {d}]", "g": "sorted"}


def print_list_solution(content: dict) -> Solution:
    items = [int(x) for x in content["l"][1:-1].split(", ")]
    if content["kind"] == "index":
        place = content["i"]
        return Solution(str(items[place]), " ".join(f"{i}:{items[i]}" for i in range(place + 1)))
    call = content["g"]
    if call == "sum":
        total = items[0] + items[1]
        return Solution(str(sum(items)), f"{items[0]}+{items[1]}={total} {total}+{items[2]}={sum(items)}")
    if call == "sorted":
        return Solution(str(sorted(items)), sorting_steps(items))
    return Solution(str({"max": max, "min": min}[call](items)))


def sorting_steps(items: list[int]) -> str:
    """The smallest item, then the list without it, until one is left."""
    steps = []
    while len(items) > 1:
        least = min(items)
        place = items.index(least)
        items = items[:place] + items[place + 1:]
        steps.append(f"{least} {items}")
    return " ".join(steps)


# a right body and the same body broken in one place; k is a number
BREAKS = {
    "colon": ("def f(x): return x + {k}", "def f(x) return x + {k}", lambda x, k: x + k),
    "bracket": ("def f(x): return max(x, {k})", "def f(x): return max(x, {k}", lambda x, k: max(x, k)),
    "equals": ("def f(x): return x == {k}", "def f(x): return x = {k}", lambda x, k: x == k),
    "def": ("def f(x): return x * {k}", "f(x): return x * {k}", lambda x, k: x * k),
    "return": ("def f(x): return x - {k}", "def f(x): retrun x - {k}", lambda x, k: x - k),
}
MEND_FRAMES = ("Mend this line: {line}", "This line does not run, repair it: {line}", "Fix the error in: {line}",
               "Correct this Python line: {line}", "What should this line be? {line}")


def mend_problems():
    for level, kind in enumerate(BREAKS, start=1):
        yield from ((level, {"kind": kind, "k": k}) for k in range(2, 60))


def function_family(name: str) -> Family:
    kinds = PROGRAMS[name]

    def problems():
        for kind, program in kinds.items():
            for level, content in program.contents:
                yield level, {"kind": kind, **content}

    def solve(content: dict) -> Solution:
        fields = {key: value for key, value in content.items() if key != "kind"}
        return Solution("def f(x): return " + kinds[content["kind"]].body.format(**fields))

    return Family(name, "code", {kind: tuple(frame.format(program.says) for frame in FRAMES) for kind, program in kinds.items()},
                  problems, solve, facts=("letter",) if name == "code_count" else ())


FAMILIES = [
    *(function_family(name) for name in PROGRAMS),
    Family("code_print", "code",
           {"sum": ("What does print({e}) print?", "What is the output of print({e})?", "Run print({e}) in your head.",
                    "Output of print({e})?", "If Python runs print({e}), what appears?")}, print_problems, print_solution,
           restate=lambda c: c["e"].replace(" ", "")),
    Family("code_print_list", "code", {
        "index": ("What does print({l}[{i}]) print?", "What is the output of print({l}[{i}])?", "Run print({l}[{i}]) in your head.",
                  "Output of print({l}[{i}])?", "If Python runs print({l}[{i}]), what appears?"),
        "call": ("What does print({g}({l})) print?", "What is the output of print({g}({l}))?", "Run print({g}({l})) in your head.",
                 "Output of print({g}({l}))?", "If Python runs print({g}({l})), what appears?")},
           print_list_problems, print_list_solution),
    Family("code_mend", "code",
           {kind: tuple(frame.format(line=broken) for frame in MEND_FRAMES) for kind, (_, broken, _) in BREAKS.items()},
           mend_problems, lambda c: Solution(BREAKS[c["kind"]][0].format(k=c["k"]))),
]


def inputs_for(takes: type, fields: dict) -> list:
    """Values of x at and beside every boundary that a problem can have: numbers, items and lengths one below, at and one
    above each number that it names, texts with and without each word or letter."""
    if takes is int:
        return [-40, -3, *range(121)]
    numbers = [k for k in fields.values() if isinstance(k, int)]
    near = [k + d for k in numbers for d in (-1, 0, 1)]
    words = [k for k in fields.values() if isinstance(k, str)]
    lengths = [n for n in near if n > 0]
    if takes is str:
        long = "the quick brown fox jumps over the lazy dog and runs away"
        return ["sun", "Tree", "a", "green lamp", "banana", *(long[:n] for n in lengths),
                *itertools.chain(*((k, f"see {k} and {k}", k[:-1] + "y") for k in words))]
    mixed = [i * 37 % 61 for i in range(61)]  # every number from 0 to 60, in no order
    return [[3, 9, 4, 12, 9, 1], [5], [1, 2, 3, 4], mixed, near + numbers, *(mixed[:n] for n in lengths)]


def hidden_tests(family: str, content: dict) -> list[tuple[str, object]] | None:
    """(expression, expected value) pairs for a function problem; None where the answer is what a line prints."""
    kind = content["kind"]
    fields = {key: value for key, value in content.items() if key != "kind"}
    if family in PROGRAMS:
        takes, run = PROGRAMS[family][kind].takes, PROGRAMS[family][kind].run
    elif family == "code_mend":
        takes, run = int, BREAKS[kind][2]
    else:
        return None
    inputs = inputs_for(takes, fields)
    return [(f"[f(v) for v in {inputs!r}]", [run(value, **fields) for value in inputs])]


def documents(rng, count: int) -> list[str]:
    """Lines of code with what they give, as in an interpreter session."""
    families = [family for family in FAMILIES if family.name in PROGRAMS]
    texts = []
    for _ in range(count):
        kind = rng.randrange(8)
        if kind > 2:
            family = rng.choice(families)
            content = dict(family.draw(rng, "train", range(1, 6), (0,)).content)
            program = PROGRAMS[family.name][content.pop("kind")]
            texts.append(f"# {program.says.format(**content)}\ndef f(x): return {program.body.format(**content)}")
        elif kind == 0:
            listed = next(family for family in FAMILIES if family.name == "code_print_list")
            content = dict(listed.draw(rng, "train", range(1, 6), (0,)).content)
            said = f"{content['l']}[{content['i']}]" if content["kind"] == "index" else f"{content['g']}({content['l']})"
            texts.append(f"{said} gives {listed.solution(content).answer}")
        elif kind == 1:
            printed = next(family for family in FAMILIES if family.name == "code_print")
            texts.append(" ".join(printed.note(rng) for _ in range(2)))
        else:
            word = rng.choice(WORDS)
            texts.append(f"'{word}'.upper() gives '{word.upper()}'\n'{word}'[::-1] gives '{word[::-1]}'\n'{word}' * 2 gives '{word * 2}'")
    return texts
