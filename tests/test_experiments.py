"""The figures that the experiments and the table of targets compute from what they measured."""

import argparse
import copy
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distill
import sft
from data.runtime import queries
from data.runtime.command import check_numbers
from ppo import Settings
from tests.experiments import (
    copying,
    curriculum,
    distill_ablation,
    judge_controls,
    overoptimise,
    pass_at_k,
    tables,
    targets,
)
from tests.experiments.compare import changed


def test_the_interval_over_seeds_is_students():
    mean, half = tables.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.302653 * 1 / math.sqrt(3))
    assert tables.interval([5.0]) == (5.0, math.inf)
    # beyond ten too
    assert tables.interval([0.0, 1.0] * 6)[1] == pytest.approx(
        2.200985 * math.sqrt(3 / 11) / math.sqrt(12)
    )


@pytest.mark.parametrize("n, kl", [(1, 0), (2, 0.193147), (4, 0.636294), (8, 1.204442)])
def test_the_kl_of_best_of_n(n, kl):
    assert overoptimise.best_of_n_kl(n) == pytest.approx(kl, abs=1e-6)


@pytest.mark.parametrize(
    "k, right, value",
    [
        (1, 4, 0.25),
        (1, 0, 0.0),
        (1, 16, 1.0),
        (8, 0, 0.0),
        (8, 1, 0.5),
        (8, 9, 1.0),
        (8, 2, 1 - 28 / 120),
    ],
)
def test_pass_at_k_of_sixteen_samples(k, right, value):
    """Two of 16: eight miss both in C(14, 8) / C(16,
    8) = 8 * 7 / (16 * 15) = 28 / 120 of the draws."""
    assert pass_at_k.pass_at(k, right, 16) == pytest.approx(value)


def test_a_setting_is_changed_by_its_name_and_keeps_its_type():
    settings = changed(Settings(), "estimator=gae,kl_coef=0.5,epochs=1")
    assert (settings.estimator, settings.kl_coef, settings.epochs) == ("gae", 0.5, 1)
    with pytest.raises(ValueError, match="'estimater' is no setting"):
        changed(Settings(), "estimater=gae")


def test_a_random_judge_scores_only_what_is_finished(tokenizer):
    finished, broken = ([1, tokenizer.end_id], [False, True]), ([1, 2], [False, True])
    scores = judge_controls.random_judge(tokenizer, 1)(["x"] * 40, [[finished, broken]] * 40)
    assert (
        all(group[1] is None and 0 <= group[0] <= 5 for group in scores)
        and len({group[0] for group in scores}) > 3
    )


def run(seed, accuracy):
    """A run of two stages in which every score is `accuracy` of its stage."""
    stages = [
        {
            "name": name,
            "model": "student",
            "seconds": 1.0,
            "measured": {},
            "eval": {
                domain: {"greedy": value, "sampled": value / 2, "n": 10, "low": 0.0, "high": 1.0}
                for domain in targets.DOMAINS
            },
        }
        for name, value in accuracy.items()
    ]
    return {
        "seed": seed,
        "stages": stages,
        "params": {"student": 10, "teacher": 30},
        "control": {"overall_sft": dict.fromkeys(targets.DOMAINS, 0.3)},
        "readiness": {"overall_sft": 0.2 + seed / 10},
    }


def test_the_table_pairs_stages_by_seed_and_says_what_is_missing(tmp_path):
    runs = [
        run(1, {"overall_sft": 0.4, "distill": 0.5}) | {"folder": tmp_path},
        run(2, {"overall_sft": 0.5, "distill": 0.6}) | {"folder": tmp_path},
    ]
    rows = {(row, what): (text, verdict) for row, what, text, _, verdict in targets.build(runs)}
    assert rows["distill", "math, code, stem, agent: greedy"] == ("+10.0 +-0.0", "missed")  # 12
    # sampled: 20 -> 25 and 25 -> 30; at temperature 0.5 the entering checkpoint has 30,
    # so 10 and 5 over its own 20 and 25: -5 and 0 beyond it
    assert rows["distill", "math, code, stem, agent: sampled"][0] == "+5.0 +-0.0"
    text, verdict = rows[
        "distill",
        "math, code, stem, agent: sampled gain beyond the control, "
        "the entering checkpoint at temperature 0.5",
    ]
    assert text == "-2.5 +-31.8 beyond +7.5" and verdict == "missed"
    # 0.35
    assert (
        rows["RL-readiness", "prompts with a pass rate in 10% to 90% after overall_sft"][1]
        == "reached"
    )
    assert rows["rl_stem", "math, stem: greedy"] == ("", "not measured")
    assert json.dumps(list(rows.values()))


