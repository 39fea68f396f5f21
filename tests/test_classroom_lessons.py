"""The lessons: what LESSONS.md says is what the command wrote, and each command runs."""

import json
import math
import re
import sys

import pytest

from data.files import checkpoints
from tests.classroom import __main__ as classroom
from tests.classroom import lessons, lessons_room, lessons_supervised
from tests.classroom.blank import ROOT
from tests.classroom.exercises import named
from tests.classroom.lessons import LESSONS, PAGE, Column, Lesson

NUMBERS = range(1, len(LESSONS) + 1)
README = (ROOT / "README.md").read_text(encoding="utf-8")
READING = tuple(re.findall(r"(?m)^\| (\w+)\.py \|", README))  # "Read it", in its order
# few enough numbers that a lesson takes seconds
SMALLEST = (
    {"steps": 3, "held_out": 8},
    {"steps": 3, "count": 40, "prompts": 12},
    {"steps": 2, "prompts": 24, "held_out": 16, "sft_steps": 3},
    {"prompts": 16, "held_out": 8, "sft_steps": 3},
    {"iterations": 1, "rankings": 16, "prompts": 8, "sft_steps": 3},
    {"steps": 2, "queries": 16, "prompts": 6, "sft_steps": 3},
    {"prompts": 3, "responses": 2},
    {"iterations": 1, "candidates": 48, "prompts": 6, "sft_steps": 150},
)


def sections() -> list[str]:
    page = PAGE.read_text(encoding="utf-8").split("\n# Measured\n")[0]
    return re.split(r"(?m)^## ", page)[1:]


def test_the_page_holds_the_kept_tables():
    page = PAGE.read_text(encoding="utf-8")
    assert lessons.written(page) == page


def test_there_is_a_lesson_for_each_chapter_in_the_order_of_reading():
    assert tuple(lesson.chapter for lesson in LESSONS) == READING
    titles = [section.splitlines()[0] for section in sections()]
    for number, (title, chapter) in enumerate(zip(titles, READING, strict=True), start=1):
        assert title.startswith(f"{number}. {chapter}.py: ") and title.endswith("?")
        assert lessons.title(number) == title.split(". ", 1)[1]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_lesson_says_what_to_read_to_write_to_predict_and_to_run(number):
    section = sections()[number - 1]
    for part in ("Read", "Write", "Predict", "Test it", "Ask on"):
        assert section.count(f"**{part}**") == 1
    assert f"\n    python -m tests.classroom lesson {number}\n" in section
    predict = section.split("**Predict**")[1].split("**Test it**")[0]
    assert "?" in predict
    wanted = re.search(
        r"\*\*Write\*\* `([\w.]+)`.*?(\d+) points, about (\d+)\s", section, re.DOTALL
    )
    exercise = named(wanted[1])
    assert (exercise.points, exercise.minutes) == (int(wanted[2]), int(wanted[3]))


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_to_be_read_is_there(number):
    read = sections()[number - 1].split("**Read**")[1].split("**Write**")[0]
    files = re.findall(r"[\w/]+\.py", read)
    assert files[0] == f"{READING[number - 1]}.py"
    sources = [(ROOT / file).read_text(encoding="utf-8") for file in files]
    for name in re.findall(r"`(?:\w+\.)?(\w+)`", read):
        is_experiment = (ROOT / "tests" / "experiments" / f"{name}.py").exists()
        defined = any(re.search(rf"(def|class) {name}\b", source) for source in sources)
        assert defined or is_experiment, name
    for number_of_detail in re.findall(r"details? (\d+)", read):
        assert any(f"\n{number_of_detail}. " in source for source in sources)


def test_a_table_has_means_with_intervals_and_says_what_is_not_distinguishable():
    lesson = Lesson("model", None, (Column("x", "share"), Column("y", "nats", 2)), (("a", "b"),))
    rows = {"a": {"x": [2.0, 4.0], "y": [1.5, None]}, "b": {"x": [1.0, 3.2], "y": [1.0, 2.0]}}
    # t is 12.706 for two seeds: half of the interval is 12.706 * the deviation / sqrt(2)
    assert lessons.table(lesson, rows).splitlines() == [
        "|  | share | nats |",
        "|---|---|---|",
        "| a | 3.0 +-12.7 | 1.50 +-inf |",
        "| b | 2.1 +-14.0 | 1.50 +-6.35 |",
        "| a minus b | +0.9 +-1.3, not distinguishable | +0.50 +-inf, not distinguishable |",
    ]
    rows["b"]["x"] = [1.0, 2.9]
    assert "| a minus b | +1.1 +-0.6 |" in lessons.table(lesson, rows)


