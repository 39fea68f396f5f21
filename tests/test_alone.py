"""What the chapters share: log, whole passes, resume, settings of a size, the command line."""

import json
import math
import random
from argparse import Namespace
from dataclasses import dataclass, field

import pytest
import torch

from data.files.checkpoints import Resume
from data.runtime import alone, sizes, told
from data.runtime.alone import Alone, sft_checkpoint
from data.runtime.log import Log
from data.runtime.pairs import file_pairs
from data.runtime.rows import Passes, pad_batch, that_fit

CPU = torch.device("cpu")


# ---- batches ----


def test_passes_draw_what_a_list_of_shuffled_passes_holds():
    """The same numbers, in the same order, with other draws in between."""
    rng, order, expected = random.Random(3), [], []
    for _ in range(9):
        while len(order) < 4:
            order += rng.sample(range(10), 10)
        expected.append((order[:4], rng.random()))
        order = order[4:]
    rng = random.Random(3)
    passes = Passes(10, rng)
    assert [(passes.take(4), rng.random()) for _ in range(9)] == expected
    assert passes.order == order
    first = sum([taken for taken, _ in expected], [])
    assert sorted(first[:10]) == sorted(first[10:20]) == list(range(10))


def test_passes_go_on_from_the_order_that_was_kept():
    rng = random.Random(3)
    whole = Passes(7, rng)
    whole.take(3)
    state, order = rng.getstate(), whole.order
    expected = [whole.take(3) for _ in range(5)]
    again = random.Random()
    again.setstate(state)
    passes = Passes(7, again, order)
    assert [passes.take(3) for _ in range(5)] == expected


def test_padding_of_a_batch_is_on_the_right_and_masked_out():
    ids, mask = pad_batch([([5, 6, 7], [False, True, True]), ([8], [True])], 9, CPU)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[False, True, True], [True, False, False]]
    ids, mask = pad_batch([], 9, CPU)  # a rank without a share
    assert (
        ids.shape == mask.shape == (0, 1) and ids.dtype == torch.long and mask.dtype == torch.bool
    )


def test_what_fits_is_kept_with_its_rows_and_the_rest_counted():
    rows = {
        "a": [([1, 2], [False, True])],
        "b": [([1] * 9, [True] * 9)],
        "c": [],
        "d": [([1], [True])],
    }
    kept, dropped = that_fit("abcd", 4, rows.get)
    assert kept == [("a", rows["a"])]
    assert dropped == {
        "longer than the context of 4 tokens": 1,
        "tool call, for which the tokenizer has no mark": 1,
        "no supervised token": 1,
    }


# ---- the log ----