def table_of(runs, tmp_path, **more):
    """{(row, what): (text, target, verdict)}"""
    given = {
        "time_run": None,
        "nanogpt": None,
        "peers": {},
        "controls": [],
        "ablation": {},
        "pass_at_k": None,
        "shakespeare": None,
    } | more
    rows = targets.build([one | {"folder": tmp_path} for one in runs], **given)
    return {(row, what): rest for row, what, *rest in rows}


@pytest.mark.parametrize(
    "seconds, memory, nanogpt, first, second",
    [
        (300.0, 1199.0, 100.0, ["300", "at most 300", "reached"], "reached"),
        (301.0, 1200.0, 100.0, ["301", "at most 300", "missed"], "missed"),
        (301.0, 800.0, None, ["301", "at most 3 nanoGPT commands", "not measured"], "reached"),
    ],
)
def test_a_run_has_the_time_of_three_nanogpt_commands(
    tmp_path, seconds, memory, nanogpt, first, second
):
    rows = table_of(
        [], tmp_path, nanogpt=nanogpt, time_run={"seconds": seconds, "peak_memory_mb": memory}
    )
    assert rows["time", "whole tiny run, seconds"] == first
    assert rows["memory", "peak, MB"] == [f"{memory:.0f}", "below 1200", second]


def test_a_run_that_nobody_timed_is_not_measured(tmp_path):
    rows = table_of([], tmp_path, nanogpt=100.0)
    assert rows["time", "whole tiny run"] == ["", "at most 3 nanoGPT commands", "not measured"]


CEILING = ("ceiling", "families of 90% or more, chat by correct answers")


def test_the_ceiling_counts_chat_by_correct_answers(tmp_path):
    """A polite answer is no part of it: list has 0.7 of the points and 0.92 correct."""
    families = {"sum": {"score": 0.9}, "list": {"score": 0.7, "correct": 0.92}}
    rows = table_of([], tmp_path, ceiling={"families": families})
    assert rows[CEILING] == ["2 of 2", "all", "reached"]
    families |= {"quotient": {"score": 0.89}, "fact": {"score": 0.95, "correct": 0.5}}
    rows = table_of([], tmp_path, ceiling={"families": families})
    assert rows[CEILING] == ["2 of 4; below: quotient 89, fact 50", "all", "missed"]
    assert table_of([], tmp_path)[CEILING] == ["", "all", "not measured"]


def test_the_given_teacher_is_measured_by_the_mean_of_four_by_correct_chat_and_as_a_judge(tmp_path):
    """(100 + 90 + 80 + 94) / 4 = 91; chat families (0.95 + 0.83) / 2 = 89, sum does not count."""
    scores = {
        name: {"greedy": value}
        for name, value in {
            "math": 1.0,
            "code": 0.9,
            "stem": 0.8,
            "agent": 0.94,
            "chat": 0.1,
            "judge": 0.86,
        }.items()
    }
    families = {
        "fact": {"score": 0.2, "correct": 0.95},
        "list": {"score": 0.3, "correct": 0.83},
        "sum": {"score": 0.1},
    }
    rows = table_of([], tmp_path, teacher={"eval": scores, "families": families})
    found = {what: rest for (row, what), rest in rows.items() if row == "teacher, given"}
    assert found == {
        "mean of math, code, stem, agent: greedy": ["91.0", "90 or more", "reached"],
        "chat answers correct, mean of families": ["89.0", "90 or more", "missed"],
        "judge: greedy": ["86.0", "85 or more", "reached"],
    }
    scores |= {"agent": {"greedy": 0.85}, "judge": {"greedy": 0.84}}  # (100 + 90 + 80 + 85) / 4
    rows = table_of([], tmp_path, teacher={"eval": scores, "families": {"fact": {"correct": 0.9}}})
    assert [rest[::2] for (row, _), rest in rows.items() if row == "teacher, given"] == [
        ["88.8", "missed"],
        ["90.0", "reached"],
        ["84.0", "missed"],
    ]
    rows = table_of([], tmp_path)
    assert [rest[::2] for (row, _), rest in rows.items() if row == "teacher, given"] == [
        ["", "not measured"]
    ] * 3


