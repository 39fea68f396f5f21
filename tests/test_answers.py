"""data/world/answers.py: which number a reply ends on, case by case, and which program it holds."""

import pytest

from data import world
from data.files import real, writing
from data.files.tokenizer import Reply
from data.world.answers import answer_of, program_in, same_answer

RIGHT = [  # (reply, answer)
    ("72", "72"),
    ("72.0", "72"),
    ("007", "7"),
    ("+5", "5"),
    ("72.", "72"),
    ("72!", "72"),
    ("(72)", "72"),
    ("so 48/2 = 24, and 72", "72"),
    ("72 or 73", "73"),
    ("1, 2, 3", "3"),
    ("72\n73", "73"),
    ("#### 72", "72"),
    ("Answer:72", "72"),
    ("it takes a 72", "72"),
    ("(so 72)", "72"),
    ("(a) 72", "72"),
    ("- 72", "72"),
    ("~72", "72"),
    # minus
    ("minus: -5", "-5"),
    ("\u22125", "-5"),
    ("-5", "\u22125"),
    ("\u20135", "-5"),
    ("x = - 5", "-5"),
    ("(-5)", "-5"),
    ("8 \u2212 3 = 5", "5"),
    ("the answer\u201472", "72"),  # a long dash parts
    # fractions and decimals
    ("0.5", "1/2"),
    ("it is 1/2", "1/2"),
    (".5", ".5"),
    ("-.5", "-0.5"),
    (r"\frac{1}{2}", "1/2"),
    (r"\dfrac12", "0.5"),
    (r"$-\frac{1}{2}$", "-1/2"),
    (r"\boxed{-\frac{1}{2}}", "-0.5"),
    ("2 1/2", "5/2"),
    (r"2\frac{1}{2}", "2.5"),
    ("2\u00bd", "2.5"),
    ("-\u00bd", "-1/2"),
    ("-2 1/2", "-2.5"),
    # thousands and exponents
    ("It is 1,072.", "1072"),
    ("1,234,567.50", "1234567.5"),
    ("1 000", "1000"),
    ("1\u202f000", "1000"),
    ("1\u00a0234\u00a0567", "1234567"),
    (r"1\,000", "1000"),
    ("5e3", "5000"),
    ("5E-1", "0.5"),
    ("1e999", "1e999"),
    # what is beside it
    ("50%", "50"),
    (r"50\%", "50"),
    ("50", "50%"),
    ("12 (in 3 days)", "12"),
    ("12", "12 (in 3 days)"),
    ("$72", "72"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("72 \u20ac", "72"),
    ("72 apples", "72"),
    ("72km", "72"),
    ("60 km/h", "60"),
    ("3rd", "3"),
    ("**72**", "72"),
    ("*72*.", "72"),
    (r"$\boxed{72}$", "72"),
    (r"\(72\)", "72"),
    ("5 x 3 = 15", "15"),
    # digits of other scripts
    ("\uff17\uff12", "72"),
    ("\u0667\u0662", "72"),
    ("\u7b54\u6848\u662f72\u3002", "72"),
    ("72 \u200bapples", "72"),
]
WRONG = [
    ("none", "72"),
    ("", "72"),
    ("72 or 73", "72"),
    ("it is 1/2", "2"),
    ("\u22125", "5"),
    ("50%", "0.5"),
    ("1e999", "1e998"),
    ("12 (in 3 days)", "3"),
    (r"\frac{1}{2}", "2"),
    ("2 1/2", "1/2"),
    ("1 000", "0"),
    ("5e3", "3"),
    # no number is taken out of what is longer
    ("8-3", "-3"),
    ("8-3", "3"),
    ("8-3", "5"),
    ("8 - 3", "3"),
    ("8+3", "3"),
    ("5 - 1/2", "1/2"),
    ("10\u201315", "15"),
    ("2^5", "5"),
    ("2^{5}", "5"),
    ("2**5", "5"),
    ("2 ** 5", "5"),
    ("2\u00b2", "2"),
    ("5 * 10^3", "3"),
    ("5 x 3", "3"),
    ("7 % 3", "3"),
    (r"\boxed{8-3}", "3"),
    (r"\frac{x}{2}", "2"),
    ("3x", "3"),
    ("2\u03c0", "2"),
    ("x-3", "-3"),
    ("gpt-4", "-4"),
    ("x + 3", "3"),
    ("5 + x", "5"),
    ("f(5)", "5"),
    ("f(x)+3", "3"),
    ("sqrt(16)", "16"),
    (r"\sqrt{16}", "16"),
    (r"\sqrt 16", "16"),
    ("\u221a2", "2"),
    ("\u00b15", "5"),
    ("|-5|", "-5"),
    ("2(5)", "5"),
    ("72 kg of CO2", "2"),
    ("5m", "5"),
    ("1,2,3", "3"),
    ("1,2,3", "123"),
    ("1,23", "23"),
    ("1.234,5", "5"),
    ("1 2 3", "3"),
    ("2023 500", "500"),
    ("3.14.15", "15"),
    ("12:30", "30"),
    ("1/2/2024", "2024"),
    ("1/0", "1/0"),
    ("1'000", "1000"),
    ("1_000", "0"),
    # an answer that says no number is nobody's
    ("72", "72 or 73"),
    ("3", "1,2,3"),
    ("x", "x"),
    ("9" * 70, "9" * 70),
    ("1e9999", "1e9999"),
]


@pytest.mark.parametrize("reply, answer", RIGHT)
def test_the_number_that_a_reply_ends_on_counts(reply, answer):
    task = real.Task("math", "?", (("user", "?"),), answer)
    assert same_answer(reply, answer) and world.score_replies([task], [Reply(reply)]) == [1.0]


@pytest.mark.parametrize("reply, answer", WRONG)
def test_no_other_number_counts(reply, answer):
    task = real.Task("math", "?", (("user", "?"),), answer)
    assert not same_answer(reply, answer) and world.score_replies([task], [Reply(reply)]) == [0.0]


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 3000,
        "1," * 3000,
        "`" * 6000,
        "*a" * 3000,
        "(a " * 3000,
        "a" * 6000,
        "9" * 6000,
        "\\frac{" * 1000,
        "~~~\n" * 1000,
        "\ud800",
    ],
)
def test_no_text_is_too_odd_to_be_read(text):
    assert not same_answer(text, "1") and isinstance(program_in(text), str)


