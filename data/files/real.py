"""Real files in place of the tiny world: the folder that `python pipeline.py --data DIR` runs on.

    math.jsonl          GSM8K: a number after `####`, which a reply is checked against
                        (data/world/answers.py)
    code.jsonl          MBPP, full or sanitized: asserts, which are run in the sandbox; the first
                        one is shown in the prompt
    preference.jsonl    HH-RLHF or UltraFeedback: pairs for the reward model; their prompts are
                        those of rl_preference
    chat.jsonl          optional: instructions for overall SFT, in any layout of
                        data/files/layouts.py; without it the chosen replies are taken

Each may be gzipped (`.jsonl.gz`). `math_test.jsonl` and `code_test.jsonl` are evaluated on where
they exist. Else a twentieth of the prompts, by a hash of their text, is held out (`rows.split`). A
training record of any file whose prompt is held out is left out and counted. Chat has no truth
here, so it has no column in the table.
"""

from dataclasses import dataclass, field
from pathlib import Path

from data.files import formats
from data.runtime import sandbox
from data.runtime.rows import split
from data.world.answers import answer_of

DOMAINS = ("math", "code", "chat")
CHECKED = ("math", "code")
NEEDED = "math.jsonl, code.jsonl and preference.jsonl"
SHOWN = "Your code should pass this test:"


@dataclass(frozen=True)
class Task:
    """One prompt of a file, and what checks a reply to it.

    That is `answer` in math, `tests` in code, and nothing in chat.
    """

    domain: str
    prompt: str
    turns: tuple[tuple[str, str], ...]  # (role, content)
    answer: str | None = None
    tests: tuple = ()  # (expression, expected)
    setup: str = ""  # MBPP's imports and test_setup_code, which stand after the program

    @property
    def messages(self) -> list[dict]:
        return [{"role": role, "content": content} for role, content in self.turns]


@dataclass
class Folder:
    """What a folder holds: tasks by part ("train", "test") and domain, demonstrations by domain.

    The demonstrations are of the train part. `dropped` counts what was left out by its reason;
    notes are lines to print.
    """

    tasks: dict[str, dict[str, list[Task]]]
    demonstrations: dict[str, list[dict]]
    pairs: list[dict] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count


