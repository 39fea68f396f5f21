"""What every part of the tiny world shares: a family of problems, one task of it, and the words they are told in.

A family owns its complete list of problems (a level from 1 to 5 and a content, such as {"a": 47, "b": 38}), the
phrasings that turn a content into a prompt, and the solution. Because the list is complete, `parse` can read a prompt
back, the split can be made by content, and `python -m data.world --stats` can count what exists.

The last phrasing of every family is never trained on; evaluation reports it as a column of its own.

What is held out can be worked out (other operands), combined (another pair of things) or said in
other words. A fact, such as a capital or a single step (7 * 8), can only be said in other words: it
is demonstrated in some trained phrasing and asked in another, so that what is held out is the pair
of fact and phrasing (`Family.is_fact`).
"""

import functools
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

NAMES = ("Tom Anna Ben Mia Leo Zoe Sam Eva Max Ida Paul Nina Carl Rosa Otto Lena Hugo Vera Finn Clara Adam Ella Ivan "
         "Dora Noah Alma Igor Nora Emil Lucy").split()
THINGS = "apple book coin shell pen egg stone stamp card ball nut cake".split()
TRAINED, UNSEEN = range(4), 4  # phrasings: those of the demonstrations, and the one that only evaluation uses
TURN = " || "  # stands between the turns of a phrasing that is a dialogue: user || assistant || user


