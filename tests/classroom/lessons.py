"""Eight lessons, one a chapter: each a command that tests what somebody has predicted.

    python -m tests.classroom lesson N [--seeds N] [--threads N] [--out DIR]
    python -m tests.classroom handout       writes the kept tables into LESSONS.md

What is measured stands in lessons_supervised.py and lessons_rl.py. The tables of LESSONS.md are
those in data/reference_run/lessons/, as the command wrote them.
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from data.files import writing
from data.runtime.command import out_folder
from data.runtime.machine import environment
from tests.classroom import lessons_rl, lessons_supervised
from tests.classroom.blank import ROOT
from tests.classroom.lessons_room import Desk
from tests.experiments.tables import head, interval, row, told

KEPT = ROOT / "data" / "reference_run" / "lessons"
PAGE = Path(__file__).parent / "LESSONS.md"


class Column(NamedTuple):
    key: str
    heading: str
    digits: int = 1


@dataclass(frozen=True)
class Lesson:
    chapter: str
    run: Callable  # of a desk (lessons_room.py)
    columns: tuple[Column, ...]
    compared: tuple[tuple[str, str], ...]  # conditions, the first minus the second
    seeds: int = 3


LESSONS = (
    Lesson(
        "model",
        lessons_supervised.copying,
        columns=(
            Column("right", "right, percent"),
            Column("early", "loss after half of the steps, nats", 2),
            Column("loss", "loss at the end", 2),
        ),
        compared=(
            ("1 layer, smear 3", "1 layer, smear 0"),
            ("2 layers, smear 3", "2 layers, smear 0"),
            ("2 layers, smear 0", "1 layer, smear 0"),
        ),
    ),
    Lesson(
        "sft",
        lessons_supervised.prompt_mask,
        columns=(
            Column("correct", "correct, percent"),
            Column("chat", "rubric, percent"),
            Column("loss", "held-out loss of responses, nats a token", 3),
        ),
        compared=(("prompt masked", "prompt in the loss"),),
    ),
    Lesson(
        "dpo",
        lessons_supervised.displacement,
        columns=(
            Column("chosen", "chosen, change in nats", 2),
            Column("rejected", "rejected, change in nats", 2),
            Column("fell", "chosen that fell, percent", 0),
            Column("chat", "rubric, sampled, percent"),
        ),
        compared=(
            ("DPO, 10 times the rate", "DPO"),
            ("the same, nll_coef 1", "DPO, 10 times the rate"),
        ),
    ),
    Lesson(
        "reward_model",
        lessons_supervised.ties,
        columns=(
            Column("accuracy", "accuracy, percent"),
            Column("true", "by the rubric, percent"),
            Column("strict", "calibration error, strict pairs, percent"),
            Column("all", "of all pairs"),
            Column("tie", "ties predicted, percent", 0),
            Column("observed", "observed", 0),
        ),
        compared=(("rao_kupper", "drop"),),
    ),
    Lesson(
        "ppo",
        lessons_rl.no_kl,
        columns=(
            Column("score", "reward model's score", 2),
            Column("true", "true reward, 0 to 5", 2),
            Column("kl", "KL, nats a response"),
        ),
        compared=(
            ("kl_coef 0.03", "start"),
            ("kl_coef 0", "start"),
            ("kl_coef 0", "kl_coef 0.03"),
        ),
    ),
    Lesson(
        "distill",
        lessons_rl.three_losses,
        columns=(Column("greedy", "greedy, percent"), Column("sampled", "sampled, percent")),
        compared=(
            ("L_DPO", "start"),
            ("L_pos", "start"),
            ("L_neg", "start"),
            ("all three", "start"),
            ("all three", "L_pos"),
        ),
    ),
    Lesson(
        "self_reward",
        lessons_rl.blind_judge,
        columns=(
            Column("differ", "pairs that differ, percent", 0),
            Column("agreement", "agreement, all of these"),
            Column("correct", "correct"),
            Column("complete", "complete"),
            Column("polite", "polite"),
            Column("concise", "concise"),
        ),
        compared=(("its own", "written"),),
        seeds=5,
    ),
    Lesson(
        "pipeline",
        lessons_rl.add_or_concentrate,
        columns=(
            Column("pass_1", "pass@1"),
            Column("pass_8", "pass@8"),
            Column("never", "never right in 16, percent"),
            Column("trained_on", "pass@1, prompts of RL"),
        ),
        compared=(("RL", "start"), ("RL, no rehearsal", "start"), ("SFT", "start"), ("RL", "SFT")),
    ),
)


# ---- the command ----


def teach(number: int, seeds: int | None, threads: int, out: Path, **small) -> dict:
    """Runs a lesson, prints its table, and keeps both in the folder `out`.

    `small`: smaller numbers for the lesson's function, as a test gives them.
    """
    if not 1 <= number <= len(LESSONS):
        raise ValueError(f"lesson {number}: there is 1 to {len(LESSONS)}")
    lesson = LESSONS[number - 1]
    count = lesson.seeds if seeds is None else seeds
    if count < 1 or threads < 1:
        raise ValueError("--seeds and --threads: need 1 or more")
    torch.set_num_threads(threads)
    folder = out_folder(out)
    desk = Desk(list(range(1, count + 1)), folder)
    wall, processor = time.perf_counter(), time.process_time()
    print(f"{title(number)} Write your prediction down while it runs.", flush=True)
    lesson.run(desk, **small)
    spent = time.process_time() - processor - desk.begun_with
    made = {"lesson": number, "seeds": desk.seeds, "rows": desk.table}
    made |= {"processor_seconds": round(spent, 1)}
    made |= {"preparation_seconds": round(desk.preparation, 1)}
    made |= {"wall_seconds": round(time.perf_counter() - wall, 1)}
    made |= {"date": time.strftime("%d %B %Y").lstrip("0"), "environment": environment()}
    writing.write_json(folder / f"lesson{number}.json", made)
    print(f"\n{measured(lesson, made)}\n\nkept in {folder / f'lesson{number}.json'}")
    return made


def title(number: int) -> str:
    """The question of a lesson, as LESSONS.md asks it."""
    return re.search(rf"(?m)^## {number}\. (.*)$", PAGE.read_text(encoding="utf-8"))[1]


# ---- the table ----


def known(values: list) -> list[float]:
    return [value for value in values if value is not None]


def difference(one: list, other: list, digits: int) -> str:
    """One condition minus another, paired by seed, and whether the interval holds 0."""
    gaps = [a - b for a, b in zip(one, other) if a is not None and b is not None]
    if not gaps:
        return "-"
    mean, half = interval(gaps)
    cell = told((mean, half), digits)
    return f"{cell}, not distinguishable" if abs(mean) <= half else cell


def mean_told(values: list[float], digits: int) -> str:
    """A mean with its interval; what rounds to 0 has no sign."""
    mean, half = interval(values)
    return told((round(mean, digits) + 0.0, half), digits, "")


def table(lesson: Lesson, rows: dict) -> str:
    """A row a condition, mean and 95% t interval over the seeds, then rows of differences."""
    lines = [head("", *(column.heading for column in lesson.columns))]
    for name, numbers in rows.items():
        cells = []
        for column in lesson.columns:
            values = known(numbers[column.key])
            cells.append(mean_told(values, column.digits) if values else "-")
        lines.append(row(name, *cells))
    for one, other in lesson.compared:
        cells = []
        for key, _, digits in lesson.columns:
            cells.append(difference(rows[one][key], rows[other][key], digits))
        lines.append(row(f"{one} minus {other}", *cells))
    return "\n".join(lines)


def measured(lesson: Lesson, made: dict) -> str:
    """The table, and seeds, seconds, date and machine in a line."""
    machine = made["environment"]
    seconds = f"{made['processor_seconds']:.0f} s"
    if made["preparation_seconds"]:
        seconds += f" and {made['preparation_seconds']:.0f} s for the models that it begins with"
    where = f"{machine['system']} {machine['machine']}, torch {machine['torch']}"
    plural = "s" if machine["threads"] > 1 else ""
    line = f"{len(made['seeds'])} seeds; {seconds} of a processor's time; {made['date']}, {where}, "
    return f"{table(lesson, made['rows'])}\n\n{line}{machine['threads']} thread{plural}."


# ---- LESSONS.md ----


def written(page: str) -> str:
    """The page with the kept tables between its marks."""
    for number, lesson in enumerate(LESSONS, start=1):
        made = json.loads((KEPT / f"lesson{number}.json").read_text(encoding="utf-8"))
        before, after = f"<!-- lesson {number} -->", f"<!-- end of lesson {number} -->"
        first, rest = page.split(before)
        _, last = rest.split(after)
        page = f"{first}{before}\n{measured(lesson, made)}\n{after}{last}"
    return page
