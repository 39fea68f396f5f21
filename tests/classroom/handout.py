"""ASSIGNMENTS.md, written from the table of exercises.

python -m tests.classroom handout     writes tests/classroom/ASSIGNMENTS.md anew
"""

from collections.abc import Sequence

from tests.classroom.exercises import LEVELS, Exercise

HEAD = """# Assignments

{count} functions to write, {points} points, about {hours} hours. (`pip install pytest` first.)
This file is made from the table in `tests/classroom/exercises.py`.

- `python -m tests.classroom blank --out DIR` makes a student's copy: the bodies are
  `raise NotImplementedError`, the docstrings stay. `--only NAME,...` blanks some of them.
- In the copy a function is written from its docstring, the equations at the top of its file and
  the section below, and tried with the command that stands there.
- `python -m tests.classroom grade DIR` grades it. What counts is the function, with the imports
  and the helper functions that were added to its file; all else is the teacher's own. Values
  and gradients are compared on fresh numbers. The plain cases, which must all be right, are worth
  60%, the special ones the rest. With a visible test that fails, half the points are the most.
- `python -m tests.classroom solution NAME` prints a solution, and what was measured to happen
  where it is wrong.

The order is free, since each is graded with the teacher's version of the rest. In a copy the tests
of an exercise pass once those that it builds on are done too.
"""


def command_of(exercise: Exercise) -> str:
    words = " or ".join(exercise.tests)
    return f'python -m pytest tests/test_{exercise.module}.py -k "{words}"'


def section(number: int, exercise: Exercise) -> str:
    lines = [f"### {number}. `{exercise.name}`", ""]
    lines += [f"{exercise.points} points, about {exercise.minutes} minutes, {exercise.level}."]
    if exercise.builds_on:
        names = ", ".join(f"`{name}`" for name in exercise.builds_on)
        lines += [f"Builds on {names}."]
    lines += ["", f"    {exercise.equation}", ""]
    if exercise.compared:
        lines += [f"Compared: {exercise.compared}.", ""]
    lines += ["```", command_of(exercise), "```", ""]
    return "\n".join(lines)


def written(exercises: Sequence[Exercise]) -> str:
    """The text of ASSIGNMENTS.md for these exercises."""
    points = sum(exercise.points for exercise in exercises)
    hours = max(1, round(sum(exercise.minutes for exercise in exercises) / 60))
    parts = [HEAD.format(count=len(exercises), points=points, hours=hours)]
    parts += ["| | function | level | points | minutes |\n|---|---|---|---|---|"]
    for number, one in enumerate(exercises, start=1):
        row = f"| {number} | `{one.name}` | {one.level} | {one.points} | {one.minutes} |"
        parts[-1] += "\n" + row
    parts[-1] += "\n"
    for level, told in LEVELS.items():
        some = [(k, one) for k, one in enumerate(exercises, start=1) if one.level == level]
        if some:
            parts += [f"## {told}\n"]
            parts += [section(number, exercise) for number, exercise in some]
    return "\n".join(parts)
