"""The museum of silent bugs: each one's curves beside the healthy ones, a quiz, and its key.

python -m tests.classroom museum [--out DIR] [--only N,...]

The same small experiment (exhibits.py) runs twice in a copy of the project, as it is and with the
bug. What DIR then holds, NN.png and numbers.json, is kept in data/reference_run/museum/; QUIZ.md
and KEY.md are written from that and from the table of bugs. In DIR/start are the small models that
all begin with, and the lines of every run.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator
from PIL import Image  # which matplotlib draws with

from data.files import writing
from tests.classroom.blank import ROOT
from tests.classroom.bugs import BUGS, Bug, planted, write_copy
from tests.classroom.showcase import EXHIBITS, STARTS, Curve, Exhibit

matplotlib.use("Agg")  # no window, wherever it runs

# the bug of each picture: not in the order of the table, so that a number gives nothing away
ORDER = (8, 3, 11, 5, 1, 10, 6, 12, 2, 9, 4, 7)
KEPT = ROOT / "data" / "reference_run" / "museum"
PAGES = Path(__file__).parent  # of QUIZ.md and KEY.md
SCRIPT = PAGES / "exhibits.py"
LINK = "../../data/reference_run/museum"  # from there to the pictures
STYLES = {
    "healthy": {"color": "tab:blue", "linestyle": "-"},
    "with the bug": {"color": "tab:red", "linestyle": (0, (4, 2))},
}


def bug_of(picture: int) -> Bug:
    return BUGS[ORDER[picture - 1] - 1]


def exhibit_of(picture: int) -> Exhibit:
    return EXHIBITS[ORDER[picture - 1] - 1]


def chosen(only: str | None) -> list[int]:
    """The pictures of a comma-separated list of numbers; all without one."""
    if only is None:
        return list(range(1, len(ORDER) + 1))
    words = [word.strip() for word in only.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= len(ORDER) for word in words):
        raise ValueError(f"--only {only}: needs numbers of pictures from 1 to {len(ORDER)}")
    return sorted({int(word) for word in words})


# ---- running ----


def child(tree: Path, *words) -> None:
    """exhibits.py with the chapters of the folder `tree`, on one thread."""
    surroundings = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    done = subprocess.run(command, cwd=tree, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().split("\n")[-1]
        raise ValueError(f"exhibits.py {words[0]} ended with {done.returncode}: {why}")


def both(picture: int, start: Path) -> dict[str, list[list[dict]]]:
    """The lines of an exhibit, a list a seed, healthy and with the bug: in one copy of the project,
    of which one line is changed between the two."""
    bug = bug_of(picture)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        copy, lines = Path(folder) / "copy", Path(folder) / "lines.json"
        write_copy(bug, copy)
        healthy = (ROOT / bug.file).read_text(encoding="utf-8")
        for name, source in (("healthy", healthy), ("with the bug", planted(bug))):
            (copy / bug.file).write_text(source, encoding="utf-8")
            child(copy, bug.name, start, lines)
            found[name] = json.loads(lines.read_text(encoding="utf-8"))
    return found


def museum(out: Path, pictures: list[int]) -> None:
    """Makes the pictures in `out`, and both pages anew."""
    out.mkdir(parents=True, exist_ok=True)
    start = out / "start"
    if not all((start / name).is_file() for name in STARTS):
        print("a small model comes first", flush=True)
        start.mkdir(exist_ok=True)
        child(ROOT, "start", start.resolve())
    numbers = out / "numbers.json"
    measured = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else {}
    for picture in pictures:
        began = time.perf_counter()
        found = both(picture, start.resolve())
        writing.write_json(start / f"{picture:02}.json", found)  # to draw them otherwise
        draw(picture, found, out / file_of(picture))
        measured[str(picture)] = ends_of(picture, found)
        writing.write_json(numbers, dict(sorted(measured.items(), key=lambda one: int(one[0]))))
        print(f"{out / file_of(picture)}  {time.perf_counter() - began:.0f} s", flush=True)
    write_pages()


# ---- pictures ----


def file_of(picture: int) -> str:
    return f"{picture:02}.png"


def points_of(lines: list[dict], curve: Curve) -> tuple[list, list]:
    """(x, y) of a seed's lines that have both columns."""
    some = [line for line in lines if curve.x in line and curve.y in line]
    return [line[curve.x] for line in some], [line[curve.y] for line in some]


def mean_of(seeds: list[list[dict]], curve: Curve) -> tuple[list, list]:
    """(x, y) of the mean over the seeds, as far as the shortest of them."""
    points = [points_of(lines, curve) for lines in seeds]
    xs = [sum(values) / len(values) for values in zip(*(x for x, _ in points))]
    return xs, [sum(values) / len(values) for values in zip(*(y for _, y in points))]