@pytest.mark.parametrize(
    "first, second, told, verdict",
    [
        (0.44, 0.45, "44.5 +-6.4", "missed"),
        (0.5, 0.7, "60.0 +-127.1", "reached"),
        (0.65, 0.67, "66.0 +-12.7", "missed"),
    ],
)
def test_overall_sft_leaves_room_above_and_below(tmp_path, first, second, told, verdict):
    """The half-width of two values is 12.706 times half of their distance."""
    rows = table_of([run(1, {"overall_sft": first}), run(2, {"overall_sft": second})], tmp_path)
    for what in ("mean of math, code, stem, agent: greedy", "score in chat: greedy"):
        assert rows["overall SFT", what] == [told, "between 45 and 65", verdict]


def test_overall_sft_is_the_mean_of_four_domains_and_chat_apart(tmp_path):
    runs = [run(seed, {"overall_sft": 0.0}) for seed in (1, 2)]
    for one in runs:
        for domain, value in {
            "math": 0.3,
            "code": 0.4,
            "stem": 0.5,
            "agent": 0.8,
            "chat": 0.7,
            "judge": 0.9,
        }.items():
            one["stages"][0]["eval"][domain]["greedy"] = value
    rows = table_of(runs, tmp_path)
    assert rows["overall SFT", "mean of math, code, stem, agent: greedy"][0] == "50.0 +-0.0"
    assert rows["overall SFT", "score in chat: greedy"] == [
        "70.0 +-0.0",
        "between 45 and 65",
        "missed",
    ]


def test_overall_sft_is_compared_with_the_cold_start(tmp_path):
    runs = [run(seed, {"cold_start_sft": 0.4, "overall_sft": 0.5}) for seed in (1, 2)]
    for one in runs:
        one["stages"][1]["eval"]["stem"]["greedy"] = 0.36
        one["stages"][1]["eval"]["judge"]["greedy"] = 0.4
    rows = table_of(runs, tmp_path)
    assert rows["overall SFT", "chat: greedy"] == ["+10.0 +-0.0", "up", "reached"]
    assert rows["overall SFT", "agent: greedy"] == ["+10.0 +-0.0", "up", "reached"]
    assert rows["overall SFT", "judge: greedy"] == ["+0.0 +-0.0", "up", "missed"]
    assert rows["overall SFT", "largest fall of another domain"] == [
        "-4.0 (stem)",
        "-3 or better",
        "missed",
    ]


def test_distillation_gains_twelve_points_and_the_joint_loss_beats_every_row(tmp_path):
    runs = [run(seed, {"overall_sft": 0.4, "distill": 0.55}) for seed in (1, 2)]
    for one in runs:
        one["stages"][1]["eval"]["judge"]["greedy"] = 0.38
        one["readiness"] = {"distill": 0.15 + one["seed"] / 10}  # 0.25 and 0.35
    ablation = {"L_DPO alone": [5.0, 4.9], "L_pos alone": [5.0, 5.1]}
    rows = table_of(runs, tmp_path, ablation=ablation)
    assert rows["distill", "math, code, stem, agent: greedy"] == [
        "+15.0 +-0.0",
        "+12 or more",
        "reached",
    ]
    assert rows["distill", "chat: greedy"] == ["+15.0 +-0.0", "up", "reached"]
    assert rows["distill", "largest fall of another domain"] == [
        "-2.0 (judge)",
        "-3 or better",
        "reached",
    ]
    assert rows["distill", "joint loss over L_DPO alone"] == ["+5.0 +-4.9", "above", "reached"]
    assert rows["distill", "joint loss over L_pos alone"] == ["+5.0 +-5.1", "aim: above", "missed"]
    for other in ("more SFT on own demonstrations", "SFT on teacher samples"):
        assert rows["distill", f"joint loss over {other}"] == ["", "above", "not measured"]
    what = "prompts with a pass rate in 10% to 90% after "
    assert rows["RL-readiness", f"{what}distill"] == ["30% +-64", "25% or more", "reached"]
    assert rows["RL-readiness", f"{what}overall_sft"] == ["", "25% or more", "not measured"]


