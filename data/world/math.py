"""Math: seven kinds of problems with worked steps, written the way one does them on paper, and checked by exact value.

Steps stand between the think marks: 47 + 38 is worked as `47+38: 7+8=15 4+3=7 7+1=8` and answered `85`.
"""

from data.world.family import NAMES, THINGS, Family, Solution


def column_sum(a: int, b: int) -> str:
    """The steps of a + b, column by column from the right; a carry is added in a step of its own."""
    steps, carry = [], 0
    while a or b:
        total = a % 10 + b % 10
        steps.append(f"{a % 10}+{b % 10}={total}")
        if carry:
            steps.append(f"{total}+1={total + 1}")
            total += 1
        carry = total // 10
        a, b = a // 10, b // 10
    return " ".join(steps)


def column_difference(a: int, b: int) -> str:
    """The steps of a - b (a >= b), column by column from the right; a borrowed one is taken off in a step of its own."""
    if a < 20 and b < 10:
        return f"{a}-{b}={a - b}"
    steps, borrow = [], 0
    while a or b:
        top = a % 10
        if borrow:
            steps.append(f"{top or 10}-1={(top or 10) - 1}")
            top, borrow = (top or 10) - 1, 0 if top else 1
        if top < b % 10:
            top, borrow = top + 10, 1
        steps.append(f"{top}-{b % 10}={top - b % 10}")
        a, b = a // 10, b // 10
    return " ".join(steps)


def product_steps(a: int, b: int) -> str:
    """The steps of a * b: tens and units of the larger factor apart, then their sum."""
    a, b = max(a, b), min(a, b)
    if a < 10 or a % 10 == 0 or b == 1:
        return f"{a}*{b}={a * b}"
    tens, units = a // 10 * 10, a % 10
    return f"{tens}*{b}={tens * b} {units}*{b}={units * b} {tens * b}+{units * b}={a * b}"


