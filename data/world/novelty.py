"""Is a prompt that a model has written new? By its form, its length, and its likeness to others."""

import functools
import re
from collections import Counter

from data import world
from data.world import judge as world_judge


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def rouge_l(a: list[str], b: list[str]) -> float:
    """F1 of the longest common subsequence of two word lists (Lin 2004), 0 to 1."""
    if not a or not b:
        return 0.0
    row = [0] * (len(b) + 1)  # the longest of a's words so far and b's first j
    for word in a:
        diagonal = 0
        for j, other in enumerate(b):
            above = row[j + 1]
            row[j + 1] = diagonal + 1 if word == other else max(above, row[j])
            diagonal = above
    return 2 * row[-1] / (len(a) + len(b))


def near_any(words: list[str], others: list[list[str]], limit: float) -> bool:
    """Whether ROUGE-L to one of the others reaches the limit.

    The lengths and the words in common bound it, and cost less to count.
    """
    known = set(words)
    for other in others:
        needed = limit * (len(words) + len(other))
        if 2 * min(len(words), len(other)) < needed:
            continue
        if 2 * sum(word in known for word in other) >= needed and rouge_l(words, other) >= limit:
            return True
    return False


@functools.cache
def evaluation_words() -> frozenset[str]:
    """The words of every chat prompt that evaluation can use, without case and punctuation."""
    tasks = []
    for part in ("test", "dev"):
        for domain in ("chat", "phrasing"):
            tasks += world.evaluation_tasks(domain, 1000, part)
        tasks += [task for task, *_ in world.evaluation_judge_pairs(1000, part)]
    return frozenset(" ".join(words_of(task.prompt)) for task in tasks)


def is_held_out(text: str) -> bool:
    """Whether the world knows a prompt as one that is not for training."""
    task = world.parse(text)
    return task is not None and (world.part_of(task) != "train" or task.phrasing == world.UNSEEN)


def new_prompt_requests(seed: int, count: int, training_prompts: list[str]) -> list[str]:
    """Requests for one more prompt, each with two to four of the training prompts as examples."""
    rng = world.generator(seed, "generate_prompts")
    requests = []
    for _ in range(count):
        examples = rng.sample(training_prompts, rng.randint(2, 4))
        requests.append(world_judge.new_prompt_request(examples, rng.randrange(4)))
    return requests


class NewPrompts:
    """Takes the prompts that a model has written one by one, and keeps those that are new.

    limit: the least ROUGE-L of a duplicate. Whether the world could answer a prompt is no reason to
    keep or to drop it.
    """

    def __init__(self, training_prompts: list[str], limit: float):
        self.known = [words_of(prompt) for prompt in training_prompts]
        self.limit = limit
        self.forbidden = evaluation_words()
        self.accepted = []
        self.accepted_words = []
        self.dropped = []  # {"prompt", "dropped": why}
        self.counts = Counter()

    def take(self, reply) -> None:
        """A reply to a request for a prompt (`files.tokenizer.Reply`)."""
        text = reply.content
        words = words_of(text)
        why = self.why_not(reply, words)
        self.counts[why or "accepted"] += 1
        if why:
            self.dropped.append({"prompt": text, "dropped": why})
        else:
            self.accepted.append(text)
            self.accepted_words.append(words)

    def why_not(self, reply, words: list[str]) -> str:
        """Why a prompt is dropped, or ""."""
        if not reply.complete or reply.calls or reply.think or "\n" in reply.content:
            return "malformed"
        if not 2 <= len(words) <= 24:
            return "too short or too long"
        if " ".join(words) in self.forbidden or is_held_out(reply.content):
            return "evaluation prompt"
        if near_any(words, self.accepted_words, self.limit):
            return "near-duplicate"
        return "not novel" if near_any(words, self.known, self.limit) else ""

    def first(self, count: int) -> tuple[list[str], list[dict], dict]:
        """(the first `count` that were accepted, what was dropped and why, counts).

        "parsed" is the share of them that the world can parse, "novel" the share of the well-formed
        ones, each said once, that are like no training prompt.
        """
        taken = self.accepted[:count]
        parsed = sum(world.parse(text) is not None for text in taken)
        novel = self.counts["accepted"]
        shares = {
            "parsed": parsed / max(1, len(taken)),
            "novel": novel / max(1, novel + self.counts["not novel"]),
        }
        return taken, self.dropped, dict(self.counts) | shares
