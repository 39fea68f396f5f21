"""What every part of the tiny world shares: a family of problems, one task of it, and its words.

A family owns three things: the complete list of its problems, the phrasings that turn a problem
into a prompt, and the solution. A problem is a level from 1 to 5 and a content, which is a dict of
named fields, such as {"first": 47, "second": 38}. Because the list is complete, `parse` can read a
prompt back, the split can be made by content, and `python -m data.world --stats` can count.

The last phrasing of every family is never trained on. Evaluation reports it as a column of its own.

Most of what is held out can be worked out (other operands) or combined (another pair of things).
A fact, such as a capital or a single step (7 * 8), can only be said in other words. So it is
demonstrated in some trained phrasings and asked in another: what is held out is the pair of fact
and phrasing (`Family.is_fact`).

Only the phrasings and the solution read a field's name. The split hashes values, never names.
"""

import functools
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field, replace

NAMES = (
    "Tom Anna Ben Mia Leo Zoe Sam Eva Max Ida Paul Nina Carl Rosa Otto Lena Hugo Vera Finn Clara "
    "Adam Ella Ivan Dora Noah Alma Igor Nora Emil Lucy"
).split()
THINGS = "apple book coin shell pen egg stone stamp card ball nut cake".split()
WORDS = (
    "cat dog sun tea red top map pin log cup fox box jam net owl pot rug van web zip ant bee elf "
    "hat ice key lip mud nut oak"
).split()
LEVELS = range(1, 6)
TRAINED = range(4)  # the phrasings of the demonstrations
UNSEEN = 4  # the phrasing that only evaluation uses
TURN = " || "  # parts the turns of a phrasing that is a dialogue: user || assistant || user


@dataclass(frozen=True)
class Solution:
    """What a perfect response holds.

    answer: the text after the worked steps.
    think: the worked steps, "" where none are meant.
    calls: tool calls in order; each is followed by its result when the dialogue is run.
    """

    answer: str
    think: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One problem in one phrasing.

    `content` is a sorted tuple of (field, value), so that tasks compare and hash.
    """

    domain: str
    family: str
    level: int
    content: tuple
    phrasing: int
    prompt: str

    @property
    def messages(self) -> list[dict]:
        """The prompt as dialogue turns, the first and the last by the user."""
        roles = ("user", "assistant")
        turns = self.prompt.split(TURN)
        return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]

    @property
    def fields(self) -> dict:
        return dict(self.content)


def sorted_fields(fields: dict) -> tuple:
    """A content as a tuple that hashes: (field, value) by the field's name."""
    return tuple(sorted(fields.items()))


def single_step(bare: str) -> bool:
    """Whether `7*8`, `17-9` or `56/8` has a single result to work out, so that it must be known."""
    match = re.fullmatch(r"(\d+)([-+*/])(\d+)", bare)
    if match is None:
        return False
    left, sign, right = int(match[1]), match[2], int(match[3])
    largest = {"+": 9, "*": 9, "-": 19, "/": 9 * right}[sign]
    exact = sign != "/" or (right > 0 and left % right == 0)
    return 0 < right < 10 and left <= largest and exact