def test_a_log_goes_on_behind_the_lines_that_it_is_given(tmp_path):
    history = Log("x", tmp_path / "x.csv", [{"step": 0, "loss": 4.0}, {"step": 1, "loss": 2.0}])
    for step in history.steps(4):
        history.check(1.0 / step, step)
        history.line({"step": step, "loss": 1.0 / step}, f"loss {1.0 / step}")
    history.write()
    assert [line["step"] for line in history.lines] == [0, 1, 2, 3]
    assert history.mean("loss", 2) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert history.mean("loss", 20) == pytest.approx((4 + 2 + 1 / 2 + 1 / 3) / 4)
    assert (tmp_path / "x.csv").read_text().splitlines()[:2] == ["step,loss", "0,4.0"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_log_stops_at_a_loss_that_is_not_finite(loss):
    with pytest.raises(FloatingPointError, match=f"dpo: the loss is {loss} at step 3"):
        Log("dpo").check(loss, 3)


# ---- resume ----


def test_a_stage_goes_on_where_it_was_saved_last_and_leaves_nothing_when_done(tokenizer, tmp_path):
    log, part = tmp_path / "x.csv", torch.nn.Linear(2, 2)
    resume = Resume(log, 3, tokenizer, CPU, model=part)
    assert resume.load({"step": 0}, settings=1) == {"step": 0}
    for step in range(5):
        with torch.no_grad():
            part.weight.fill_(step)
        resume.save(step + 1, {"step": step + 1})
    other = torch.nn.Linear(2, 2)
    again = Resume(log, 3, tokenizer, CPU, model=other)
    assert again.load({"step": 0}, settings=1) == {"step": 3} and (other.weight == 2).all()
    again.done()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("log, every", [(False, 3), (True, 0)])
def test_a_stage_without_a_log_or_a_rhythm_is_never_saved(tokenizer, tmp_path, log, every):
    resume = Resume(tmp_path / "x.csv" if log else None, every, tokenizer, CPU)
    assert resume.load({"step": 0}, settings=1) == {"step": 0}
    resume.save(3, {"step": 3})
    resume.done()
    assert not list(tmp_path.iterdir())


# ---- settings of a size ----


@dataclass(frozen=True)
class Inner:
    lr: float = 1.0
    rows: int = 8


@dataclass(frozen=True)
class Outer:
    steps: int = 10
    rows: int = 5
    training: Inner = field(default_factory=Inner)


def test_a_size_changes_settings_then_what_is_given_then_smoke(monkeypatch):
    monkeypatch.setitem(
        sizes.LARGER["small"], "x", {"steps": 20, "rows": 6, "training": {"lr": 2.0}}
    )
    monkeypatch.setitem(sizes.SMOKE, "x", {"steps": 1, "training": {"rows": 2}})
    assert sizes.sized(Outer(), "x", "tiny") == Outer()
    assert sizes.sized(Outer(), "x", "small") == Outer(20, 6, Inner(lr=2.0))
    assert sizes.sized(Outer(), "x", "small", rows=9) == Outer(20, 9, Inner(lr=2.0))
    assert sizes.sized(Outer(), "x", "tiny", True, steps=7) == Outer(1, 5, Inner(rows=2))
    assert sizes.LARGER["small"]["x"]["training"] == {"lr": 2.0}  # the table itself is left alone


def test_every_entry_of_the_sizes_names_fields_of_its_stage():
    """`sized` raises TypeError for a field that a stage's settings lack."""
    from pipeline import stage_settings

    for size in ("tiny", "small", "base"):
        assert set(stage_settings(size, True)) == set(stage_settings(size, False))


# ---- the command line ----


def command_of(**flags):
    given = {"size": "tiny", "seed": 3, "device": "cpu", "threads": 1, "out": None, "data": None}
    given |= {"smoke": False, "no_exec": False, "init": None, "eval_n": 9}
    return Namespace(**given | flags)


def test_a_flag_that_is_not_given_leaves_the_setting(monkeypatch):
    monkeypatch.setitem(sizes.LARGER["small"], "x", {"steps": 20})
    plain = Alone(command_of(size="small", steps=None, rows=None), "x")
    assert plain.settings(Outer(), "steps", "rows") == Outer(20)
    given = Alone(command_of(size="small", steps=3, rows=None), "x")
    assert given.settings(Outer(), "steps", "rows", rows=4) == Outer(3, 4)


@pytest.mark.parametrize("smoke, eval_n, n", [(False, 9, 9), (True, 9, 4), (True, 2, 2)])
def test_the_table_has_one_head_and_a_line_for_each_model(monkeypatch, capsys, smoke, eval_n, n):
    asked = []
    monkeypatch.setattr(
        alone, "evaluate", lambda model, tokenizer, n, seed: asked.append((model, n, seed)) or {}
    )
    command = Alone(command_of(smoke=smoke, eval_n=eval_n), "x")
    command.scores("before", "a")
    command.scores("after", "b")
    assert asked == [("a", n, 3), ("b", n, 3)]
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["greedy/sampled,", "before", "after"]


@pytest.mark.parametrize("smoke, n", [(False, 9), (True, 4)])
def test_problems_of_a_file_leave_room_for_a_reply_and_are_few_with_smoke(
    tmp_path, monkeypatch, capsys, tokenizer, tiny_model, smoke, n
):
    """Of the context's 128 tokens half is the reply's; a digit is a token, the question has 66."""
    asked = []
    scores = {"greedy": 0.5, "n": 1, "low": 0.1, "high": 0.9}

    def evaluate(model, tokenizer, n, *, tasks, **how):
        asked.append((n, [task.prompt for task in tasks["math"]]))
        return {"math": scores}

    monkeypatch.setattr(alone, "evaluate", evaluate)
    path = tmp_path / "test.jsonl"
    rows = [{"question": question, "answer": "#### 1"} for question in ("7?", "7" * 63 + "?")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = Alone(command_of(test=str(path), smoke=smoke), "x", tokenizer)
    command.scores("before", tiny_model)
    command.scores("after", tiny_model)
    assert asked == 2 * [(n, ["7?"])]
    left_out = f"{path}: dropped 1 record: 1 prompts of more than 64 tokens"
    assert capsys.readouterr().out.count(left_out) == 1
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(ValueError, match="test.jsonl: nothing can be checked .dropped 1 record"):
        Alone(command_of(test=str(path)), "x", tokenizer).scores("before", tiny_model)


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"records": 5}, "--records 5: is about the records of --data; give --data FILE"),
        ({"context": 64}, "--context 64: is about the records of --data; give --data FILE"),
        (
            {"test": "a.jsonl", "data": "text.txt", "pretrain": True},
            "--test a.jsonl: --pretrain does not use it; leave it out",
        ),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused(flags, message):
    with pytest.raises(ValueError) as caught:
        Alone(command_of(**flags), "x")
    assert str(caught.value) == message


def test_a_folder_is_that_of_the_command_and_apart_with_smoke(monkeypatch):
    monkeypatch.setattr(alone, "out_folder", lambda path: path)
    assert Alone(command_of(), "x").folder() == "runs/x"
    assert Alone(command_of(smoke=True), "x").folder() == "runs/x-smoke"
    assert Alone(command_of(out="there"), "x").folder() == "there"


