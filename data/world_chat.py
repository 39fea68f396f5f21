"""Chat: eight kinds of short conversation, the rubric that says how good a response is, and responses of mixed quality.

The rubric gives one point each for relevant, correct, complete, polite and concise, so the true quality of *any* text
is an integer from 0 to 5 that can be computed. It stands in for what people want; nothing that is trained ever sees it,
except through the simulated annotator (`annotate`) and the judge demonstrations.
"""

import functools
import re
from dataclasses import dataclass

from data.world_family import NAMES, TURN, Family, Solution

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
# thing -> what it is, a first and a second detail
DESCRIPTIONS = {"cat": ("a small animal", "soft fur", "sharp claws"), "dog": ("a loyal animal", "a wet nose", "a long tail"),
                "horse": ("a large animal", "strong legs", "a long mane"), "owl": ("a night bird", "big eyes", "quiet wings"),
                "swan": ("a white bird", "a long neck", "wide wings"), "oak": ("a tall tree", "hard wood", "many acorns"),
                "pine": ("a green tree", "thin needles", "brown cones"), "lemon": ("a yellow fruit", "sour juice", "thick skin"),
                "melon": ("a big fruit", "sweet juice", "many seeds"), "hammer": ("a simple tool", "a heavy head", "a wooden handle"),
                "saw": ("a sharp tool", "many teeth", "a firm handle"), "kite": ("a light toy", "a long string", "a paper tail"),
                "doll": ("a small toy", "painted eyes", "a nice dress"), "lion": ("a wild animal", "a golden mane", "a loud roar"),
                "frog": ("a green animal", "long legs", "wet skin"), "bee": ("a small insect", "clear wings", "a sharp sting"),
                "train": ("a fast vehicle", "many wagons", "steel wheels"), "bike": ("a simple vehicle", "two wheels", "a hard saddle"),
                "lamp": ("a useful thing", "a bright bulb", "a long cord"), "book": ("a useful thing", "many pages", "a hard cover")}
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
           "the salt", "a towel", "the ticket", "some paper", "the bill", "an apple", "the door code"]
LIKES = ["tea", "music", "chess", "football", "apples", "trains", "old books", "long walks", "cats", "the sea", "pizza", "rain"]
GREETINGS = ["Hello", "Hi", "Good morning", "Good evening", "Hey", "Good day"]

OPENINGS = ("Sure!", "Of course!", "Happy to help!", "Gladly!", "With pleasure!")
POLITE = ("sure", "of course", "happy to help", "gladly", "with pleasure", "please", "thank you", "welcome", "nice to meet you")
RUDE = ("whatever", "go away", "who cares", "obviously")
FILLERS = ("That is really all I can say about it.", "There is so much more to say about this.",
           "People talk about this all the time, you know.")


@dataclass(frozen=True)
class Rubric:
    """What a response to one chat prompt must hold.

    about: words of which one shows that the response is on the topic; parts: (alternatives, how many of them must be
    there); wrong: texts that make it incorrect; longest: the most words that still count as concise.
    """

    about: tuple
    parts: tuple
    wrong: tuple
    longest: int


def holds(text: str, phrase: str) -> bool:
    return f" {phrase.lower()} " in text


def judge_by_rubric(rubric: Rubric, response: str) -> dict[str, bool]:
    """The five criteria for one response text."""
    # the letters first, since lower() makes an ASCII one of the Kelvin sign
    words = [word.lower() for word in re.findall(r"[A-Za-z0-9']+", response)]
    text = f" {' '.join(words)} "
    met = [sum(holds(text, phrase) for phrase in alternatives) >= count for alternatives, count in rubric.parts]
    relevant = any(met) or any(holds(text, word) for word in rubric.about)
    correct = any(met) and not any(holds(text, phrase) for phrase in rubric.wrong)
    sentences = [sentence.strip() for sentence in re.split(r"[.!?]", response.lower()) if sentence.strip()]
    return {"relevant": relevant, "correct": correct, "complete": all(met) and correct,
            "polite": any(holds(text, phrase) for phrase in POLITE) and not any(holds(text, phrase) for phrase in RUDE),
            "concise": 0 < len(words) <= rubric.longest and len(set(sentences)) == len(sentences)}