def read_folder(path) -> Folder:
    """Raises formats.DataError for a broken record or a file that is missing.

    So it does where math or code holds nothing to check.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise formats.DataError(
            f"{folder}: not a folder; the pipeline's --data takes one with {NEEDED}"
        )
    data = Folder(
        tasks={part: {domain: [] for domain in DOMAINS} for part in ("train", "test")},
        demonstrations={domain: [] for domain in DOMAINS},
    )
    for domain in CHECKED:
        read_checked(folder, domain, data)
    pairs = read_file(folder, "preference", "preference", data)
    plain = [pair for pair in pairs if not uses_tools(pair["prompt"])]
    if len(plain) < len(pairs):
        reason = "pairs with tools in the prompt, for all but the reward model"
        data.dropped[reason] = len(pairs) - len(plain)
    divide("chat", list(map(chosen_reply, plain)), data)
    given = read_file(folder, "chat", "instruction", data, needed=False)
    if given:
        data.demonstrations["chat"] = [{"messages": record["messages"]} for record in given]
    held_out = openings_of(data, DOMAINS)
    repeated = [
        leave_out(data.tasks["train"][domain], data.demonstrations[domain], held_out)
        for domain in DOMAINS
    ]
    if sum(repeated):
        data.dropped["prompts of another file's held-out part"] = sum(repeated)
    # the pairs of chat's own held-out prompts stay: they are what a reward model is measured on
    checked = openings_of(data, CHECKED)
    data.pairs = [pair for pair in pairs if opening(pair["prompt"]) not in checked]
    if len(data.pairs) < len(pairs):
        reason = "pairs of another file's held-out prompts"
        data.dropped[reason] = len(pairs) - len(data.pairs)
    return data


def find(folder: Path, name: str) -> Path | None:
    for ending in (".jsonl", ".jsonl.gz", ".json"):
        path = folder / (name + ending)
        if path.exists():
            return path
    return None


def read_file(folder: Path, name: str, kind: str, data: Folder, needed: bool = True) -> list[dict]:
    """The records of one file; [] for a file that is neither there nor needed."""
    file = find(folder, name)
    if file is None:
        if needed:
            raise formats.DataError(
                f"{folder / name}.jsonl: no such file; the folder needs {NEEDED}"
            )
        return []
    records, reasons, notes = formats.read_records(file, kind)
    data.notes += notes
    for reason, count in reasons.items():
        data.drop(reason, count)
    return records


def read_checked(folder: Path, domain: str, data: Folder) -> None:
    """The tasks of math or code, train and test, and the demonstrations of the train part."""
    train = answered_tasks(domain, read_file(folder, domain, "instruction", data), data)
    test_file = find(folder, f"{domain}_test")
    if test_file is None:
        divide(domain, train, data)
    else:
        records = read_file(folder, f"{domain}_test", "instruction", data)
        put(domain, "train", train, data)
        put(domain, "test", answered_tasks(domain, records, data), data)
        held_out = openings_of(data, (domain,))
        repeated = leave_out(data.tasks["train"][domain], data.demonstrations[domain], held_out)
        if repeated:
            data.notes.append(
                f"{test_file}: {repeated} records of "
                f"{find(folder, domain).name} repeat its prompts and are not trained on"
            )
    for part in data.tasks:
        if not data.tasks[part][domain]:
            what = "answers with `#### N`" if domain == "math" else "MBPP's test_list"
            raise formats.DataError(
                f"{find(folder, domain)}: nothing that can be checked is left to {part} on; "
                f"expected {what}, and enough records for a "
                f"twentieth to be held out, or a {domain}_test.jsonl"
            )


def answered_tasks(domain: str, records: list[dict], data: Folder) -> list[tuple[Task, dict]]:
    """(task, reply) of each record that can be checked; the others are counted as dropped."""
    check = "answer" if domain == "math" else "tests"
    answered = []
    for record in records:
        if check not in record:
            data.drop("nothing to check")
            continue
        if domain == "math" and answer_of(record["answer"]) is None:
            data.drop("an answer that is no number")
            continue
        try:
            task = task_of(domain, record)
        except (ValueError, SyntaxError):
            data.drop("a test that is no assert")
            continue
        answered.append((task, record["messages"][-1]))
    return answered


def task_of(domain: str, record: dict) -> Task:
    """The task of a record of `formats.read_records`.

    Raises ValueError where an MBPP test is no assert.
    """
    turns = [dict(message) for message in record["messages"][:-1]]
    tests = ()
    setup = ""
    if domain == "code":
        setup = record["tests"]["test_setup_code"]
        tests = tuple(sandbox.mbpp_tests(record["tests"]))
        turns[-1]["content"] += f"\n{SHOWN}\n{record['tests']['test_list'][0]}"
    return Task(
        domain,
        prompt=turns[-1]["content"],
        turns=tuple((turn["role"], turn["content"]) for turn in turns),
        answer=record.get("answer"),
        tests=tests,
        setup=setup,
    )


def uses_tools(messages: list[dict]) -> bool:
    """Whether a turn defines or calls a tool: a Task keeps no more of it than what is said."""
    return any(
        turn["role"] == "tool" or "tools" in turn or "tool_call" in turn for turn in messages
    )


def chosen_reply(pair: dict) -> tuple[Task, dict]:
    """A pair's prompt as a task of chat, and the reply that was preferred."""
    turns = tuple((turn["role"], turn["content"]) for turn in pair["prompt"])
    return Task("chat", turns[-1][1], turns), {"role": "assistant", "content": pair["chosen"]}


def divide(domain: str, answered: list[tuple[Task, dict]], data: Folder) -> None:
    """Puts a twentieth into the test part, where there are two prompts at least."""
    prompts = [opening(task.messages) for task, _ in answered]
    train, test = answered, []
    if len(set(prompts)) > 1:
        train, test = split(domain, answered, prompts, 20)
    put(domain, "train", train, data)
    put(domain, "test", test, data)


def put(domain: str, part: str, answered: list[tuple[Task, dict]], data: Folder) -> None:
    data.tasks[part][domain] += [task for task, _ in answered]
    if part == "train":
        data.demonstrations[domain] += [
            {"messages": [*task.messages, reply]} for task, reply in answered
        ]


def drop_long(folder: Folder, length_of, limit: int) -> None:
    """Leaves out tasks whose prompt has more than `limit` tokens, and counts them in `dropped`.

    length_of(messages) is the number of tokens.
    """
    for by_domain in folder.tasks.values():
        for domain, tasks in by_domain.items():
            kept = [task for task in tasks if length_of(task.messages) <= limit]
            if len(kept) < len(tasks):
                reason = f"prompts of more than {limit} tokens, for RL and evaluation"
                folder.drop(reason, len(tasks) - len(kept))
            by_domain[domain] = kept


def opening(messages: list[dict]) -> str:
    """`formats.opening` without the test that `task_of` shows.

    A prompt is the same one, whichever test comes first.
    """
    return formats.opening(messages).partition(f" {SHOWN} ")[0]


def openings_of(data: Folder, domains) -> set[str]:
    """How the held-out prompts of these domains open."""
    return {opening(task.messages) for domain in domains for task in data.tasks["test"][domain]}


def leave_out(tasks: list[Task], demonstrations: list[dict], held_out: set[str]) -> int:
    """Takes from both lists what opens like one of `held_out`; returns how many records."""
    before = len(tasks), len(demonstrations)
    tasks[:] = [task for task in tasks if opening(task.messages) not in held_out]
    demonstrations[:] = [one for one in demonstrations if opening(one["messages"]) not in held_out]
    return max(before[0] - len(tasks), before[1] - len(demonstrations))
