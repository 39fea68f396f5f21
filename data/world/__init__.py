"""The tiny world: every prompt, demonstration and check that the tiny run needs, made from a seed.

    python -m data.world --show 50     samples of what it generates
    python -m data.world --stats       how many different problems exist, by family and level
    python -m data.world --tokenizer   trains the tokenizer on its text and writes data/tiny.tiktoken

Because the world is ours, the true quality of any response can be computed. A problem is a content (47 and 38, to be
added) in one of its family's phrasings. The split is by content: about a tenth of every family's contents is for testing, a
twentieth for development, and no demonstration or query is made of them; the order of operands does not count, so 38 + 47
is held out with 47 + 38, and so is the word problem that asks for it. A fact, such as what a cow
does, cannot be worked out, and neither can a single step, such as 8 + 7, on which all worked steps
rest: each is told, and what is held out is the pair of fact and phrasing; two facts together are
held out as other pairs are.
The last phrasing of every family is never trained on and is measured as a column of its own.
The evaluation prompts depend on nothing but WORLD_VERSION: not on a run's seed, not on its settings.
"""

import functools
import hashlib
import random
import zlib

from data.files import real
from data.files.tokenizer import Reply
from data.runtime import sandbox
from data.world import agent as world_agent
from data.world import answers
from data.world import chat as world_chat
from data.world import code as world_code
from data.world import judge as world_judge
from data.world import math as world_math
from data.world import stem as world_stem
from data.world.calculator import parse_number, same_number
from data.world.family import TRAINED, UNSEEN, Family, Task, single_step

WORLD_VERSION = 3
FAMILIES = [*world_math.FAMILIES, *world_code.FAMILIES, *world_stem.FAMILIES, *world_chat.FAMILIES, *world_agent.FAMILIES]
BY_NAME = {family.name: family for family in FAMILIES}
DOMAINS = ("math", "code", "stem", "chat", "agent", "judge")
REASONING = ("math", "code", "stem")
run_tool = world_agent.run_tool


def generator(*key) -> random.Random:
    """A random.Random that depends on the key alone; crc32, because hash() differs from one process to the next."""
    return random.Random(zlib.crc32(" ".join(map(str, key)).encode()))


def families_of(domain: str) -> list[Family]:
    return [family for family in FAMILIES if family.domain == domain]


def parse(prompt: str) -> Task | None:
    """The task that a prompt of the world poses, or None. Dialogue turns are separated by ` || `."""
    for family in FAMILIES:
        if task := family.parse(prompt):
            return task
    if read := world_judge.read_judge_prompt(prompt):
        question, response, frame = read
        if (task := parse(question)) and task.domain == "chat":
            return Task("judge", "judge", task.level, (("question", question), ("response", response)), frame, prompt)
    return None


def part_of(task: Task) -> str:
    """"test", "dev" or "train"; the phrasing that is never trained on counts for facts alone."""
    return BY_NAME[task.family].part(task.fields, task.phrasing)


def is_fact(task: Task) -> bool:
    """Whether the answer has to be known: nothing in the world lets it be worked out or combined."""
    return task.family in BY_NAME and BY_NAME[task.family].is_fact(task.fields)


def draw_task(rng: random.Random, domain: str, part: str, levels=(1, 2, 3, 4, 5), phrasings=TRAINED) -> Task:
    """Family, then level, then content, each uniform among what exists."""
    families = [family for family in families_of(domain)
                if any(level in levels for level in family.by_level(part, tuple(phrasings)))]
    return rng.choice(families).draw(rng, part, levels, phrasings)


def draw_tasks(rng: random.Random, domains, count: int, part: str = "train", levels=(1, 2, 3, 4, 5), phrasings=TRAINED) -> list[Task]:
    """`count` different prompts, the domains in turn; fewer where the world does not hold as many.

    For training a domain that has no more is passed over, and a line says how many it had. For
    evaluation the list ends there, so that all domains weigh the same.
    """
    tasks, seen, misses, left, turn = [], set(), 0, list(domains), 0
    while len(tasks) < count and left:
        turn %= len(left)
        task = draw_task(rng, left[turn], part, levels, phrasings)
        if task.prompt not in seen:
            seen.add(task.prompt)
            tasks.append(task)
            turn, misses = turn + 1, 0
        elif misses < 1999:
            misses += 1
        elif part == "train":  # 2000 draws in a row were known
            domain, misses = left.pop(turn), 0
            held = sum(task.domain == domain for task in tasks)
            rest = ", which other domains make up" if left else ""
            at = ", ".join(map(str, levels))
            say_once(f"{domain}: {held:,} different prompts at level {at}, and no more; "
                     f"{count // len(domains):,} were to be drawn{rest}")
        else:
            break
    return tasks