def test_held_out_pairs_by_hand():
    """Margins 1, -1, 2 and 0: two of four above 0, Wilson's interval 0.15 to 0.85."""
    losses, margins = torch.tensor([0.5, 1.0, 0.25, 0.75]), torch.tensor([1.0, -1.0, 2.0, 0.0])
    before = torch.tensor([-3.0, -2.0, -4.0, -1.0]), torch.tensor([-2.0, -3.0, -4.0, -2.0])
    after = torch.tensor([-1.0, -2.0, -3.0, -1.0]), torch.tensor([-2.0, -3.0, -4.0, -4.0])
    result = told.held_out_pairs(losses, margins, before, after)
    assert result["pairs"] == 4 and result["loss"] == 0.625 and result["margin"] == 0.5
    assert result["accuracy"] == 0.5
    assert result["accuracy_low"] == pytest.approx(0.150, abs=1e-3)
    assert result["accuracy_high"] == pytest.approx(0.850, abs=1e-3)
    assert (result["chosen_before"], result["rejected_before"]) == (-2.5, -2.75)
    assert (result["chosen_after"], result["rejected_after"]) == (-1.75, -3.25)
    assert (result["likelier_before"], result["likelier_after"]) == (0.5, 1.0)  # a tie is no win


def test_a_command_ends_with_its_cost_and_its_numbers_without_anybodys_folders(tmp_path, capsys):
    data = tmp_path / "pairs.jsonl"
    command = Alone(command_of(out=str(tmp_path / "out"), data=str(data)), "x")
    command.checkpoint = command.folder() / "x.pt"
    command.result["before"] = 0.5
    command.ends("the result", loss=1.5, accuracy=math.nan)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the result" and " s with evaluation" in lines[1]
    text = (tmp_path / "out" / "x.json").read_text()
    kept = json.loads(text)
    assert (kept["before"], kept["loss"], kept["accuracy"]) == (0.5, 1.5, None)
    assert kept["flags"]["data"] == "pairs.jsonl" and str(tmp_path) not in text
    assert kept["total_seconds"] >= 0 and kept["flags"]["threads"] == 1


def test_an_evaluation_that_comes_again_keeps_the_cost_of_the_training(
    tmp_path, tokenizer, tiny_model
):
    file = tmp_path / "x.json"
    trained = []

    def training():
        trained.append(True)
        return tiny_model, {"loss": 1.5}

    for was in (77.0, 88.0):  # before the training, and between it and the evaluation alone
        file.write_text(json.dumps({"total_seconds": was, "peak_memory_mb": 5}))
        command = Alone(command_of(), "x", tokenizer)
        _, measured = command.once(tmp_path / "x.pt", tiny_model, Outer(), training)
        command.ends("the result", evaluation=was, **measured)
        kept = json.loads(file.read_text())
        assert (kept["total_seconds"] == was) == (was == 88.0) and kept["evaluation"] == was
    assert len(trained) == 1 and kept["peak_memory_mb"] == 5


def test_records_are_cut_after_the_held_out_ones_are_put_apart(tokenizer):
    records = [
        {"prompt": [{"role": "user", "content": f"{k}?"}], "chosen": "a", "rejected": "b"}
        for k in range(40)
    ]
    given = command_of(data="pairs.jsonl", records=None, context=None)
    whole = file_pairs(Alone(given, "x", tokenizer), records, {}, 64)
    given.records = 4
    few = file_pairs(Alone(given, "x", tokenizer), records, {}, 64)
    assert few == (whole[0][:4], whole[1]) and len(whole[0]) + len(whole[1]) == 40


def test_the_sft_model_is_the_one_given_then_a_runs_then_one_that_is_made_once(
    tmp_path, monkeypatch, tokenizer, tiny_model, capsys
):
    monkeypatch.chdir(tmp_path)
    made = []

    def found(path=None, **flags):
        how = {
            "schedule": "a schedule",
            "fresh": lambda: tiny_model,
            "stages": [lambda *_, **how: made.append(how)],
        }
        return str(sft_checkpoint(command_of(**flags), "student", tokenizer, CPU, path=path, **how))

    assert found("a.pt", init="b.pt") == "a.pt" and found(init="b.pt") == "b.pt" and not made
    own = "runs/sft-tiny-seed3/overall_sft.student.pt"
    assert found() == own and made == [{"seed": 3, "device": CPU}]
    assert found() == own and len(made) == 1  # kept
    (tmp_path / "runs/tiny-seed3").mkdir()
    (tmp_path / "runs/tiny-seed3/overall_sft.student.pt").write_bytes(b"")
    assert found() == "runs/tiny-seed3/overall_sft.student.pt" and len(made) == 1
    assert (
        found(smoke=True) == "runs/sft-tiny-smoke-seed3/overall_sft.student.pt" and len(made) == 2
    )
    assert capsys.readouterr().out.count("student: runs/") == 4
