"""Judging and asking: the two skills that the self-rewarding loop needs beside answering.

A judge prompt shows a question with a response and asks for a score. The verdict names what the
response is and is not, one word for each criterion of the rubric, and ends with `Score: n`. Of a
response that is off topic it says nothing else. A new-prompt request shows two to four questions
and asks for another one.
"""

import random
import re

from data.world import chat as world_chat
from data.world.chat import CRITERIA, judge_by_rubric
from data.world.chat_answers import rubric_of
from data.world.family import LEVELS, TRAINED, Task

# criterion -> the word where it is met, and where it is not
VERDICT_WORDS = {
    "relevant": ("relevant", "off topic"),
    "correct": ("correct", "wrong"),
    "complete": ("complete", "incomplete"),
    "polite": ("polite", "impolite"),
    "concise": ("concise", "wordy"),
}
JUDGE_FRAMES = (
    "Rate this response from 0 to 5.",
    "How good is this response, from 0 to 5?",
    "Give this response a score from 0 to 5.",
    "Judge this response on a scale from 0 to 5.",
    "What score from 0 to 5 does this response deserve?",
)
NEW_PROMPT_FRAMES = (
    "Write a new question like these:",
    "Here are some questions. Write another one:",
    "Think of one more question like these:",
    "Add a question to this list:",
    "Invent a further question of this kind:",
)
SINGLE_TURN = [family for family in world_chat.FAMILIES if family.name != "memory"]


# ---- the truth ----


def criteria_met(task: Task, response: str) -> dict[str, bool]:
    """Which of the rubric's five criteria a response to a chat task meets."""
    return judge_by_rubric(rubric_of(task.family, task.content), response)


def true_reward(task: Task, response: str) -> int:
    """The rubric's score of a response to a chat task, from 0 to 5."""
    return sum(criteria_met(task, response).values())


# ---- judging ----


def judge_prompt(question: str, response: str, frame: int = 0) -> str:
    return f"{JUDGE_FRAMES[frame]}\nQuestion: {question}\nResponse: {response}"


def read_judge_prompt(prompt: str) -> tuple[str, str, int] | None:
    """(question, response, frame) of a judge prompt, or None."""
    match = re.fullmatch(r"(.+)\nQuestion: (.+?)\nResponse: (.*)", prompt, re.DOTALL)
    if match is None or match[1] not in JUDGE_FRAMES:
        return None
    return match[2], match[3], JUDGE_FRAMES.index(match[1])


def verdict(task: Task, response: str) -> str:
    """The perfect judge's text: the justification, then the score."""
    met = criteria_met(task, response)
    words = [VERDICT_WORDS[name][0 if met[name] else 1] for name in CRITERIA]
    justification = ", ".join(words) if met["relevant"] else words[0]
    return f"{justification}. Score: {sum(met.values())}"


def parse_verdict(text: str) -> float | None:
    """The score in a verdict, or None where there is not exactly one `Score: n` from 0 to 5.

    `Score: 4`, `Score: 4.5` and `Score: 4/5` are valid. `Score: five`, `Score: 7`, digits of
    another script and two scores are not.
    """
    found = re.findall(r"Score:\s*(\S+)", text)
    if len(found) != 1:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:/5)?[.,;]?", found[0])
    if match is None or float(match[1]) > 5:
        return None
    return float(match[1])


# ---- what is drawn ----


def chat_task(rng: random.Random, part: str, families: list) -> Task:
    return rng.choice(families).draw(rng, part, LEVELS, TRAINED)


def response_to(task: Task, rng: random.Random) -> str:
    """A response of mixed quality.

    Every other one is drawn until its score is a random one, so that all scores occur.
    """
    family = next(family for family in world_chat.FAMILIES if family.name == task.family)
    others = [dict(content) for content in family.contents("train")]
    wanted = rng.randrange(6) if rng.random() < 0.5 else None
    for _ in range(12):
        text = world_chat.mixed_response(task.family, task.fields, others, rng)
        if wanted is None or true_reward(task, text) == wanted:
            break
    return text


def judge_demonstration(rng: random.Random, frames: int = 4) -> dict:
    task = chat_task(rng, "train", world_chat.FAMILIES)
    response = response_to(task, rng)
    prompt = judge_prompt(task.prompt, response, rng.randrange(frames))
    return one_turn(prompt, verdict(task, response))


def judge_pair(rng: random.Random, part: str) -> tuple[Task, str, str]:
    """A chat task with two responses whose true rewards differ."""
    while True:
        task = chat_task(rng, part, world_chat.FAMILIES)
        first = response_to(task, rng)
        second = response_to(task, rng)
        if true_reward(task, first) != true_reward(task, second):
            return task, first, second


def new_prompt_request(examples: list[str], frame: int = 0) -> str:
    return "\n".join([NEW_PROMPT_FRAMES[frame], *(f"- {example}" for example in examples)])


def new_prompt_demonstration(rng: random.Random) -> dict:
    tasks = [chat_task(rng, "train", SINGLE_TURN) for _ in range(rng.randint(3, 5))]
    *examples, target = [task.prompt for task in tasks]
    return one_turn(new_prompt_request(examples, rng.randrange(4)), target)


def one_turn(prompt: str, response: str) -> dict:
    """A demonstration of one question and its response."""
    question = {"role": "user", "content": prompt}
    return {"messages": [question, {"role": "assistant", "content": response}]}
