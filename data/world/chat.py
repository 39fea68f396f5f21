"""Chat: eight kinds of short conversation, the rubric that says how good a response is, and responses of mixed quality.

The rubric gives one point each for relevant, correct, complete, polite and concise, so the true quality of *any* text
is an integer from 0 to 5 that can be computed. Nonsense gets 0, however polite and short it is: relevant is an answer of
the kind that is asked for, about what is asked, not the prompt said again; what is not relevant gets no point at all, and
correct is only what answers this one prompt. The rubric stands in for what people want; nothing that is trained ever sees
it, except through the simulated annotator (`annotate`) and the judge demonstrations.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from data.world.family import NAMES, TURN, Family, Solution

CRITERIA = ("relevant", "correct", "complete", "polite", "concise")

CAPITALS = {"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima",
            "Norway": "Oslo", "Greece": "Athens", "Cuba": "Havana", "Kenya": "Nairobi", "China": "Beijing", "Chile": "Santiago",
            "Austria": "Vienna", "Poland": "Warsaw", "Iran": "Tehran", "Ghana": "Accra"}
SOUNDS = {"dog": "barks", "cat": "meows", "cow": "moos", "sheep": "bleats", "lion": "roars", "duck": "quacks", "bee": "buzzes",
          "snake": "hisses", "wolf": "howls", "frog": "croaks", "mouse": "squeaks", "horse": "neighs"}
COLOURS = {"grass": "green", "snow": "white", "coal": "black", "blood": "red", "the sky": "blue", "a lemon": "yellow",
           "a carrot": "orange", "chocolate": "brown", "milk": "white", "a tomato": "red", "the sea": "blue", "a plum": "purple"}
GROUPS = {"fruits": "apple pear plum cherry lemon banana grape melon", "animals": "dog cat cow lion horse wolf frog sheep",
          "colours": "red blue green yellow white black brown orange", "tools": "hammer saw drill rake shovel axe file wrench",
          "drinks": "water tea milk coffee juice cocoa soda cider", "trees": "oak pine birch maple willow elm cedar palm",
          "birds": "duck owl crow swan robin hawk goose raven", "toys": "doll ball kite puzzle robot train top yoyo"}
GROUPS = {name: words.split() for name, words in GROUPS.items()}
OPPOSITES = {"hot": "cold", "big": "small", "fast": "slow", "old": "new", "brave": "afraid", "light": "dark", "hard": "soft",
             "wet": "dry", "high": "low", "full": "empty", "rich": "poor", "strong": "weak", "early": "late", "open": "closed",
             "long": "short", "loud": "quiet", "clean": "dirty", "deep": "shallow", "wide": "narrow", "sweet": "sour"}
OPPOSITES |= {v: k for k, v in OPPOSITES.items()}
# thing -> what it is, and a detail
DESCRIPTIONS = {"a cat": ("a small animal", "soft fur"), "a dog": ("a loyal animal", "a wet nose"),
                "a horse": ("a large animal", "strong legs"), "an owl": ("a night bird", "big eyes"),
                "a swan": ("a white bird", "a long neck"), "an oak": ("a tall tree", "hard wood"),
                "a pine": ("a green tree", "thin needles"), "a lemon": ("a yellow fruit", "sour juice"),
                "a melon": ("a big fruit", "sweet juice"), "a hammer": ("a simple tool", "a heavy head"),
                "a saw": ("a sharp tool", "many teeth"), "a kite": ("a light toy", "a long string"),
                "a doll": ("a small toy", "painted eyes"), "a lion": ("a wild animal", "a golden mane"),
                "a frog": ("a green animal", "long legs"), "a bee": ("a small insect", "clear wings"),
                "a train": ("a fast vehicle", "many wagons"), "a bike": ("a simple vehicle", "two wheels"),
                "a lamp": ("a useful thing", "a bright bulb"), "a book": ("a useful thing", "many pages")}
# goal -> two tips
ADVICE = {"sleep better": ("go to bed early", "turn off the screen"), "get fit": ("walk every day", "eat less sugar"),
          "learn piano": ("practise every day", "start with easy songs"), "save money": ("make a budget", "cook at home"),
          "make friends": ("join a club", "smile at people"), "pass the test": ("study a little each day", "solve old exams"),
          "stay calm": ("breathe slowly", "take a short walk"), "read more": ("carry a book", "read before bed"),
          "grow plants": ("water them often", "give them light"), "cook well": ("use fresh food", "taste as you go"),
          "run faster": ("train twice a week", "rest between runs"), "write well": ("read good books", "use short sentences"),
          "wake up early": ("set an alarm", "sleep before ten"), "speak clearly": ("talk slowly", "open your mouth"),
          "draw better": ("sketch every day", "look at real things"), "eat healthy": ("buy more fruit", "drink more water")}
PEOPLE = ["I", "my brother", "my friend", "my mother", "a child", "my boss", "my uncle", "a student"]
VERBS = ["give me", "bring me", "show me", "send me", "lend me", "find me", "buy me", "hand me"]
OBJECTS = ["the book", "a pen", "the keys", "some water", "the map", "a cup of tea", "the report", "a chair", "your phone",
           "the salt", "a towel", "the ticket", "some paper", "the bill", "an apple", "the door code",
           "the hammer", "your coat", "a ladder", "the letter", "a blanket", "the menu", "an umbrella", "the lamp", "a plate",
           "the camera", "some soap", "a candle", "the newspaper", "your pencil", "the basket", "a spoon"]
LIKES = ["tea", "music", "chess", "football", "apples", "trains", "old books", "long walks", "cats", "boats", "pizza", "rain"]
GREETINGS = ["Hello", "Hi", "Good morning", "Good evening", "Hey", "Good day"]

OPENINGS = ("Sure!", "Of course!", "Happy to help!", "Gladly!", "With pleasure!")
POLITE = ("sure", "of course", "happy to help", "gladly", "with pleasure", "please", "thank you", "welcome", "nice to meet you")
RUDE = ("whatever", "go away", "who cares", "obviously")
FILLERS = ("That is really all I can say about it.", "There is so much more to say about this.",
           "People talk about this all the time, you know.")


@dataclass(frozen=True)
class Rubric:
    """What a response to one chat prompt must hold.

    sentences: a perfect answer without its polite opening; about: words of which one shows what a wrong answer is about;
    parts: (alternatives, how many of them must be there), one part makes it correct and all make it complete;
    wrong: answers of the same kind that make it incorrect; also: what completeness asks for beside the parts.
    listed: each part is a list of exactly as many, and a sentence that names a group names no word of another.
    """

    sentences: list[str]
    about: tuple
    parts: tuple
    wrong: tuple
    also: tuple = ()
    listed: bool = False

    @property
    def longest(self) -> int:
        """The most words of a concise response: a polite opening of three fits, a filler sentence of eight does not."""
        return len(" ".join(self.sentences).split()) + 5


def holds(text: str, phrase: str) -> bool:
    return f" {phrase.lower()} " in text


def misplaced(sentence: str) -> bool:
    """Whether a sentence names groups and a word that is in none of them, as `The birds are apple and pear` does."""
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    named = words & set(GROUPS)
    return bool(named) and any(word in words for group in set(GROUPS) - named for word in GROUPS[group])


def judge_by_rubric(rubric: Rubric, response: str) -> dict[str, bool]:
    """The five criteria for one response text; a flood of words that names every topic is on none."""
    # the letters first, since lower() makes an ASCII one of the Kelvin sign
    words = [word.lower() for word in re.findall(r"[A-Za-z0-9']+", response)]
    text = f" {' '.join(words)} "
    found = [sum(holds(text, phrase) for phrase in alternatives) for alternatives, _ in rubric.parts]
    wrong = any(holds(text, phrase) for phrase in rubric.wrong)
    met = [number >= count for number, (_, count) in zip(found, rubric.parts)]
    if rubric.listed:
        wrong = wrong or any(map(misplaced, re.split(r"[.!?]", response)))
        met = [number == count for number, (_, count) in zip(found, rubric.parts)]
    tried = (any(found) or wrong) and any(holds(text, word) for word in rubric.about)
    relevant = len(words) <= 2 * rubric.longest and (tried or any(met) and not wrong)
    correct = relevant and any(met) and not wrong
    complete = correct and all(met) and all(holds(text, phrase) for phrase in rubric.also)
    polite = any(holds(text, phrase) for phrase in POLITE) and not any(holds(text, phrase) for phrase in RUDE)
    sentences = [sentence.strip() for sentence in re.split(r"[.!?]", response.lower()) if sentence.strip()]
    concise = len(words) <= rubric.longest and len(set(sentences)) == len(sentences)
    return {"relevant": relevant, "correct": correct, "complete": complete,
            "polite": relevant and polite, "concise": relevant and concise}


def join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


# ---- the eight kinds: their problems ----

def greeting_problems():
    for i, greeting in enumerate(GREETINGS):
        yield from ((1 + i % 2, {"g": greeting, "n": name}) for name in NAMES)


def fact_problems():
    countries, animals, things = list(CAPITALS), list(SOUNDS), list(COLOURS)
    yield from ((1, {"kind": "colour", "x": x}) for x in things)
    yield from ((2, {"kind": "sound", "x": x}) for x in animals)
    yield from ((3, {"kind": "capital", "x": x}) for x in countries)
    for a in countries:
        yield from ((4, {"kind": "two_capitals", "x": a, "y": b}) for b in countries if a != b)
    for a in animals:
        yield from ((5, {"kind": "two_sounds", "x": a, "y": b}) for b in animals if a != b)


def list_problems():
    for a in GROUPS:
        yield from ((n - 1, {"kind": "one", "n": n, "x": a}) for n in (2, 3, 4, 5))
        for b in GROUPS:
            if a != b:
                yield from ((n + m - 1, {"kind": "two", "n": n, "x": a, "m": m, "y": b}) for n in (2, 3) for m in (2, 3))


def description_problems():
    for thing in DESCRIPTIONS:
        yield 2, {"kind": "one", "x": thing}
        yield from ((4, {"kind": "two", "x": thing, "y": other}) for other in DESCRIPTIONS if other != thing)


def opposite_problems():
    for word in OPPOSITES:
        yield 1, {"kind": "one", "x": word}
        yield from ((3, {"kind": "two", "x": word, "y": other}) for other in OPPOSITES if other not in (word, OPPOSITES[word]))


def rewrite_problems():
    for verb in VERBS:
        yield from ((2, {"v": verb, "o": thing}) for thing in OBJECTS)


def advice_problems():
    for goal in ADVICE:
        yield from ((3 if person == "I" else 4, {"p": person, "x": goal}) for person in PEOPLE)


def memory_problems():
    for name in NAMES:
        for like in LIKES:
            yield 3, {"kind": "name", "n": name, "l": like}
            yield 3, {"kind": "like", "n": name, "l": like}


# ---- their answers: one function a kind ----
# Each gives the rubric of `content`, its sentences saying of it what is true of `told`: the same for a right answer, another
# problem for a demonstration with a flaw. pick(items, count) makes the free choices.

# what is known of each thing, and the sentence that tells it
LOOKUPS = {"colour": (COLOURS, "{x} is {0}."), "sound": (SOUNDS, "The {x} {0}."), "two_sounds": (SOUNDS, "The {x} {0}."),
           "capital": (CAPITALS, "The capital of {x} is {0}."), "two_capitals": (CAPITALS, "The capital of {x} is {0}."),
           "opposite": (OPPOSITES, "The opposite of {x} is {0}."),
           "description": (DESCRIPTIONS, "{x} is {0} with {1}."), "advice": (ADVICE, "To {x}, {0} and {1}.")}


def others_than(own, everything) -> tuple:
    return tuple(dict.fromkeys(item for item in everything if item not in own))


def lookup(kind: str, content: dict, told: dict, pick) -> Rubric:
    """What is said of the right thing in the wrong place, as two capitals that are exchanged, is wrong too."""
    table, sentence = LOOKUPS[kind]
    details = {x: known if isinstance(known, tuple) else (known,) for x, known in table.items()}
    asked, source = ([fields[key] for key in ("x", "y") if key in fields] for fields in (content, told))

    def say(x: str, other: str) -> str:
        text = sentence.format(*details[other], x=x)
        return text[0].upper() + text[1:]

    own = [detail for x in asked for detail in details[x]]
    exchanged = [say(x, y).rstrip(".") for x in asked for y in asked if x != y]
    everything = (detail for known in details.values() for detail in known)
    return Rubric([say(x, y) for x, y in zip(asked, source)],
                  about=tuple(re.sub("^(a|an|the) ", "", x) for x in asked),
                  parts=tuple(((detail,), 1) for detail in own),
                  wrong=others_than([*own, *asked], [*exchanged, *everything]))


def greeting(content: dict, told: dict, pick) -> Rubric:
    name = content["n"]
    return Rubric([f"{content['g']}, {told['n']}!", "How can I help you?"], about=(content["g"], name),
                  parts=((tuple(f"{word} {name}" for word in GREETINGS), 1),),
                  wrong=others_than([name], NAMES), also=("help",))


def neighbours(words: list, count: int, pick) -> list:
    """`count` words from one of them on, in the list's order: what comes next is known, and nothing comes twice."""
    start = words.index(pick(words, 1)[0])
    return [words[(start + k) % len(words)] for k in range(count)]