CLOSED = ("final student", "share of the distance to its teacher that is closed, percent")


def with_teacher(seed, first, last, goal):
    one = run(seed, {"overall_sft": first, "rl_preference": last, "given_teacher": goal})
    one["stages"][-1]["model"] = "teacher"
    return one


def test_the_final_student_has_gone_half_of_the_way_to_its_teacher(tmp_path):
    """(70 - 50) / (90 - 50) is a half, (80 - 50) / (90 - 50) three quarters: 62.5 in the mean."""
    target = "50 or more, at most a third of the parameters"
    runs = [with_teacher(1, 0.5, 0.7, 0.9), with_teacher(2, 0.5, 0.8, 0.9)]
    assert table_of(runs, tmp_path)[CLOSED] == ["+62.5 +-158.8", target, "reached"]
    runs[1]["params"] = {"student": 11, "teacher": 30}
    assert table_of(runs, tmp_path)[CLOSED][2] == "missed"
    runs = [with_teacher(seed, 0.5, 0.6, 0.9) for seed in (1, 2)]
    assert table_of(runs, tmp_path)[CLOSED] == ["+25.0 +-0.0", target, "missed"]
    runs = [run(seed, {"overall_sft": 0.5, "rl_preference": 0.8}) for seed in (1, 2)]
    assert table_of(runs, tmp_path)[CLOSED] == ["", target, "not measured"]
    # no distance that could be closed
    runs = [with_teacher(seed, 0.5, 0.8, 0.5) for seed in (1, 2)]
    assert table_of(runs, tmp_path)[CLOSED] == ["", target, "not measured"]


def test_preference_is_told_by_criterion_each_by_its_own_score(tmp_path):
    """Correct rises by 10 points greedy and falls by 20 sampled; a run without it says nothing."""
    change = {"greedy_correct": 0.1, "sampled_correct": -0.2}
    change |= {"greedy_polite": 0.3, "sampled_polite": 0.4}
    runs = [run(seed, {"rl_code": 0.5, "rl_preference": 0.5}) for seed in (1, 2)]
    assert [row[0] for _, row in shares(runs, tmp_path)] == [""] * 4
    for one in runs:
        for stage, factor in zip(one["stages"], (0, 1)):
            stage["eval"]["chat"] |= {key: 0.4 + factor * gap for key, gap in change.items()}
    told = {what: row[0] for (_, what), row in shares(runs, tmp_path)}
    assert told == {
        "chat, share that is correct: greedy": "+10.0 +-0.0",
        "chat, share that is correct: sampled": "-20.0 +-0.0",
        "chat, share that is polite: greedy": "+30.0 +-0.0",
        "chat, share that is polite: sampled": "+40.0 +-0.0",
    }


def shares(runs, tmp_path):
    rows = table_of(runs, tmp_path).items()
    return [
        (key, row) for key, row in rows if "share that is" in key[1] and key[0] == "rl_preference"
    ]


def test_pass_at_eight_is_not_down_where_its_interval_reaches_zero(tmp_path):
    """math and stem fall by 2 and by 0 points in one run
    and by 4 and by 2 in the other: -1 and -3, -2 +-12.7."""

    def row(math_, stem):
        return {
            "math": {"1": 0.5, "8": math_},
            "stem": {"1": 0.5, "8": stem},
            "code": {"1": 0.5, "8": 0.6},
        }

    table = {
        "distill": {"a": row(0.8, 0.7), "b": row(0.8, 0.7)},
        "rl_stem": {"a": row(0.78, 0.7), "b": row(0.76, 0.68)},
    }
    rows = table_of([], tmp_path, pass_at_k=table)
    assert rows["rl_stem", "math, stem: pass@8"] == ["-2.0 +-12.7", "not down", "reached"]
    assert rows["rl_code", "code: pass@8"] == ["", "not down", "not measured"]
    table["rl_stem"]["b"] = row(0.78, 0.7)
    assert table_of([], tmp_path, pass_at_k=table)["rl_stem", "math, stem: pass@8"][2] == "missed"


