"""Real files in place of the tiny world: the folder that `python pipeline.py --data DIR` runs on.

    math.jsonl          GSM8K: a number after `####`, which a reply is checked against (data/world/answers.py)
    code.jsonl          MBPP: asserts, which are run in the sandbox; the first one is shown in the prompt
    preference.jsonl    HH-RLHF or UltraFeedback: pairs for the reward model; their prompts are those of rl_preference
    chat.jsonl          optional: instructions for overall SFT (any layout of data/files/formats.py); else the chosen replies are taken

Each may be gzipped (`.jsonl.gz`). `math_test.jsonl` and `code_test.jsonl` are evaluated on where they exist; else a
twentieth of the prompts, by a hash of their text, is held out (`rows.split`). A training record of
any file whose prompt is held out is left out and counted. Chat has no truth here, so it has no
column in the table.
"""

from dataclasses import dataclass, field
from pathlib import Path

from data.files import formats
from data.runtime import sandbox
from data.runtime.rows import split
from data.world.answers import answer_of

DOMAINS = ("math", "code", "chat")
CHECKED = ("math", "code")
SHOWN = "Your code should pass this test:"


@dataclass(frozen=True)
class Task:
    """One prompt of a file, and what checks a reply to it: `answer` in math, `tests` in code, nothing in chat."""

    domain: str
    prompt: str
    turns: tuple[tuple[str, str], ...]  # (role, content)
    answer: str | None = None
    tests: tuple = ()  # (expression, expected)
    setup: str = ""  # MBPP's test_setup_code, which stands after the program

    @property
    def messages(self) -> list[dict]:
        return [{"role": role, "content": content} for role, content in self.turns]


@dataclass
class Folder:
    """tasks by part ("train", "test") and domain; demonstrations by domain, of the train part;
    pairs; what was dropped and why; notes, which are lines to print."""

    tasks: dict[str, dict[str, list[Task]]]
    demonstrations: dict[str, list[dict]]
    pairs: list[dict]
    dropped: dict[str, int]
    notes: list[str] = field(default_factory=list)


def drop_long(folder: Folder, length_of, limit: int) -> None:
    """Leave out tasks whose prompt has more than `limit` tokens, length_of(messages), and count them in `dropped`."""
    for part in folder.tasks.values():
        for domain, tasks in part.items():
            kept = [task for task in tasks if length_of(task.messages) <= limit]
            if len(kept) < len(tasks):
                reason = f"prompts of more than {limit} tokens, for RL and evaluation"
                folder.dropped[reason] = folder.dropped.get(reason, 0) + len(tasks) - len(kept)
            part[domain] = kept


def task_of(domain: str, record: dict) -> Task:
    """The task of a record of `formats.read_records`. Raises ValueError where an MBPP test is no assert."""
    turns, tests, setup = [dict(message) for message in record["messages"][:-1]], (), ""
    if domain == "code":
        setup = record["tests"]["test_setup_code"]
        tests = tuple(sandbox.mbpp_tests(record["tests"]))
        turns[-1]["content"] += f"\n{SHOWN}\n{record['tests']['test_list'][0]}"
    return Task(domain, turns[-1]["content"], tuple((turn["role"], turn["content"]) for turn in turns), record.get("answer"), tests, setup)


def find(folder: Path, name: str) -> Path | None:
    return next((path for ending in (".jsonl", ".jsonl.gz", ".json") if (path := folder / (name + ending)).exists()), None)


