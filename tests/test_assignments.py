"""Every exercise of the classroom: blank in a copy, its own tests fail, and so do those alone that
build on it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.classroom.blank import blanked, write_copy
from tests.classroom.exercises import EXERCISES

ROOT = Path(__file__).parent.parent
OWN = {one.name: {f"tests/test_{one.module}.py::{test}" for test in one.tests} for one in EXERCISES}


def that_build_on(name: str) -> set[str]:
    """The exercise and all that need it, at once or through others."""
    names = {name}
    while True:
        more = {one.name for one in EXERCISES if names & set(one.builds_on)}
        if more <= names:
            return names
        names |= more


def test_there_are_at_least_twenty_exercises_and_each_has_tests_of_its_own():
    assert len(OWN) == len(EXERCISES) >= 20 and all(OWN.values())
    assert sum(map(len, OWN.values())) == len(set().union(*OWN.values()))


@pytest.mark.parametrize(
    "source, left",
    [
        (
            'def f(x):\n    """Adds."""\n    y = 1\n    return x + y\n\n\nz = 2\n',
            'def f(x):\n    """Adds."""\n    raise NotImplementedError\n\n\nz = 2\n',
        ),
        (
            "def g():\n    pass\n\n\n@cache\ndef f(\n    x: int,  # why: so\n) -> int:\n    # how\n"
            "    return x\n",
            "def g():\n    pass\n\n\n@cache\ndef f(\n    x: int,  # why: so\n) -> int:\n"
            "    raise NotImplementedError\n",
        ),
    ],
)
def test_blanking_keeps_signature_and_docstring_and_no_comment_of_the_body(source, left):
    assert blanked(source, "f") == left


@pytest.mark.slow
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.name)
def test_a_blank_function_fails_its_own_tests_and_those_alone_that_build_on_it(exercise, tmp_path):
    copy = tmp_path / "copy"
    write_copy(copy, [exercise])
    tests = sorted(set().union(*OWN.values()))
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *tests], cwd=copy, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    failed = {line.split()[1].split("[")[0] for line in lines}
    told = done.stdout[-2000:]
    assert OWN[exercise.name] <= failed, told
    may_fail = set().union(*(OWN[name] for name in that_build_on(exercise.name)))
    assert failed <= may_fail, told