def test_the_on_policy_loss_is_three_mean_divergences_of_weight_one(
    tiny_model, tokenizer, monkeypatch
):
    """KL(T||S) over the positives, over the student's own
    and over rehearsal, each a mean over its tokens."""
    teacher = copy.deepcopy(tiny_model)
    with torch.no_grad():
        teacher.head.weight += (
            torch.randn(teacher.head.weight.shape, generator=torch.Generator().manual_seed(2)) * 0.3
        )
    positives = [([50, 51, 9, 10], [False, False, True, True]), ([52, 53, 11], [False, True, True])]
    own = [([50, 51, 12], [False, False, True]), ([52, 14, 15, 16], [False, True, True, True])]
    rehearsal = [([60, 61, 62], [False, True, True])]
    kept = {}

    class Keep:
        def __init__(self, model, *rates):
            self.model = model

        def step(self, scale):
            kept.update({name: p.grad.clone() for name, p in self.model.named_parameters()})

    monkeypatch.setattr(distill_ablation, "generate", lambda *rest, **how: None)
    monkeypatch.setattr(distill_ablation, "Optimizers", Keep)
    monkeypatch.setattr(
        distill_ablation,
        "sampled_rows",
        lambda prompts, samples: [own[positives.index(one)] for one in drawn],
    )
    drawn = random.Random(distill_ablation.seed_of(1, "on-policy")).sample(positives, 2)
    settings = distill.Settings(steps=1, rows=2, rehearsal_rows=1)
    distill_ablation.on_policy(
        copy.deepcopy(tiny_model), teacher, tokenizer, positives, rehearsal, settings, 1
    )
    student = copy.deepcopy(tiny_model)
    for rows in (positives, own, rehearsal):
        student_logits, teacher_logits, *_ = distill.both_logits(
            student, teacher, tokenizer, rows, settings.teacher_temperature, torch.device("cpu")
        )
        distill.token_divergence(student_logits, teacher_logits).mean().backward()
    for name, parameter in student.named_parameters():
        assert torch.allclose(kept[name], parameter.grad, atol=1e-6), name


@pytest.mark.parametrize(
    "start, wins, verdicts",
    [
        ("distill", (0.56, 0.51), ["reached", "reached"]),
        ("distill", (0.54, 0.51), ["missed", "reached"]),
        ("overall_sft", (0.54, 0.49), ["reached", "missed"]),
    ],
)
def test_the_first_round_from_distill_has_to_win_fifty_five_of_a_hundred(
    tmp_path, start, wins, verdicts
):
    path = [{"judge": {"pairwise": 0.7}}] + [
        {"judge": {"pairwise": 0.7}, "against_previous": {"win_share": win}} for win in wins
    ]
    one = {
        "start": start,
        "curves": {"its own judge": [path, path]},
        "correct": {"its own judge": [-1.0, 0.9]},
        "gains": {
            "its own judge": [0.11, 0],
            "true reward as judge": [0.2, 0],
            "random judge": [0.0, 0.1],
        },
    }
    rows = {
        key: rest
        for key, rest in table_of([], tmp_path, controls=[one]).items()
        if key[0] == f"self-rewarding from {start}"
    }
    assert [rest[2] for (_, what), rest in rows.items() if what.startswith("win share")] == verdicts
    # 0.11 of 0.2 is 55%
    assert [rest[2] for (_, what), rest in rows.items() if "beside" in what] == ["missed"]
    assert [rest for (_, what), rest in rows.items() if what.startswith("correct")] == [
        ["-1.0 +-0.9", "not down", "missed"]
    ]