@pytest.mark.parametrize(
    "answer, value", [("50%", 50), ("1e999", 10**999), ("12 (in 3 days)", 12), ("1,2,3", None)]
)
def test_an_answer_says_one_number_or_cannot_be_checked_by(answer, value):
    assert answer_of(answer) == value


def test_a_record_whose_answer_is_no_number_is_dropped_and_counted(tmp_path):
    """Kept, every reply to it would be wrong, whatever it says."""

    def record(k):
        turns = [{"role": "user", "content": f"{k}?"}, {"role": "assistant", "content": "7"}]
        return {"messages": turns, "answer": "1,2,3" if k % 4 == 0 else "7"}

    def program(k):
        return {"text": f"Set x {k}.", "code": "x = 1", "test_list": ["assert x == 1"]}

    def pair(k):
        return {"prompt": f"Is it {k}?", "chosen": "Yes.", "rejected": "No."}

    for name, make in (("math", record), ("code", program), ("preference", pair)):
        writing.write_jsonl(tmp_path / f"{name}.jsonl", [make(k) for k in range(100)])
    read = real.read_folder(tmp_path)
    assert read.dropped == {"an answer that is no number": 25}
    assert sum(len(tasks["math"]) for tasks in read.tasks.values()) == 75


# ---- programs ----

P = "def f(x):\n    return x"


@pytest.mark.parametrize(
    "reply",
    [
        P,
        f"```\n{P}\n```",
        f"Sure:\n```python\n{P}\n```\nDone.",
        f"```python3\n{P}\n```",
        f"```py\n{P}\n```",
        f"```Python3.11\n{P}\n```",
        f"``` {{.python}}\n{P}\n```",
        f'```python title="f.py"\n{P}\n```',
        f"~~~\n{P}\n~~~",
        f"~~~python\n{P}\n~~~\nDone.",
        f"````python\n{P}\n````",
        f"```python\n{P}",
        f"```python\n{P}```\nDone.",
        f"Here: ```python\n{P}\n```",
        f"Use `f`: ```python\n{P}\n```",
        f"```bash\npip install x\n```\nThen:\n```python\n{P}\n```",
        f"```\npip install x\n```\n```python\n{P}\n```",
        f"```sh\nls\n```\n~~~\n{P}\n~~~",
        f"```pycon\n>>> f(1)\n```\n```py\n{P}\n```",
        f"an ```inline``` one\n```\n{P}\n```",
        "1. So:\n   ```python\n   def f(x):\n       return x\n   ```\n",
        "```python\r\ndef f(x):\r\n    return x\r\n```",
        f"```python\n{P}\n```\n```python\nprint(f(1))\n```",
    ],
)
def test_the_program_is_what_stands_in_the_fence(reply):
    assert program_in(reply).strip() == P
    assert program_in(reply, "UNIT = 1").endswith("\nUNIT = 1")


def test_a_fence_within_a_line_of_the_program_ends_nothing():
    assert program_in("```python\ns = '```'\nx = 1\n```") == "s = '```'\nx = 1\n"
