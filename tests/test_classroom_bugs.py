"""The silent bugs: each one's line is still there, and a named test of the project catches it."""

import subprocess
import sys

import pytest

from tests.classroom import __main__ as classroom
from tests.classroom.bugs import BUGS, planted, write_copy

NUMBERS = range(1, len(BUGS) + 1)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_bugs_line_stands_once_in_its_file_and_the_wrong_one_is_python(number):
    bug = BUGS[number - 1]
    compile(planted(bug), bug.file, "exec")
    assert "\n" not in bug.right + bug.wrong and bug.right != bug.wrong


@pytest.mark.parametrize("number", [0, len(BUGS) + 1])
def test_another_number_is_refused_in_one_line(number, tmp_path, monkeypatch, capsys):
    words = ["classroom", "bug", str(number), "--out", str(tmp_path / "copy")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        classroom.main()
    assert ended.value.code == 2 and not (tmp_path / "copy").exists()
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_planted_bug_is_caught_by_its_test(number, tmp_path):
    bug = BUGS[number - 1]
    write_copy(bug, tmp_path / "copy")
    assert (tmp_path / "copy" / bug.file).read_text(encoding="utf-8") == planted(bug)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", bug.test]
    done = subprocess.run(words, cwd=tmp_path / "copy", capture_output=True, text=True)
    assert done.returncode == 1 and "failed" in done.stdout, done.stdout[-1000:]