def listing(content: dict, told: dict, pick) -> Rubric:
    wanted, named = ({c["x"]: c["n"]} | ({c["y"]: c["m"]} if "y" in c else {}) for c in (content, told))
    right = [word for group in wanted for word in GROUPS[group]]
    # the group comes first: what follows a word is easier to recall than what stood before it
    return Rubric([f"The {group} are {join(neighbours(GROUPS[other], count, pick))}."
                   for (group, count), other in zip(wanted.items(), named)], about=tuple(wanted),
                  parts=tuple((tuple(GROUPS[group]), count) for group, count in wanted.items()),
                  wrong=others_than(right, (word for words in GROUPS.values() for word in words)), listed=True)


def rewrite(content: dict, told: dict, pick) -> Rubric:
    verb, thing = content["v"], content["o"]
    asking = [f"{may} you{please}" for may in ("could", "would", "can") for please in ("", " please")]
    return Rubric([f"Could you please {verb} {told['o']}?"], about=(verb, thing),
                  parts=((tuple(f"{ask} {verb} {thing}" for ask in asking), 1),), wrong=others_than([thing], OBJECTS))


def memory(content: dict, told: dict, pick) -> Rubric:
    """Both the name and the liking together answer neither question."""
    name, like = content["n"], content["l"]
    if content["kind"] == "name":
        return Rubric([f"Your name is {told['n']}."], about=("your name",), parts=(((name,), 1),),
                      wrong=others_than([name], [*NAMES, like]))
    return Rubric([f"You like {told['l']}."], about=("you like",), parts=(((like,), 1),),
                  wrong=others_than([like], [*LIKES, name]))


