"""What can be had without an answer? The best of a list of cheats beside the honest score.

    python -m tests.experiments.cheating

Constants, the prompt's own words said politely, the numbers or the sum of the prompt copied, a rule
of thumb where there are options, any well-formed call. None of them reads what the prompt asks, so
what they are paid is what a policy can climb without learning anything. The prompts are those of
the evaluation; no model is involved.
"""

import argparse
import random
import re

from data import world
from data.files.tokenizer import Reply
from data.runtime.command import guarded
from data.world import chat as world_chat
from data.world import code as world_code
from data.world import judge as world_judge
from data.world.family import NAMES

NUMBER = r"\d+(?:\.\d+)?"
SMALL_WORDS = set(
    "a an and are as at be by can could do does for from give has have how i in into is it its "
    "me my of on or s should so tell that the them then this to was what which who will with "
    "would you your".split()
)


def constants(domain: str) -> list[str]:
    """A hundred replies, the same to every prompt of the domain."""
    if domain in ("math", "agent", "stem"):
        units = {
            "math": [""],
            "agent": ["", " coins", " cm"],
            "stem": [" N", " kg", " m/s2", " km", " km/h", " h", " cm2", " g", ""],
        }
        numbers = {
            "math": [*range(1, 100), "0.5"],
            "agent": range(2, 35),
            "stem": range(2, 13),
        }[domain]
        named = {"math": [], "agent": ["Tom by 10 years"], "stem": ["Earth"]}[domain]
        return [f"{number}{unit}" for unit in units[domain] for number in numbers] + named
    if domain == "code":
        values = ["True", "False", "None", "''", "[]", "0.5", "'a'", "[1]", "x", *range(41)]
        return [f"def f(x): return {value}" for value in values] + [
            str(number) for number in range(50)
        ]
    if domain == "judge":
        return [f"Score: {score}" for score in range(6)]
    rng = random.Random(0)
    words = [
        word
        for family in world.families_of("chat")
        for task in (family.draw(rng, "train", range(1, 6), range(4)) for _ in range(9))
        for word in task.prompt.split()
    ]
    answers = [
        world.reference(family.draw(rng, "train", range(1, 6), range(4)))[-1]["content"]
        for family in world.families_of("chat")
        for _ in range(6)
    ]
    generic = [
        "",
        "Sure!",
        "Of course! Thank you!",
        "Hello! How can I help you?",
        "Sure! Could you please help?",
        "Whatever.",
        "Sure! Your name is Tom. You like tea.",
        "Sure! Your name is Tom. You like tea. Red and blue are colours.",
        "Sure! Could you help, your name, you like the opposite of hot.",
        "Sure! Fruits, animals, colours, tools, drinks, trees, birds, toys.",
        "Sure! Hello, Tom! You like tea.",
        "Sure! " + " ".join(world_chat.GREETINGS + NAMES[:4]),
        "Sure! " + " ".join(world_chat.OPPOSITES),
        "Sure! " + " ".join(world_chat.CAPITALS),
        *world_chat.FILLERS,
    ]
    babble = [" ".join(["Sure!", *rng.sample(words, 4 + k % 20)]) for k in range(100)]
    return list(dict.fromkeys(generic + answers + babble))[:100]


def says(text: str, *calls: str) -> Reply:
    return Reply(text, calls=[(call, world.run_tool(call)) for call in calls])


def content_words(prompt: str) -> str:
    return " ".join(
        word for word in re.findall(r"[\w']+", prompt) if word.lower() not in SMALL_WORDS
    )


def chat_cheats(task) -> dict[str, Reply]:
    words = content_words(task.prompt)
    asked = task.messages[-1]["content"]
    return {
        "its words, politely": says(f"Sure! {words}"),
        "its words": says(words),
        "the prompt, politely": says(f"Sure! {asked}"),
        "its words, politely, with help": says(f"Sure! {words} help"),
        "could you please, its words": says(f"Could you please {words}"),
        "could you please, the prompt": says(f"Could you please {asked}"),
    }


def options_of(task) -> list[str]:
    """What is compared, in the order of the prompt."""
    fields = task.fields
    compared = ("first", "second", "third", "element", "planet", "other")
    options = [str(fields[key]) for key in compared if key in fields]
    return sorted(options, key=task.prompt.find)


