"""Code: short functions from a description, what a line prints, and broken lines to mend.

A function is checked by hidden tests in the sandbox, so any correct program passes, whatever it looks like. The
reference implementations below are ours and trusted; they supply the expected values and are never sent to the sandbox.
"""

from collections.abc import Callable
from dataclasses import dataclass

from data.world_family import Family, Solution

NUMBERS = (0, 1, -3, 7, 12, 40)
LISTS = ([3, 9, 4, 12, 9, 1], [5], [20, 31, 8, 45, 17, 2, 9], [1, 2, 3, 4])
LONG_LISTS = ([i * 37 % 61 for i in range(45)], [8, 2, 6])
TEXTS = ("sun", "Tree", "a", "green lamp", "banana")
COUNTING = tuple(range(61))  # long enough to tell any two divisors of the world apart
FRAMES = ("Write f(x) that {}.", "Give me a Python function f(x) that {}.", "I need f(x): it {}.",
          "Code a function f(x) which {}.", "Please program f(x) so that it {}.")


@dataclass(frozen=True)
class Program:
    """One kind of function: what the prompt says, the reference answer, the trusted implementation, the test inputs."""

    says: str
    body: str
    run: Callable
    inputs: tuple
    contents: tuple  # (level, {field: value}) for every problem of this kind


def each(level: int, values, name: str = "k") -> tuple:
    return tuple((level, {name: value}) for value in values)


def pairs(level: int, first, second) -> tuple:
    return tuple((level, {"k": a, "j": b}) for a in first for b in second)


WORDS = ("cat dog sun tea red top map pin log cup fox box jam net owl pot rug van web zip ant bee elf hat ice key lip "
         "mud nut oak").split()
LETTERS = "abcdefghijklmnoprstuvwz"



def by_bit(items, bit: int) -> list:
    """The items whose place, counted from 1, has that bit set: over all bits no two items are in the same lists."""
    return [item for place, item in enumerate(items, start=1) if place >> bit & 1]


