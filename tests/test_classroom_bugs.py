"""The silent bugs: each one's line is still there, it runs to the end, and a named test of the
project catches it; the quiz that is made of them."""

import json
import subprocess
import sys

import pytest

from tests.classroom import __main__ as classroom
from tests.classroom import exhibits, museum
from tests.classroom.bugs import BUGS, planted, write_copy
from tests.classroom.showcase import EXHIBITS, Curve

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


def test_every_bug_has_an_experiment_an_exhibit_and_a_picture_under_another_number():
    names = [bug.name for bug in BUGS]
    assert [exhibit.bug for exhibit in EXHIBITS] == names == list(exhibits.RUNS)
    assert sorted(museum.ORDER) == list(NUMBERS) and museum.ORDER != tuple(NUMBERS)


def test_quiz_and_key_are_those_of_the_table_and_the_quiz_tells_no_answer():
    measured = json.loads((museum.KEPT / "numbers.json").read_text(encoding="utf-8"))
    assert (museum.PAGES / "QUIZ.md").read_text(encoding="utf-8") == museum.quiz()
    assert (museum.PAGES / "KEY.md").read_text(encoding="utf-8") == museum.key(measured)
    questions, candidates = museum.quiz().split("## The candidates")
    for picture in range(1, len(BUGS) + 1):
        assert (museum.KEPT / museum.file_of(picture)).stat().st_size < 61440
        assert museum.bug_of(picture).name not in questions
        assert museum.bug_of(picture).name in candidates


def test_a_picture_has_a_line_a_seed_and_their_mean_where_both_columns_are_there():
    lines = [{"step": 0, "loss": 2.0}, {"step": 1}, {"step": 2, "loss": 4.0}]
    other = [{"step": 0, "loss": 3.0}, {"step": 2, "loss": 7.0}]
    curve = Curve("step", "loss", "step", "loss")
    assert museum.points_of(lines, curve) == ([0, 2], [2.0, 4.0])
    assert museum.mean_of([lines, other], curve) == ([0, 2], [2.5, 5.5])


@pytest.mark.parametrize("only", ["0", "13", "1,x", ""])
def test_pictures_that_are_not_there_are_refused(only):
    with pytest.raises(ValueError, match="1 to 12"):
        museum.chosen(only)


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_planted_bug_runs_to_the_end(number, tmp_path):
    write_copy(BUGS[number - 1], tmp_path / "copy")
    words = [sys.executable, "pipeline.py", "--size", "tiny", "--smoke", "--threads", "1"]
    done = subprocess.run(words, cwd=tmp_path / "copy", capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_planted_bug_is_caught_by_its_test(number, tmp_path):
    bug = BUGS[number - 1]
    write_copy(bug, tmp_path / "copy")
    assert (tmp_path / "copy" / bug.file).read_text(encoding="utf-8") == planted(bug)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", bug.test]
    done = subprocess.run(words, cwd=tmp_path / "copy", capture_output=True, text=True)
    assert done.returncode == 1 and "failed" in done.stdout, done.stdout[-1000:]