def join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


# ---- the eight kinds: problems, the parts of a right answer, and one sentence made of parts ----

def article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def greeting_problems():
    for i, greeting in enumerate(GREETINGS):
        for name in NAMES:
            yield 1 + i % 2, {"kind": "name", "g": greeting, "n": name}


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
        yield from ((n - 1, {"kind": "one", "n": n, "x": a}) for n in (2, 3, 4))
        for b in GROUPS:
            if a != b:
                for n in (2, 3):
                    yield from ((n + m, {"kind": "two", "n": n, "x": a, "m": m, "y": b}) for m in (1, 2))


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


FACTS = {"colour": COLOURS, "sound": SOUNDS, "capital": CAPITALS, "two_capitals": CAPITALS, "two_sounds": SOUNDS}


def asked(content: dict) -> list[str]:
    return [content[key] for key in ("x", "y") if key in content]


def answer_parts(family: str, content: dict, rng=None) -> tuple[list[str], tuple, tuple, tuple]:
    """The sentences of a right answer, and the rubric's parts, about-words and wrong texts.

    With `rng` (random.Random) free choices, such as which fruits are named, are drawn; without it they are the first.
    """
    pick = rng.sample if rng else lambda items, count: list(items)[:count]
    kind = content.get("kind")
    if family == "greeting":
        return [f"{content['g']}, {content['n']}! How can I help you?"], (((content["n"],), 1), (("help",), 1)), \
            tuple(greeting.lower() for greeting in GREETINGS), tuple(name for name in NAMES if name != content["n"])
    if family == "fact":
        table, keys = FACTS[kind], asked(content)
        values = [table[key] for key in keys]
        if "sound" in kind:
            sentences = [f"The {key} {value}." for key, value in zip(keys, values)]
        elif "capital" in kind:
            sentences = [f"The capital of {key} is {value}." for key, value in zip(keys, values)]
        else:
            sentences = [f"{key[0].upper() + key[1:]} is {value}." for key, value in zip(keys, values)]
        return sentences, tuple(((value,), 1) for value in values), tuple(keys), \
            tuple(value for value in dict.fromkeys(table.values()) if value not in values)
    if family == "list":
        wanted = [(content["n"], content["x"])] + ([(content["m"], content["y"])] if kind == "two" else [])
        groups = [group for _, group in wanted]
        chosen = [pick(GROUPS[group], count) for count, group in wanted]
        right = {word for group in groups for word in GROUPS[group]}
        return [join(words).capitalize() + "." for words in chosen], \
            tuple((tuple(GROUPS[group]), count) for count, group in wanted), tuple(groups), \
            tuple(word for group, words in GROUPS.items() for word in words if word not in right)
    if family == "description":
        things = asked(content)
        sentences = [f"{article(thing).capitalize()} is {DESCRIPTIONS[thing][0]} with {DESCRIPTIONS[thing][1]} and {DESCRIPTIONS[thing][2]}."
                     for thing in things]
        own = {detail for thing in things for detail in DESCRIPTIONS[thing]}
        return sentences, tuple(((detail,), 1) for thing in things for detail in DESCRIPTIONS[thing]), tuple(things), \
            tuple(dict.fromkeys(detail for details in DESCRIPTIONS.values() for detail in details if detail not in own))
    if family == "opposite":
        words = asked(content)
        return [f"The opposite of {word} is {OPPOSITES[word]}." for word in words], tuple(((OPPOSITES[word],), 1) for word in words), \
            ("opposite",), tuple(word for word in OPPOSITES if word not in {*words, *(OPPOSITES[w] for w in words)})
    if family == "rewrite":
        return [f"Could you please {content['v']} {content['o']}?"], \
            (((f"{content['v']} {content['o']}",), 1), (("could you", "would you", "can you"), 1)), ("could you", content["o"]), \
            tuple(thing for thing in OBJECTS if thing != content["o"])
    if family == "advice":
        first, second = ADVICE[content["x"]]
        return [f"To {content['x']}, {first} and {second}."], (((first,), 1), ((second,), 1)), (content["x"],), \
            tuple(tip for goal, tips in ADVICE.items() if goal != content["x"] for tip in tips)
    if family == "memory":
        answer = f"Your name is {content['n']}." if kind == "name" else f"You like {content['l']}."
        own = content["n"] if kind == "name" else content["l"]
        return [answer], (((own,), 1),), ("your name", "you like"), \
            tuple(x for x in (NAMES if kind == "name" else LIKES) if x != own)
    raise ValueError(f"no chat family {family}")