@dataclass(frozen=True)
class Solution:
    """What a perfect response holds.

    think: worked steps ("" where none are meant); answer: the text after them;
    calls: tool calls in order, each followed by its result when the dialogue is run.
    """

    answer: str
    think: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One problem in one phrasing. `content` is a sorted tuple of (field, value), so tasks compare and hash."""

    domain: str
    family: str
    level: int
    content: tuple
    phrasing: int
    prompt: str

    @property
    def messages(self) -> list[dict]:
        """The prompt as dialogue turns, the first and the last by the user."""
        turns = self.prompt.split(TURN)
        return [{"role": "user" if i % 2 == 0 else "assistant", "content": turn} for i, turn in enumerate(turns)]

    @property
    def fields(self) -> dict:
        return dict(self.content)


def single_step(bare: str) -> bool:
    """Whether `7*8`, `17-9` or `56/8` has a single result to work out, so that it has to be known."""
    match = re.fullmatch(r"(\d+)([-+*/])(\d+)", bare)
    if match is None:
        return False
    a, b = int(match[1]), int(match[3])
    largest = {"+": 9, "*": 9, "-": 19, "/": 9 * b}[match[2]]
    return 0 < b < 10 and a <= largest and (match[2] != "/" or a % b == 0)


@dataclass(frozen=True)
class Family:
    """phrasings: templates over the content's fields, or a dict from the content's "kind" to such templates.

    dressing: fields that are decoration (a person's name), not part of the content by which the split is made.
    restate: the problem in the shortest form that the notebooks of the pretraining text use; worked steps begin with it,
    so that a demonstration shows how to get from a question to what the base model can already do.
    facts: the kinds of content whose answer has to be known, because nothing in the world lets it
    be worked out; a single step of arithmetic is such a fact in every family that says what is to
    be computed.
    """

    name: str
    domain: str
    phrasings: tuple | dict
    problems: Callable[[], Iterable[tuple[int, dict]]]
    solve: Callable[[dict], Solution]
    dressing: dict = field(default_factory=dict)
    restate: Callable[[dict], str] | None = None
    arithmetic: Callable[[dict], str] | None = None  # what is to be computed, where `restate` says it in other words
    facts: tuple = ()

    def __hash__(self):
        return hash(self.name)

    def solution(self, content: dict) -> Solution:
        solved = self.solve(content)
        return replace(solved, think=f"{self.restate(content)}: {solved.think}") if self.restate and solved.think else solved

    def note(self, rng) -> str:
        """A worked problem of the training part as a line of a notebook: no question, no phrasing of the family."""
        solved = self.solution(dict(self.draw(rng, "train", range(1, 6), (0,)).content))
        return f"{solved.think} so {solved.answer}."

    def templates(self, content: dict) -> tuple:
        return self.phrasings[content["kind"]] if isinstance(self.phrasings, dict) else self.phrasings

    @functools.cached_property
    def levels(self) -> dict[tuple, int]:
        """Every content of the family, as a sorted tuple without dressing -> its level."""
        return {tuple(sorted(content.items())): level for level, content in self.problems()}

    def is_fact(self, content: dict) -> bool:
        return content.get("kind") in self.facts or single_step(self.bare(content))

    def bare(self, content: dict) -> str:
        """What is to be computed, or "" where the family does not say."""
        told = self.arithmetic or self.restate
        return told(content) if told else ""

    def part(self, content: dict, phrasing: int) -> str:
        """"test" for a tenth of all contents, "dev" for a twentieth, else "train"; the order of operands is ignored.

        Where the problem is nothing but arithmetic, the split goes by that alone: 47 + 38 is held out as a sum, as a word
        problem and as a line of code together, or one family would show the other's worked steps.
        Only for a fact, a single step included, does the phrasing count, in each family by itself:
        one of the trained phrasings and the unseen one are held out, "test" or "dev", the rest is
        "train".
        """
        bare = re.sub("//|%", "/", self.bare(content))  # worked in the same steps
        own = [value for key, value in content.items() if key not in self.dressing]
        if self.is_fact(content):
            held_out = self.hashed(self.name, own) % (2 * len(TRAINED))
            if phrasing not in (held_out % len(TRAINED), UNSEEN):
                return "train"
            return "test" if held_out < len(TRAINED) else "dev"
        if re.fullmatch(r"[\d+*/%()-]+", bare):
            bucket = self.hashed("arithmetic", re.findall(r"\d+|\D", bare)) % 20
        else:
            bucket = self.hashed(self.name, own) % 20
        return "test" if bucket < 2 else "dev" if bucket == 2 else "train"

    @staticmethod
    def hashed(name: str, operands: Iterable) -> int:
        return zlib.crc32(" ".join([name, *sorted(map(str, operands))]).encode())

    @functools.lru_cache(maxsize=None)
    def by_level(self, part: str, phrasings: tuple = tuple(TRAINED)) -> dict[int, list[tuple[tuple, tuple]]]:
        """level -> (content, those of the phrasings in which it belongs to that part); a level without contents is missing."""
        levels = {}
        for content, level in self.levels.items():
            fields = dict(content)
            if self.is_fact(fields):
                found = tuple(i for i in phrasings if self.part(fields, i) == part)
            else:
                found = phrasings if self.part(fields, phrasings[0]) == part else ()
            if found:
                levels.setdefault(level, []).append((content, found))
        return levels

    def contents(self, part: str) -> list[tuple]:
        """The contents that the part asks for in some trained phrasing; a fact is in "train" and in one other part."""
        return [content for rows in self.by_level(part).values() for content, _ in rows]

    def draw(self, rng, part: str, levels, phrasings) -> Task:
        """A level, then a content of it, then a phrasing, each uniform among those named that exist."""
        by_level = self.by_level(part, tuple(phrasings))
        content, phrasings = rng.choice(by_level[rng.choice([level for level in sorted(by_level) if level in levels])])
        return self.task(content, rng.choice(phrasings), rng)

    def task(self, content: tuple, phrasing: int, rng) -> Task:
        """The content in that phrasing, dressed by `rng` (a random.Random)."""
        fields = dict(content) | {key: rng.choice(values) for key, values in self.dressing.items()}
        prompt = self.templates(fields)[phrasing].format(**fields)
        return Task(self.domain, self.name, self.levels[content], tuple(sorted(fields.items())), phrasing, prompt)

    @functools.cached_property
    def patterns(self) -> list[tuple[str | None, int, re.Pattern]]:
        groups = self.phrasings.items() if isinstance(self.phrasings, dict) else [(None, self.phrasings)]
        values = {key: set(choices) for key, choices in self.dressing.items()}
        for content in self.levels:
            for key, value in content:
                values.setdefault(key, set()).add(str(value))
        alternatives = {key: "|".join(re.escape(value) for value in sorted(known, key=lambda v: (-len(v), v)))
                        for key, known in values.items()}

        def pattern(template: str) -> re.Pattern:
            seen = set()

            def group(match):  # a field that stands twice must say the same twice
                name = match[1]
                text = f"(?P={name})" if name in seen else f"(?P<{name}>{alternatives[name]})"
                seen.add(name)
                return text
            return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(template)))

        return [(kind, i, pattern(template)) for kind, templates in groups for i, template in enumerate(templates)]

    def parse(self, prompt: str) -> Task | None:
        for kind, phrasing, pattern in self.patterns:
            if match := pattern.fullmatch(prompt):
                fields = {key: int(value) if re.fullmatch(r"-?\d+", value) else value
                          for key, value in match.groupdict().items()}
                if kind is not None:
                    fields["kind"] = kind
                bare = tuple(sorted((key, value) for key, value in fields.items() if key not in self.dressing))
                dressed = all(fields[key] in values for key, values in self.dressing.items())
                if dressed and bare in self.levels:
                    return Task(self.domain, self.name, self.levels[bare], tuple(sorted(fields.items())), phrasing, prompt)
        return None