ANSWERS: dict[str, Callable] = {
    "greeting": greeting, "list": listing, "rewrite": rewrite, "memory": memory,
    "fact": lambda content, told, pick: lookup(content["kind"], content, told, pick),
    **{name: functools.partial(lookup, name) for name in ("opposite", "description", "advice")}}


@functools.lru_cache(maxsize=None)
def rubric_of(family: str, content: tuple) -> Rubric:
    return ANSWERS[family](dict(content), dict(content), lambda items, count: items[:count])


def perfect_response(family: str, content: dict, rng) -> str:
    return " ".join([rng.choice(OPENINGS), *ANSWERS[family](content, content, rng.sample).sentences])


# How often a demonstration has each flaw. The mean of the rubric over demonstrations is then 3.6: preference
# learning needs something to prefer.
FLAWS = {"impolite": 0.45, "wordy": 0.25, "wrong": 0.18, "incomplete": 0.2, "off_topic": 0.07}


def mixed_response(family: str, content: dict, others: list[dict], rng) -> str:
    """A response with each flaw of FLAWS at its rate. `others`: contents of the same family, of which a wrong answer is made."""
    flaws = {name for name, rate in FLAWS.items() if rng.random() < rate}
    if "off_topic" in flaws:
        sentences = [rng.choice(FILLERS)]
    else:
        alike = [other for other in others if other.get("kind") == content.get("kind")]
        sentences = ANSWERS[family](content, rng.choice(alike) if "wrong" in flaws else content, rng.sample).sentences
        if "incomplete" in flaws:
            sentences = sentences[:1] if len(sentences) > 1 else [re.sub(" (and|with) .*", ".", sentences[0])]
    if "wordy" in flaws:
        sentences = [*sentences, rng.choice(FILLERS)]
    if "impolite" not in flaws:
        sentences = [rng.choice(OPENINGS), *sentences]
    elif rng.random() < 0.3:
        sentences = [rng.choice(("Whatever.", "Obviously.", "Who cares.")), *sentences]
    return " ".join(sentences)