def test_what_is_learned_in_lesson_1_stood_earlier_after_the_same_token_and_nowhere_fixed():
    distances = set()
    for ids, learned in lessons_supervised.repeated_rows(50, "test"):
        first = learned.index(True)
        assert learned[first:] == [True] * (len(ids) - first) and first == 25
        for place in range(first, len(ids)):
            earlier = ids.index(ids[place])
            assert ids[earlier - 1] == ids[place - 1] and earlier < 24
            distances.add(place - earlier)
    assert len(distances) > 8


def test_outcomes_of_pairs_by_hand():
    # A beats B by 1; C ties with B. Predicted with width 0: sigmoid of the differences.
    predicted, observed, error = lessons_supervised.outcomes([[2.0, 1.0, 1.0]], [[0, 1, 1]], 0.0)
    assert predicted == pytest.approx(0.5) and observed == pytest.approx(2 / 6)
    high = 1 / (1 + math.exp(-1))  # 0.731, twice, both won; 0.269, twice, both lost; 0.5, two ties
    assert error == pytest.approx((2 * (1 - high) + 2 * (1 - high) + 2 * 0.5) / 6)
    # with a width of 1 the two ties are won with probability sigmoid(-1) each
    predicted, _, _ = lessons_supervised.outcomes([[2.0, 1.0, 1.0]], [[0, 1, 1]], 1.0)
    low, lowest = 1 - high, 1 / (1 + math.exp(2))
    assert predicted == pytest.approx((2 * 0.5 + 2 * lowest + 2 * low) / 6)


def test_a_student_is_trained_once_a_folder_and_again_where_its_training_differs(
    tmp_path, monkeypatch
):
    trained = []
    train = lessons_room.sft.train_in_passes

    def counting(*args, **how):
        trained.append(how["seed"])
        return train(*args, **how)

    monkeypatch.setattr(lessons_room.sft, "train_in_passes", counting)
    first = lessons_room.Desk([1], tmp_path)
    one = lessons_room.chat_student(first, 1, sft_steps=2)
    second = lessons_room.Desk([1], tmp_path)
    other = lessons_room.chat_student(second, 1, sft_steps=2)
    assert trained == [1] and first.preparation == second.preparation > 0
    assert first.begun_with == first.preparation and second.begun_with == 0
    assert all(map(lambda a, b: bool((a == b).all()), one.parameters(), other.parameters()))
    lessons_room.chat_student(second, 1, sft_steps=3)
    assert trained == [1, 1]


@pytest.mark.parametrize(
    "words, told",
    [
        (["9"], "lesson 9: there is 1 to 8"),
        (["1", "--seeds", "0"], "need 1 or more"),
        (["1", "--threads", "0"], "need 1 or more"),
        (["1", "--out", "{file}"], "is a file"),
        (["first"], "invalid int value"),
    ],
)
def test_bad_input_ends_with_code_two_and_one_line(words, told, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    words = [word.format(file=tmp_path / "file") for word in words]
    monkeypatch.setattr(sys, "argv", ["classroom", "lesson", *words])
    with pytest.raises(SystemExit) as ended:
        classroom.main()
    error = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and told in error and "\n" not in error


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_lesson_in_its_smallest_form(number, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "TEACHER", ROOT / "data" / "teacher.tiny.pt")
    made = lessons.teach(number, 2, 1, tmp_path, **SMALLEST[number - 1])
    lesson = LESSONS[number - 1]
    told = capsys.readouterr().out
    assert lessons.table(lesson, made["rows"]) in told and "about 0 s left" in told
    assert json.loads((tmp_path / f"lesson{number}.json").read_text()) == made
    keys = {column.key for column in lesson.columns}
    for numbers in made["rows"].values():
        assert set(numbers) == keys
        assert all(len(values) == 2 for values in numbers.values())
    kept = json.loads((lessons.KEPT / f"lesson{number}.json").read_text())
    assert list(kept["rows"]) == list(made["rows"])
