"""The tiny world: every prompt, demonstration and check that the tiny run needs, made from a seed.

    python -m data.world --show 50     samples of what it generates
    python -m data.world --stats       how many different problems exist, by family and level
    python -m data.world --tokenizer   trains the tokenizer on its text, writes data/tiny.tiktoken

Because the world is ours, the true quality of any response can be computed. A problem is a content
(47 and 38, to be added) in one of its family's phrasings.

The split is by content. About a tenth of every family's contents is for testing and a twentieth for
development, and no demonstration or query is made of them. The order of operands does not count:
38 + 47 is held out with 47 + 38, and so is the word problem that asks for it.

A fact, such as what a cow does, cannot be worked out. Neither can a single step, such as 8 + 7, on
which all worked steps rest. Each is told, and what is held out is the pair of fact and phrasing.
Two facts together are held out as other pairs are.

The last phrasing of every family is never trained on and is measured as a column of its own. The
evaluation prompts depend on nothing but WORLD_VERSION: on no run's seed and on no setting.

Where to read on: family.py (a family, the split), math.py (the simplest families), chat.py (the
rubric), demonstrations.py (what is learned from). What checks a response stands below.
"""

import hashlib

from data.files import real
from data.files.tokenizer import Reply
from data.runtime import sandbox
from data.world import answers
from data.world import code as world_code
from data.world import judge as world_judge
from data.world.agent import run_tool
from data.world.calculator import parse_number, same_number
from data.world.demonstrations import (
    cold_start_demonstrations,
    demonstrated,
    demonstration,
    documents,
    overall_demonstrations,
    reference,
    tokenizer_text,
)
from data.world.families import (
    BY_NAME,
    DOMAINS,
    FAMILIES,
    REASONING,
    draw_task,
    draw_tasks,
    families_of,
    generator,
    is_fact,
    parse,
    part_of,
    say_once,
)
from data.world.family import TRAINED, UNSEEN, Family, Task

# what is made elsewhere and belongs to the world all the same
__all__ = [
    "FAMILIES",
    "REASONING",
    "TRAINED",
    "Family",
    "cold_start_demonstrations",
    "demonstrated",
    "demonstration",
    "documents",
    "draw_task",
    "families_of",
    "is_fact",
    "overall_demonstrations",
    "parse",
    "part_of",
    "reference",
    "run_tool",
    "say_once",
    "tokenizer_text",
]

WORLD_VERSION = 3


# ---- evaluation ----


def evaluation_tasks(domain: str, count: int, part: str = "test") -> list[Task]:
    """The fixed prompts of a domain; a shorter list is the start of a longer one.

    "phrasing" is the column of never-trained phrasings, over all domains but judge.
    """
    rng = generator(WORLD_VERSION, "evaluation", domain, part)
    if domain == "phrasing":
        return draw_tasks(rng, DOMAINS[:5], count, part, phrasings=(UNSEEN,))
    return draw_tasks(rng, (domain,), count, part)


def evaluation_judge_pairs(count: int, part: str = "test") -> list[tuple[Task, str, str]]:
    """(chat task, response, response) with different true rewards, for the judge's agreement."""
    rng = generator(WORLD_VERSION, "evaluation", "judge", part)
    return [world_judge.judge_pair(rng, part) for _ in range(count)]


def evaluation_hash() -> str:
    """A digest of every prompt that evaluation can use.

    A test holds it, so that no change goes unseen.
    """
    texts = []
    for part in ("test", "dev"):
        for domain in (*DOMAINS[:5], "phrasing"):
            texts += [task.prompt for task in evaluation_tasks(domain, 1000, part)]
    for part in ("test", "dev"):
        for task, first, second in evaluation_judge_pairs(1000, part):
            texts.append(f"{task.prompt}\n{first}\n{second}")
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


# ---- checking ----


