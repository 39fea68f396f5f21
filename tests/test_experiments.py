"""The figures that the experiments and the table of targets compute from what they measured."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import distill
import sft
from data.command import check_numbers
from ppo import Settings
from tests.experiments import copying, distill_ablation, judge_controls, overoptimise, targets
from tests.experiments.compare import changed


def test_the_interval_over_seeds_is_students():
    mean, half = targets.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.302653 * 1 / math.sqrt(3))
    assert targets.interval([5.0]) == (5.0, math.inf)
    assert targets.interval([0.0, 1.0] * 6)[1] == pytest.approx(2.200985 * math.sqrt(3 / 11) / math.sqrt(12))  # beyond ten too


@pytest.mark.parametrize("n, kl", [(1, 0), (2, 0.193147), (4, 0.636294), (8, 1.204442)])
def test_the_kl_of_best_of_n(n, kl):
    assert overoptimise.best_of_n_kl(n) == pytest.approx(kl, abs=1e-6)


def test_a_setting_is_changed_by_its_name_and_keeps_its_type():
    settings = changed(Settings(), "estimator=gae,kl_coef=0.5,epochs=1")
    assert (settings.estimator, settings.kl_coef, settings.epochs) == ("gae", 0.5, 1)
    with pytest.raises(ValueError, match="'estimater' is no setting"):
        changed(Settings(), "estimater=gae")


def test_a_random_judge_scores_only_what_is_finished(tokenizer):
    finished, broken = ([1, tokenizer.end_id], [False, True]), ([1, 2], [False, True])
    scores = judge_controls.random_judge(tokenizer, 1)(["x"] * 40, [[finished, broken]] * 40)
    assert all(group[1] is None and 0 <= group[0] <= 5 for group in scores) and len({group[0] for group in scores}) > 3


def run(seed, accuracy):
    """A run of two stages in which every score is `accuracy` of its stage."""
    stages = [{"name": name, "model": "student", "seconds": 1.0, "measured": {}, "eval": {domain: {"greedy": value, "sampled": value / 2, "n": 10, "low": 0.0, "high": 1.0} for domain in targets.DOMAINS}}
              for name, value in accuracy.items()]
    return {"seed": seed, "stages": stages, "control": {"overall_sft": dict.fromkeys(targets.DOMAINS, 0.3)}, "readiness": {"overall_sft": 0.2 + seed / 10}}


def test_the_table_pairs_stages_by_seed_and_says_what_is_missing(tmp_path):
    runs = [run(1, {"overall_sft": 0.4, "distill": 0.5}) | {"folder": tmp_path}, run(2, {"overall_sft": 0.5, "distill": 0.6}) | {"folder": tmp_path}]
    rows = {(row, what): (text, verdict) for row, what, text, _, verdict in targets.build(runs, None, None, {}, [], {}, None)}
    assert rows["distill", "math, code, stem, agent: greedy"] == ("+10.0 +-0.0", "reached")
    # sampled: 20 -> 25 and 25 -> 30; at temperature 0.5 the entering checkpoint has 30, so 10 and 5 over its own 20 and 25: -5 and 0 beyond it
    assert rows["distill", "math, code, stem, agent: sampled"][0] == "+5.0 +-0.0"
    text, verdict = rows["distill", "math, code, stem, agent: sampled gain beyond the control, the entering checkpoint at temperature 0.5"]
    assert text == "-2.5 +-31.8 beyond +7.5" and verdict == "missed"
    assert rows["RL-readiness", "prompts with a pass rate in 10% to 90% after overall_sft"][1] == "reached"  # 0.35
    assert rows["rl_stem", "math, stem: greedy"] == ("", "not measured")
    assert json.dumps(list(rows.values()))


def ablation_rows(tiny_model, tokenizer, monkeypatch):
    """{name: what its trainer is given} with recorders in place of the trainers, and rows that are told apart by their first id."""
    pairs, rehearsal = [(([1], [True]), ([2], [True]))] * 40, [([3], [True])] * 40
    monkeypatch.setattr(distill, "preference_data", lambda *_, **__: (pairs, rehearsal, [], {}))
    monkeypatch.setattr(sft, "overall_rows", lambda *_: ([([4], [True])] * 40, None))
    monkeypatch.setattr(distill_ablation, "dialogue_rows", lambda *_: ([([5], [True])] * 40, {}))
    monkeypatch.setattr(sft, "train", lambda model, tokenizer, rows, settings, **_: [ids[0] for ids, _ in rows])
    monkeypatch.setattr(distill, "train", lambda model, teacher, tokenizer, pairs, rehearsal, settings, **_: settings)
    settings = distill.Settings(steps=3, queries=2)
    return {name: train(None) for name, train in distill_ablation.rows_of(settings, tiny_model, None, tokenizer, 1)}


def test_every_row_of_the_ablation_is_there_with_and_without_rehearsal(tiny_model, tokenizer, monkeypatch):
    given = ablation_rows(tiny_model, tokenizer, monkeypatch)
    bare = [name for name in given if not name.endswith(", rehearsal")]
    assert len(bare) == 8 and set(given) == {*bare, *(f"{name}, rehearsal" for name in bare)}
    for name in bare:
        alone, rehearsed = given[name], given[f"{name}, rehearsal"]
        if name.startswith(("L_", "joint")):  # 16 pairs an update, or 8 and 8
            assert (alone.rows, alone.rehearsal_rows, rehearsed.rows, rehearsed.rehearsal_rows) == (16, 0, 8, 8)
        else:
            first = {"more": 4, "SFT ": 1, "uppe": 5}[name[:4]]
            assert alone == [first] * 48 and sorted(rehearsed) == sorted([first] * 24 + [3] * 24)


def test_the_joint_loss_is_compared_with_rehearsal_on_both_sides(tmp_path, capsys):
    """The joint loss has 60 percent; a row has 50, 40, 30 and 20 with rehearsal, and 5 without it."""
    values = {"entering student": 0.1, "joint, rehearsal": 0.6, "joint": 0.05}
    others = {"more SFT on own demonstrations": 0.5, "L_DPO": 0.4, "SFT on teacher samples": 0.3, "L_pos": 0.2}
    for name, value in others.items():
        values |= {name: 0.05, f"{name}, rehearsal": value}
    row = {"seconds": 1.0, "flops": 1.0}
    table = {name: {"1": row | {key: dict.fromkeys(("math", "code", "stem", "agent", "chat", "judge"), value) for key in ("greedy", "sampled")}}
             for name, value in values.items()}
    distill_ablation.report(table, tmp_path)
    gaps = json.loads((tmp_path / "gaps.json").read_text())
    assert {name: gap[0] for name, gap in gaps.items()} == pytest.approx(
        {"more SFT on own demonstrations": 10, "L_DPO alone": 20, "SFT on teacher samples": 30, "L_pos alone": 40})


def test_copying_learns_from_dialogues_of_other_prompts_than_it_looks_at(tokenizer, monkeypatch):
    shown, asked, batch_loss = [], [], sft.batch_loss

    def looked(model, tokenizer, tasks):
        asked.append([task.prompt for task in tasks])
        return 0.5

    def learned(model, tokenizer, batch, *rest):
        shown.append([tokenizer.decode(ids) for ids, _ in batch])
        return batch_loss(model, tokenizer, batch, *rest)

    monkeypatch.setattr(copying, "copied_share", looked)
    monkeypatch.setattr(sft, "batch_loss", learned)
    lines = copying.curve(3, tokenizer, 1, steps=3, every=2)
    assert lines == [{"step": step, "copied": 0.5} for step in (0, 2, 3)]
    assert [len(batch) for batch in shown] == [12] * 3
    assert asked[0] == asked[1] == asked[2] and len(asked[0]) > 60
    texts = sum(shown, [])
    assert len(set(texts)) == 36 and not [one for one in texts for prompt in asked[0] if prompt in one]


@pytest.mark.parametrize("name", ["targets", "control", "readiness", "curriculum", "distill_ablation", "ties", "overoptimise", "judge_controls"])
def test_an_experiment_on_a_folder_that_is_no_run_ends_with_one_line(name, tmp_path):
    done = subprocess.run([sys.executable, "-m", f"tests.experiments.{name}", str(tmp_path / "nothing")], capture_output=True, text=True,
                          cwd=Path(targets.__file__).parents[2])
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr


def test_a_comparison_names_the_checkpoint_that_is_missing_before_it_starts(tmp_path):
    done = subprocess.run([sys.executable, "-m", "tests.experiments.compare", "rl_code", "lr=1e-4", "lr=2e-4", str(tmp_path)], capture_output=True, text=True,
                          cwd=Path(targets.__file__).parents[2])
    assert done.returncode == 2 and "rl_stem.student.pt: no such checkpoint, and rl_code needs it" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("flags, told", [({"lr": float("nan")}, "--lr nan: needs a number"), ({"beta": -1.0}, "--beta -1.0: needs a number above 0"),
                                         ({"eval_n": 0}, "--eval-n 0: needs at least 1"), ({"rehearsal_rows": -1}, "--rehearsal-rows -1: needs at least 0")])
def test_a_number_that_makes_no_sense_is_refused_with_its_flag(flags, told):
    with pytest.raises(ValueError, match=told):
        check_numbers(argparse.Namespace(**flags))
    check_numbers(argparse.Namespace(lr=1e-3, beta=0.1, eval_n=None, rehearsal_rows=0, out="x"))