def test_the_curriculum_is_the_rising_student_minus_the_shuffled_one(tmp_path, monkeypatch, capsys):
    """The run's own student has 60 percent, the one that is trained here 50."""
    trained, scores = [], {"overall_sft.student.pt": 0.6, "cold_start_sft.student.pt": 0.5}
    (tmp_path / "results.json").write_text('{"seed": 7}')
    monkeypatch.setattr(curriculum, "load_checkpoint", lambda path, tokenizer: (path.name, {}))
    monkeypatch.setattr(
        sft,
        "overall_sft",
        lambda model, *rest, curriculum, seed: trained.append((model, curriculum, seed)),
    )
    monkeypatch.setattr(
        curriculum,
        "evaluate",
        lambda model, *rest, **how: {
            domain: {"greedy": scores[model], "sampled": scores[model] / 2}
            for domain in targets.DOMAINS
        },
    )
    monkeypatch.setattr(
        sys, "argv", ["curriculum", str(tmp_path), "--out", str(tmp_path / "gaps.json")]
    )
    curriculum.main()
    gaps = json.loads((tmp_path / "gaps.json").read_text())
    assert gaps["greedy"]["math"] == [pytest.approx(10)]
    assert gaps["sampled"]["judge"] == [pytest.approx(5)]
    assert trained == [("cold_start_sft.student.pt", False, 7)]


def test_the_table_of_pass_at_k_has_what_a_stage_added_to_the_stage_before(capsys):
    values = {
        "overall_sft": 0.4,
        "distill": 0.5,
        "rl_stem": 0.45,
        "rl_code": 0.45,
        "rl_preference": 0.6,
    }
    pass_at_k.report(
        {
            stage: {
                run: {domain: {"1": value, "8": value + 0.1} for domain in pass_at_k.DOMAINS}
                for run in "ab"
            }
            for stage, value in values.items()
        }
    )
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ")
        for line in capsys.readouterr().out.splitlines()
    }
    assert rows["distill"][1:3] == ["50.0 (+10.0 +-0.0)", "60.0 (+10.0 +-0.0)"]
    assert rows["rl_stem"][1] == "45.0 (-5.0 +-0.0)" and rows["overall_sft"][1] == "40.0"


def test_preference_from_distill_rehearses_the_teacher_without_chat_and_from_sft_demonstrations(
    tmp_path, tokenizer, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        queries, "kept_rehearsal", lambda path, chat: asked.append((path.parent, chat)) or ["kept"]
    )
    monkeypatch.setattr(
        sft,
        "rehearsal_data",
        lambda tokenizer, size, seed, context: ["demonstrations", size, seed, context],
    )
    assert judge_controls.rehearsal_of(tmp_path, "distill", tokenizer, 3, 256) == ["kept"]
    assert asked == [(tmp_path, False)]
    assert judge_controls.rehearsal_of(tmp_path, "overall_sft", tokenizer, 3, 256) == [
        "demonstrations",
        "tiny",
        3,
        256,
    ]


def ablation_rows(tiny_model, tokenizer, monkeypatch):
    """{name: what its trainer is given} with recorders in place of the trainers,
    and rows that are told apart by their first id."""
    pairs, rehearsal = [(([1], [True]), ([2], [True]))] * 40, [("math", ([3], [True]))] * 40
    monkeypatch.setattr(distill, "preference_data", lambda *_, **__: (pairs, rehearsal, [], {}))
    monkeypatch.setattr(sft, "overall_rows", lambda *_: ([([4], [True])] * 40, None))
    monkeypatch.setattr(distill_ablation, "dialogue_rows", lambda *_: ([([5], [True])] * 40, {}))
    monkeypatch.setattr(
        sft, "train", lambda model, tokenizer, rows, settings, **_: [ids[0] for ids, _ in rows]
    )
    monkeypatch.setattr(
        distill,
        "train",
        lambda model, teacher, tokenizer, pairs, rehearsal, settings, **_: (settings, rehearsal[0]),
    )
    monkeypatch.setattr(
        distill_ablation,
        "on_policy",
        lambda model, teacher, tokenizer, positives, rehearsal, settings, seed: (
            positives[0],
            rehearsal[0],
        ),
    )
    settings = distill.Settings(steps=3, queries=2)
    return {
        name: train(None)
        for name, train in distill_ablation.rows_of(settings, tiny_model, None, tokenizer, 1)
    }