def same_value_and_unit(answer: str, expected: str) -> bool:
    """`3000 m` matches `3000 m` and `3000.0 m`, not `3000` and not `3000 cm`.

    An expected answer without a number is a name. A fraction counts only where the expected answer
    is one: `84/7` is no answer to "What is 84 / 7?", and `7/2` none to "What is 7 / 2?".
    """
    value, _, unit = expected.partition(" ")
    if parse_number(value) is None:
        # in ASCII, or the Kelvin sign would be a k
        return answer.isascii() and answer.strip().lower() == expected.lower()
    given, _, given_unit = answer.strip().partition(" ")
    fraction_is_right = "/" in value or "/" not in given
    return given_unit.strip() == unit and same_number(given, value) and fraction_is_right


def same_answer(answer: str, expected: str) -> bool:
    """Equal values with equal units, or equal names.

    `Tom by 9 years` is two answers, and both must be right.
    """
    given = answer.split(" by ")
    wanted = expected.split(" by ")
    return len(given) == len(wanted) and all(map(same_value_and_unit, given, wanted))


def made_calls(reply: Reply, wanted: tuple[str, ...]) -> bool:
    """Whether the reply made the reference's calls, in any order, and none that failed.

    Spaces inside a call do not count. Further calls that succeed are allowed: they tell the truth
    and change nothing.
    """
    made = {call.replace(" ", "") for call, _ in reply.calls}
    worked = all(result not in ("", "error") for _, result in reply.calls)
    return worked and made >= {call.replace(" ", "") for call in wanted}


def score_replies(tasks: list[Task], replies: list[Reply]) -> list[float | None]:
    """The truth about each reply: 1 or 0 for right and wrong, for chat the rubric's score over 5.

    A reply without its end mark scores 0. A score is None where a program could not be run
    (`--no-exec`, or the sandbox failed), and for chat of real files, where nobody knows the truth.
    """
    scores: list[float | None] = [0.0] * len(tasks)
    programs = []  # (index, source, tests)
    for i, (task, reply) in enumerate(zip(tasks, replies)):
        if not reply.complete:
            continue
        program = program_to_run(task, reply)
        if program is None:
            scores[i] = score_text(task, reply)
        else:
            programs.append((i, *program))
    if programs:
        # samples of one prompt are often the same text, which needs running once
        jobs = {(source, repr(tests)): (source, tests) for _, source, tests in programs}
        verdicts = dict(zip(jobs, sandbox.passes_tests(list(jobs.values()))))
        for i, source, tests in programs:
            passed = verdicts[source, repr(tests)]
            scores[i] = None if passed is None else float(passed)
    return scores


def program_to_run(task, reply: Reply) -> tuple[str, list] | None:
    """(source, tests) where tests decide, or None where the text does."""
    if task.domain != "code":
        return None
    if isinstance(task, real.Task):
        return answers.program_in(reply.content, task.setup), list(task.tests)
    tests = world_code.hidden_tests(task.family, task.fields)
    return None if tests is None else (reply.content, tests)


def score_text(task, reply: Reply) -> float | None:
    """The score of a reply by its text and its calls."""
    if isinstance(task, real.Task):
        if task.domain == "math":
            return float(answers.same_answer(reply.content, task.answer))
        return None
    if task.domain == "chat":
        return world_judge.true_reward(task, reply.content) / 5
    if task.family not in BY_NAME:
        raise ValueError(f"nothing checks the family {task.family!r}")
    solution = BY_NAME[task.family].solution(task.fields)
    if task.domain == "code":
        return float(reply.content.strip() == solution.answer)
    right = same_answer(reply.content, solution.answer)
    return float(right and made_calls(reply, solution.calls))


def pairwise_agreement(
    first: float | None, second: float | None, true_first: float, true_second: float
) -> float:
    """1 where two verdicts order two responses as the truth does, 0.5 where they tie, else 0.

    A verdict without a score counts as wrong.
    """
    if first is None or second is None:
        return 0.0
    if first == second:
        return 0.5
    return float((first > second) == (true_first > true_second))