# family -> kind -> program; "x" is the argument, k and j come from the content
PROGRAMS = {
    "code_arithmetic": {
        "add": Program("adds {k} to x", "x + {k}", lambda x, k: x + k, NUMBERS, each(1, range(1, 60))),
        "subtract": Program("subtracts {k} from x", "x - {k}", lambda x, k: x - k, NUMBERS, each(1, range(1, 60))),
        "multiply": Program("multiplies x by {k}", "x * {k}", lambda x, k: x * k, NUMBERS, each(2, range(2, 60))),
        "linear": Program("multiplies x by {k} and adds {j}", "x * {k} + {j}", lambda x, k, j: x * k + j, NUMBERS,
                          pairs(3, range(2, 12), range(1, 12))),
        "bracket": Program("adds {k} to x and multiplies by {j}", "(x + {k}) * {j}", lambda x, k, j: (x + k) * j, NUMBERS,
                           pairs(4, range(1, 12), range(2, 12))),
        "square": Program("squares x and adds {k}", "x * x + {k}", lambda x, k: x * x + k, NUMBERS, each(5, range(1, 60))),
    },
    "code_test": {
        "above": Program("returns True if x is above {k}", "x > {k}", lambda x, k: x > k, (0, 5, 12, 30, 61, 44, 21), each(1, range(1, 60))),
        "divides": Program("returns True if x is divisible by {k}", "x % {k} == 0", lambda x, k: x % k == 0, COUNTING, each(2, range(2, 30))),
        "between": Program("returns True if x is above {k} and below {j}", "{k} < x < {j}", lambda x, k, j: k < x < j,
                           (0, 5, 12, 30, 61, 44, 21), tuple((3, {"k": a, "j": b}) for a in range(1, 12) for b in range(a + 4, 60, 6))),
        "divides_both": Program("returns True if {k} and {j} both divide x", "x % {k} == 0 and x % {j} == 0",
                                lambda x, k, j: x % k == 0 and x % j == 0, tuple(range(150)),
                                tuple((5, {"k": a, "j": b}) for a in range(2, 10) for b in range(2, 10) if a != b)),
    },
    "code_limit": {
        "at_least": Program("returns the larger of x and {k}", "max(x, {k})", lambda x, k: max(x, k), NUMBERS, each(1, range(1, 60))),
        "at_most": Program("returns the smaller of x and {k}", "min(x, {k})", lambda x, k: min(x, k), NUMBERS, each(2, range(1, 60))),
        "gap": Program("returns how far x is from {k}", "abs(x - {k})", lambda x, k: abs(x - k), NUMBERS, each(3, range(1, 60))),
        "clip": Program("keeps x from {k} to {j}", "max({k}, min(x, {j}))", lambda x, k, j: max(k, min(x, j)), NUMBERS,
                        tuple((5, {"k": a, "j": b}) for a in range(1, 12) for b in range(a + 3, 40, 5))),
    },
    "code_reduce": {
        "sum": Program("sums the list x and adds {k}", "sum(x) + {k}", lambda x, k: sum(x) + k, LISTS, each(2, range(1, 50))),
        "longest": Program("adds {k} to the maximum of the list x", "max(x) + {k}", lambda x, k: max(x) + k, LISTS, each(2, range(1, 50))),
        "least": Program("takes the minimum of the list x times {k}", "min(x) * {k}", lambda x, k: min(x) * k, LISTS, each(3, range(2, 50))),
        "length": Program("multiplies the length of the list x by {k}", "len(x) * {k}", lambda x, k: len(x) * k, LISTS, each(3, range(2, 50))),
        "sum_above": Program("sums the items of x above {k}", "sum(i for i in x if i > {k})", lambda x, k: sum(i for i in x if i > k),
                             LISTS, each(5, range(1, 45))),
    },
    "code_map": {
        "add": Program("adds {k} to each item of x", "[i + {k} for i in x]", lambda x, k: [i + k for i in x], LISTS, each(2, range(1, 60))),
        "multiply": Program("multiplies each item of x by {k}", "[i * {k} for i in x]", lambda x, k: [i * k for i in x], LISTS, each(3, range(2, 60))),
        "both": Program("multiplies each item of x by {k} and adds {j}", "[i * {k} + {j} for i in x]",
                        lambda x, k, j: [i * k + j for i in x], LISTS, pairs(4, range(2, 12), range(1, 12))),
    },
    "code_filter": {
        "above": Program("keeps the items of x above {k}", "[i for i in x if i > {k}]", lambda x, k: [i for i in x if i > k], LISTS, each(3, range(1, 45))),
        "below": Program("keeps the items of x below {k}", "[i for i in x if i < {k}]", lambda x, k: [i for i in x if i < k], LISTS, each(3, range(2, 46))),
        "without": Program("drops every {k} from the list x", "[i for i in x if i != {k}]", lambda x, k: [i for i in x if i != k],
                           tuple(values + [9, 4] for values in LISTS), each(4, range(1, 46))),
        "divisible": Program("keeps the items of x divisible by {k}", "[i for i in x if i % {k} == 0]", lambda x, k: [i for i in x if i % k == 0],
                             (list(COUNTING),), each(5, range(2, 21))),
    },
    "code_slice": {
        "first": Program("returns the first {k} items of x", "x[:{k}]", lambda x, k: x[:k], LONG_LISTS, each(1, range(2, 40))),
        "last": Program("returns the last {k} items of x", "x[-{k}:]", lambda x, k: x[-k:], LONG_LISTS, each(2, range(2, 40))),
        "skip": Program("skips the first {k} items of x", "x[{k}:]", lambda x, k: x[k:], LONG_LISTS, each(3, range(1, 40))),
        "every": Program("returns every item of x from {k} to before {j}", "x[{k}:{j}]", lambda x, k, j: x[k:j], LONG_LISTS,
                         tuple((4, {"k": a, "j": b}) for a in range(1, 7) for b in range(a + 2, 14))),
        "sorted": Program("returns the {k} smallest items of x in order", "sorted(x)[:{k}]", lambda x, k: sorted(x)[:k], LONG_LISTS, each(5, range(2, 40))),
    },
    "code_count": {
        "item": Program("counts how often {k} is in the list x", "x.count({k})", lambda x, k: x.count(k),
                        ([k for i in range(60) for k in [i] * (i % 3)],), each(2, range(1, 60))),
        "letter": Program("counts the letter {k} in the text x", "x.count('{k}')", lambda x, k: x.count(k),
                          tuple("".join(by_bit(LETTERS, bit)) for bit in range(5)), each(3, LETTERS)),
        "above": Program("counts the items of x above {k}", "len([i for i in x if i > {k}])", lambda x, k: len([i for i in x if i > k]),
                         LISTS, each(5, range(1, 45))),
    },
    "code_text": {
        "append": Program("adds the word {k} to the end of x", "x + '{k}'", lambda x, k: x + k, TEXTS, each(1, WORDS)),
        "prepend": Program("puts the word {k} before x", "'{k}' + x", lambda x, k: k + x, TEXTS, each(2, WORDS)),
        "repeat": Program("repeats the text x {k} times", "x * {k}", lambda x, k: x * k, TEXTS, each(2, range(2, 30))),
        "has": Program("returns True if the text x has the word {k}", "'{k}' in x", lambda x, k: k in x,
                       tuple(" ".join(by_bit(WORDS, bit)) for bit in range(6)), each(4, WORDS)),
    },
    "code_case": {
        "upper": Program("turns the text x to upper case and adds {k}", "x.upper() + '{k}'", lambda x, k: x.upper() + k, TEXTS, each(3, WORDS)),
        "lower": Program("turns the text x to lower case and adds {k}", "x.lower() + '{k}'", lambda x, k: x.lower() + k, TEXTS, each(3, WORDS)),
        "reverse": Program("reverses the text x and adds {k}", "x[::-1] + '{k}'", lambda x, k: x[::-1] + k, TEXTS, each(4, WORDS)),
        "start": Program("returns the first {k} letters of x in upper case", "x[:{k}].upper()", lambda x, k: x[:k].upper(),
                         ("a very long line of words to cut",), each(5, range(2, 32))),
    },
}


