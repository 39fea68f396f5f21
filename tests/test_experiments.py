"""The figures that the experiments and the table of targets compute from what they measured."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from data.command import check_numbers
from ppo import Settings
from tests.experiments import judge_controls, overoptimise, targets
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
