"""The classroom: a student's copy with blank functions, its grading, solutions, silent bugs.

    python -m tests.classroom blank --out DIR [--only NAME,...]
    python -m tests.classroom grade DIR [--seed N] [--json FILE]
    python -m tests.classroom solution NAME
    python -m tests.classroom bug N --out DIR
    python -m tests.classroom museum [--out DIR] [--only N,...]
    python -m tests.classroom lesson N [--seeds N] [--threads N] [--out DIR]

The exercises, with their equations and tests, are in tests/classroom/ASSIGNMENTS.md, the lessons,
with what to predict, in tests/classroom/LESSONS.md.
"""

import argparse
import gc
import importlib
import json
import os
import pkgutil
import random
import sys
import textwrap
import time
from pathlib import Path

import torch

from data.runtime.command import Help, home_for_tilde
from tests.classroom import blank, bugs, handout
from tests.classroom.exercises import EXERCISES, named
from tests.classroom.grade import SECONDS, grade

ASSIGNMENTS = blank.ROOT / "tests" / "classroom" / "ASSIGNMENTS.md"


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        print(f"{self.prog}: {message}; --help lists the flags", file=sys.stderr)
        raise SystemExit(2)


def chosen(only: str | None) -> list:
    """The exercises of a comma-separated list, in the order of the table; all without one."""
    if only is None:
        return list(EXERCISES)
    names = [name.strip() for name in only.split(",") if name.strip()]
    wanted = {named(name) for name in names}
    if not wanted:
        raise ValueError("--only: names no exercise")
    return [exercise for exercise in EXERCISES if exercise in wanted]


def make_blank(args) -> None:
    exercises = chosen(args.only)
    blank.write_copy(Path(home_for_tilde(args.out)), exercises)
    told = f"{len(exercises)} functions are blank" if len(exercises) > 1 else "1 function is blank"
    print(f"{args.out}: {told}; ASSIGNMENTS.md in it says what to do")


def show_solution(args) -> None:
    exercise = named(args.name)
    print(blank.reference_source(exercise))
    print(f"\n# {exercise.equation}")
    told = f"When it is wrong: {exercise.measured}."
    print(textwrap.fill(told, 98, initial_indent="# ", subsequent_indent="# "))


def plant_bug(args) -> None:
    bug = bugs.numbered(args.number)
    bugs.write_copy(bug, Path(home_for_tilde(args.out)))
    print(f"{args.out}: one line of it is wrong, and everything runs. Which curve bends?")


def make_museum(args) -> None:
    from tests.classroom import museum  # it draws; what grades need not load that

    museum.museum(Path(home_for_tilde(args.out)), museum.chosen(args.only))


def teach(args) -> None:
    from tests.classroom import lessons  # as with the museum

    lessons.teach(args.number, args.seeds, args.threads, Path(home_for_tilde(args.out)))


def write_handout(args) -> None:
    from tests.classroom import lessons

    ASSIGNMENTS.write_text(handout.written(EXERCISES), encoding="utf-8")
    print(f"{ASSIGNMENTS}: written from the table")
    page = lessons.written(lessons.PAGE.read_text(encoding="utf-8"))
    lessons.PAGE.write_text(page, encoding="utf-8")
    print(f"{lessons.PAGE}: the kept tables are written into it")


# ---- grading ----


def import_data() -> None:
    """What every process of a student's needs, once: torch, pytest and data/, and no chapter."""
    for name in ("_pytest", "data"):
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if found.name.split(".")[1] not in ("reference_run", "_py"):
                importlib.import_module(found.name)
    gc.freeze()  # a process of a student's need not look through all that for what is garbage


def progress(count: int):
    """A line that is written over on a terminal, and nothing elsewhere."""

    def tell(job: dict, done: int) -> None:
        if sys.stderr.isatty():
            told = f"\r{done} processes done (at most {2 * count}); {job['exercise']}"
            sys.stderr.write(f"{told[:78]:78}")
            sys.stderr.flush()

    return tell


def gradescope(results: list, seconds: float, seed: int) -> dict:
    """The layout that Gradescope reads from results/results.json."""
    tests = []
    for number, result in enumerate(results, start=1):
        full = result.score == result.exercise.points
        one = {"number": str(number), "name": result.exercise.name, "score": result.score}
        one |= {"max_score": result.exercise.points, "status": "passed" if full else "failed"}
        tests.append(one | {"output": result.output, "visibility": "visible"})
    score = sum(result.score for result in results)
    points = sum(result.exercise.points for result in results)
    whole = {"score": round(score, 2), "execution_time": round(seconds, 2)}
    whole["output"] = f"{score:g} of {points} points (seed {seed})"
    return whole | {"visibility": "visible", "tests": tests}