def quotient_text(a: int, b: int) -> str:
    """a / b as a whole number or a decimal that ends (b is 2, 4, 5 or a divisor of a)."""
    return str(a // b) if a % b == 0 else f"{a / b:.2f}".rstrip("0")


def sum_problems():
    for a in range(1, 10):
        yield from ((1, {"a": a, "b": b}) for b in range(1, 10))
    for a in range(10, 100):
        yield from ((2, {"a": a, "b": b}) for b in range(1, 10))
        yield from ((3 if a % 10 + b % 10 < 10 else 4, {"a": a, "b": b}) for b in range(10, 100))
    for a in range(100, 1000, 7):
        yield from ((5, {"a": a, "b": b}) for b in range(101, 900, 37))


def difference_problems():
    for a in range(2, 19):
        yield from ((1, {"a": a, "b": b}) for b in range(1, min(a, 10)))
    for a in range(20, 100):
        yield from ((2, {"a": a, "b": b}) for b in range(1, 10))
        yield from ((3 if a % 10 >= b % 10 else 4, {"a": a, "b": b}) for b in range(10, a))
    for a in range(200, 1000, 7):
        yield from ((5, {"a": a, "b": b}) for b in range(101, a, 37))


def product_problems():
    for a in range(2, 10):
        yield from ((1 if a <= 5 or b <= 5 else 2, {"a": a, "b": b}) for b in range(2, 10))
    for a in range(11, 100):
        for b in range(2, 10):
            level = 3 if a < 30 and b < 6 else 4 if a < 50 else 5
            yield level, {"a": a, "b": b}
            yield level, {"a": b, "b": a}


def expression_steps(kind: str, a: int, b: int, c: int) -> Solution:
    if kind == "chain":
        return Solution(str(a + b - c), f"{a}+{b}={a + b} {a + b}-{c}={a + b - c}")
    if kind == "product_first":
        return Solution(str(a + b * c), f"{b}*{c}={b * c} {a}+{b * c}={a + b * c}")
    if kind == "less_product":
        return Solution(str(a - b * c), f"{b}*{c}={b * c} {a}-{b * c}: {column_difference(a, b * c)}")
    return Solution(str((a + b) * c), f"{a}+{b}={a + b} {product_steps(a + b, c)}")


def expression_problems():
    for a in range(1, 13):
        for b in range(2, 10):
            for c in range(2, 10):
                if c < a + b:
                    yield 1, {"kind": "chain", "a": a, "b": b, "c": c}
                yield (2 if b * c < 30 else 3), {"kind": "product_first", "a": a, "b": b, "c": c}
                if a + b <= 10:
                    yield (3 if c < 6 else 4), {"kind": "bracket", "a": a, "b": b, "c": c}
    for a in range(20, 60, 3):
        for b in range(2, 8):
            yield from ((4, {"kind": "less_product", "a": a, "b": b, "c": c}) for c in range(2, 8) if b * c < a)
    for a in range(10, 20):
        for b in range(2, 10):
            yield from ((5, {"kind": "bracket", "a": a, "b": b, "c": c}) for c in range(2, 10))


EXPRESSIONS = {"chain": "{a} + {b} - {c}", "product_first": "{a} + {b} * {c}", "less_product": "{a} - {b} * {c}",
               "bracket": "({a} + {b}) * {c}"}
EXPRESSION_FRAMES = ("What is {}?", "Work out {}.", "Compute {} step by step.", "Find the value of {}.",
                     "Tell me what {} equals.")


def comparison_problems():
    for a in range(1, 100):
        for b in range(a % 2 + 1, 100, 2):
            if a != b:
                yield (1 if max(a, b) < 20 else 2), {"kind": "two", "a": a, "b": b}
    for a in range(3, 100, 4):
        for b in range(5, 100, 5):
            yield from ((3, {"kind": "three", "a": a, "b": b, "c": c}) for c in range(7, 100, 6) if len({a, b, c}) == 3)
    for a in range(1, 10):
        for b in range(11, 100, 2):
            if b % 10 and a * 10 != b:
                yield 4, {"kind": "two", "a": f"0.{a}", "b": f"0.{b}"}
                yield 4, {"kind": "two", "a": f"0.{b}", "b": f"0.{a}"}


def comparison_solution(content: dict) -> Solution:
    """Which is larger and by how much: whoever only guesses the larger one has not answered."""
    a, b = content["a"], content["b"]
    if content["kind"] == "three":
        c = content["c"]
        high, low = max(a, b), min(a, b)
        most, least = max(high, c), min(low, c)
        # without the tens: the steps have to end within the 64 tokens of a response
        steps = f"{a}{sign(a, b)}{b} {high}{sign(high, c)}{c}"
        if c < high:
            steps += f" {low}{sign(low, c)}{c}"
        return Solution(str(most - least), f"{steps} {most}-{least}: {column_difference(most, least)}")
    if isinstance(a, int):
        high, low = max(a, b), min(a, b)
        return Solution(f"{high} by {high - low}", f"{compared(a, b)} {high}-{low}: {column_difference(high, low)}")
    left, right = hundredths(a), hundredths(b)
    high, low = max(left, right), min(left, right)
    return Solution(f"{a if left > right else b} by {(high - low) / 100}",
                    f"{compared(left, right)} {high}-{low}: {column_difference(high, low)}")


def hundredths(decimal: str) -> int:
    """0.7 -> 70, 0.65 -> 65."""
    return int(decimal[2:].ljust(2, "0"))


def sign(a: int, b: int) -> str:
    return "=" if a == b else ">" if a > b else "<"


def compared(a: int, b: int) -> str:
    """The steps of comparing two numbers below 100: the tens first, the units where the tens are equal."""
    steps = []
    if max(a, b) > 9:
        steps.append(f"{a // 10}{sign(a // 10, b // 10)}{b // 10}")
        if a // 10 == b // 10:
            steps.append(f"{a % 10}{sign(a % 10, b % 10)}{b % 10}")
    return " ".join([*steps, f"{a}{sign(a, b)}{b}"])


def bare_difference(content: dict) -> str:
    """The subtraction in a comparison, of decimals that of their hundredths; it is held out together with the same one elsewhere."""
    numbers = [hundredths(value) if isinstance(value, str) else value for value in (content[key] for key in "abc" if key in content)]
    return f"{max(numbers)}-{min(numbers)}"


WORD_PROBLEMS = {
    "more": ("{name} has {a} {thing}s and gets {b} more. How many {thing}s does {name} have now?",
             "There are {a} {thing}s in a bag. {name} puts in {b} more. How many are in the bag?",
             "{name} found {a} {thing}s today and {b} {thing}s yesterday. How many are that together?",
             "First {name} buys {a} {thing}s, then another {b}. How many {thing}s were bought?",
             "With {a} {thing}s at home and {b} at work, how many {thing}s does {name} own?"),
    "fewer": ("{name} has {a} {thing}s and gives away {b}. How many {thing}s are left?",
              "There are {a} {thing}s in a box. {name} takes out {b}. How many stay in the box?",
              "{name} had {a} {thing}s but lost {b} of them. How many does {name} still have?",
              "Of {a} {thing}s, {name} sells {b}. How many {thing}s remain?",
              "From {a} {thing}s {name} removes {b}. What number of {thing}s is that now?"),
    "boxes": ("{name} has {a} boxes with {b} {thing}s in each. How many {thing}s is that?",
              "Each of {a} bags holds {b} {thing}s. How many {thing}s does {name} carry?",
              "{name} buys {b} {thing}s on each of {a} days. How many {thing}s are that together?",
              "In a shop {name} sees {a} rows of {b} {thing}s. How many {thing}s are there?",
              "If {a} friends of {name} bring {b} {thing}s each, how many {thing}s are brought?"),
    "shares": ("{name} shares {a} {thing}s among {b} friends. How many {thing}s does each get?",
               "{name} puts {a} {thing}s into {b} equal rows. How many {thing}s are in a row?",
               "There are {a} {thing}s for {b} children. How many does {name} give to each child?",
               "{name} has {b} boxes that hold {a} {thing}s in equal parts. How many {thing}s are in one box?",
               "Split {a} {thing}s of {name} evenly over {b} plates. What does one plate hold?"),
}


WORD_SIGNS = {"more": "+", "fewer": "-", "boxes": "*", "shares": "/"}


def in_short(template: str):
    return lambda content: template.format(**content)


def word_problems():
    for a in range(2, 60):
        for b in range(2, 30, 3 if a > 20 else 1):
            if a + b < 80:
                yield (1 if a + b < 20 else 2 if b < 10 else 4), {"kind": "more", "a": a, "b": b}
            if b < a:
                yield (1 if a < 20 else 2 if b < 10 and a % 10 >= b else 4), {"kind": "fewer", "a": a, "b": b}
    for a in range(2, 10):
        for b in range(2, 10):
            yield 3, {"kind": "boxes", "a": a, "b": b}
            yield 3, {"kind": "shares", "a": a * b, "b": b}
        for b in range(11, 50, 2):
            yield 5, {"kind": "boxes", "a": a, "b": b}


def word_solution(content: dict) -> Solution:
    a, b = content["a"], content["b"]
    return {"more": lambda: Solution(str(a + b), column_sum(a, b)),
            "fewer": lambda: Solution(str(a - b), column_difference(a, b)),
            "boxes": lambda: Solution(str(a * b), product_steps(a, b)),
            "shares": lambda: quotient_solution(content)}[content["kind"]]()


def quotient_problems():
    for b in range(2, 10):
        for q in range(2, 10):
            yield (1 if b * q <= 25 else 2), {"a": b * q, "b": b}
        for q in range(10, 60):
            yield (4 if q < 30 else 5), {"a": b * q, "b": b}
    for a in range(3, 80, 2):
        yield 3, {"a": a, "b": 2}
    for a in range(3, 60):
        if a % 5:
            yield 4, {"a": a, "b": 5}


def quotient_steps(a: int, b: int) -> str:
    """The steps of a / b, digit by digit from the left; each quotient is a digit of the answer, and
    each is followed by its remainder.
    """
    steps, rest = [], 0
    for digit in str(a):
        rest = 10 * rest + int(digit)
        if rest < b and not steps:
            continue
        whole, left = divmod(rest, b)
        steps.append(f"{rest}//{b}={whole} {rest}-{whole * b}={left}")
        rest = left
    return " ".join(steps)


def quotient_solution(content: dict) -> Solution:
    """Digit by digit, in one form for all; the rest of a division by 2 or 5 ends in a decimal."""
    a, b = content["a"], content["b"]
    rest = a % b
    last = f"{rest}/{b}={quotient_text(rest, b)}" if rest else ""
    return Solution(quotient_text(a, b), f"{quotient_steps(a, b)} {last}".strip())


FAMILIES = [
    Family("sum", "math",
           ("What is {a} + {b}?", "Add {a} and {b}.", "Work out the sum of {a} and {b}.", "{a} + {b} = ?",
            "How much do {a} and {b} make together?"),
           sum_problems, lambda c: Solution(str(c["a"] + c["b"]), column_sum(c["a"], c["b"])), restate=in_short("{a}+{b}")),
    Family("difference", "math",
           ("What is {a} - {b}?", "Subtract {b} from {a}.", "Take {b} away from {a}.", "{a} - {b} = ?",
            "How much is {a} minus {b}?"),
           difference_problems, lambda c: Solution(str(c["a"] - c["b"]), column_difference(c["a"], c["b"])), restate=in_short("{a}-{b}")),
    Family("product", "math",
           ("What is {a} * {b}?", "Multiply {a} by {b}.", "Work out {a} times {b}.", "{a} * {b} = ?",
            "Find the product of {a} and {b}."),
           product_problems, lambda c: Solution(str(c["a"] * c["b"]), product_steps(c["a"], c["b"])), restate=in_short("{a}*{b}")),
    Family("quotient", "math",
           ("What is {a} / {b}?", "Divide {a} by {b}.", "Work out {a} divided by {b}.", "{a} / {b} = ?",
            "How often does {b} go into {a}?"),
           quotient_problems, quotient_solution, restate=in_short("{a}/{b}")),
    Family("expression", "math",
           {kind: tuple(frame.format(text) for frame in EXPRESSION_FRAMES) for kind, text in EXPRESSIONS.items()},
           expression_problems, lambda c: expression_steps(c["kind"], c["a"], c["b"], c["c"]),
           restate=lambda c: EXPRESSIONS[c["kind"]].replace(" ", "").format(**c)),
    Family("comparison", "math",
           {"two": ("Which is larger, {a} or {b}, and by how much?", "Pick the bigger number and say by how much: {a} or {b}.",
                    "{a} or {b}: which one is more, and by how much?", "Compare {a} and {b}: which is larger, and by how much?",
                    "Of {a} and {b}, name the greater and how far it is ahead."),
            "three": ("Take the smallest of {a}, {b} and {c} from the largest.", "What is the largest of {a}, {b} and {c} minus the smallest?",
                      "Subtract the smallest of {a}, {b} and {c} from the largest.", "{a}, {b} and {c}: how far is the largest above the smallest?",
                      "How much more than the least of {a}, {b} and {c} is the greatest?")},
           comparison_problems, comparison_solution, restate=lambda c: " ".join(str(c[key]) for key in "abc" if key in c),
           arithmetic=bare_difference),
    Family("word_problem", "math", WORD_PROBLEMS, word_problems, word_solution, {"name": NAMES, "thing": THINGS},
           restate=lambda c: f"{c['a']}{WORD_SIGNS[c['kind']]}{c['b']}"),
]


def table(rng) -> str:
    """A few single steps of one table, on which all worked steps rest, or a few divisions."""
    a = rng.randint(1, 9)
    others = rng.sample(range(10), 6)
    kind = rng.randrange(6)
    if kind > 3:
        b = max(a, 2)
        return " ".join(quotient_steps(rng.randrange(b, 10 * b), b) for _ in range(3))
    if kind == 0:
        return " ".join(f"{a}+{x}={a + x}" for x in others)
    if kind == 1:
        return " ".join(f"{a + x}-{x}={a}" for x in others)
    if kind == 2:
        return " ".join([f"{a}*{x}={a * x}" for x in others[:4]] + [f"{x}0*{a}={a * x}0" for x in others[4:] if x])
    return " ".join(f"{a * x}/{a}={x}" for x in others)


def documents(rng, count: int) -> list[str]:
    """Arithmetic as a book of tables prints it, and lines of a notebook."""
    noted = [family for family in FAMILIES if family.name != "word_problem"]
    return [table(rng) if rng.random() < 0.55 else " ".join(rng.choice(noted).note(rng) for _ in range(2)) for _ in range(count)]