def annotate(true_reward: float, rng, complete: bool = True, noise: float = 0.7) -> float:
    """How much the simulated annotator likes a response: the rubric's score plus Gaussian noise, and 5 less if it broke off."""
    return true_reward + rng.gauss(0, noise) - (0 if complete else 5)


TIE_THRESHOLD = 0.5  # two likings closer than this are written `=`; a threshold, so none of the fitted tie models


def solve(family: str):
    return lambda content: Solution(" ".join(["Sure!", *rubric_of(family, tuple(sorted(content.items()))).sentences]))


FAMILIES = [
    Family("greeting", "chat", ("{g}, I am {n}.", "{g}! My name is {n}.", "{g}, {n} here.", "{g}! This is {n} speaking.", "{g}, people call me {n}."),
           greeting_problems, solve("greeting")),
    Family("fact", "chat", {
        "colour": ("What colour is {x}?", "Which colour is {x}?", "Tell me the colour of {x}.", "Say what colour {x} is.", "Do you know the colour of {x}?"),
        "sound": ("What does a {x} do to be heard?", "Which sound does a {x} make?", "Tell me the sound of a {x}.",
                  "Say what a {x} sounds like.", "Do you know how a {x} sounds?"),
        "capital": ("What is the capital of {x}?", "Which city is the capital of {x}?", "Tell me the capital of {x}.",
                    "Name the capital of {x}.", "Do you know the capital of {x}?"),
        "two_capitals": ("What are the capitals of {x} and {y}?", "Which cities are the capitals of {x} and {y}?",
                         "Tell me the capitals of {x} and {y}.", "Name the capitals of {x} and {y}.", "Do you know the capitals of {x} and {y}?"),
        "two_sounds": ("What do a {x} and a {y} do to be heard?", "Which sounds do a {x} and a {y} make?", "Tell me the sounds of a {x} and a {y}.",
                       "Say what a {x} and a {y} sound like.", "Do you know how a {x} and a {y} sound?")},
        fact_problems, solve("fact"), facts=("colour", "sound", "capital")),
    Family("list", "chat", {
        "one": ("Name {n} {x}.", "List {n} {x}.", "Can you give me {n} {x}?", "I need {n} {x}.", "Which {n} {x} come to your mind?"),
        "two": ("Name {n} {x} and {m} {y}.", "List {n} {x} and {m} {y}.", "Can you give me {n} {x} and {m} {y}?",
                "I need {n} {x} and {m} {y}.", "Which {n} {x} and {m} {y} come to your mind?")},
        list_problems, solve("list")),
    Family("description", "chat", {
        "one": ("Describe {x}.", "What is {x}?", "Tell me about {x}.", "What does {x} look like?", "How would you explain {x}?"),
        "two": ("Describe {x} and {y}.", "What are {x} and {y}?", "Tell me about {x} and {y}.",
                "What do {x} and {y} look like?", "How would you explain {x} and {y}?")},
        description_problems, solve("description"), facts=("one",)),
    Family("opposite", "chat", {
        "one": ("What is the opposite of {x}?", "Give me the opposite of {x}.", "Which word is the opposite of {x}?", "Not {x} but what?",
                "Turn {x} into its opposite."),
        "two": ("What are the opposites of {x} and {y}?", "Give me the opposites of {x} and {y}.", "Which words are the opposites of {x} and {y}?",
                "Not {x} and {y} but what?", "Turn {x} and {y} into their opposites.")},
        opposite_problems, solve("opposite"), facts=("one",)),
    Family("rewrite", "chat", ("Rewrite this politely: {v} {o}", "Make this polite: {v} {o}", "How do I say nicely: {v} {o}",
                               "Say it in a kind way: {v} {o}", "Turn this into a friendly request: {v} {o}"),
           rewrite_problems, solve("rewrite")),
    Family("advice", "chat", ("How can {p} {x}?", "Give advice: {p} must {x}.", "What should {p} do to {x}?", "Tips please, {p} should {x}.",
                              "What can {p} try in order to {x}?"),
           advice_problems, solve("advice")),
    Family("memory", "chat", {
        "name": tuple(TURN.join(("My name is {n} and I like {l}.", "Nice to meet you, {n}!", ask)) for ask in (
            "What is my name?", "Who am I?", "Do you remember my name?", "Tell me my name.", "What am I called?")),
        "like": tuple(TURN.join(("My name is {n} and I like {l}.", "Nice to meet you, {n}!", ask)) for ask in (
            "What do I like?", "Which thing do I like?", "Do you remember what I like?", "Tell me what I like.", "What am I fond of?"))},
        memory_problems, solve("memory")),
]