def tell_result(result) -> None:
    exercise = result.exercise
    full = result.score == exercise.points
    print(f"{'ok  ' if full else '    '}{exercise.name:34}{result.score:6g} of {exercise.points}")
    if not full:
        for line in result.output.split("\n"):
            print(textwrap.fill(line, 98, initial_indent="      ", subsequent_indent="        "))


def run_grade(args) -> None:
    began = time.perf_counter()
    folder = Path(home_for_tilde(args.folder)).resolve()
    exercises = chosen(args.only)
    if args.workers < 1 or args.seconds < 1:
        raise ValueError("--workers and --seconds: need 1 or more")
    if not folder.is_dir():
        raise ValueError(f"{args.folder}: is no folder")
    missing = [one.module for one in exercises if not (folder / f"{one.module}.py").is_file()]
    if len(set(missing)) == len({one.module for one in exercises}):
        raise ValueError(f"{args.folder}: holds no copy of the project; {missing[0]}.py is missing")
    out = Path(home_for_tilde(args.json)) if args.json else None
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"{args.json}: there is no folder {out.parent}")
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    torch.set_num_threads(1)
    import_data()
    fork = hasattr(os, "fork") and not args.no_fork
    how = {"exercises": exercises, "workers": args.workers, "fork": fork}
    how["seconds"] = args.seconds
    results = grade(folder, seed, tell=progress(len(exercises)), **how)
    if sys.stderr.isatty():
        sys.stderr.write("\r" + " " * 78 + "\r")
    for result in results:
        tell_result(result)
    report = gradescope(results, time.perf_counter() - began, seed)
    print(f"{report['output']}, {report['execution_time']:.0f} s")
    if out is not None:
        out.write_text(json.dumps(report, indent=1), encoding="utf-8")


def parser() -> Parser:
    top = Parser("python -m tests.classroom", description=__doc__.split("\n\n")[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, run, told: str) -> Parser:
        one = commands.add_parser(name, help=told, description=told, formatter_class=Help)
        one.set_defaults(run=run)
        return one

    names = "exercises by name, with commas between them; default: all"
    one = command("blank", make_blank, "write a student's copy of the project")
    one.add_argument("--out", metavar="DIR", required=True, help="a folder that is new or empty")
    one.add_argument("--only", metavar="NAME,...", help=names)
    one = command("grade", run_grade, "grade a student's copy")
    one.add_argument("folder", metavar="DIR", help="the student's copy")
    told = "what the fresh cases are drawn from; default: drawn, and printed"
    one.add_argument("--seed", type=int, metavar="N", help=told)
    told = "write the report here, as Gradescope reads it; default: none"
    one.add_argument("--json", metavar="FILE", help=told)
    one.add_argument("--only", metavar="NAME,...", help=names)
    one.add_argument("--workers", type=int, default=2, metavar="N", help="processes at a time")
    told = "of the processor for an exercise's fresh cases, twice that for its visible tests"
    one.add_argument("--seconds", type=int, default=SECONDS, metavar="N", help=told)
    told = "a new interpreter an exercise, as where processes cannot be forked; slower"
    one.add_argument("--no-fork", action="store_true", help=told)
    one = command("solution", show_solution, "print a solution, and what it costs to be wrong")
    one.add_argument("name", metavar="NAME", help="an exercise, as dpo.dpo_loss")
    one = command("bug", plant_bug, "write a copy of the project with a silent bug in it")
    told = f"which, 1 to {len(bugs.BUGS)}; tests/classroom/bugs.py is the key"
    one.add_argument("number", type=int, metavar="N", help=told)
    one.add_argument("--out", metavar="DIR", required=True, help="a folder that is new or empty")
    one = command("museum", make_museum, "draw each silent bug's curves beside the healthy ones")
    told = "the pictures, and the small models that all begin with"
    one.add_argument("--out", metavar="DIR", default="runs/museum", help=told)
    told = "pictures by number, with commas between them; default: all"
    one.add_argument("--only", metavar="N,...", help=told)
    one = command("lesson", teach, "test what was predicted; tests/classroom/LESSONS.md has eight")
    one.add_argument("number", type=int, metavar="N", help="which, 1 to 8")
    told = "seeds, from 1 on; default: 3, in lesson 7 5"
    one.add_argument("--seeds", type=int, metavar="N", help=told)
    told = "CPU threads; the kept tables were made with 1"
    one.add_argument("--threads", type=int, default=1, metavar="N", help=told)
    told = "the table, and the small models that lessons begin with"
    one.add_argument("--out", metavar="DIR", default="runs/lessons", help=told)
    told = "write ASSIGNMENTS.md from the table of exercises, and the kept tables into LESSONS.md"
    command("handout", write_handout, told)
    return top


def main() -> None:
    args = parser().parse_args()
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"python -m tests.classroom: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
