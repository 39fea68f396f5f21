r"""What a reply in free text answers: the number that it ends on, and the program that it holds.

A text is first written one way. The digits of every script become 0 to 9, every minus becomes -,
\frac{1}{2} and ½ become 1/2, and every space becomes a blank. \boxed, emphasis and currency signs
are taken off. So is a remark in brackets after a number, such as `12 (in 3 days)`.

A number is then, with a sign or none,

    digits, with commas or blanks in thousands, a point, an exponent    72  1,234.5  1 000  .5  5e3
    a fraction of whole numbers, also after a whole number              1/2  2 1/2

and it stands alone. These make it a part of something longer: an operator or a bracket beside it,
blanks or not; a single letter that touches it; a name before it. Out of something longer nothing is
taken: `8-3`, `2^5`, `3x`, `f(5)`, `12:30` and `1,2,3` hold no number. Words and units may follow a
number, and % is one of them: 50% is 50.
"""

import re
import textwrap
import unicodedata
from fractions import Fraction

MAX_CHARACTERS = 64  # of a number; Python itself refuses to read one of thousands

MINUS = "\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63\uff0d"  # no long dash: it parts sentences
REWRITES = [  # (pattern, what stands in its place), in this order
    # LaTeX's spaces, the marks around its formulas, and its escaped %
    (r"\\[,;! ]|\\[()\[\]]", " "),
    (r"\\(?=%)", ""),
    # LaTeX's fractions: 2\frac{1}{2} is 2 1/2
    (r"(?<=[0-9])(?=\\[dt]?frac)", " "),
    (r"\\[dt]?frac *\{ *(-?[0-9]+) *\} *\{ *([0-9]+) *\}", r"\1/\2"),
    (r"\\[dt]?frac *([0-9])([0-9])", r"\1/\2"),
    # what is only dress: \boxed{72}, **72**, $72, 12 (in 3 days), 50%, the mark of a list's entry
    (r"\\(?:boxed|text|mathrm|mathbf) *\{([^{}]*)\}", r" \1 "),
    (r"(?<![\w)*`])(\*\*|__|\*|`)(?=[^\s*])([^*`\n]+?)(?<=[^\s*])\1(?![\w(*`])", r"\2"),
    (r"(?<![0-9])\\?[$\u20ac\u00a3\u00a5] ?|\\?[$\u20ac\u00a3\u00a5](?![0-9])", ""),
    (r"(?<=[0-9%]) \([^()]*[A-Za-z]{2}[^()]*\)", ""),
    (r"%(?! *[0-9(])", " "),
    (r"(?m)^ *[-*+\u2022] +", ""),
    # a sign before its number, x between two numbers
    (r"(?<=[=(]) *- +(?=[.0-9])", "-"),
    (r"(?<=[0-9]) *[xX] *(?=[0-9])", "*"),
    # punctuation that ends something, and no decimal point
    (r"(?<=[A-Za-z])\) ", "\n"),
    (r"[.,;:!?]+(?=[\s)\]'\"]|\Z)", "\n"),
]
REWRITES = [(re.compile(pattern), by) for pattern, by in REWRITES]

# what an expression is made of: these characters, names before a digit, and the letter of `3x`
SIGNS = r"0-9.,:'!+\-*/^_%|(){}\[\]\u00b1\u221a\u00d7\u00f7\u00b7\u00b2\u00b3\u00b9\u2070-\u209c "
LETTER = r"[A-Za-z\u0370-\u03ff]"
NAME = rf"\\[A-Za-z]*|(?<!{LETTER}){LETTER}+(?=[-+*/^_({{\\]*[0-9])"
EXPRESSION = re.compile(rf"(?:[{SIGNS}]|{NAME}|(?<=[0-9]){LETTER}(?!{LETTER}))+")
WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
DECIMAL = re.compile(rf"[-+]?(?:{WHOLE}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}})?")
RATIO = re.compile(r"([-+]?)(?:([0-9]+) +)?([0-9]+)/([0-9]+)")

FENCE = re.compile(
    r"^(?:[^`\n]|`[^`\n]+`)*?(?P<mark>`{3,}|(?<![^ \t\n])~{3,})"
    r"[ \t]*(?P<info>[^`\n]*)\n(?P<body>.*?)(?:(?P=mark)[`~]*[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
PYTHON = re.compile(r"\W*(?:python|py)[0-9.]*\b", re.IGNORECASE)


def plain(text: str) -> str:
    """The text written one way (see above); a line ends where a statement does."""
    out = []
    for character in text:
        category = unicodedata.category(character)
        if category == "Cf":  # invisible
            continue
        if unicodedata.decomposition(character).startswith("<fraction>"):
            after_digit = bool(out) and out[-1].isdecimal()  # 2 and a half sign are 2 1/2
            written = unicodedata.normalize("NFKC", character)
            written = f" {written}" if after_digit else written
        elif character in MINUS:
            written = "-"
        elif character == "\t" or category == "Zs":
            written = " "
        else:
            written = str(unicodedata.decimal(character, character))
        out.append(written.replace("\u2044", "/").replace("\u2215", "/"))
    text = "".join(out)
    for pattern, by in REWRITES:
        text = pattern.sub(by, text)
    return text


def number(text: str) -> Fraction | None:
    """The value of an expression that is a number of at most 64 characters; else None."""
    text = text.lstrip(" ([':,").rstrip(" )]'.,:!")
    if len(text) > MAX_CHARACTERS:
        return None
    ratio = RATIO.fullmatch(text)
    if ratio is None:
        return Fraction(re.sub("[ ,]", "", text)) if DECIMAL.fullmatch(text) else None
    sign, whole, above, below = ratio.groups()
    if int(below) == 0:
        return None
    value = Fraction(whole or 0) + Fraction(int(above), int(below))
    return -value if sign == "-" else value


def expressions(text: str) -> list[str]:
    """What holds a digit in a text, as far as it belongs together."""
    return [found for found in EXPRESSION.findall(plain(text)) if re.search("[0-9]", found)]


def answer_of(text: str) -> Fraction | None:
    """What a record's answer says: one number, beside words. None: nothing can be checked by it."""
    found = expressions(text)
    return number(found[0]) if len(found) == 1 else None


def same_answer(reply: str, answer: str) -> bool:
    """Whether the last thing with a digit in a reply is a number that stands alone, and the answer.

    They are compared exactly: 0.5 is 1/2, 72.0 is 72, and 1e999 is no infinity. What a number is,
    and what standing alone means, is told at the top; tests/test_answers.py has the cases.
    """
    found = expressions(reply)
    wanted = answer_of(answer)
    return bool(found) and wanted is not None and number(found[-1]) == wanted


def program_in(reply: str, setup: str = "") -> str:
    """The program of a reply, and the tests' own set-up after it.

    It stands in the first fence (``` or ~~~, indented or after words) that says Python. Without one
    it stands in the first that names no language, and else in the first. A fence that never ends
    goes to the end. Without a fence the program is the whole reply.
    """
    fences = list(FENCE.finditer(reply.replace("\r\n", "\n")))
    python = [fence for fence in fences if PYTHON.match(fence["info"])]
    unnamed = [fence for fence in fences if not fence["info"].strip()]
    fitting = python or unnamed or fences
    program = textwrap.dedent(fitting[0]["body"]) if fitting else reply
    return f"{program}\n{setup}" if setup else program