# A polite opening of three words fits; a filler sentence of eight does not.
SLACK = 5


@functools.lru_cache(maxsize=None)
def rubric_of(family: str, content: tuple) -> Rubric:
    sentences, parts, about, wrong = answer_parts(family, dict(content))
    return Rubric(about, parts, wrong, len(" ".join(sentences).split()) + SLACK)


def perfect_response(family: str, content: dict, rng) -> str:
    return " ".join([rng.choice(OPENINGS), *answer_parts(family, content, rng)[0]])


# How often a demonstration has each flaw. The mean of the rubric over demonstrations is then about 3.4: preference
# learning needs something to prefer.
FLAWS = {"impolite": 0.45, "wordy": 0.25, "wrong": 0.18, "incomplete": 0.2, "off_topic": 0.07}


def mixed_response(family: str, content: dict, others: list[dict], rng) -> str:
    """A response with each flaw of FLAWS at its rate. `others`: contents of the same family, of which a wrong answer is made."""
    flaws = {name for name, rate in FLAWS.items() if rng.random() < rate}
    if "off_topic" in flaws:
        sentences = [rng.choice(FILLERS)]
    else:
        told = content
        if "wrong" in flaws:
            told = {**rng.choice([o for o in others if o.get("kind") == content.get("kind")]), "kind": content.get("kind")}
            # keep the question's own words where a wrong fact should be told about the right subject
            sentences = answer_parts(family, told, rng)[0]
            for key in ("x", "y"):
                if key in content and family in ("fact", "opposite", "description", "advice"):
                    sentences = [s.replace(str(told[key]), str(content[key]), 1) for s in sentences]
        else:
            sentences = answer_parts(family, told, rng)[0]
        if "incomplete" in flaws:
            if len(sentences) > 1:
                sentences = sentences[:1]
            elif " and " in sentences[0]:
                sentences = [sentences[0].split(" and ")[0] + "."]
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


def simple_solution(family: str):
    return lambda content: Solution("Sure! " + " ".join(answer_parts(family, content)[0]))


def two(template: str) -> tuple:
    return tuple(template.split("\n"))