def print_problems():
    for a in range(1, 10):
        for b in range(2, 10):
            yield 1, {"kind": "sum", "e": f"{a} + {b}"}
            yield from ((2, {"kind": "sum", "e": f"{a} + {b} * {c}"}) for c in range(2, 6))
            yield 3, {"kind": "sum", "e": f"{a * b + a % b} % {b}"}
            yield 3, {"kind": "sum", "e": f"{a * b + a} // {b}"}


def print_solution(content: dict) -> Solution:
    a, operator, *rest = content["e"].split()
    if operator == "+" and len(rest) == 3:
        b, c = int(rest[0]), int(rest[2])
        return Solution(str(int(a) + b * c), f"{b}*{c}={b * c} {a}+{b * c}={int(a) + b * c}")
    b = int(rest[0])
    whole, left = divmod(int(a), b)
    if operator == "%":
        return Solution(str(left), f"{b}*{whole}={b * whole} {a}-{b * whole}={left}")
    if operator == "//":
        return Solution(str(whole), f"{b}*{whole}={b * whole}")
    return Solution(str(int(a) + b), f"{a}+{b}={int(a) + b}")


def print_list_problems():
    for a in range(1, 10):
        for b in range(1, 10):
            c = (a * 7 + b * 3) % 10
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
        return Solution(str(items[content["i"]]))
    call = content["g"]
    if call == "sum":
        total = items[0] + items[1]
        return Solution(str(sum(items)), f"{items[0]}+{items[1]}={total} {total}+{items[2]}={sum(items)}")
    return Solution(str({"max": max, "min": min, "sorted": sorted}[call](items)))


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
        yield from ((level, {"kind": kind, "k": k}) for k in range(1, 60))


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
                  problems, solve)


FAMILIES = [
    *(function_family(name) for name in PROGRAMS),
    Family("code_print", "code",
           {"sum": ("What does print({e}) print?", "Which output has print({e})?", "Run print({e}) in your head.",
                    "Output of print({e})?", "If Python runs print({e}), what appears?")}, print_problems, print_solution,
           restate=lambda c: c["e"].replace(" ", "")),
    Family("code_print_list", "code", {
        "index": ("What does print({l}[{i}]) print?", "Which output has print({l}[{i}])?", "Run print({l}[{i}]) in your head.",
                  "Output of print({l}[{i}])?", "If Python runs print({l}[{i}]), what appears?"),
        "call": ("What does print({g}({l})) print?", "Which output has print({g}({l}))?", "Run print({g}({l})) in your head.",
                 "Output of print({g}({l}))?", "If Python runs print({g}({l})), what appears?")},
           print_list_problems, print_list_solution),
    Family("code_mend", "code",
           {kind: tuple(frame.format(line=broken) for frame in MEND_FRAMES) for kind, (_, broken, _) in BREAKS.items()},
           mend_problems, lambda c: Solution(BREAKS[c["kind"]][0].format(k=c["k"]))),
]


def hidden_tests(family: str, content: dict) -> list[tuple[str, object]] | None:
    """(expression, expected value) pairs for a function problem; None where the answer is what a line prints."""
    kind = content["kind"]
    fields = {key: value for key, value in content.items() if key != "kind"}
    if family in PROGRAMS:
        program = PROGRAMS[family][kind]
        inputs = list(program.inputs)
        edges = [k + d for k in fields.values() if isinstance(k, int) for d in (-1, 0, 1)]  # where > and >= part
        if isinstance(inputs[0], int):
            inputs += edges
        elif isinstance(inputs[0], list):
            inputs.append([*edges, *edges[1:]])
        return [(f"[f(v) for v in {inputs!r}]", [program.run(value, **fields) for value in inputs])]
    if family == "code_mend":
        inputs = [*NUMBERS, fields["k"]]
        return [(f"[f(v) for v in {inputs!r}]", [BREAKS[kind][2](value, **fields) for value in inputs])]
    return None


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
