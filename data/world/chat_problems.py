"""The problems of chat by level: eight kinds of short conversation."""

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
    PEOPLE,
    SOUNDS,
    VERBS,
)
from data.world.family import NAMES


def greeting_problems():
    for i, greeting in enumerate(GREETINGS):
        for name in NAMES:
            yield 1 + i % 2, {"greeting": greeting, "name": name}


def fact_problems():
    for thing in COLOURS:
        yield 1, {"kind": "colour", "topic": thing}
    for animal in SOUNDS:
        yield 2, {"kind": "sound", "topic": animal}
    for country in CAPITALS:
        yield 3, {"kind": "capital", "topic": country}
    for country, other in two_of(CAPITALS):
        yield 4, {"kind": "two_capitals", "topic": country, "other": other}
    for animal, other in two_of(SOUNDS):
        yield 5, {"kind": "two_sounds", "topic": animal, "other": other}


def two_of(topics):
    """All pairs of different topics, in both orders."""
    for topic in topics:
        for other in topics:
            if topic != other:
                yield topic, other


def list_problems():
    for group in GROUPS:
        for count in (2, 3, 4, 5):
            yield count - 1, {"kind": "one", "count": count, "group": group}
        for other in GROUPS:
            if group == other:
                continue
            for count in (2, 3):
                for other_count in (2, 3):
                    first = {"count": count, "group": group}
                    second = {"other_count": other_count, "other_group": other}
                    yield count + other_count - 1, {"kind": "two", **first, **second}


def description_problems():
    for thing in DESCRIPTIONS:
        yield 2, {"kind": "one", "topic": thing}
        for other in DESCRIPTIONS:
            if other != thing:
                yield 4, {"kind": "two", "topic": thing, "other": other}


def opposite_problems():
    for word in OPPOSITES:
        yield 1, {"kind": "one", "topic": word}
        for other in OPPOSITES:
            if other not in (word, OPPOSITES[word]):
                yield 3, {"kind": "two", "topic": word, "other": other}


def rewrite_problems():
    for verb in VERBS:
        for thing in OBJECTS:
            yield 2, {"verb": verb, "thing": thing}


def advice_problems():
    for goal in ADVICE:
        for person in PEOPLE:
            yield (3 if person == "I" else 4), {"person": person, "topic": goal}


def memory_problems():
    for name in NAMES:
        for like in LIKES:
            yield 3, {"kind": "name", "name": name, "like": like}
            yield 3, {"kind": "like", "name": name, "like": like}
