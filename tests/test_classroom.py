"""The classroom: the table, the fresh cases, and what a copy holds."""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from tests.classroom import __main__ as classroom
from tests.classroom import blank, compare, grade, handout
from tests.classroom.cases import Case, computed, generator
from tests.classroom.exercises import EXERCISES, LEVELS, named
from tests.classroom.mistakes import all_mistakes

ROOT = Path(__file__).parent.parent
GRADED = ("model", "sft", "dpo", "reward_model", "ppo", "distill", "self_reward")
MISTAKES = all_mistakes()


def chapter_and_function(exercise):
    chapter = importlib.import_module(exercise.module)
    return chapter, getattr(chapter, exercise.function)


def run(monkeypatch, *words) -> int:
    """The exit code of `python -m tests.classroom WORDS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["classroom", *map(str, words)])
    try:
        classroom.main()
    except SystemExit as error:
        return error.code
    return 0


# ---- the table ----


def test_exercises_rise_from_easy_to_whole_loops_two_or_more_a_chapter():
    assert len(EXERCISES) >= 20 and len({one.name for one in EXERCISES}) == len(EXERCISES)
    order = [list(LEVELS).index(one.level) for one in EXERCISES]
    assert order == sorted(order)
    for chapter in GRADED:
        assert sum(one.module == chapter for one in EXERCISES) >= 2, chapter
    loops = {one.name for one in EXERCISES if one.level == "loop"}
    assert loops == {"dpo.train", "distill.train", "ppo.learn"}
    names = {one.name for one in EXERCISES}
    assert all(set(one.builds_on) < names for one in EXERCISES)


def test_every_visible_test_is_there_and_belongs_to_one_exercise():
    seen = []
    for one in EXERCISES:
        source = (ROOT / "tests" / f"test_{one.module}.py").read_text(encoding="utf-8")
        there = re.findall(r"^def (test_\w+)", source, re.M)
        for name in one.tests:
            # the command in ASSIGNMENTS.md picks by name, and must pick no other test
            assert [other for other in there if name in other] == [name]
        seen += [(one.module, name) for name in one.tests]
    assert len(seen) == len(set(seen))


def test_the_assignments_are_written_from_the_table():
    """`python -m tests.classroom handout` writes them anew."""
    assert classroom.ASSIGNMENTS.read_text(encoding="utf-8") == handout.written(EXERCISES)
    assert "(tests/classroom/ASSIGNMENTS.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


# ---- the fresh cases ----


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.name)
def test_a_solution_is_right_on_its_own_cases_and_a_seed_gives_the_same_ones(exercise):
    chapter, right = chapter_and_function(exercise)
    first, again, other = (exercise.draw(generator(exercise.name, seed)) for seed in (1, 1, 2))
    assert any(not case.edge for case in first) and len({case.told for case in first}) == len(first)
    answers = [[computed(case, chapter, right) for case in some] for some in (first, again, other)]
    for one, two in zip(*answers[:2]):
        assert not compare.difference(json.loads(json.dumps(one)), two)
    assert any(compare.difference(one, two) for one, two in zip(answers[0], answers[2]))
    assert "raised" not in json.dumps([a for a, c in zip(answers[0], first) if not c.edge])


@pytest.mark.parametrize("name", MISTAKES)
def test_every_usual_mistake_is_wrong_in_a_case_and_is_named(name):
    exercise = named(name)
    chapter, right = chapter_and_function(exercise)
    cases = exercise.draw(generator(name, 5))
    expected = [computed(case, chapter, right) for case in cases]
    for told, mistaken in MISTAKES[name]:

        def function(*inputs, mistaken=mistaken, **more):
            return mistaken(right, *inputs, **more)

        found = [computed(case, chapter, function) for case in cases]
        pairs = list(zip(found, expected))
        wrong = [k for k, pair in enumerate(pairs) if compare.difference(*pair)]
        assert wrong, told
        assert any("raised" not in found[k] for k in wrong), told
        tried = cases, expected, found
        said = compare.usual_mistake(MISTAKES[name], chapter, right, *tried)
        assert said == told


def test_every_exercise_has_usual_mistakes_and_those_of_the_losses_know_a_wrong_sign():
    without = {one.name for one in EXERCISES} - set(MISTAKES)
    assert without <= {"self_reward.rouge_l"} and set(MISTAKES) <= {one.name for one in EXERCISES}
    for name in (
        "sft.masked_cross_entropy",
        "dpo.dpo_loss",
        "ppo.policy_loss",
        "ppo.token_rewards",
    ):
        assert any("sign" in told for told, _ in MISTAKES[name]), name


def test_plain_cases_are_worth_sixty_percent_and_only_together():
    cases = [Case("a"), Case("b"), Case("c", edge=True), Case("d", edge=True)]
    assert [grade.share_of(cases, wrong) for wrong in ({0}, {1, 2}, {2}, {2, 3}, set())] == [
        0,
        0,
        pytest.approx(0.8),
        pytest.approx(0.6),
        1,
    ]


def test_a_factor_or_a_sign_that_all_numbers_share_is_named_without_a_list():
    right = {"shape": [3], "values": [1.0, -2.0, 0.5]}
    assert compare.scaled({"shape": [3], "values": [-1.0, 2.0, -0.5]}, right) == "the sign is wrong"
    told = compare.scaled({"shape": [3], "values": [4.0, -8.0, 2.0]}, right)
    assert "4 times" in told and "mean" in told
    assert not compare.scaled({"shape": [3], "values": [4.0, -8.0, 3.0]}, right)
    assert not compare.scaled(right, right)


@pytest.mark.parametrize(
    "claim",
    [
        {},
        {"returned": "yes"},
        {"returned": {"shape": [], "values": []}},
        {"returned": {"shape": [2], "values": "ab"}, "gradients": 3},
        {"returned": {"shape": [2], "values": [1.0, 2.0]}, "gradients": {"x": {"values": 5}}},
        {"returned": {"shape": [2], "values": [True, 2.0]}, "gradients": {}},
        {"raised": 5},
        {"score": 5, "passed": True},
    ],
)
def test_a_claim_that_is_no_answer_is_no_right_one(claim):
    gradient = {"shape": [2], "values": [1.0, 1.0]}
    right = {"returned": {"shape": [2], "values": [1.0, 2.0]}, "gradients": {"x": gradient}}
    assert compare.difference(right, right) == ""
    assert compare.difference(claim, right)


# ---- the copy ----


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    out = tmp_path_factory.mktemp("blank") / "copy"
    blank.write_copy(out, EXERCISES)
    return out


def test_a_copy_keeps_signatures_and_docstrings_and_holds_no_solution(copy):
    texts = {}
    for path in copy.rglob("*"):
        assert ".git" not in path.parts and path.suffix != ".pyc"
        if path.suffix in (".py", ".md", ".txt", ".toml"):
            texts[path.relative_to(copy).as_posix()] = path.read_text(encoding="utf-8")
    chapters = [(ROOT / f"{name}.py").read_text(encoding="utf-8") for name in blank.CHAPTERS]
    for exercise in EXERCISES:
        whole = ast.parse((ROOT / f"{exercise.module}.py").read_text(encoding="utf-8"))
        right = blank.definition(whole, exercise.function)
        left = blank.definition(ast.parse(texts[f"{exercise.module}.py"]), exercise.function)
        assert ast.dump(left.args) == ast.dump(right.args)
        assert ast.get_docstring(left) == ast.get_docstring(right)
        assert ast.unparse(left.body[-1]) == "raise NotImplementedError" and len(left.body) <= 2
        solution = blank.reference_source(exercise).split("\n")
        body = [
            line.strip() for line in solution[-(right.end_lineno - right.body[-1].lineno + 1) :]
        ]
        long = {line for line in body if len(line) > 45}
        # what two chapters say in the same words is no solution
        long = {line for line in long if sum(line in text for text in chapters) == 1}
        for name, text in texts.items():
            held = {line for line in long if line in text}
            assert not held or len(held) < len(long) / 2, (exercise.name, name, held)


def test_a_copy_holds_its_assignments_and_none_of_the_graders_files(copy):
    assert (copy / "ASSIGNMENTS.md").read_text(encoding="utf-8") == handout.written(EXERCISES)
    there = sorted(path.name for path in (copy / "tests" / "classroom").iterdir())
    assert there == ["ASSIGNMENTS.md"]
    assert not (copy / "tests" / "test_classroom.py").exists()


def test_only_the_named_functions_are_blank(tmp_path, monkeypatch, capsys):
    out = tmp_path / "copy"
    assert run(monkeypatch, "blank", "--out", out, "--only", "dpo.dpo_loss,sft.held_out_loss") == 0
    assert "2 functions are blank" in capsys.readouterr().out
    found = {
        path.stem: path.read_text().count("raise NotImplementedError") for path in out.glob("*.py")
    }
    assert {name for name, count in found.items() if count} == {"dpo", "sft"}
    sections = re.findall(r"^### \d+\. `(\S+)`", (out / "ASSIGNMENTS.md").read_text(), re.M)
    assert sections == ["sft.held_out_loss", "dpo.dpo_loss"]
    assert (out / "ppo.py").read_text() == (ROOT / "ppo.py").read_text()


@pytest.mark.parametrize(
    "words, told",
    [
        (["blank", "--out", "{full}"], "exists and is not an empty folder"),
        (["blank", "--out", "{new}", "--only", "dpo.loss"], "dpo.loss: no such exercise"),
        (["blank", "--out", "{new}", "--only", ","], "names no exercise"),
        (["blank"], "--out"),
        (["solution", "nothing"], "no such exercise"),
        (["grade", "{new}"], "is no folder"),
        (["grade", "{full}"], "holds no copy of the project"),
        (["grade", "{root}", "--json", "{new}/x/y.json"], "there is no folder"),
        (["grade", "{root}", "--seed", "many"], "invalid int value"),
        (["grade", "{root}", "--workers", "0"], "need 1 or more"),
    ],
)
def test_bad_input_ends_with_code_two_and_one_line(words, told, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    where = {"full": tmp_path / "full", "new": tmp_path / "new", "root": ROOT}
    assert run(monkeypatch, *[word.format(**where) for word in words]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error and "\n" not in error
    assert not (tmp_path / "new").exists() and (tmp_path / "full" / "notes.txt").exists()


def test_a_solution_is_printed_with_what_was_measured(monkeypatch, capsys):
    assert run(monkeypatch, "solution", "ppo.token_rewards") == 0
    out = capsys.readouterr().out
    assert out.startswith("def token_rewards(") and "scatter_add" in out
    assert "the true reward goes from 3.04 to 3.61" in out
    assert run(monkeypatch, "solution", "sft.held_out_loss") == 0
    out = capsys.readouterr().out
    assert out.startswith("@torch.no_grad()") and "not measured" in out


@pytest.mark.parametrize("words", [["--help"], ["grade", "--help"], ["blank", "--help"]])
def test_help_names_every_flag_with_its_default(words, monkeypatch, capsys):
    assert run(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    if len(words) == 2:
        assert out.count("default") >= out.count("\n  --") - 2