@dataclass(frozen=True)
class Family:
    """A kind of problem: all its contents, its phrasings and its solution.

    phrasings: templates over the content's fields, or a dict from the content's "kind" to such
        templates.
    problems: yields (level, content) for every problem that exists.
    solve: the solution of a content, without the problem in short before its steps.
    dressing: fields that are decoration, such as a person's name; the split ignores them.
    restate: the problem in the shortest form, which the notebooks of the pretraining text use.
        Worked steps begin with it: a demonstration so shows how to get from a question to what the
        base model can already do.
    arithmetic: what is to be computed, where `restate` says it in other words.
    facts: the kinds of content whose answer has to be known, because nothing in the world lets it
        be worked out. A single step of arithmetic is a fact too, in every family that says what is
        to be computed.
    """

    name: str
    domain: str
    phrasings: tuple | dict
    problems: Callable[[], Iterable[tuple[int, dict]]]
    solve: Callable[[dict], Solution]
    _: KW_ONLY
    dressing: dict = field(default_factory=dict)
    restate: Callable[[dict], str] | None = None
    arithmetic: Callable[[dict], str] | None = None
    facts: tuple = ()

    def __hash__(self):
        return hash(self.name)

    # ---- a content: its words, its solution ----

    def solution(self, content: dict) -> Solution:
        """The solution, its steps after the problem in short: `47+38: 7+8=15 4+3=7 7+1=8`."""
        solved = self.solve(content)
        if self.restate is None or not solved.think:
            return solved
        return replace(solved, think=f"{self.restate(content)}: {solved.think}")

    def note(self, rng) -> str:
        """A worked problem of the training part as a line of a notebook, in no phrasing at all."""
        task = self.draw(rng, "train", LEVELS, (0,))
        solved = self.solution(task.fields)
        return f"{solved.think} so {solved.answer}."

    def templates(self, content: dict) -> tuple:
        """The phrasings of this content's kind."""
        if isinstance(self.phrasings, dict):
            return self.phrasings[content["kind"]]
        return self.phrasings

    @functools.cached_property
    def levels(self) -> dict[tuple, int]:
        """Every content of the family, as a sorted tuple without dressing -> its level."""
        return {sorted_fields(content): level for level, content in self.problems()}

    def bare(self, content: dict) -> str:
        """What is to be computed, or "" where the family does not say."""
        told = self.arithmetic or self.restate
        return told(content) if told else ""

    def is_fact(self, content: dict) -> bool:
        return content.get("kind") in self.facts or single_step(self.bare(content))

    # ---- the split ----

    def part(self, content: dict, phrasing: int) -> str:
        """The part of a content: "test" for a tenth of all, "dev" for a twentieth, else "train".

        The order of operands is ignored. Where the problem is nothing but arithmetic, the split
        goes by that alone: 47 + 38 is held out as a sum, as a word problem and as a line of code
        together, or one family would show the other's worked steps.
        Only for a fact does the phrasing count, in each family by itself. One of the trained
        phrasings and the unseen one are held out, in "test" or in "dev"; the rest is "train".
        """
        values = [value for key, value in content.items() if key not in self.dressing]
        if self.is_fact(content):
            held_out = self.hashed(self.name, values) % (2 * len(TRAINED))
            if phrasing not in (held_out % len(TRAINED), UNSEEN):
                return "train"
            return "test" if held_out < len(TRAINED) else "dev"
        bare = re.sub("//|%", "/", self.bare(content))  # these are worked in the same steps
        if re.fullmatch(r"[\d+*/%()-]+", bare):
            bucket = self.hashed("arithmetic", re.findall(r"\d+|\D", bare)) % 20
        else:
            bucket = self.hashed(self.name, values) % 20
        if bucket < 2:
            return "test"
        return "dev" if bucket == 2 else "train"

    @staticmethod
    def hashed(name: str, operands: Iterable) -> int:
        """A number that depends on a name and the operands, not on their order."""
        return zlib.crc32(" ".join([name, *sorted(map(str, operands))]).encode())

    @functools.lru_cache(maxsize=None)
    def by_level(
        self, part: str, phrasings: tuple = tuple(TRAINED)
    ) -> dict[int, list[tuple[tuple, tuple]]]:
        """level -> (content, those of the phrasings in which it belongs to that part).

        A level without contents is missing.
        """
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
        """The contents that the part asks for in some trained phrasing.

        A fact is in "train" and in one other part.
        """
        return [content for rows in self.by_level(part).values() for content, _ in rows]

    # ---- from a content to a prompt, and back ----

    def draw(self, rng, part: str, levels, phrasings) -> Task:
        """A level, then a content of it, then a phrasing, each uniform among those that exist."""
        by_level = self.by_level(part, tuple(phrasings))
        level = rng.choice([level for level in sorted(by_level) if level in levels])
        content, found = rng.choice(by_level[level])
        return self.task(content, rng.choice(found), rng)

    def task(self, content: tuple, phrasing: int, rng) -> Task:
        """The content in that phrasing, dressed by `rng` (a random.Random)."""
        fields = dict(content)
        for key, values in self.dressing.items():
            fields[key] = rng.choice(values)
        prompt = self.templates(fields)[phrasing].format(**fields)
        level = self.levels[content]
        return Task(self.domain, self.name, level, sorted_fields(fields), phrasing, prompt)

    def parse(self, prompt: str) -> Task | None:
        """The task that a prompt poses, or None where it is none of this family's."""
        for kind, phrasing, pattern in self.patterns:
            match = pattern.fullmatch(prompt)
            if match is None:
                continue
            fields = {key: read_value(text) for key, text in match.groupdict().items()}
            if kind is not None:
                fields["kind"] = kind
            dressed = all(fields[key] in values for key, values in self.dressing.items())
            undressed = {key: value for key, value in fields.items() if key not in self.dressing}
            level = self.levels.get(sorted_fields(undressed))
            if dressed and level is not None:
                return Task(self.domain, self.name, level, sorted_fields(fields), phrasing, prompt)
        return None

    @functools.cached_property
    def patterns(self) -> list[tuple[str | None, int, re.Pattern]]:
        """(kind, phrasing, regular expression) of every template."""
        groups = self.phrasings if isinstance(self.phrasings, dict) else {None: self.phrasings}
        values = {key: set(choices) for key, choices in self.dressing.items()}
        for content in self.levels:
            for key, value in content:
                values.setdefault(key, set()).add(str(value))
        alternatives = {key: one_of(known) for key, known in values.items()}
        return [
            (kind, i, template_pattern(template, alternatives))
            for kind, templates in groups.items()
            for i, template in enumerate(templates)
        ]


def read_value(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def one_of(texts: set[str]) -> str:
    """A regular expression for one of the texts, the longest first."""
    return "|".join(re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text)))


def template_pattern(template: str, alternatives: dict[str, str]) -> re.Pattern:
    """A template with each field as a group; a field that stands twice must say the same twice."""
    seen = set()

    def group(match: re.Match) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{alternatives[name]})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(template)))
