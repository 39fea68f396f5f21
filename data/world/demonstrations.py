"""What is learned from: demonstrations with their responses, plain text, the tokenizer's text."""

import random

from data.world import chat as world_chat
from data.world import code as world_code
from data.world import judge as world_judge
from data.world import math as world_math
from data.world import stem as world_stem
from data.world.agent import run_tool
from data.world.families import BY_NAME, FAMILIES, REASONING, draw_task, generator
from data.world.family import LEVELS, Task, single_step


def reference(task: Task) -> list[dict]:
    """The turns of a perfect response."""
    solution = BY_NAME[task.family].solution(task.fields)
    turns = []
    for call in solution.calls:
        turns.append({"role": "assistant", "content": "", "tool_call": call})
        turns.append({"role": "tool", "content": run_tool(call)})
    last = {"role": "assistant", "content": solution.answer}
    if solution.think:
        last["think"] = solution.think
    return [*turns, last]


def demonstration(task: Task, rng: random.Random) -> dict:
    """The task with a response to learn from.

    It is the reference solution, or for chat a response of mixed quality.
    """
    if task.domain != "chat":
        return {"messages": [*task.messages, *reference(task)]}
    others = [dict(content) for content in BY_NAME[task.family].contents("train")]
    response = world_chat.mixed_response(task.family, task.fields, others, rng)
    return {"messages": [*task.messages, {"role": "assistant", "content": response}]}


# ---- which tasks are demonstrated ----


def demonstrated(rng: random.Random, domains, count: int, levels=tuple(LEVELS)) -> list[Task]:
    """Training tasks: up to half of `count` are facts, one by one.

    The rest are drawn from all families of a domain equally often, so that the few prompts of a
    small one recur.
    """
    facts = facts_to_tell(rng, domains, levels)
    rng.shuffle(facts)
    room = count // 2
    if len(facts) > room:
        facts = most_needed_first(facts)
    tasks = facts[:room]
    for i in range(count - len(tasks)):
        tasks.append(draw_task(rng, domains[i % len(domains)], "train", levels))
    rng.shuffle(tasks)
    return tasks


def facts_to_tell(rng: random.Random, domains, levels) -> list[Task]:
    """Every fact of these domains and levels, in one of the phrasings in which it may be told."""
    tasks = []
    for family in FAMILIES:
        if family.domain not in domains:
            continue
        for level, rows in family.by_level("train").items():
            if level not in levels:
                continue
            for content, phrasings in rows:
                if family.is_fact(dict(content)):
                    tasks.append(family.task(content, rng.choice(phrasings), rng))
    return tasks


def most_needed_first(facts: list[Task]) -> list[Task]:
    """First the facts that no step of another problem tells, then single steps.

    Every step comes once, in the words of one family, before it comes in those of the others.
    """
    named = []
    steps = []
    again = []
    told = set()
    for task in facts:
        step = BY_NAME[task.family].bare(task.fields)
        if not single_step(step):
            named.append(task)
        elif step not in told:
            told.add(step)
            steps.append(task)
        else:
            again.append(task)
    return named + steps + again


# ---- the sets that the stages learn from ----


def cold_start_demonstrations(seed: int, count: int, levels=(1, 2, 3)) -> list[dict]:
    """Math, code and STEM of the lower levels."""
    rng = generator(seed, "cold_start_sft")
    return demonstrations_of(rng, REASONING, count, levels)


def demonstrations_of(rng: random.Random, domains, count: int, levels=tuple(LEVELS)) -> list[dict]:
    return [demonstration(task, rng) for task in demonstrated(rng, domains, count, levels)]


def overall_demonstrations(
    seed: int, counts: dict[str, int], levels=(2, 3, 4, 5)
) -> dict[str, list]:
    """Demonstrations by kind, as many of each as `counts` says.

    "reasoning" is a list by level (as many of each), for the curriculum. "chat", "agent", "judge"
    and "new_prompt" are plain lists.
    """
    rng = generator(seed, "overall_sft")
    each = counts["reasoning"] // len(levels)
    return {
        "reasoning": [demonstrations_of(rng, REASONING, each, (level,)) for level in levels],
        "chat": demonstrations_of(rng, ("chat",), counts["chat"]),
        "agent": demonstrations_of(rng, ("agent",), counts["agent"]),
        "judge": [world_judge.judge_demonstration(rng) for _ in range(counts["judge"])],
        "new_prompt": [
            world_judge.new_prompt_demonstration(rng) for _ in range(counts["new_prompt"])
        ],
    }


# ---- plain text ----

# module -> its share of the pretraining text
SHARES = {world_math: 0.5, world_stem: 0.2, world_code: 0.15, world_chat: 0.15}


def documents(seed: int, count: int) -> list[str]:
    """Plain text for pretraining: facts, tables, code with its output, small talk.

    It has no chat marks and no instructions.
    """
    rng = generator(seed, "pretrain")
    texts = []
    for module, share in SHARES.items():
        texts += module.documents(rng, round(count * share))
    rng.shuffle(texts)
    return texts


def tokenizer_text() -> list[str]:
    """What the tokenizer's merges are learned from: a fixed sample of all that the world writes."""
    texts = documents(0, 3000)
    counts = {"reasoning": 4000, "chat": 2000, "agent": 1500, "judge": 800, "new_prompt": 500}
    overall = overall_demonstrations(0, counts)
    records = cold_start_demonstrations(0, 3000)
    for level in overall["reasoning"]:
        records += level
    for kind in ("chat", "agent", "judge", "new_prompt"):
        records += overall[kind]
    for record in records:
        for message in record["messages"]:
            texts += [message.get("think", ""), message.get("tool_call", ""), message["content"]]
    return texts