@functools.cache
def say_once(line: str) -> None:
    """Prints a line the first time: several stages draw the same prompts."""
    print(line, flush=True)


def demonstrated(rng: random.Random, domains, count: int, levels=(1, 2, 3, 4, 5)) -> list[Task]:
    """Training tasks: up to half of `count` are facts, one by one; the rest are drawn from all
    families of a domain equally often, so that the few prompts of a small one recur.

    Where there is no room for all facts of these domains and levels, those come first that no step
    of another problem tells, then every single step in the words of one family, then of the others.
    """
    facts = [family.task(content, rng.choice(phrasings), rng) for family in FAMILIES if family.domain in domains
             for level, rows in family.by_level("train").items() if level in levels
             for content, phrasings in rows if family.is_fact(dict(content))]
    rng.shuffle(facts)
    if len(facts) > count // 2:
        told = {}

        def turn(task: Task) -> int:
            step = BY_NAME[task.family].bare(task.fields)
            if not single_step(step):
                return 0
            return 1 if told.setdefault(step, task) is task else 2

        facts.sort(key=turn)
    tasks = facts[:count // 2]
    tasks += [draw_task(rng, domains[i % len(domains)], "train", levels) for i in range(count - len(tasks))]
    rng.shuffle(tasks)
    return tasks


def demonstration(task: Task, rng: random.Random) -> dict:
    """The task with a response to learn from: the reference solution, or for chat a response of mixed quality."""
    if task.domain == "chat":
        others = [dict(content) for content in BY_NAME[task.family].contents("train")]
        return {"messages": [*task.messages, {"role": "assistant", "content": world_chat.mixed_response(task.family, task.fields, others, rng)}]}
    return {"messages": [*task.messages, *reference(task)]}


def reference(task: Task) -> list[dict]:
    """The turns of a perfect response."""
    solution = BY_NAME[task.family].solution(task.fields)
    turns = []
    for call in solution.calls:
        turns += [{"role": "assistant", "content": "", "tool_call": call}, {"role": "tool", "content": run_tool(call)}]
    last = {"role": "assistant", "content": solution.answer}
    return [*turns, last | {"think": solution.think} if solution.think else last]


def cold_start_demonstrations(seed: int, count: int, levels=(1, 2, 3)) -> list[dict]:
    """Math, code and STEM of the lower levels."""
    rng = generator(seed, "cold_start_sft")
    return [demonstration(task, rng) for task in demonstrated(rng, REASONING, count, levels)]


def overall_demonstrations(seed: int, counts: dict[str, int], levels=(2, 3, 4, 5)) -> dict[str, list]:
    """Demonstrations by kind, as many of each as `counts` says.

    "reasoning" is a list by level (as many of each), for the curriculum; chat, agent, judge and new_prompt are plain lists.
    """
    rng = generator(seed, "overall_sft")
    by_level = [[demonstration(task, rng) for task in demonstrated(rng, REASONING, counts["reasoning"] // len(levels), (level,))]
                for level in levels]
    return {"reasoning": by_level,
            "chat": [demonstration(task, rng) for task in demonstrated(rng, ("chat",), counts["chat"])],
            "agent": [demonstration(task, rng) for task in demonstrated(rng, ("agent",), counts["agent"])],
            "judge": [world_judge.judge_demonstration(rng) for _ in range(counts["judge"])],
            "new_prompt": [world_judge.new_prompt_demonstration(rng) for _ in range(counts["new_prompt"])]}


def documents(seed: int, count: int) -> list[str]:
    """Plain text for pretraining: facts, tables, code with its output, small talk; no chat marks, no instructions."""
    rng = generator(seed, "pretrain")
    shares = {world_math: 0.5, world_stem: 0.2, world_code: 0.15, world_chat: 0.15}
    texts = [text for part, share in shares.items() for text in part.documents(rng, round(count * share))]
    rng.shuffle(texts)
    return texts


def tokenizer_text() -> list[str]:
    """What the tokenizer's merges are learned from: a fixed sample of everything the world writes."""
    texts = documents(0, 3000)
    overall = overall_demonstrations(0, {"reasoning": 4000, "chat": 2000, "agent": 1500, "judge": 800, "new_prompt": 500})
    for record in cold_start_demonstrations(0, 3000) + sum(overall["reasoning"], []) + sum((overall[k] for k in ("chat", "agent", "judge", "new_prompt")), []):
        for message in record["messages"]:
            texts += [message.get("think", ""), message.get("tool_call", ""), message["content"]]
    return texts


def evaluation_tasks(domain: str, count: int, part: str = "test") -> list[Task]:
    """The fixed prompts of a domain; a shorter list is the start of a longer one.

    "phrasing" is the column of never-trained phrasings, over all domains but judge.
    """
    rng = generator(WORLD_VERSION, "evaluation", domain, part)
    if domain == "phrasing":
        return draw_tasks(rng, DOMAINS[:5], count, part, phrasings=(UNSEEN,))
    return draw_tasks(rng, (domain,), count, part)


def evaluation_judge_pairs(count: int, part: str = "test") -> list[tuple[Task, str, str]]:
    """(chat task, response, response) with different true rewards, for the judge's pairwise agreement."""
    rng = generator(WORLD_VERSION, "evaluation", "judge", part)
    return [world_judge.judge_pair(rng, part) for _ in range(count)]


def evaluation_hash() -> str:
    """A digest of every prompt that evaluation can use; a test holds it, so that no change goes unseen."""
    texts = [task.prompt for part in ("test", "dev") for domain in (*DOMAINS[:5], "phrasing") for task in evaluation_tasks(domain, 1000, part)]
    texts += [f"{task.prompt}\n{a}\n{b}" for part in ("test", "dev") for task, a, b in evaluation_judge_pairs(1000, part)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


# ---- checking ----

def same_value_and_unit(answer: str, expected: str) -> bool:
    """`3000 m` matches `3000 m` and `3000.0 m`, not `3000` and not `3000 cm`; an answer without a number is a name.

    A fraction counts only where the answer is one: `84/7` is no answer to "What is 84 / 7?" and `7/2` none to "7 / 2".
    """
    value, _, unit = expected.partition(" ")
    if parse_number(value) is None:
        # in ASCII, or the Kelvin sign would be a k
        return answer.isascii() and answer.strip().lower() == expected.lower()
    got, _, got_unit = answer.strip().partition(" ")
    return got_unit.strip() == unit and same_number(got, value) and ("/" in value or "/" not in got)


def same_answer(answer: str, expected: str) -> bool:
    """Equal values with equal units, or equal names; `Tom by 9 years` is two answers, and both must be right."""
    given, wanted = answer.split(" by "), expected.split(" by ")
    return len(given) == len(wanted) and all(map(same_value_and_unit, given, wanted))


def made_calls(reply: Reply, wanted: tuple[str, ...]) -> bool:
    """Whether the reply made the reference's calls, in any order, and none that failed.

    Spaces inside a call do not count. Further calls that succeed are allowed: they tell the truth and change nothing.
    """
    made = {call.replace(" ", "") for call, _ in reply.calls}
    worked = all(result not in ("", "error") for _, result in reply.calls)
    return worked and made >= {call.replace(" ", "") for call in wanted}


def score_replies(tasks: list[Task], replies: list[Reply]) -> list[float | None]:
    """The truth about each reply: 1 or 0 for right and wrong, the rubric's score divided by 5 for chat.

    A reply without its end mark scores 0. None where a program could not be run (`--no-exec`, or the sandbox failed), and for
    chat of real files, where nobody knows the truth.
    """
    scores: list[float | None] = [0.0] * len(tasks)
    programs = []
    for i, (task, reply) in enumerate(zip(tasks, replies)):
        if not reply.complete:
            continue
        if isinstance(task, real.Task):
            if task.domain == "code":
                programs.append((i, answers.program_in(reply.content, task.setup), list(task.tests)))
            else:
                scores[i] = float(answers.same_answer(reply.content, task.answer)) if task.domain == "math" else None
            continue
        if task.domain == "chat":
            scores[i] = world_judge.true_reward(task, reply.content) / 5
            continue
        if task.domain == "code" and (tests := world_code.hidden_tests(task.family, task.fields)) is not None:
            programs.append((i, reply.content, tests))
            continue
        if task.family not in BY_NAME:
            raise ValueError(f"nothing checks the family {task.family!r}")
        solution = BY_NAME[task.family].solution(task.fields)
        if task.domain == "code":
            scores[i] = float(reply.content.strip() == solution.answer)
        else:
            scores[i] = float(same_answer(reply.content, solution.answer) and made_calls(reply, solution.calls))
    if programs:  # samples of one prompt are often the same text, which needs running once
        jobs = {(source, repr(tests)): (source, tests) for _, source, tests in programs}
        verdicts = dict(zip(jobs, sandbox.passes_tests(list(jobs.values()))))
        for i, source, tests in programs:
            passed = verdicts[source, repr(tests)]
            scores[i] = None if passed is None else float(passed)
    return scores


def pairwise_agreement(first: float | None, second: float | None, true_first: float, true_second: float) -> float:
    """1 where two verdicts order two responses as the truth does, 0.5 where they tie, 0 where they do not or one has no score."""
    if first is None or second is None:
        return 0.0
    if first == second:
        return 0.5
    return float((first > second) == (true_first > true_second))