FAMILIES = [
    Family("greeting", "chat", {"name": (
        "{g}, I am {n}.", "{g}! My name is {n}.", "{g}, {n} here.", "{g}! This is {n} speaking.", "{g}, people call me {n}.")},
        greeting_problems, simple_solution("greeting")),
    Family("fact", "chat", {
        "colour": ("What colour is {x}?", "Which colour has {x}?", "Tell me the colour of {x}.", "Say what colour {x} is.", "Do you know the colour of {x}?"),
        "sound": ("What does a {x} do to be heard?", "Which sound does a {x} make?", "Tell me the sound of a {x}.",
                  "Say what a {x} sounds like.", "Do you know how a {x} sounds?"),
        "capital": ("What is the capital of {x}?", "Which city is the capital of {x}?", "Tell me the capital of {x}.",
                    "Name the capital of {x}.", "Do you know the capital of {x}?"),
        "two_capitals": ("What are the capitals of {x} and {y}?", "Which cities are the capitals of {x} and {y}?",
                         "Tell me the capitals of {x} and {y}.", "Name the capitals of {x} and {y}.", "Do you know the capitals of {x} and {y}?"),
        "two_sounds": ("What do a {x} and a {y} do to be heard?", "Which sounds do a {x} and a {y} make?", "Tell me the sounds of a {x} and a {y}.",
                       "Say what a {x} and a {y} sound like.", "Do you know how a {x} and a {y} sound?")},
        fact_problems, simple_solution("fact")),
    Family("list", "chat", {
        "one": ("Name {n} {x}.", "List {n} {x}.", "Can you give me {n} {x}?", "I need {n} {x}.", "Which {n} {x} come to your mind?"),
        "two": ("Name {n} {x} and {m} {y}.", "List {n} {x} and {m} {y}.", "Can you give me {n} {x} and {m} {y}?",
                "I need {n} {x} and {m} {y}.", "Which {n} {x} and {m} {y} come to your mind?")},
        list_problems, simple_solution("list")),
    Family("description", "chat", {
        "one": ("Describe a {x}.", "What is a {x}?", "Tell me about a {x}.", "What does a {x} look like?", "How would you explain a {x}?"),
        "two": ("Describe a {x} and a {y}.", "What are a {x} and a {y}?", "Tell me about a {x} and a {y}.",
                "What do a {x} and a {y} look like?", "How would you explain a {x} and a {y}?")},
        description_problems, simple_solution("description")),
    Family("opposite", "chat", {
        "one": ("What is the opposite of {x}?", "Give me the opposite of {x}.", "Which word is the opposite of {x}?", "Not {x} but what?",
                "Turn {x} into its opposite."),
        "two": ("What are the opposites of {x} and {y}?", "Give me the opposites of {x} and {y}.", "Which words are the opposites of {x} and {y}?",
                "Not {x} and {y} but what?", "Turn {x} and {y} into their opposites.")},
        opposite_problems, simple_solution("opposite")),
    Family("rewrite", "chat", ("Rewrite this politely: {v} {o}", "Make this polite: {v} {o}", "How do I say nicely: {v} {o}",
                               "Say it in a kind way: {v} {o}", "Turn this into a friendly request: {v} {o}"),
           rewrite_problems, simple_solution("rewrite")),
    Family("advice", "chat", ("How can {p} {x}?", "Give advice: {p} must {x}.", "What helps if {p} want to {x}?", "Tips please, {p} should {x}.",
                              "What would you do so that {p} {x}?"),
           advice_problems, simple_solution("advice")),
    Family("memory", "chat", {
        "name": tuple(TURN.join(("My name is {n} and I like {l}.", "Nice to meet you, {n}!", ask)) for ask in (
            "What is my name?", "Who am I?", "Do you remember my name?", "Tell me my name.", "What am I called?")),
        "like": tuple(TURN.join(("My name is {n} and I like {l}.", "Nice to meet you, {n}!", ask)) for ask in (
            "What do I like?", "Which thing do I like?", "Do you remember what I like?", "Tell me what I like.", "What am I fond of?"))},
        memory_problems, simple_solution("memory")),
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
            words = rng.sample(GROUPS[group], 4)
            texts.append(f"{join(words).capitalize()} are {group}.")
        elif kind == 3:
            word = rng.choice(list(OPPOSITES))
            texts.append(f"The opposite of {word} is {OPPOSITES[word]}. What is not {word} is {OPPOSITES[word]}.")
        elif kind == 4:
            thing = rng.choice(list(DESCRIPTIONS))
            what, first, second = DESCRIPTIONS[thing]
            texts.append(f"{article(thing).capitalize()} is {what} with {first} and {second}.")
        elif kind == 5:
            goal = rng.choice(list(ADVICE))
            first, second = ADVICE[goal]
            texts.append(f"To {goal}, {first} and {second}.")
        elif kind == 6:
            name, like, other = rng.choice(NAMES), rng.choice(LIKES), rng.choice(NAMES)
            texts.append(f"{other}: {rng.choice(GREETINGS)}, {name}! {name}: I am {name} and I like {like}. {other}: You like {like}, {name}.")
        else:
            verb, thing = rng.choice(VERBS), rng.choice(OBJECTS)
            texts.append(f"{rng.choice(NAMES)}: Could you please {verb} {thing}? {rng.choice(NAMES)}: Of course!")
    return texts