def read_folder(path) -> Folder:
    """Raises formats.DataError for a broken record, and where math, code or preference is missing or holds nothing to check."""
    folder, dropped, notes = Path(path), {}, []
    if not folder.is_dir():
        raise formats.DataError(f"{folder}: not a folder; the pipeline's --data takes one with math.jsonl, code.jsonl and preference.jsonl")
    tasks, demonstrations = {part: {domain: [] for domain in DOMAINS} for part in ("train", "test")}, {domain: [] for domain in DOMAINS}

    def read(name: str, kind: str, needed: bool) -> list[dict]:
        file = find(folder, name)
        if file is None and needed:
            raise formats.DataError(f"{folder / name}.jsonl: no such file; the folder needs math.jsonl, code.jsonl and preference.jsonl")
        records, reasons, told = formats.read_records(file, kind) if file else ([], {}, [])
        notes.extend(told)
        for reason, count in reasons.items():
            dropped[reason] = dropped.get(reason, 0) + count
        return records

    def put(domain: str, part: str, answered: list[tuple[Task, dict]]) -> None:
        tasks[part][domain] += [task for task, _ in answered]
        if part == "train":
            demonstrations[domain] += [{"messages": [*task.messages, reply]}
                                       for task, reply in answered]

    def divide(domain: str, found: list[tuple[Task, dict]]) -> None:
        """A twentieth is held out, where there are two prompts at least."""
        prompts = [opening(task.messages) for task, _ in found]
        sides = split(domain, found, prompts, 20) if len(set(prompts)) > 1 else (found, [])
        for part, side in zip(("train", "test"), sides):
            put(domain, part, side)

    for domain in CHECKED:
        apart, found = find(folder, f"{domain}_test") is not None, {"train": [], "test": []}
        for part, name in (("train", domain), ("test", f"{domain}_test")):
            for record in read(name, "instruction", part == "train"):
                if ("answer" if domain == "math" else "tests") not in record:
                    dropped["nothing to check"] = dropped.get("nothing to check", 0) + 1
                    continue
                if domain == "math" and answer_of(record["answer"]) is None:
                    reason = "an answer that is no number"
                    dropped[reason] = dropped.get(reason, 0) + 1
                    continue
                try:
                    task = task_of(domain, record)
                except (ValueError, SyntaxError):
                    dropped["a test that is no assert"] = dropped.get("a test that is no assert", 0) + 1
                    continue
                found[part].append((task, record["messages"][-1]))
        if not apart:
            divide(domain, found["train"])
        else:
            for part in found:
                put(domain, part, found[part])
            held_out = {opening(task.messages) for task in tasks["test"][domain]}
            if repeated := leave_out(tasks["train"][domain], demonstrations[domain], held_out):
                notes.append(f"{find(folder, f'{domain}_test')}: {repeated} records of "
                             f"{find(folder, domain).name} repeat its prompts and are not trained "
                             "on")
        for part in tasks:
            if not tasks[part][domain]:
                what = "answers with `#### N`" if domain == "math" else "MBPP's test_list"
                raise formats.DataError(f"{find(folder, domain)}: nothing that can be checked is left to {part} on; expected {what}, and enough records for a "
                                        f"twentieth to be held out, or a {domain}_test.jsonl")
    pairs = read("preference", "preference", True)
    chats = []
    for pair in pairs:
        turns = tuple((turn["role"], turn["content"]) for turn in pair["prompt"])
        reply = {"role": "assistant", "content": pair["chosen"]}
        chats.append((Task("chat", turns[-1][1], turns), reply))
    divide("chat", chats)
    if given := read("chat", "instruction", False):
        demonstrations["chat"] = [{"messages": record["messages"]} for record in given]
    held_out = {opening(task.messages) for domain in DOMAINS for task in tasks["test"][domain]}
    repeated = [leave_out(tasks["train"][domain], demonstrations[domain], held_out)
                for domain in DOMAINS]
    if sum(repeated):
        dropped["prompts of another file's held-out part"] = sum(repeated)
    # the pairs of chat's own held-out prompts stay: they are what a reward model is measured on
    checked = {opening(task.messages) for domain in CHECKED for task in tasks["test"][domain]}
    kept = [pair for pair in pairs if opening(pair["prompt"]) not in checked]
    if len(kept) < len(pairs):
        dropped["pairs of another file's held-out prompts"] = len(pairs) - len(kept)
    return Folder(tasks, demonstrations, kept, dropped, notes)


def opening(messages: list[dict]) -> str:
    """`formats.opening` without the test that `task_of` shows: a prompt is the same one, whichever
    test comes first."""
    return formats.opening(messages).partition(f" {SHOWN} ")[0]


def leave_out(tasks: list[Task], demonstrations: list[dict], held_out: set[str]) -> int:
    """Takes from both lists what opens like one of `held_out`; returns how many records."""
    before = len(tasks), len(demonstrations)
    tasks[:] = [task for task in tasks if opening(task.messages) not in held_out]
    demonstrations[:] = [one for one in demonstrations
                         if opening(one["messages"]) not in held_out]
    return max(before[0] - len(tasks), before[1] - len(demonstrations))