def test_every_row_of_the_ablation_makes_equal_updates_from_its_own_rows(
    tiny_model, tokenizer, monkeypatch
):
    """Three updates of 16: all of the row's own, or 8 and 8 of rehearsal."""
    given = ablation_rows(tiny_model, tokenizer, monkeypatch)
    supervised = {
        "more SFT on own demonstrations": 4,
        "SFT on teacher samples": 1,
        "SFT on the world's own answers": 5,
    }
    for name, first in supervised.items():
        assert sorted(given.pop(f"{name}, rehearsal")) == sorted([first] * 24 + [3] * 24)
    assert given.pop("more SFT on own demonstrations") == [4] * 48
    assert given.pop("on-policy, rehearsal") == (([1], [True]), ([3], [True]))
    weights = {
        "L_pos": (0, 1, 0),
        "L_DPO": (1, 0, 0),
        "L_DPO + L_pos": (0.1, 1, 0),
        "joint": (0.1, 1, 0.3),
        "joint, all weights 1": (1, 1, 1),
    }
    rows = {f"{name}, rehearsal": (8, 8) for name in weights} | {"joint": (16, 0)}
    assert set(given) == set(rows)
    for name, (settings, rehearsed) in given.items():
        assert (settings.rows, settings.rehearsal_rows) == rows[name] and rehearsed == ([3], [True])
        assert (settings.dpo_coef, settings.pos_coef, settings.neg_coef) == weights[
            name.removesuffix(", rehearsal")
        ]
    assert weights["joint"] == (
        distill.Settings.dpo_coef,
        distill.Settings.pos_coef,
        distill.Settings.neg_coef,
    )


def test_on_policy_distillation_reads_what_the_student_says_now(tiny_model, tokenizer, monkeypatch):
    """Samples at updates 0 and 50 of the model that is trained, from the positives' prompts;
    every batch holds 4 positives, the 4 samples of the same prompts, and 2 of rehearsal.
    """
    positives = [([50 + k, 9, 10], [False, True, True]) for k in range(6)]
    rehearsal, asked, batches = [([99, 9], [False, True])] * 3, [], []

    def say(model, tokenizer, prompts, **how):
        asked.append((model, prompts, how["temperature"], how["seed"]))
        return "samples"

    def logits(student, teacher, tokenizer, rows, temperature, device):
        batches.append([ids[0] for ids, _ in rows])
        weight = next(student.parameters()).sum() * 0
        tokens = torch.tensor([k for k, (_, mask) in enumerate(rows) for on in mask if on])
        return torch.zeros(len(tokens), 5) + weight, torch.zeros(len(tokens), 5), tokens, tokens

    monkeypatch.setattr(distill_ablation, "generate", say)
    monkeypatch.setattr(
        distill_ablation,
        "sampled_rows",
        lambda prompts, samples: [(prompt + [9], [False, True]) for prompt in prompts],
    )
    monkeypatch.setattr(distill, "both_logits", logits)
    model = copy.deepcopy(tiny_model)
    settings = distill.Settings(steps=60, rows=4, rehearsal_rows=2)
    measured = distill_ablation.on_policy(model, None, tokenizer, positives, rehearsal, settings, 1)
    assert (
        [len(prompts) for _, prompts, *_ in asked] == [6, 6]
        and asked[0][0] is model
        and asked[0][3] != asked[1][3]
    )
    assert {temperature for *_, temperature, _ in asked} == {1.0}
    assert len(batches) == 60 and measured["tokens"] == 60 * (4 * 3 + 4 * 2 + 2 * 2)
    for batch in batches:
        assert batch[:4] == batch[4:8] and batch[8:] == [99, 99] and len(set(batch[:4])) == 4


