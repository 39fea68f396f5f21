"""Alarms: silent in healthy trainings, given once where a range is left for long."""

import copy
import csv
import inspect
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import distill
import dpo
import ppo
import reward_model
import self_reward
import sft
from data import world
from data.runtime import alarms, log
from data.runtime.alarms import ALARMS, Alarms
from data.runtime.log import Log
from model import GPT, Config

ROOT = Path(__file__).parents[1]
CHAPTERS = {
    "sft": (sft,),
    "dpo": (dpo, self_reward),
    "reward_model": (reward_model,),
    "distill": (distill,),
    "ppo": (ppo,),
}


def names(said: str) -> list[tuple[str, str]]:
    """(chapter, column) of each alarm in what was printed."""
    return [(a.chapter, a.column) for a in ALARMS if f": {a.what} ({a.column} " in said]


# ---- healthy ----


def kept_lines(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def test_no_alarm_is_given_in_the_reference_run_and_in_seeds_1_to_5():
    kept = ROOT / "data/reference_run"
    paths = [*kept.glob("csv/*.csv"), *kept.glob("evidence/seed*/*.csv")]
    chapters = set()
    for path in paths:
        of_training = Alarms(path.name)
        for line in kept_lines(path):
            chapters.add(alarms.chapter_of(line))
            assert of_training.of(line) == [], path
    assert chapters == set(CHAPTERS) and len(paths) >= 60


@pytest.mark.parametrize("alarm", ALARMS, ids=[f"{a.chapter} {a.column}" for a in ALARMS])
def test_a_column_with_an_alarm_stands_in_its_chapters_watch_and_in_the_table_of_logs(alarm):
    for chapter in CHAPTERS[alarm.chapter]:
        watch = inspect.getdoc(chapter).split("\nWatch")[1]
        assert re.search(rf"\b{alarm.column}\b", watch), chapter
    table = (ROOT / "data/README.md").read_text(encoding="utf-8").split("## What a log says")[1]
    rows = [row.split("|") for row in table.split("\n## ")[0].splitlines() if row.startswith("|")]
    told = [row for row in rows if alarm.chapter in row[2] and f"`{alarm.column}`" in row[1]]
    assert told, "state the column's healthy range"


# ---- every alarm, fed with the lines of its failure ----

LN2 = math.log(2)
HEALTHY = {
    "sft": {"loss": 1.0},
    "dpo": {"loss": 0.5, "chosen_logprob": -4.0},
    "reward_model": {"loss": 0.6, "accuracy": 0.7},
    "distill": {"dpo": 0.5, "kl_positive": 0.2, "positive_logprob": -6.0},
    "ppo": {
        "kl": 1.0,
        "entropy": 0.1,
        "truncated": 0.0,
        "dead_groups": 0.5,
        "clip_fraction": 0.01,
        "reward": 0.5,
        "true_reward": 0.5,
        "length": 20.0,
    },
}
# (chapter, what the lines before and the lines after have: just left, and just not)
LEFT = {
    ("sft", "loss"): (20, {"loss": 1.11}, {"loss": 1.09}),
    ("sft", "held_out_loss"): (0, {"held_out_loss": 1.0}, None),
    ("dpo", "loss"): (0, {"loss": LN2 + 0.0029}, {"loss": LN2 + 0.0031}),
    ("dpo", "chosen_logprob"): (1, {"chosen_logprob": -11.1}, {"chosen_logprob": -10.9}),
    ("dpo", "kl"): (0, {"kl": 5.1, "length": 20.0}, {"kl": 4.9, "length": 20.0}),
    ("reward_model", "accuracy"): (0, {"accuracy": 0.529}, {"accuracy": 0.531}),
    ("distill", "dpo"): (0, {"dpo": LN2 - 0.0029}, {"dpo": LN2 - 0.0031}),
    ("distill", "kl_positive"): (20, {"kl_positive": 0.301}, {"kl_positive": 0.299}),
    ("distill", "positive_logprob"): (
        1,
        {"positive_logprob": -15.1},
        {"positive_logprob": -14.9},
    ),
    ("ppo", "kl"): (0, {"kl": 5.1}, {"kl": 4.9}),
    ("ppo", "entropy"): (0, {"entropy": 0.0049}, {"entropy": 0.0051}),
    ("ppo", "truncated"): (0, {"truncated": 0.51}, {"truncated": 0.49}),
    ("ppo", "dead_groups"): (0, {"dead_groups": 0.91}, {"dead_groups": 0.89}),
    ("ppo", "clip_fraction"): (0, {"clip_fraction": 0.21}, {"clip_fraction": 0.19}),
    ("ppo", "true_reward"): (12, {"reward": 0.54, "true_reward": 0.46}, {"true_reward": 0.46}),
}


def test_every_alarm_has_a_failure():
    assert set(LEFT) == {(alarm.chapter, alarm.column) for alarm in ALARMS}


def said_after(lines: list[dict], chapter: str) -> list[tuple[int, str]]:
    """[(number of the line, column)] of what is said."""
    of_training = Alarms("a stage")
    said = []
    for k, line in enumerate(lines):
        for text in of_training.of({"step": k} | HEALTHY[chapter] | line):
            assert text.startswith(f"a stage, step {k}: ") and "\n" not in text
            said += [(k, column) for _, column in names(text)]
    return said


@pytest.mark.parametrize("chapter, column", sorted(set(LEFT) - {("sft", "held_out_loss")}))
def test_an_alarm_is_given_once_after_so_many_lines_and_not_inside_the_range(chapter, column):
    before, left, inside = LEFT[chapter, column]
    (alarm,) = [one for one in ALARMS if (one.chapter, one.column) == (chapter, column)]
    length = alarm.lines + 60
    (given,) = said_after([{}] * before + [left] * length, chapter)
    # means over lines of which the first are healthy may need fewer, and never more
    last = before + alarm.lines - 1 if "mean" not in alarm.what else None
    assert given[1] == column
    if column == "true_reward":
        assert 12 <= given[0] < 24
    elif last is not None:
        assert given[0] == last
    assert said_after([{}] * before + [inside] * length, chapter) == []
    # now and then a line in the range: no alarm, but for those that look at means
    if chapter != "reward_model" and "mean" not in alarm.what and alarm.lines in (5, 10, 20, 50):
        some = ([left] * (alarm.lines - 1) + [inside]) * 3
        assert said_after([{}] * before + some, chapter) == []


def test_a_held_out_loss_that_rises_twice_is_told_and_lines_between_looks_do_not_count():
    def looks(*losses):
        return said_after([look for x in losses for look in ({}, {}, {"held_out_loss": x})], "sft")

    assert looks(1.0, 0.9, 0.95, 0.94) == [(11, "held_out_loss")]
    assert looks(1.0, 0.9, 0.91, 0.95) == looks(1.0, 0.9, 0.95, 0.89) == looks(1.0, 1.1) == []


def test_a_kl_of_long_responses_is_measured_a_token():
    assert said_after([{"kl": 29.0, "length": 300.0}] * 9, "ppo") == []
    assert said_after([{"kl": 31.0, "length": 300.0}] * 9, "ppo") == [(4, "kl")]


def test_lines_of_dpo_of_which_only_some_have_looked_at_samples():
    """A look every 20 steps, as dpo.py does: at step 19, 39 and 59."""
    look = {"kl": 5.1, "length": 20.0}
    lines = [look if step % 20 == 19 else {} for step in range(99)]
    assert said_after(lines, "dpo") == [(19, "kl")]
    assert said_after([line and line | {"kl": 4.9} for line in lines], "dpo") == []


def test_what_is_not_finite_or_missing_is_no_line_of_its_alarm():
    lines = [{"clip_fraction": 0.5}, {"clip_fraction": math.nan}] * 9
    assert said_after(lines, "ppo") == [(8, "clip_fraction")]


# ---- the log ----

DEAD = {"iteration": 0, "kl": 0.0, "length": 1.0, "dead_groups": 1.0}


def test_a_log_tells_an_alarm_once_and_keeps_it_out_of_the_csv(tmp_path, capsys):
    history = Log("rl_code", tmp_path / "x.csv")
    for k in history.steps(12):
        history.line(DEAD | {"iteration": k})
    history.write()
    out = capsys.readouterr().out
    assert out.startswith("rl_code, iteration 4: more than 0.9 of the groups are scored alike (")
    assert out.count("\n") == 1
    columns = (tmp_path / "x.csv").read_text().splitlines()[0]
    assert columns == "iteration,kl,length,dead_groups"


@pytest.mark.parametrize("done, told", [(3, 1), (4, 1), (5, 0), (9, 0)])
def test_a_training_that_goes_on_tells_no_old_alarm_again_and_goes_on_counting(capsys, done, told):
    """Five lines make the alarm: it is told where the fifth is new."""
    history = Log("rl_code", None, [DEAD | {"iteration": k} for k in range(done)])
    assert capsys.readouterr().out == ""
    for k in history.steps(12):
        history.line(DEAD | {"iteration": k})
    assert capsys.readouterr().out.count("rl_code, iteration 4: ") == told


def test_an_alarm_stands_above_the_progress_bar_and_rank_0_tells_it(monkeypatch, capsys):
    written = []
    monkeypatch.setattr(log.tqdm, "write", written.append)
    for rank in (0, 1):
        monkeypatch.setattr(log, "rank", lambda: rank)
        history = Log("rl_code")
        for k in history.steps(9):
            history.line(DEAD | {"iteration": k}, f"iteration {k}")
    assert len(written) == 1 and capsys.readouterr().out == ""


# ---- real trainings that go wrong ----


def small(tokenizer, end=0.0) -> GPT:
    """A small model with random weights everywhere; `end`: how much it likes the end mark."""
    model = GPT(Config(tokenizer.vocab_size, 128, 1, 32, 2, 1, 48, tied=False)).init_weights(0)
    generator = torch.Generator().manual_seed(100)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        if end:
            model.embedding.weight[:, 0] = 1.0
            model.head.weight[sorted(tokenizer.runtime_ids), 0] = -5.0
            model.head.weight[tokenizer.end_id, 0] = end
    return model.eval()


def row(tokenizer, prompt: str, response: str):
    messages = [("user", prompt), ("assistant", response)]
    return tokenizer.render([{"role": role, "content": text} for role, text in messages])


def rows_of(tokenizer, responses) -> list:
    return [row(tokenizer, "9" * (1 + k % 3), response) for k, response in enumerate(responses)]


@pytest.fixture(scope="module")
def taught(tokenizer) -> GPT:
    """SFT on a few 7s and then a 1 or a 2."""
    rng = random.Random(0)
    said = ["7" * rng.randint(1, 3) + rng.choice("12") for _ in range(120)]
    model = small(tokenizer)
    settings = sft.Settings(30, rows=4, muon_lr=0.03)
    sft.train(model, tokenizer, rows_of(tokenizer, said), settings, seed=1, stage="sft")
    return model


def alike(tokenizer, count=12) -> list:
    """Pairs that differ in the last digit alone."""
    kinds = [("9" * (1 + k % 3), "7" * (1 + k // 3 % 3)) for k in range(count)]
    return [
        (row(tokenizer, prompt, text + "1"), row(tokenizer, prompt, text + "2"))
        for prompt, text in kinds
    ]


def test_dpo_with_next_to_no_learning_rate_stays_at_ln_2(taught, tokenizer, capsys):
    settings = dpo.Settings(steps=20, rows=4, lr=1e-8, probe_every=100)
    dpo.train(copy.deepcopy(taught), tokenizer, alike(tokenizer), settings, seed=1)
    assert names(capsys.readouterr().out) == [("dpo", "loss")]


def test_dpo_with_too_high_a_learning_rate_falls_and_leaves_its_reference(
    taught, tokenizer, capsys
):
    settings = dpo.Settings(steps=12, rows=4, lr=0.1)
    dpo.train(copy.deepcopy(taught), tokenizer, alike(tokenizer), settings, seed=1)
    assert names(capsys.readouterr().out) == [("dpo", "chosen_logprob"), ("dpo", "kl")]


def test_sft_with_too_high_a_learning_rate_unlearns(taught, tokenizer, capsys):
    rng = random.Random(1)
    said = ["7" * rng.randint(1, 3) + rng.choice("12") for _ in range(120)]
    rows = rows_of(tokenizer, said)
    settings = sft.Settings(60, rows=2, muon_lr=2.0, adam_lr=2.0, warmup=50)
    sft.train(copy.deepcopy(taught), tokenizer, rows, settings, seed=1, stage="sft")
    assert names(capsys.readouterr().out) == [("sft", "loss")]


def test_sft_on_few_rows_for_long_learns_them_by_heart(taught, tokenizer, capsys):
    rows = rows_of(tokenizer, ["71"] * 4) * 15
    settings = sft.Settings(30, rows=2, held_out_every=6)
    how = {"seed": 1, "stage": "sft", "held_out": rows_of(tokenizer, ["72", "771", "7772"])}
    sft.train(copy.deepcopy(taught), tokenizer, rows, settings, **how)
    assert names(capsys.readouterr().out) == [("sft", "held_out_loss")]


def test_a_reward_model_of_rankings_that_contradict_each_other_is_a_coin(tokenizer, capsys):
    rankings = [
        {"rows": list(pair), "ranking": "BA"[k % 2] + " > " + "AB"[k % 2]}
        for k, pair in enumerate(alike(tokenizer, 50))
    ]
    settings = reward_model.Settings(epochs=2, rows=1)
    model = reward_model.RewardModel(small(tokenizer))
    reward_model.train(model, tokenizer, rankings, settings, seed=1)
    assert names(capsys.readouterr().out) == [("reward_model", "accuracy")]


def test_a_student_with_next_to_no_learning_rate_does_not_move(taught, tokenizer, capsys):
    settings = distill.Settings(steps=50, rows=2, rehearsal_rows=0, muon_lr=1e-8, adam_lr=1e-8)
    teacher = small(tokenizer)
    pairs = alike(tokenizer)
    distill.train(copy.deepcopy(taught), teacher, tokenizer, pairs, [], settings, seed=1)
    assert names(capsys.readouterr().out) == [("distill", "dpo")]


def test_a_student_without_the_token_level_losses_goes_away_from_its_teacher(
    taught, tokenizer, capsys
):
    settings = distill.Settings(
        steps=60,
        rows=2,
        rehearsal_rows=0,
        muon_lr=None,
        adam_lr=0.2,
        pos_coef=0.0,
        neg_coef=0.0,
        warmup=50,
    )
    pairs = alike(tokenizer)
    distill.train(copy.deepcopy(taught), taught, tokenizer, pairs, [], settings, seed=1)
    assert names(capsys.readouterr().out) == [
        ("distill", "kl_positive"),
        ("distill", "positive_logprob"),
    ]


RL = ppo.Settings(iterations=5, prompts=2, samples=4, minibatches=1, max_new=12, warmup=0)


@pytest.mark.parametrize(
    "end, reward, change, expected",
    [
        # a reward that pays all alike
        (3.4, lambda length, k: 0.5, {}, {"dead_groups"}),
        # nothing ever ends, so nothing is scored
        (0.0, lambda length, k: 0.5, {"max_new": 4}, {"truncated", "dead_groups"}),
        # nothing but the end mark has a probability
        (40.0, lambda length, k: k * 7919 % 97 / 97, {}, {"entropy"}),
        # noise as a reward, and large steps on it
        (
            3.4,
            lambda length, k: k * 7919 % 97 / 97,
            {"lr": 0.01, "epochs": 6},
            {"clip_fraction"},
        ),
        # a reward for the shortest reply, kl_coef 0 and large steps
        (
            3.4,
            lambda length, k: -min(length, 9) / 9 + k % 3 / 100,
            {"lr": 0.3, "epochs": 3, "iterations": 8},
            {"kl"},
        ),
    ],
    ids=["alike", "truncated", "entropy", "clipped", "kl"],
)
def test_rl_that_goes_wrong(tokenizer, monkeypatch, capsys, end, reward, change, expected):
    calls = []

    def scored(domain, *, tokens, truncated, **_):
        calls.append(1)
        return None if truncated else reward(len(tokens), len(calls))

    monkeypatch.setattr(ppo, "robust_reward", scored)
    tasks = world.draw_tasks(world.generator(0, "test_alarms"), ("math", "stem"), 6)
    settings = replace(RL, **change)
    ppo.train(small(tokenizer, end), tokenizer, tasks, settings, seed=1, stage="rl_stem")
    assert set(names(capsys.readouterr().out)) == {("ppo", column) for column in expected}