def documents(rng, count: int) -> list[str]:
    """Plain facts and small talk, as one finds them in a book for beginners."""
    texts = []
    for _ in range(count):
        kind = rng.randrange(8)
        if kind == 0:
            country = rng.choice(list(CAPITALS))
            texts.append(f"The capital of {country} is {CAPITALS[country]}. {CAPITALS[country]} is the capital of {country}.")
        elif kind == 1:
            animal, thing = rng.choice(list(SOUNDS)), rng.choice(list(COLOURS))
            texts.append(f"The {animal} {SOUNDS[animal]}. {thing[0].upper() + thing[1:]} is {COLOURS[thing]}.")
        elif kind == 2:
            group = rng.choice(list(GROUPS))
            words = join(neighbours(GROUPS[group], 4, rng.sample))
            texts.append(f"The {group} are {words}.")
        elif kind == 3:
            word = rng.choice(list(OPPOSITES))
            texts.append(f"The opposite of {word} is {OPPOSITES[word]}. What is not {word} is {OPPOSITES[word]}.")
        elif kind == 4:
            thing = rng.choice(list(DESCRIPTIONS))
            texts += rubric_of("description", (("kind", "one"), ("x", thing))).sentences
        elif kind == 5:
            texts += rubric_of("advice", (("x", rng.choice(list(ADVICE))),)).sentences
        elif kind == 6:
            name, like, other = rng.choice(NAMES), rng.choice(LIKES), rng.choice(NAMES)
            texts.append(f"{other}: {rng.choice(GREETINGS)}, {name}! {name}: I am {name} and I like {like}. {other}: You like {like}, {name}.")
        else:
            verb, thing = rng.choice(VERBS), rng.choice(OBJECTS)
            texts.append(f"{rng.choice(NAMES)}: Could you please {verb} {thing}? {rng.choice(NAMES)}: Of course!")
    return texts