def test_the_joint_loss_is_compared_with_rehearsal_on_both_sides(tmp_path, capsys):
    """The joint loss has 60 percent; a row has 50, 40,
    30 and 20 with rehearsal, and two have 5 without it."""
    values = {"entering student": 0.1, "joint, rehearsal": 0.6, "joint": 0.05}
    others = {
        "more SFT on own demonstrations": 0.5,
        "L_DPO": 0.4,
        "SFT on teacher samples": 0.3,
        "L_pos": 0.2,
    }
    for name, value in others.items():
        values |= {name: 0.05, f"{name}, rehearsal": value}
    row = {"seconds": 1.0, "flops": 1.0}
    table = {
        name: {
            "1": row
            | {
                key: dict.fromkeys(("math", "code", "stem", "agent", "chat", "judge"), value)
                for key in ("greedy", "sampled")
            }
        }
        for name, value in values.items()
    }
    distill_ablation.report(table, tmp_path)
    gaps = json.loads((tmp_path / "gaps.json").read_text())
    assert {name: gap[0] for name, gap in gaps.items()} == pytest.approx(
        {
            "more SFT on own demonstrations": 10,
            "L_DPO alone": 20,
            "SFT on teacher samples": 30,
            "L_pos alone": 40,
        }
    )


@pytest.mark.parametrize("alone", [True, False])
def test_copying_learns_from_dialogues_of_other_prompts_than_it_looks_at(
    tokenizer, monkeypatch, alone
):
    shown, asked, batch_loss = [], [], sft.batch_loss

    def looked(model, tokenizer, tasks):
        asked.append([task.prompt for task in tasks])
        return 0.5

    def learned(model, tokenizer, batch, *rest):
        shown.append([tokenizer.decode(ids) for ids, _ in batch])
        return batch_loss(model, tokenizer, batch, *rest)

    pretrained = []
    monkeypatch.setattr(
        sft,
        "pretrain",
        lambda model, tokenizer, schedule, seed: pretrained.append((schedule, seed)),
    )
    monkeypatch.setattr(copying, "copied_share", looked)
    monkeypatch.setattr(sft, "batch_loss", learned)
    lines = copying.curve(3, tokenizer, 1, steps=3, every=2, alone=alone)
    assert lines == [{"step": step, "copied": 0.5} for step in (0, 2, 3)]
    assert pretrained == ([] if alone else [(sft.SCHEDULES["tiny"]["student"], 1)])
    assert [len(batch) for batch in shown] == [12] * 3
    assert asked[0] == asked[1] == asked[2] and len(asked[0]) > 60
    texts = sum(shown, [])
    assert len(set(texts)) == 36 or not alone
    assert not [one for one in texts for prompt in asked[0] if prompt in one]
    two_families = [one for one in texts if "My name is" in one or "me " in one]
    assert (len(two_families) == 36) == alone


@pytest.mark.parametrize(
    "name",
    [
        "targets",
        "control",
        "readiness",
        "curriculum",
        "distill_ablation",
        "ties",
        "overoptimise",
        "judge_controls",
    ],
)
@pytest.mark.slow
def test_an_experiment_on_a_folder_that_is_no_run_ends_with_one_line(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", f"tests.experiments.{name}", str(tmp_path / "nothing")],
        capture_output=True,
        text=True,
        cwd=Path(targets.__file__).parents[2],
    )
    assert (
        done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    ), done.stderr


@pytest.mark.slow
def test_a_comparison_names_the_checkpoint_that_is_missing_before_it_starts(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.experiments.compare",
            "rl_code",
            "lr=1e-4",
            "lr=2e-4",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        cwd=Path(targets.__file__).parents[2],
    )
    assert (
        done.returncode == 2
        and "rl_stem.student.pt: no such file, and rl_code needs it" in done.stderr
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize(
    "flags, told",
    [
        ({"lr": float("nan")}, "--lr nan: needs a number"),
        ({"beta": -1.0}, "--beta -1.0: needs a number above 0"),
        ({"eval_n": 0}, "--eval-n 0: needs at least 1"),
        ({"rehearsal_rows": -1}, "--rehearsal-rows -1: needs at least 0"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_with_its_flag(flags, told):
    with pytest.raises(ValueError, match=told):
        check_numbers(argparse.Namespace(**flags))
    check_numbers(argparse.Namespace(lr=1e-3, beta=0.1, eval_n=None, rehearsal_rows=0, out="x"))