def reasoning_cheats(task) -> dict[str, Reply]:
    """Given away for nothing: the unit, and the calls that the answer takes."""
    solution = world.BY_NAME[task.family].solution(task.fields)
    _, space, unit = solution.answer.rpartition(" by ")[2].partition(" ")
    unit = space + unit if unit else ""
    numbers = re.findall(NUMBER, task.prompt)
    calls = solution.calls
    cheats = {}
    if numbers:
        ordered = sorted(numbers, key=float)
        cheats = {
            "first number": numbers[0],
            "last number": numbers[-1],
            "largest number": ordered[-1],
            "smallest number": ordered[0],
        }
        cheats |= {f"undone {sign}": sign.join(numbers[:2]) for sign in "+-*/" if len(numbers) > 1}
        cheats = {name: says(text + unit, *calls) for name, text in cheats.items()}
    options = options_of(task) if " by " in solution.answer else []
    if options:
        picked = {
            "first": options[0],
            "last": options[-1],
            "longer": max(options, key=len),
            "shorter": min(options, key=len),
            "larger digits": max(options, key=lambda text: re.sub(r"\D", "", text)),
        }
        cheats |= {f"{name} option alone": says(option, *calls) for name, option in picked.items()}
        cheats |= {
            f"{name} option by {k}": says(f"{option} by {k}{unit}", *calls)
            for name, option in picked.items()
            for k in (1, 2, 3, 5, 10)
        }
    if task.domain == "agent":
        cheats |= {
            "right, after any call": says(solution.answer, "calc 1+1"),
            "right, without a call": says(solution.answer),
            "any call": says("2", "calc 1+1"),
            "right, after half of the calls": says(solution.answer, *calls[: len(calls) // 2]),
        }
    match = re.search(r"\[(.+?)\]", task.prompt)
    if match:
        items = match[1].split(", ")
        cheats |= {
            "the list": says(f"[{match[1]}]"),
            "first item": says(items[0]),
            "last item": says(items[-1]),
            "largest item": says(max(items)),
        }
    if task.domain == "code":
        line = re.search(r"(def )?f\(x\):? .*", task.prompt)
        cheats |= {
            "x itself": says("def f(x): return x"),
            "the prompt's line": says(line[0] if line else ""),
        }
    return cheats


def constant_scores(task, replies: list[str]) -> list[float]:
    """A constant function passes if all hidden tests expect its value: no program has to run."""
    tests = world_code.hidden_tests(task.family, task.fields) if task.domain == "code" else None
    if tests is None:
        return world.score_replies([task] * len(replies), [Reply(text) for text in replies])
    [(_, expected)] = tests
    return [
        float(
            text.startswith("def")
            and {text} == {f"def f(x): return {value!r}" for value in expected}
        )
        for text in replies
    ]


def family_scores(domain: str, n: int, part: str = "test") -> dict[str, dict[str, float]]:
    """family -> cheat -> mean score on the family's share of n evaluation prompts, "all" on all."""
    tasks = world.evaluation_tasks(domain, n, part)
    replies = constants(domain)
    cheats = [chat_cheats(task) if domain == "chat" else reasoning_cheats(task) for task in tasks]
    asked = [(i, name) for i, made in enumerate(cheats) for name in made]
    scores = world.score_replies(
        [tasks[i] for i, _ in asked], [cheats[i][name] for i, name in asked]
    )
    table = {"all": {}}
    for (i, name), score in zip(asked, scores):
        for family in (tasks[i].family, "all"):
            row = table.setdefault(family, {})
            row[name] = row.get(name, 0.0) + score
    for task in tasks:
        for text, score in zip(replies, constant_scores(task, replies)):
            for family in (task.family, "all"):
                row = table.setdefault(family, {})
                row[f"always {text!r}"] = row.get(f"always {text!r}", 0.0) + score
    counts = {
        family: len(tasks) if family == "all" else sum(task.family == family for task in tasks)
        for family in table
    }
    return {
        family: {name: total / counts[family] for name, total in row.items()}
        for family, row in table.items()
    }


def judge_scores(n: int, part: str = "test") -> dict[str, float]:
    """Pairwise agreement of a rule of thumb with the rubric."""

    def agreement(score) -> float:
        total = 0.0
        for task, first, second in pairs:
            total += world.pairwise_agreement(
                score(task, first),
                score(task, second),
                world_judge.true_reward(task, first),
                world_judge.true_reward(task, second),
            )
        return total / n

    pairs = world.evaluation_judge_pairs(n, part)
    rules = {
        "longer": lambda task, text: len(text),
        "shorter": lambda task, text: -len(text),
        "polite": lambda task, text: float(text.startswith(world_chat.OPENINGS)),
        "shares words": lambda task, text: len(
            set(content_words(text).split()) & set(content_words(task.prompt).split())
        ),
    }
    always = {
        f"always {text!r}": agreement(
            lambda task, response, text=text: world_judge.parse_verdict(text)
        )
        for text in constants("judge")
    }
    return always | {name: agreement(rule) for name, rule in rules.items()}


def honest_scores(domain: str, n: int, part: str = "test") -> dict[str, float]:
    """The reference's own score, by family."""
    tasks = world.evaluation_tasks(domain, n, part)
    replies = []
    for task in tasks:
        calls = world.BY_NAME[task.family].solution(task.fields).calls
        replies.append(says(world.reference(task)[-1]["content"], *calls))
    scores = world.score_replies(tasks, replies)
    families = {task.family for task in tasks}
    table = {
        family: [score for task, score in zip(tasks, scores) if task.family == family]
        for family in families
    } | {"all": scores}
    return {family: sum(row) / len(row) for family, row in table.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1000, help="evaluation prompts a domain")
    parser.add_argument("--part", default="test", choices=("test", "dev"))
    args = parser.parse_args()
    if args.n < 1:
        raise ValueError(f"--n {args.n}: needs at least 1")
    print(f"{'domain':7}{'family':18}{'honest':>7}{'cheat':>7}  the best cheat")
    for domain in world.DOMAINS[:5]:
        honest = honest_scores(domain, args.n, args.part)
        for family, row in sorted(family_scores(domain, args.n, args.part).items()):
            best = max(row, key=row.get)
            print(
                f"{domain:7}{family:18}{100 * honest[family]:6.0f}%{100 * row[best]:6.1f}%  {best}",
                flush=True,
            )
    row = judge_scores(args.n, args.part)
    best = max(row, key=row.get)
    constant = max(value for name, value in row.items() if name.startswith("always"))
    print(
        f"{'judge':7}{'all':18}{100:6.0f}%{100 * row[best]:6.1f}%  {best}; "
        f"the best constant {100 * constant:.0f}%"
    )


if __name__ == "__main__":
    guarded(main)
