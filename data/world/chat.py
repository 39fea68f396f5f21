"""Chat: eight kinds of short conversation, and the rubric that says how good a response is.

The rubric gives one point each for relevant, correct, complete, polite and concise. So the true
quality of any text can be computed: an integer from 0 to 5. Nonsense gets 0, however polite and
short it is. Relevant is an answer of the kind that is asked for, about what is asked, and not the
prompt said again. What is not relevant gets no point at all. Correct is only what answers this one
prompt.

The rubric stands in for what people want. Nothing that is trained ever sees it, except through the
simulated annotator (`annotate`) and the judge demonstrations.
"""

import re
from collections.abc import Callable

from data.world import chat_phrasings as phrasings
from data.world import chat_problems as problems
from data.world.chat_answers import ANSWERS, Rubric, join, neighbours, rubric_of
from data.world.chat_facts import (
    ADVICE,
    CAPITALS,
    COLOURS,
    DESCRIPTIONS,
    FILLERS,
    GREETINGS,
    GROUPS,
    LIKES,
    OBJECTS,
    OPENINGS,
    OPPOSITES,
    POLITE,
    RUDE,
    SOUNDS,
    VERBS,
)
from data.world.family import NAMES, Family, Solution, sorted_fields

CRITERIA = ("relevant", "correct", "complete", "polite", "concise")

# Two likings closer than this are written `=`. A threshold, so none of the fitted tie models.
TIE_THRESHOLD = 0.5


# ---- the rubric ----


def holds(text: str, phrase: str) -> bool:
    return f" {phrase.lower()} " in text


def misplaced(sentence: str) -> bool:
    """Whether a sentence names a group and a word of no such group: `The birds are apple, owl`."""
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    named = words & set(GROUPS)
    elsewhere = {word for group in set(GROUPS) - named for word in GROUPS[group]}
    return bool(named) and bool(words & elsewhere)


def judge_by_rubric(rubric: Rubric, response: str) -> dict[str, bool]:
    """The five criteria for one response; a flood of words that names every topic is on none."""
    # the letters first, since lower() makes an ASCII one of the Kelvin sign
    words = [word.lower() for word in re.findall(r"[A-Za-z0-9']+", response)]
    text = f" {' '.join(words)} "
    sentences = [sentence.strip() for sentence in re.split(r"[.!?]", response.lower())]
    sentences = [sentence for sentence in sentences if sentence]

    def says(phrases) -> bool:
        return any(holds(text, phrase) for phrase in phrases)

    found = [sum(holds(text, phrase) for phrase in phrases) for phrases, _ in rubric.demands]
    wanted = [count for _, count in rubric.demands]
    wrong = says(rubric.wrong)
    met = [number >= count for number, count in zip(found, wanted)]
    if rubric.listed:
        wrong = wrong or any(map(misplaced, sentences))
        met = [number == count for number, count in zip(found, wanted)]

    tried = (any(found) or wrong) and says(rubric.about)
    right = any(met) and not wrong
    relevant = len(words) <= 2 * rubric.longest and (tried or right)
    correct = relevant and right
    complete = correct and all(met) and all(holds(text, phrase) for phrase in rubric.also)
    polite = says(POLITE) and not says(RUDE)
    concise = len(words) <= rubric.longest and len(set(sentences)) == len(sentences)
    return {
        "relevant": relevant,
        "correct": correct,
        "complete": complete,
        "polite": relevant and polite,
        "concise": relevant and concise,
    }


# ---- responses ----


def perfect_response(family: str, content: dict, rng) -> str:
    opening = rng.choice(OPENINGS)
    return " ".join([opening, *ANSWERS[family](content, content, rng.sample).sentences])


# How often a demonstration has each flaw. The mean of the rubric over demonstrations is then 3.6:
# preference learning needs something to prefer.
FLAWS = {"impolite": 0.45, "wordy": 0.25, "wrong": 0.18, "incomplete": 0.2, "off_topic": 0.07}


