"""All families of the world in one list, and what is asked of the list as a whole.

Which task a prompt poses, to which part it belongs, and tasks drawn at random.
"""

import functools
import random
import zlib

from data.world import agent, chat, code, judge, math, stem
from data.world.family import LEVELS, TRAINED, Family, Task, sorted_fields

FAMILIES = [
    *math.FAMILIES,
    *code.FAMILIES,
    *stem.FAMILIES,
    *chat.FAMILIES,
    *agent.FAMILIES,
]
BY_NAME = {family.name: family for family in FAMILIES}
DOMAINS = ("math", "code", "stem", "chat", "agent", "judge")
REASONING = ("math", "code", "stem")
MOST_MISSES = 2000  # after so many draws that were all known, a domain has no more prompts


def generator(*key) -> random.Random:
    """A random.Random that depends on the key alone.

    It is seeded by crc32, because hash() differs from one process to the next.
    """
    return random.Random(zlib.crc32(" ".join(map(str, key)).encode()))


def families_of(domain: str) -> list[Family]:
    return [family for family in FAMILIES if family.domain == domain]


def parse(prompt: str) -> Task | None:
    """The task that a prompt of the world poses, or None; ` || ` parts the turns of a dialogue."""
    for family in FAMILIES:
        task = family.parse(prompt)
        if task is not None:
            return task
    read = judge.read_judge_prompt(prompt)
    if read is None:
        return None
    question, response, frame = read
    asked = parse(question)
    if asked is None or asked.domain != "chat":
        return None
    content = sorted_fields({"question": question, "response": response})
    return Task("judge", "judge", asked.level, content, frame, prompt)


def part_of(task: Task) -> str:
    """The part of a task: "test", "dev" or "train". The phrasing counts for facts alone."""
    return BY_NAME[task.family].part(task.fields, task.phrasing)


def is_fact(task: Task) -> bool:
    """Whether the answer has to be known: it can be neither worked out nor combined."""
    return task.family in BY_NAME and BY_NAME[task.family].is_fact(task.fields)


def draw_task(
    rng: random.Random, domain: str, part: str, levels=tuple(LEVELS), phrasings=TRAINED
) -> Task:
    """Family, then level, then content, then phrasing, each uniform among what exists."""
    families = []
    for family in families_of(domain):
        existing = family.by_level(part, tuple(phrasings))
        if any(level in levels for level in existing):
            families.append(family)
    return rng.choice(families).draw(rng, part, levels, phrasings)


def draw_tasks(
    rng: random.Random,
    domains,
    count: int,
    part: str = "train",
    levels=tuple(LEVELS),
    phrasings=TRAINED,
) -> list[Task]:
    """`count` different prompts, the domains in turn; fewer where the world does not hold as many.

    For training a domain that has no more is passed over, and a line says how many it had. For
    evaluation the list ends there, so that all domains weigh the same.
    """
    tasks = []
    seen = set()
    left = list(domains)  # those that have more
    turn = 0
    misses = 0  # draws in a row that were known
    while len(tasks) < count and left:
        turn %= len(left)
        task = draw_task(rng, left[turn], part, levels, phrasings)
        if task.prompt not in seen:
            seen.add(task.prompt)
            tasks.append(task)
            turn += 1
            misses = 0
            continue
        misses += 1
        if misses < MOST_MISSES:
            continue
        if part != "train":
            break
        domain = left.pop(turn)
        misses = 0
        held = sum(task.domain == domain for task in tasks)
        at = ", ".join(map(str, levels))
        rest = ", which other domains make up" if left else ""
        say_once(
            f"{domain}: {held:,} different prompts at level {at}, and no more; "
            f"{count // len(domains):,} were to be drawn{rest}"
        )
    return tasks


@functools.cache
def say_once(line: str) -> None:
    """Prints a line the first time: several stages draw the same prompts."""
    print(line, flush=True)
