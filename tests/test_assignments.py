"""Every assignment of tests/ASSIGNMENTS.md: its function's body is blanked in a copy, and exactly its own tests fail."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r'^\| `([\w.]+)\.(\w+)` \|.*\| `python -m pytest (tests/\w+\.py) -k "([\w ]+)"` \|', re.M)
ASSIGNMENTS = ROW.findall((ROOT / "tests" / "ASSIGNMENTS.md").read_text(encoding="utf-8"))


def own_tests(file: str, expression: str) -> set[str]:
    """The tests that `pytest file -k expression` runs; the expression is words joined by `or`."""
    names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(encoding="utf-8"), re.M)
    return {f"{file}::{name}" for name in names if any(part in name for part in expression.split(" or "))}


OWN = {(module, function): own_tests(file, expression) for module, function, file, expression in ASSIGNMENTS}


def blanked(source: str, function: str) -> str:
    """The source with the function's body, after its docstring, replaced by `raise NotImplementedError`."""
    node = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == function)
    first = node.body[1 if ast.get_docstring(node) is not None else 0]
    lines = source.splitlines(keepends=True)
    return "".join(lines[:first.lineno - 1] + ["    raise NotImplementedError\n"] + lines[node.end_lineno:])


def test_there_are_at_least_twelve_assignments_and_each_has_tests_of_its_own():
    assert len(OWN) == len(ASSIGNMENTS) >= 12 and all(OWN.values())
    assert sum(map(len, OWN.values())) == len(set().union(*OWN.values()))


def test_blanking_keeps_signature_and_docstring():
    source = 'def f(x):\n    """Adds."""\n    y = 1\n    return x + y\n\n\nz = 2\n'
    assert blanked(source, "f") == 'def f(x):\n    """Adds."""\n    raise NotImplementedError\n\n\nz = 2\n'


@pytest.mark.slow
@pytest.mark.parametrize("module, function", OWN, ids=".".join)
def test_a_blanked_function_fails_its_own_tests_and_no_others(module, function, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".pytest_cache"))
    path = copy / f"{module.replace('.', '/')}.py"
    path.write_text(blanked(path.read_text(encoding="utf-8"), function), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", *sorted(set().union(*OWN.values()))],
                          cwd=copy, capture_output=True, text=True)
    failed = {line.split()[1].split("[")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == OWN[module, function], done.stdout[-2000:]