def mixed_response(family: str, content: dict, others: list[dict], rng) -> str:
    """A response with each flaw of FLAWS at its rate.

    others: contents of the same family, of which a wrong answer is made.
    """
    flaws = {name for name, rate in FLAWS.items() if rng.random() < rate}
    if "off_topic" in flaws:
        sentences = [rng.choice(FILLERS)]
    else:
        told = content
        if "wrong" in flaws:
            alike = [other for other in others if other.get("kind") == content.get("kind")]
            told = rng.choice(alike)
        sentences = ANSWERS[family](content, told, rng.sample).sentences
        if "incomplete" in flaws:
            sentences = first_half(sentences)
    if "wordy" in flaws:
        sentences = [*sentences, rng.choice(FILLERS)]
    if "impolite" not in flaws:
        sentences = [rng.choice(OPENINGS), *sentences]
    elif rng.random() < 0.3:
        sentences = [rng.choice(("Whatever.", "Obviously.", "Who cares.")), *sentences]
    return " ".join(sentences)


def first_half(sentences: list[str]) -> list[str]:
    """The first of several sentences, or the only one as far as its `and` or `with`."""
    if len(sentences) > 1:
        return sentences[:1]
    return [re.sub(" (and|with) .*", ".", sentences[0])]


def annotate(true_reward: float, rng, complete: bool = True, noise: float = 0.7) -> float:
    """How much the simulated annotator likes a response.

    The rubric's score plus Gaussian noise, and 5 less if the response broke off.
    """
    return true_reward + rng.gauss(0, noise) - (0 if complete else 5)


# ---- the families ----


def solve(family: str) -> Callable[[dict], Solution]:
    def solution(content: dict) -> Solution:
        return Solution(" ".join(["Sure!", *rubric_of(family, sorted_fields(content)).sentences]))

    return solution


FAMILIES = [
    Family("greeting", "chat", phrasings.GREETING, problems.greeting_problems, solve("greeting")),
    Family(
        "fact",
        "chat",
        phrasings.FACT,
        problems.fact_problems,
        solve("fact"),
        facts=("colour", "sound", "capital"),
    ),
    Family("list", "chat", phrasings.LIST, problems.list_problems, solve("list")),
    Family(
        "description",
        "chat",
        phrasings.DESCRIPTION,
        problems.description_problems,
        solve("description"),
        facts=("one",),
    ),
    Family(
        "opposite",
        "chat",
        phrasings.OPPOSITE,
        problems.opposite_problems,
        solve("opposite"),
        facts=("one",),
    ),
    Family("rewrite", "chat", phrasings.REWRITE, problems.rewrite_problems, solve("rewrite")),
    Family("advice", "chat", phrasings.ADVICE, problems.advice_problems, solve("advice")),
    Family("memory", "chat", phrasings.MEMORY, problems.memory_problems, solve("memory")),
]


# ---- plain text ----


def document(kind: int, rng) -> list[str]:
    """Sentences of one kind, drawn by `rng`; a kind is a number from 0 to 7."""
    if kind == 0:
        country = rng.choice(list(CAPITALS))
        city = CAPITALS[country]
        return [f"The capital of {country} is {city}. {city} is the capital of {country}."]
    if kind == 1:
        animal = rng.choice(list(SOUNDS))
        thing = rng.choice(list(COLOURS))
        coloured = f"{thing[0].upper()}{thing[1:]} is {COLOURS[thing]}."
        return [f"The {animal} {SOUNDS[animal]}. {coloured}"]
    if kind == 2:
        group = rng.choice(list(GROUPS))
        return [f"The {group} are {join(neighbours(GROUPS[group], 4, rng.sample))}."]
    if kind == 3:
        word = rng.choice(list(OPPOSITES))
        other = OPPOSITES[word]
        return [f"The opposite of {word} is {other}. What is not {word} is {other}."]
    if kind == 4:
        thing = rng.choice(list(DESCRIPTIONS))
        return rubric_of("description", (("kind", "one"), ("topic", thing))).sentences
    if kind == 5:
        return rubric_of("advice", (("topic", rng.choice(list(ADVICE))),)).sentences
    if kind == 6:
        name = rng.choice(NAMES)
        like = rng.choice(LIKES)
        other = rng.choice(NAMES)
        greeted = (
            f"{other}: {rng.choice(GREETINGS)}, {name}! {name}: I am {name} and I like {like}."
        )
        return [f"{greeted} {other}: You like {like}, {name}."]
    verb = rng.choice(VERBS)
    thing = rng.choice(OBJECTS)
    asked = f"{rng.choice(NAMES)}: Could you please {verb} {thing}?"
    return [f"{asked} {rng.choice(NAMES)}: Of course!"]


def documents(rng, count: int) -> list[str]:
    """Plain facts and small talk, as one finds them in a book for beginners."""
    texts = []
    for _ in range(count):
        texts += document(rng.randrange(8), rng)
    return texts
