"""A student's copy of the project: chosen bodies are blank, and the solutions are not in it."""

import ast
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.classroom import handout
from tests.classroom.exercises import EXERCISES, Exercise

ROOT = Path(__file__).parent.parent.parent
CHAPTERS = ("model", "sft", "dpo", "reward_model", "ppo", "distill", "self_reward", "pipeline")
# what a copy holds; the list is closed, so that nothing that lies about in a checkout goes along
FILES = ("README.md", "LICENSE", "pyproject.toml", "requirements.txt")
FOLDERS = ("data", "tests")
# what holds solutions or keys, or is made anew by running
LEFT_OUT = ("__pycache__", ".*", "*.pyc", "classroom", "test_classroom*.py", "test_assignments.py")
LEFT_OUT += ("museum",)


def definition(tree: ast.Module, function: str) -> ast.FunctionDef:
    """The function of a module; raises ValueError where it has none of this name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return node
    raise ValueError(f"there is no function {function}")


def span(node: ast.FunctionDef) -> tuple[int, int]:
    """(first, last) line of a function with its decorators, counted from 1."""
    return min([node.lineno, *(one.lineno for one in node.decorator_list)]), node.end_lineno


def body_lines(source: str, function: str) -> tuple[int, int]:
    """(first, last) line of the body after the docstring, with the comments that stand before."""
    node = definition(ast.parse(source), function)
    has_docstring = ast.get_docstring(node) is not None
    if has_docstring:
        return node.body[0].end_lineno + 1, node.end_lineno
    header = max(one.end_lineno for one in ast.walk(node.args) if hasattr(one, "end_lineno"))
    if node.returns is not None:
        header = max(header, node.returns.end_lineno)
    lines = source.splitlines()
    while not lines[header - 1].split("#")[0].rstrip().endswith(":"):
        header += 1
    return header + 1, node.end_lineno


def blanked(source: str, function: str) -> str:
    """The source with a function's body, after its docstring, as `raise NotImplementedError`."""
    first, last = body_lines(source, function)
    lines = source.splitlines(keepends=True)
    return "".join(lines[: first - 1] + ["    raise NotImplementedError\n"] + lines[last:])


def reference_source(exercise: Exercise) -> str:
    """The instructor's function as it stands in its chapter."""
    source = (ROOT / f"{exercise.module}.py").read_text(encoding="utf-8")
    first, last = span(definition(ast.parse(source), exercise.function))
    return "\n".join(source.splitlines()[first - 1 : last])


def write_copy(out: Path, exercises: Sequence[Exercise]) -> None:
    """The student's copy in the folder `out`, which must be new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists and is not an empty folder")
    if out.resolve().is_relative_to(ROOT / "data") or out.resolve().is_relative_to(ROOT / "tests"):
        raise ValueError(f"{out}: lies inside what is copied")
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(ROOT / name, out / name)
    for name in FOLDERS:
        left_out = shutil.ignore_patterns(*LEFT_OUT)
        shutil.copytree(ROOT / name, out / name, ignore=left_out)
    for chapter in CHAPTERS:
        source = (ROOT / f"{chapter}.py").read_text(encoding="utf-8")
        for exercise in exercises:
            if exercise.module == chapter:
                source = blanked(source, exercise.function)
        (out / f"{chapter}.py").write_text(source, encoding="utf-8")
    (out / "ASSIGNMENTS.md").write_text(handout.written(exercises), encoding="utf-8")
    (out / "tests" / "classroom").mkdir()  # the README's link
    whole = handout.written(EXERCISES)
    (out / "tests" / "classroom" / "ASSIGNMENTS.md").write_text(whole, encoding="utf-8")
