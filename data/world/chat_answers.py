"""What a response to each kind of chat must hold, as a rubric: one function a family.

Each function gives the rubric of `content`. Its sentences say of it what is true of `told`. That is
the same content for a right answer, and another problem's for a demonstration with a flaw.
`pick(items, count)` makes the free choices.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from data.world.chat_facts import (
    ADVICE,
    CAPITALS,
    COLOURS,
    DESCRIPTIONS,
    GREETINGS,
    GROUPS,
    LIKES,
    OBJECTS,
    OPPOSITES,
    SOUNDS,
)
from data.world.chat_problems import two_of
from data.world.family import NAMES


@dataclass(frozen=True)
class Rubric:
    """What a response to one chat prompt must hold.

    sentences: a perfect answer without its polite opening.
    about: words of which one shows what a wrong answer is about.
    demands: (alternatives, how many of them must be there). One that is met makes the response
        correct, and all make it complete.
    wrong: answers of the same kind that make it incorrect.
    also: what completeness asks for beside the demands.
    listed: whether a demand is met by exactly as many and no more. A sentence that names a group
        is then wrong where it names a word of another.
    """

    sentences: list[str]
    about: tuple
    demands: tuple
    wrong: tuple
    also: tuple = ()
    listed: bool = False

    @property
    def longest(self) -> int:
        """The most words of a concise response.

        A polite opening of three words fits, a filler sentence of eight does not.
        """
        return len(" ".join(self.sentences).split()) + 5


# ---- one function a family ----


def greeting(content: dict, told: dict, pick) -> Rubric:
    name = content["name"]
    return Rubric(
        [f"{content['greeting']}, {told['name']}!", "How can I help you?"],
        about=(content["greeting"], name),
        demands=((tuple(f"{word} {name}" for word in GREETINGS), 1),),
        wrong=others_than([name], NAMES),
        also=("help",),
    )


def fact(content: dict, told: dict, pick) -> Rubric:
    if content["kind"] == "colour":
        return lookup(COLOURS, "{topic} is {0}.", content, told)
    if content["kind"] in ("sound", "two_sounds"):
        return lookup(SOUNDS, "The {topic} {0}.", content, told)
    return lookup(CAPITALS, "The capital of {topic} is {0}.", content, told)


def opposite(content: dict, told: dict, pick) -> Rubric:
    return lookup(OPPOSITES, "The opposite of {topic} is {0}.", content, told)


def description(content: dict, told: dict, pick) -> Rubric:
    return lookup(DESCRIPTIONS, "{topic} is {0} with {1}.", content, told)


def advice(content: dict, told: dict, pick) -> Rubric:
    return lookup(ADVICE, "To {topic}, {0} and {1}.", content, told)


def listing(content: dict, told: dict, pick) -> Rubric:
    wanted = counts_of(content)
    right = [word for group in wanted for word in GROUPS[group]]
    sentences = []
    for (group, count), other in zip(wanted.items(), counts_of(told)):
        # the group comes first: what follows a word is easier to recall than what stood before it
        sentences.append(f"The {group} are {join(neighbours(GROUPS[other], count, pick))}.")
    return Rubric(
        sentences,
        about=tuple(wanted),
        demands=tuple((tuple(GROUPS[group]), count) for group, count in wanted.items()),
        wrong=others_than(right, (word for words in GROUPS.values() for word in words)),
        listed=True,
    )


def rewrite(content: dict, told: dict, pick) -> Rubric:
    verb, thing = content["verb"], content["thing"]
    asking = [
        f"{may} you{please}" for may in ("could", "would", "can") for please in ("", " please")
    ]
    return Rubric(
        [f"Could you please {verb} {told['thing']}?"],
        about=(verb, thing),
        demands=((tuple(f"{ask} {verb} {thing}" for ask in asking), 1),),
        wrong=others_than([thing], OBJECTS),
    )


def memory(content: dict, told: dict, pick) -> Rubric:
    """Both the name and the liking together answer neither question."""
    name, like = content["name"], content["like"]
    if content["kind"] == "name":
        sentence = f"Your name is {told['name']}."
        wrong = others_than([name], [*NAMES, like])
        return Rubric([sentence], about=("your name",), demands=(((name,), 1),), wrong=wrong)
    sentence = f"You like {told['like']}."
    wrong = others_than([like], [*LIKES, name])
    return Rubric([sentence], about=("you like",), demands=(((like,), 1),), wrong=wrong)


ANSWERS: dict[str, Callable] = {
    "greeting": greeting,
    "fact": fact,
    "list": listing,
    "description": description,
    "opposite": opposite,
    "rewrite": rewrite,
    "advice": advice,
    "memory": memory,
}


@functools.lru_cache(maxsize=None)
def rubric_of(family: str, content: tuple) -> Rubric:
    """The rubric of a content, which is a sorted tuple of (field, value)."""
    return ANSWERS[family](dict(content), dict(content), lambda items, count: items[:count])


# ---- what they share ----


def lookup(table: dict, sentence: str, content: dict, told: dict) -> Rubric:
    """The rubric of what a table knows of one topic or of two.

    What is said of the right thing in the wrong place, as two capitals that are exchanged, is
    wrong too.
    """
    details = {
        topic: (known,) if isinstance(known, str) else known for topic, known in table.items()
    }
    asked = topics_of(content)

    def say(topic: str, other: str) -> str:
        """What is true of the other, said of the topic."""
        text = sentence.format(*details[other], topic=topic)
        return text[0].upper() + text[1:]

    right = [detail for topic in asked for detail in details[topic]]
    exchanged = [say(topic, other).rstrip(".") for topic, other in two_of(asked)]
    everything = [detail for known in details.values() for detail in known]
    return Rubric(
        [say(topic, other) for topic, other in zip(asked, topics_of(told))],
        about=tuple(re.sub("^(a|an|the) ", "", topic) for topic in asked),
        demands=tuple(((detail,), 1) for detail in right),
        wrong=others_than([*right, *asked], [*exchanged, *everything]),
    )


def topics_of(content: dict) -> list[str]:
    return [content[field] for field in ("topic", "other") if field in content]


def counts_of(content: dict) -> dict[str, int]:
    """group -> how many of it are asked for."""
    counts = {content["group"]: content["count"]}
    if "other_group" in content:
        counts[content["other_group"]] = content["other_count"]
    return counts


def others_than(right, everything) -> tuple:
    """What is not right, each once and in order."""
    return tuple(dict.fromkeys(item for item in everything if item not in right))


def neighbours(words: list, count: int, pick) -> list:
    """`count` words from one of them on, in the list's order.

    What comes next is known, and nothing comes twice.
    """
    start = words.index(pick(words, 1)[0])
    return [words[(start + k) % len(words)] for k in range(count)]


def join(words: list[str]) -> str:
    """`apple, pear and plum`."""
    if len(words) == 1:
        return words[0]
    return ", ".join(words[:-1]) + " and " + words[-1]