def draw(picture: int, found: dict, path: Path) -> None:
    """One panel a curve: a thin line a seed, a thick one for their mean."""
    exhibit = exhibit_of(picture)
    count = len(exhibit.curves)
    figure, axes = plt.subplots(1, count, figsize=(3.6 * count + 0.4, 3.1), squeeze=False)
    for axis, curve in zip(axes[0], exhibit.curves):
        for name, seeds in found.items():
            for lines in seeds:
                axis.plot(*points_of(lines, curve), linewidth=0.7, alpha=0.6, **STYLES[name])
            axis.plot(*mean_of(seeds, curve), linewidth=2.0, label=name, **STYLES[name])
        axis.set(xlabel=curve.x_label, ylabel=curve.y_label)
        if curve.x_scale == "log":
            axis.set_xscale("log", base=2)
        if curve.y_scale == "log":
            axis.set_yscale("log")
        if curve.x in ("step", "iteration"):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize="small")
    figure.suptitle(f"{picture}: {exhibit.title}")
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    plt.close(figure)
    with writing.replacing(path) as temporary:  # 64 colours are a quarter of the bytes
        Image.open(drawn).convert("RGB").quantize(64).save(temporary, format="png", optimize=True)


def ends_of(picture: int, found: dict) -> dict:
    """{curve: {"healthy": [first, last], ...}}, means over the seeds."""
    ends = {}
    for curve in exhibit_of(picture).curves:
        ends[curve.y] = {}
        for name, seeds in found.items():
            _, ys = mean_of(seeds, curve)
            ends[curve.y][name] = [float(f"{ys[k]:.3g}") for k in (0, -1)]
    return ends


# ---- pages ----

QUIZ = """# What is wrong?

{count} pictures, one a silent bug: a single line of the project was changed, everything ran, and
nothing crashed. A solid line is the project as it is, a dashed one has the bug; both start from the
same weights. Thin lines are seeds, thick ones their means.

For each picture: which of the {count} candidates at the end is it, why does *this* curve bend, and
what would you look at next? The answers are in KEY.md.
`python -m tests.classroom museum --only 1` makes a picture anew.

This page is written from the table in `tests/classroom/bugs.py`.
"""

KEY = """# The key to the quiz

The pictures of [QUIZ.md](QUIZ.md), each with its bug, what bends, the test of the project that
catches it, and where it was seen. Numbers are means over the seeds, at the first and at the last
point of a curve. `python -m tests.classroom bug N --out DIR` plants bug N in a copy.

This page is written from the table in `tests/classroom/bugs.py` and from what was measured.
"""


def quiz() -> str:
    """The text of QUIZ.md."""
    parts = [QUIZ.format(count=len(ORDER))]
    for picture in range(1, len(ORDER) + 1):
        exhibit = exhibit_of(picture)
        parts.append(f"## Picture {picture}\n")
        parts.append(f"{exhibit.told}\n")
        parts.append(f"![Picture {picture}]({LINK}/{file_of(picture)})\n\nWhat is wrong?\n")
    parts.append("## The candidates\n")
    parts.append("\n".join(f"- {name}" for name in sorted(bug.name for bug in BUGS)) + "\n")
    return "\n".join(parts)


def key(measured: dict) -> str:
    """The text of KEY.md; `measured`: of numbers.json."""
    parts = [KEY]
    for picture in range(1, len(ORDER) + 1):
        bug = bug_of(picture)
        parts.append(f"## Picture {picture}: {bug.name} (bug {ORDER[picture - 1]})\n")
        parts.append(f"```diff\n--- {bug.file}\n-{bug.right}\n+{bug.wrong}\n```\n")
        parts.append(f"- Symptom: {bug.symptom}.\n- What bends: {bug.curve}.")
        parts.append(f"- Caught by `{bug.test}`.\n- Seen: {bug.seen}.\n")
        parts.append("| curve | healthy | with the bug |\n|---|---|---|")
        for name, ends in measured[str(picture)].items():
            cells = [f"{first:g} to {last:g}" for first, last in ends.values()]
            parts.append(f"| {name} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def write_pages() -> None:
    """QUIZ.md and KEY.md, from the table and from what is kept in data/reference_run."""
    writing.write_text(PAGES / "QUIZ.md", quiz())
    numbers = KEPT / "numbers.json"
    if numbers.is_file():
        measured = json.loads(numbers.read_text(encoding="utf-8"))
        writing.write_text(PAGES / "KEY.md", key(measured))
