"""pipeline.py: what a run leaves behind, that a killed run ends with the same weights,
and what is refused."""

import importlib
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.axes import Axes

import pipeline
import reward_model as rewards
import self_reward
import sft
from data import world
from data.files import checkpoints, formats, real, writing
from data.files.checkpoints import digest, save_checkpoint
from data.runtime import real_rows, whole_run
from data.runtime.command import fail
from data.runtime.devices import seed_of
from data.runtime.machine import peak_memory_mb
from data.runtime.report import report
from data.runtime.run_folder import finite, read_json, read_results, write_results
from data.runtime.sizes import SMOKE
from model import GPT, SIZES, load_checkpoint, parameter_count
from pipeline import (
    STAGES,
    Run,
    answer_samples,
    run_stages,
    settings_of,
    stage_line,
    stage_settings,
    unfinished,
)
from reward_model import RewardModel, load_reward_model

ROOT = Path(__file__).parents[1]
KEYS = [(function.__name__, who) for function, who in STAGES]
GIVEN, OWN = (
    [(function.__name__, who) for function, who in pipeline.schedule(stands_in)]
    for stands_in in (True, False)
)
DISTILL = KEYS.index(("distill", "student"))


# ---- which stages are still to be run ----


@pytest.fixture
def run(tmp_path, tokenizer):
    schedules = {who: sft.smoke(schedule) for who, schedule in sft.SCHEDULES["tiny"].items()}
    return Run(
        tmp_path,
        "tiny",
        1,
        torch.device("cpu"),
        tokenizer,
        schedules,
        8,
        True,
        stage_settings("tiny", True),
    )


def finished(run, keys):
    return {
        "stages": [
            {"name": name, "model": who, "settings": settings_of(run, name, who)}
            for name, who in keys
        ]
    }


def keys_of(todo):
    return [(function.__name__, who) for function, who in todo]


def names_of(results):
    return [(stage["name"], stage["model"]) for stage in results["stages"]]


def redone_with(key):
    """What is run again with a stage: what follows for its own model,
    and for a stage of the teacher also the student from `distill` on."""
    place = KEYS.index(key)
    return [
        (name, who)
        for k, (name, who) in enumerate(KEYS)
        if k >= place and (who == key[1] or k >= DISTILL)
    ]


def test_the_schedule_is_the_four_stages_and_two_self_rewarding_rounds():
    students = [name for name, who in KEYS if who == "student"]
    assert students == [
        "pretrain",
        "cold_start_sft",
        "overall_sft",
        "distill",
        "reward_model",
        "rl_stem",
        "rl_code",
        "rl_preference",
        "self_reward_1",
        "self_reward_2",
    ]
    assert [name for name, who in OWN if who == "teacher"] == students[:3]
    assert max(OWN.index((name, "teacher")) for name in students[:3]) < OWN.index(
        ("distill", "student")
    )


def test_the_given_teacher_takes_the_place_of_its_three_stages():
    students = [key for key in KEYS if key[1] == "student"]
    assert GIVEN == [*students[:3], ("given_teacher", "teacher"), *students[3:]]
    assert [key for key in OWN if key[1] == "student"] == students
    assert set(KEYS) == {*GIVEN, *OWN} and len(KEYS) == len(set(KEYS)) == 14


def test_nothing_finished_leaves_every_stage_to_do(run):
    assert keys_of(unfinished({"stages": []}, run, STAGES, force=False)) == KEYS


@pytest.mark.parametrize("count", range(1, len(KEYS)))
def test_a_run_goes_on_at_the_first_unfinished_stage(run, count):
    results = finished(run, KEYS[:count])
    assert keys_of(unfinished(results, run, STAGES, force=False)) == KEYS[count:]
    assert names_of(results) == KEYS[:count]


def test_everything_finished_leaves_nothing_to_do(run):
    results = finished(run, KEYS)
    assert unfinished(results, run, STAGES, force=False) == [] and names_of(results) == KEYS


def test_the_redone_stages_of_three_examples_by_hand():
    assert redone_with(("overall_sft", "student")) == [("overall_sft", "student"), *KEYS[DISTILL:]]
    assert redone_with(("cold_start_sft", "teacher")) == [
        ("cold_start_sft", "teacher"),
        ("overall_sft", "teacher"),
        ("given_teacher", "teacher"),
        *KEYS[DISTILL:],
    ]
    assert redone_with(("given_teacher", "teacher")) == KEYS[DISTILL - 1 :]
    assert redone_with(("rl_code", "student")) == [
        (name, "student") for name in ("rl_code", "rl_preference", "self_reward_1", "self_reward_2")
    ]


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_a_missing_stage_is_redone_with_what_depends_on_it_and_the_other_models_stages_stay(
    run, key
):
    results = finished(run, [other for other in KEYS if other != key])
    again = redone_with(key)
    assert keys_of(unfinished(results, run, STAGES, force=False)) == again
    assert names_of(results) == [other for other in KEYS if other not in again]


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_force_redoes_a_changed_stage_and_what_depends_on_it(run, key):
    results = finished(run, KEYS)
    results["stages"][KEYS.index(key)]["settings"] = {"made": "another day"}
    again = redone_with(key)
    assert keys_of(unfinished(results, run, STAGES, force=True)) == again
    assert names_of(results) == [other for other in KEYS if other not in again]


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_a_stage_finished_with_other_settings_is_refused_and_the_message_names_the_way_out(
    run, key
):
    results = finished(run, KEYS)
    results["stages"][KEYS.index(key)]["settings"] = {"made": "another day"}
    with pytest.raises(ValueError, match="--force") as caught:
        unfinished(results, run, STAGES, force=False)
    assert (
        "\n" not in str(caught.value)
        and f"{key[0]} ({key[1]})" in str(caught.value)
        and names_of(results) == KEYS
    )


def test_another_seed_is_refused(run):
    results = finished(run, KEYS)
    run.seed = 2
    with pytest.raises(ValueError, match="pretrain .student."):
        unfinished(results, run, STAGES, force=False)


def chosen_stages(*names):
    return [(function, who) for function, who in STAGES if function.__name__ in names]


def test_only_the_chosen_stages_are_run(run):
    chosen = chosen_stages("pretrain", "distill")
    assert keys_of(unfinished({"stages": []}, run, chosen, force=False)) == [
        ("pretrain", "student"),
        ("pretrain", "teacher"),
        ("distill", "student"),
    ]
    results = finished(run, KEYS[:-1])
    assert unfinished(results, run, chosen, force=False) == [] and names_of(results) == KEYS[:-1]


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_a_redone_stage_takes_with_it_what_was_made_from_its_old_weights_though_only_it_is_chosen(
    run, key
):
    results = finished(run, KEYS)
    results["stages"][KEYS.index(key)]["settings"] = {"made": "another day"}
    todo = keys_of(unfinished(results, run, chosen_stages(key[0]), force=True))
    assert todo == [other for other in redone_with(key) if other[0] == key[0]]
    assert names_of(results) == [other for other in KEYS if other not in redone_with(key)]


@pytest.mark.parametrize("also", [False, True])
def test_a_new_teacher_takes_all_that_its_student_learned_from_distill_on(run, also):
    """Of teacher and rl_code, which are chosen, rl_code is redone, its settings changed or not.

    distill is not chosen, so what was made with the old teacher between the two just goes."""
    results = finished(run, KEYS)
    changed = [("overall_sft", "teacher"), *([("rl_code", "student")] if also else [])]
    for key in changed:
        results["stages"][KEYS.index(key)]["settings"] = {"made": "another day"}
    chosen = [stage for stage in STAGES if stage[0].__name__ == "rl_code" or stage[1] == "teacher"]
    todo = keys_of(unfinished(results, run, chosen, force=True))
    assert todo == [
        ("overall_sft", "teacher"),
        ("given_teacher", "teacher"),
        ("rl_code", "student"),
    ]
    assert names_of(results) == [key for key in KEYS[:DISTILL] if key not in todo]


def test_the_refusal_says_which_setting_differs(run):
    results = finished(run, KEYS)
    run.eval_n = 9
    with pytest.raises(
        ValueError, match=r"finished with other settings \(eval-n 8, now 9\); --force"
    ):
        unfinished(results, run, STAGES, force=False)


def test_the_settings_digest_tells_stages_models_seeds_and_settings_apart(run):
    digests = [settings_of(run, name, who) for name, who in KEYS]
    run.seed = 2
    digests += [settings_of(run, *KEYS[0]), settings_of(run, "distill", "student")]
    run.seed, run.eval_n = 1, 9
    digests += [settings_of(run, name, who) for name, who in KEYS]
    run.given = {"student": "a checkpoint"}
    digests += [settings_of(run, name, who) for name, who in KEYS]
    run.schedules, run.stages = sft.SCHEDULES["tiny"], stage_settings("tiny", False)
    digests += [settings_of(run, name, who) for name, who in OWN]  # the given teacher has none
    assert len(set(map(json.dumps, digests))) == len(digests)


def test_a_changed_setting_of_a_stage_leaves_the_other_stages_digests_alone(run):
    before = {key: settings_of(run, *key) for key in KEYS}
    run.stages["rl_code"] = replace(run.stages["rl_code"], lr=1.0)
    assert [key for key in KEYS if settings_of(run, *key) != before[key]] == [
        ("rl_code", "student")
    ]
    run.schedules["teacher"] = replace(run.schedules["teacher"], documents=1)
    assert [key for key in KEYS if settings_of(run, *key) != before[key]] == [
        ("pretrain", "teacher"),
        ("cold_start_sft", "teacher"),
        ("overall_sft", "teacher"),
        ("rl_code", "student"),
    ]


def test_every_stage_after_sft_has_settings_and_smoke_does_less_of_each():
    few, whole = stage_settings("tiny", True), stage_settings("tiny", False)
    assert list(few) == list(whole) == [name for name, _ in KEYS[DISTILL:]]
    amounts = {
        "distill": "steps queries",
        "reward_model": "prompts held_out",
        **dict.fromkeys(("rl_stem", "rl_code", "rl_preference"), "iterations prompts candidates"),
        **dict.fromkeys(("self_reward_1", "self_reward_2"), "prompts requests held_out"),
    }
    for name, fields in amounts.items():
        assert all(
            getattr(few[name], field) < getattr(whole[name], field) for field in fields.split()
        ), name


# ---- one stage after the other ----


@pytest.fixture
def bare(monkeypatch):
    """run_stages without evaluation, samples and plots."""
    monkeypatch.setattr(
        pipeline,
        "evaluate",
        lambda *args, **how: {
            "math": {"greedy": 0.5, "sampled": 0.25, "n": 8, "low": 0.2, "high": 0.8}
        },
    )
    monkeypatch.setattr(pipeline, "answer_samples", lambda *args: None)
    monkeypatch.setattr(pipeline, "report", lambda *args: None)


def stage_that(name, own):
    def stage(run, who):
        return own

    stage.__name__ = name
    return stage


def test_a_redone_stage_goes_back_to_its_place_in_the_schedule_and_the_peak_of_memory_is_kept(
    run, bare
):
    run.models = {who: GPT(SIZES["tiny"][who]) for who in ("student", "teacher")}
    results = finished(
        run, [key for key in KEYS if key not in (("pretrain", "teacher"), ("distill", "student"))]
    )
    for stage in results["stages"]:
        stage |= {"seconds": 1.0, "eval": {"math": {"greedy": 0.0, "sampled": 0.0}}, "measured": {}}
    own, results["peak_memory_mb"] = {"tokens": 7, "loss": math.nan}, 1e6
    run_stages(
        run,
        [(stage_that("distill", own), "student"), (stage_that("pretrain", own), "teacher")],
        results,
    )
    assert names_of(results) == KEYS and read_json(run.out / "results.json", None) == results
    stage = results["stages"][DISTILL]
    assert (
        stage["tokens"] == 7
        and stage["measured"] == {"loss": None}
        and stage["checkpoint"] == "distill.student.pt"
    )
    assert stage["settings"] == settings_of(run, "distill", "student")
    assert (
        results["seconds"]
        == pytest.approx(sum(stage["seconds"] for stage in results["stages"]), abs=0.06)
        and results["seconds"] >= 11
    )
    assert results["peak_memory_mb"] == 1e6
    assert load_checkpoint(run.out / "pretrain.teacher.pt", run.tokenizer)[1]["stage"] == "pretrain"


def test_the_reward_model_stage_is_not_evaluated_and_saves_the_reward_model(
    run, bare, tmp_path, monkeypatch
):
    run.models = {
        "student": GPT(SIZES["tiny"]["student"]),
        "reward_model": RewardModel(GPT(SIZES["tiny"]["student"]), 5),
    }
    results = {"stages": []}
    monkeypatch.setattr(
        rewards,
        "held_out_report",
        lambda *args, **how: {"accuracy": 0.8, "true_accuracy": 0.75, "annotator_agreement": 0.875},
    )
    run_stages(run, [(stage_that("reward_model", {"tokens": 3}), "student")], results)
    assert results["stages"][0]["eval"] is None
    saved = load_reward_model(tmp_path / "reward_model.student.pt", run.tokenizer)
    assert torch.equal(saved.score.weight, run.models["reward_model"].score.weight)
    assert all(number in stage_line(results["stages"][0]) for number in ("0.800", "0.750", "0.875"))


def test_what_is_not_a_number_is_null_in_the_file():
    assert finite(
        {"a": math.nan, "b": [1.0, math.inf], "c": {"d": (-math.inf, 2)}, "e": "nan", "f": 3}
    ) == {"a": None, "b": [1.0, None], "c": {"d": [None, 2]}, "e": "nan", "f": 3}


def test_a_score_that_was_not_found_is_null_in_the_file_and_neither_table_nor_report_stumbles(
    run, monkeypatch, capsys
):
    scores = {
        domain: {"greedy": 0.5, "sampled": 0.5, "n": 8, "low": 0.2, "high": 0.8}
        for domain in pipeline.COLUMNS
    } | {
        "code": {"greedy": math.nan, "sampled": math.nan, "n": 0, "low": math.nan, "high": math.nan}
    }
    monkeypatch.setattr(pipeline, "evaluate", lambda *args, **how: scores)
    monkeypatch.setattr(pipeline, "answer_samples", lambda *args: None)
    run.models = {"student": GPT(SIZES["tiny"]["student"])}
    results = {"size": "tiny", "seed": 1, "params": {"student": 1, "teacher": 2}, "stages": []}
    run_stages(run, [(stage_that("pretrain", {"tokens": 7}), "student")], results)
    assert results_of(run.out)["stages"][0]["eval"]["code"] == {
        "greedy": None,
        "sampled": None,
        "n": 0,
        "low": None,
        "high": None,
    }
    assert "nan" in capsys.readouterr().out
    assert "| nan (nan to nan) / nan |" in (run.out / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "stage, needed", [("rl_preference", "reward_model"), ("self_reward_2", "self_reward_1")]
)
def test_a_stage_without_the_model_that_it_needs_names_the_stage_before_it(run, stage, needed):
    with pytest.raises(ValueError, match=f"{stage} needs the stage {needed}"):
        getattr(pipeline, stage)(run, "student")


@pytest.mark.parametrize("smoke", [True, False])
@pytest.mark.slow
def test_both_rounds_have_the_prompts_of_the_model_that_entered_the_first_checked_except_in_smoke(
    run, monkeypatch, smoke
):
    """The student is M_1, then M_2, then M_3; each is a new model, and M_1 is kept as it was."""
    checked, rounds, measured = [], [], []

    def one_round(model, seed_model, tokenizer, settings, *, round_number, **how):
        rounds.append((model, seed_model, settings, round_number))
        return GPT(model.config).init_weights(round_number), {"tokens": 0, "pairs": round_number}

    def compare(model, before, seed_model, *rest, **how):
        measured.append((model, before, seed_model))
        return {"true_reward": 1.0}

    monkeypatch.setattr(self_reward, "next_iteration_model", one_round)
    monkeypatch.setattr(self_reward, "measure", compare)
    monkeypatch.setattr(self_reward, "judge_report", lambda *args, **how: {"parsed": 0.25})
    monkeypatch.setattr(self_reward, "check_seed_model", checked.append)
    monkeypatch.setattr(pipeline, "rehearsal", lambda run, chat: [])
    run.smoke, run.eval_n = smoke, 50
    m1 = run.models["student"] = GPT(SIZES["tiny"]["student"]).init_weights(9)
    own, before = [], m1
    for stage in (pipeline.self_reward_1, pipeline.self_reward_2):
        own.append(stage(run, "student"))
        own[-1] |= pipeline.measured_afterwards(run, stage.__name__, "student", before)
        before = run.models["student"]
    (first, seed_model, settings, number), (second, again, _, after) = rounds
    assert (
        first is m1
        and seed_model is again is not m1
        and (number, after) == (1, 2)
        and settings.held_out == 50
    )
    assert all(torch.equal(a, b) for a, b in zip(seed_model.parameters(), m1.parameters()))
    assert measured == [(second, m1, seed_model), (run.models["student"], second, seed_model)]
    assert own == [
        {"seed_judge": {"parsed": 0.25}, "tokens": 0, "pairs": 1, "true_reward": 1.0},
        {"tokens": 0, "pairs": 2, "true_reward": 1.0},
    ]
    assert checked == ([] if smoke else [{"parsed": 0.25}])


def test_the_samples_of_a_redone_stage_replace_its_old_ones(run, tiny_model):
    run.models["student"] = tiny_model
    for stage in ("pretrain", "distill", "pretrain"):
        answer_samples(run, stage, "student")
    lines = formats.read_jsonl(run.out / "samples.jsonl")
    assert [line["stage"] for line in lines] == ["distill"] * 10 + ["pretrain"] * 10
    assert (run.out / "samples.md").read_text(encoding="utf-8").count(
        "- pretrain (student): "
    ) == 10


# ---- the teacher that is given ----

REMEDY = "--teacher train trains one, python -m tests.experiments.teacher remakes the file"


def another_teacher(tmp_path, monkeypatch, tokenizer, seed=5, **more):
    path = tmp_path / "given" / "teacher.tiny.pt"
    path.parent.mkdir(exist_ok=True)
    model = GPT(SIZES["tiny"]["teacher"]).init_weights(seed).half()
    save_checkpoint(
        path, model, tokenizer, "overall_sft", **({"world_version": world.WORLD_VERSION} | more)
    )
    monkeypatch.setattr(checkpoints, "TEACHER", path)
    return path


def test_the_given_teacher_is_one_entry_of_no_tokens_and_its_copy_lies_in_the_folder(
    run, bare, teacher_file
):
    run.models = {"teacher": saved_in(teacher_file.parent, teacher_file.name)}
    results = {"stages": []}
    run_stages(run, [(pipeline.given_teacher, "teacher")], results)
    (entry,) = results["stages"]
    assert (entry["name"], entry["model"], entry["tokens"]) == ("given_teacher", "teacher", 0)
    assert entry["checkpoint"] == "given_teacher.teacher.pt" and entry["measured"] == {}
    assert entry["eval"]["math"]["greedy"] == 0.5
    assert entry["weights"] == digest(run.models["teacher"])
    copy, saved = load_checkpoint(run.out / "given_teacher.teacher.pt", run.tokenizer)
    assert (
        weights_are(copy, saved_in(teacher_file.parent, teacher_file.name))
        and saved["stage"] == "given_teacher"
    )
    assert stage_line(entry).startswith("teacher (given) ")
    assert not list(run.out.glob("*.csv"))


def test_the_given_teachers_digest_is_in_the_keys_from_distill_on_and_in_no_earlier_student_key(
    run,
):
    run.given = {"student": None, "teacher": "abc123", "data": None, "compile": False}
    named = [key for key in GIVEN if settings_of(run, *key).get("teacher") == "abc123"]
    assert named == GIVEN[GIVEN.index(("given_teacher", "teacher")) :]
    earlier = GIVEN[:3]
    before = [settings_of(run, *key) for key in earlier]
    run.given["teacher"] = None  # --teacher train trains the same student up to there
    assert [settings_of(run, *key) for key in earlier] == before


def prepared(monkeypatch, capsys, out, *flags):
    """(code, error, [stages to do], run) of the command, which stops before its first stage."""
    seen = []

    def look(run, todo, results):
        seen.append((run, todo, results))
        results["seconds"] = 1.0

    monkeypatch.setattr(pipeline, "run_stages", look)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *"pipeline.py --smoke --threads 1 --device cpu --out".split(),
            str(out),
            *map(str, flags),
        ],
    )
    try:
        pipeline.main()
    except SystemExit as stop:
        return stop.code, capsys.readouterr().err, None, None, None
    return 0, "", *seen[0]


def test_a_changed_teacher_is_refused_without_force_and_force_never_remakes_it(
    tmp_path, monkeypatch, capsys, tokenizer, bare
):
    out, real_run = tmp_path / "run", pipeline.run_stages
    path = another_teacher(tmp_path, monkeypatch, tokenizer)
    was = digest(path)
    _, _, run, todo, results = prepared(monkeypatch, capsys, out)
    assert run.given["teacher"] == was
    assert results["params"]["teacher"] == parameter_count(run.models["teacher"])
    stages = {"pretrain": "student", "cold_start_sft": "student", "overall_sft": "student"}
    real_run(
        run,
        [(stage_that(name, {"tokens": 1}), who) for name, who in stages.items()]
        + [(pipeline.given_teacher, "teacher")],
        results,
    )
    real_run(run, [(stage_that("distill", {"tokens": 1}), "student")], results)
    place = GIVEN.index(("distill", "student"))
    code, _, _, todo, results = prepared(monkeypatch, capsys, out)
    assert (
        code == 0
        and keys_of(todo) == GIVEN[place + 1 :]
        and names_of(results) == GIVEN[: place + 1]
    )
    path = another_teacher(tmp_path, monkeypatch, tokenizer, seed=6)
    now, content = digest(path), path.read_bytes()
    code, error, *_ = prepared(monkeypatch, capsys, out)
    assert code == 2 and error.count("\n") == 1
    assert (
        "given_teacher (teacher) was finished with other settings "
        f"(teacher {was}, now {now}); --force" in error
    )
    code, _, run, todo, results = prepared(monkeypatch, capsys, out, "--force")
    assert keys_of(todo) == GIVEN[place - 1 :] and names_of(results) == GIVEN[: place - 1]
    assert (
        weights_are(run.models["teacher"], saved_in(path.parent, path.name))
        and path.read_bytes() == content
    )
    real_run(run, todo[:1], results)
    assert (
        weights_are(saved_in(out, "given_teacher.teacher.pt"), saved_in(path.parent, path.name))
        and path.read_bytes() == content
    )


@pytest.mark.parametrize("name", ["pipeline", "distill"])
def test_a_given_teacher_that_is_missing_damaged_or_of_another_world_is_one_line(
    tmp_path, monkeypatch, capsys, tokenizer, name
):
    command = importlib.import_module(name)
    save_checkpoint(
        tmp_path / "student.pt",
        GPT(SIZES["tiny"]["student"]).init_weights(1),
        tokenizer,
        "elsewhere",
    )
    start = {"pipeline": (), "distill": ("--init", str(tmp_path / "student.pt"))}[name]
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *f"{name}.py --smoke --threads 1 --device cpu --out".split(),
            str(tmp_path / "run"),
            *start,
        ],
    )

    def said():
        with pytest.raises(SystemExit) as stop:
            command.main()
        assert stop.value.code == 2 and not (tmp_path / "run").exists()
        return capsys.readouterr().err

    path = another_teacher(tmp_path, monkeypatch, tokenizer, world_version=2)
    assert said() == (
        f"error: {path}: of version 2 of the world, which is at {world.WORLD_VERSION}; {REMEDY}\n"
    )
    path.write_bytes(path.read_bytes()[:1000])
    assert re.fullmatch(rf"error: {path}: damaged \(\w+\); {REMEDY}\n", said())
    save_checkpoint(path, GPT(SIZES["tiny"]["teacher"]), tokenizer, "overall_sft")
    assert said() == f"error: {path}: damaged (KeyError); {REMEDY}\n"
    path.unlink()
    assert said() == f"error: {path}: missing; {REMEDY}\n"


def test_the_teacher_in_the_repository_is_of_this_world_small_and_in_half_precision(tokenizer):
    path = ROOT / "data" / "teacher.tiny.pt"
    assert path.exists(), REMEDY
    assert path.stat().st_size <= 2_000_000
    saved = torch.load(path, map_location="cpu", weights_only=True)
    assert (
        saved["world_version"] == world.WORLD_VERSION
        and saved["tokenizer"] == tokenizer.fingerprint
    )
    assert {tensor.dtype for tensor in saved["model"].values()} == {torch.float16}
    model, _ = load_checkpoint(path, tokenizer)
    assert 750_000 <= parameter_count(model) <= 950_000 and model.config == SIZES["tiny"]["teacher"]


# ---- what a run that goes on starts from ----


@pytest.fixture
def goes_on(run, tmp_path, monkeypatch, capsys):
    """goes_on(finished stages, flags) -> (run, stages to do, results) of the command
    in a folder that holds these stages' checkpoints."""
    monkeypatch.setattr(pipeline, "settings_of", lambda *key: {"all": "the same"})

    def go(keys, *flags):
        for k, (name, who) in enumerate(keys):
            model = GPT(SIZES["tiny"][who]).init_weights(100 + k)
            save_checkpoint(
                tmp_path / f"{name}.{who}.pt",
                RewardModel(model, 100 + k) if name == "reward_model" else model,
                run.tokenizer,
                name,
            )
        writing.write_json(
            tmp_path / "results.json",
            {
                "stages": [
                    {
                        "name": name,
                        "model": who,
                        "settings": {"all": "the same"},
                        "checkpoint": f"{name}.{who}.pt",
                        "eval": None
                        if name == "reward_model"
                        else {"code": {"greedy": None, "n": 0, "low": None, "high": None}},
                    }
                    for name, who in keys
                ]
            },
        )
        seen = []

        def look(run, todo, results):
            seen.append((run, keys_of(todo), results))
            results["seconds"] = 1.0

        monkeypatch.setattr(pipeline, "run_stages", look)
        monkeypatch.setattr(
            sys,
            "argv",
            [
                *"pipeline.py --smoke --threads 1 --device cpu --out".split(),
                str(tmp_path),
                *map(str, flags),
            ],
        )
        pipeline.main()
        capsys.readouterr()
        return seen[0]

    return go


def weights_are(model, expected):
    ours, theirs = model.state_dict(), expected.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


def saved_in(out, name):
    return load_checkpoint(out / name)[0]


def test_a_new_run_starts_from_weights_that_its_seed_decides(goes_on):
    run, todo, _ = goes_on([], "--teacher", "train")
    assert todo == OWN and set(run.models) == {"student", "teacher"}
    assert all(
        weights_are(run.models[who], GPT(SIZES["tiny"][who]).init_weights(seed_of(1, who)))
        for who in run.models
    )


@pytest.mark.parametrize(
    "flags", [(), ("--student", "student.pt"), ("--eval-n", 4), ("--stages", "pretrain,distill")]
)
def test_the_given_teacher_stands_in_without_a_teacher_on_the_command_line(
    goes_on, tmp_path, tokenizer, teacher_file, monkeypatch, flags
):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(
        tmp_path / "student.pt",
        GPT(SIZES["tiny"]["student"]).init_weights(3),
        tokenizer,
        "elsewhere",
    )
    run, todo, _ = goes_on([], *flags)
    chosen = {"--student": GIVEN[1:], "--stages": [("pretrain", "student"), ("distill", "student")]}
    assert todo == chosen.get(*flags[:1] or (None,), GIVEN)
    assert weights_are(run.models["teacher"], saved_in(teacher_file.parent, teacher_file.name))
    assert next(run.models["teacher"].parameters()).dtype == torch.float32


def test_the_given_teacher_stands_in_for_every_one_of_several_seeds(
    teacher_file, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        pipeline,
        "run_stages",
        lambda run, todo, results: seen.append((run, keys_of(todo))) or results.update(seconds=1.0),
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["pipeline.py", "--smoke", "--threads", "1", "--seeds", "1,2", "--out", str(tmp_path)],
    )
    pipeline.main()
    assert [todo for _, todo in seen] == [GIVEN, GIVEN] and [run.seed for run, _ in seen] == [1, 2]
    assert all(
        weights_are(run.models["teacher"], saved_in(teacher_file.parent, teacher_file.name))
        for run, _ in seen
    )


def test_other_sizes_other_tokenizers_and_real_files_have_no_given_teacher(
    tokenizer, tmp_path, monkeypatch
):
    assert checkpoints.given_teacher("tiny", tokenizer) == checkpoints.TEACHER
    assert checkpoints.given_teacher("small", tokenizer) is None
    assert checkpoints.given_teacher("tiny", SimpleNamespace(fingerprint="another")) is None
    asked = []
    monkeypatch.setattr(whole_run, "given_teacher", lambda *args: asked.append(args))
    for flags in (
        ("--data", tmp_path / "none"),
        ("--teacher", "train"),
        ("--teacher", tmp_path / "none.pt"),
    ):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                *"pipeline.py --smoke --threads 1 --out".split(),
                str(tmp_path / "run"),
                *map(str, flags),
            ],
        )
        monkeypatch.setattr(
            pipeline, "run_stages", lambda run, todo, results: results.update(seconds=1.0)
        )
        monkeypatch.setattr(real, "read_folder", lambda path: real.Folder({}, {}, [], {}))
        try:
            pipeline.main()
        except SystemExit:
            pass
    assert asked == []


def test_a_new_run_can_start_from_given_checkpoints(goes_on, tmp_path, tokenizer):
    for k, who in enumerate(("student", "teacher")):
        save_checkpoint(
            tmp_path / f"given-{who}.pt",
            GPT(SIZES["tiny"][who]).init_weights(k),
            tokenizer,
            "elsewhere",
        )
    run, todo, _ = goes_on(
        [], "--student", tmp_path / "given-student.pt", "--teacher", tmp_path / "given-teacher.pt"
    )
    assert all(
        weights_are(run.models[who], saved_in(tmp_path, f"given-{who}.pt")) for who in run.models
    )
    assert todo == OWN[2:]  # what is given has been pretrained by somebody


def test_after_the_reward_model_the_student_is_still_the_distilled_one(goes_on, tmp_path):
    place = GIVEN.index(("reward_model", "student")) + 1
    run, todo, _ = goes_on(GIVEN[:place])
    assert todo == GIVEN[place:] and set(run.models) == {"student", "teacher", "reward_model"}
    assert weights_are(run.models["student"], saved_in(tmp_path, "distill.student.pt"))
    assert weights_are(run.models["teacher"], saved_in(tmp_path, "given_teacher.teacher.pt"))
    assert weights_are(
        run.models["reward_model"],
        load_reward_model(tmp_path / "reward_model.student.pt", run.tokenizer),
    )


def test_a_run_that_goes_on_rehearses_what_its_own_distill_kept(goes_on, tmp_path):
    """From the end of distill on, and not before."""
    place = GIVEN.index(("distill", "student"))
    run, _, _ = goes_on(GIVEN[:place])
    assert run.taught is None
    run, _, results = goes_on(GIVEN[: place + 1])
    assert run.taught == tmp_path / pipeline.REHEARSAL
    assert run.taught_student == results["stages"][-1].get("weights")


def test_after_distill_the_run_itself_rehearses_what_it_kept(run, tiny_model, monkeypatch):
    run.models["student"] = tiny_model
    monkeypatch.setattr(
        pipeline, "once", lambda *rest: (tiny_model, {"training_seconds": 0.0, "tokens": 0})
    )
    monkeypatch.setattr(pipeline, "settings_of", lambda *rest: {"all": "the same"})
    monkeypatch.setattr(pipeline, "answer_samples", lambda *rest: None)
    monkeypatch.setattr(pipeline, "evaluate", lambda *rest, **how: {})
    for function, taught in (
        (pipeline.overall_sft, None),
        (pipeline.distill, run.out / pipeline.REHEARSAL),
    ):
        pipeline.run_stage(run, function, "student", "none")
        assert run.taught == taught
    assert run.taught_student == pipeline.digest(tiny_model)


def test_between_the_rounds_the_student_is_m_2_and_m_1_is_what_entered_the_first(goes_on, tmp_path):
    run, todo, _ = goes_on(GIVEN[:-1], "--student", tmp_path / "pretrain.student.pt")
    assert todo == [("self_reward_2", "student")]
    assert weights_are(run.models["student"], saved_in(tmp_path, "self_reward_1.student.pt"))
    assert weights_are(run.models["seed_model"], saved_in(tmp_path, "rl_preference.student.pt"))


@pytest.mark.parametrize(
    "kept, flags, told",
    [
        (OWN[:6], (), "pretrain (teacher)"),
        (GIVEN[:4], ("--teacher", "train"), "given_teacher (teacher)"),
        (GIVEN[:4], ("--teacher", "given.pt"), "given_teacher (teacher)"),
    ],
)
def test_a_folder_with_another_teachers_stages_is_refused_and_force_keeps_none_of_them(
    goes_on, tmp_path, tokenizer, teacher_file, monkeypatch, capsys, kept, flags, told
):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(
        tmp_path / "given.pt", GPT(SIZES["tiny"]["teacher"]).init_weights(5), tokenizer, "elsewhere"
    )
    with pytest.raises(SystemExit) as stop:
        goes_on(kept, *flags)
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: {told} was finished with another --teacher; "
        "--force redoes what follows from it, or give another --out\n"
    )
    assert names_of(read_json(tmp_path / "results.json", None)) == kept
    run, todo, results = goes_on(kept, *flags, "--force")
    assert [key for key in names_of(results) if key[1] == "teacher"] == []
    teachers = [name for name, who in todo if who == "teacher"]
    if flags:
        assert teachers == (
            ["pretrain", "cold_start_sft", "overall_sft"]
            if flags[1] == "train"
            else ["cold_start_sft", "overall_sft"]
        )
        expected = (
            GPT(SIZES["tiny"]["teacher"]).init_weights(seed_of(1, "teacher"))
            if flags[1] == "train"
            else saved_in(tmp_path, "given.pt")
        )
    else:
        assert teachers == ["given_teacher"]
        expected = saved_in(teacher_file.parent, teacher_file.name)
    assert weights_are(run.models["teacher"], expected)


def test_a_score_that_was_not_found_is_not_a_number_again(goes_on):
    assert math.isnan(goes_on(KEYS[:1])[2]["stages"][0]["eval"]["code"]["greedy"])


def test_results_of_an_older_version_are_refused_in_one_line(goes_on, monkeypatch, capsys):
    monkeypatch.setattr(
        writing,
        "write_json",
        lambda path, value, write=writing.write_json: write(
            path, json.loads(json.dumps(value).replace('"low": null, "high": null', '"ci": 0.1'))
        ),
    )
    with pytest.raises(SystemExit) as stop:
        goes_on(KEYS[:1])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(
        "results.json: of an older version, which kept no interval's ends; give another --out\n"
    )


def test_a_run_folder_of_an_older_version_with_its_settings_as_a_line_goes_on(run):
    now = finished(run, KEYS[:5])
    for stage in now["stages"]:
        stage["eval"] = None
    lines = [
        stage | {"settings": checkpoints.key_line(stage["settings"])} for stage in now["stages"]
    ]
    assert lines[0]["settings"].startswith("size=tiny seed=1 eval-n=8 device=cpu ")
    writing.write_json(run.out / "results.json", {"stages": lines})
    results = read_results(run.out)
    assert results == now and keys_of(unfinished(results, run, STAGES, force=False)) == KEYS[5:]
    write_results(run.out, results)
    assert results_of(run.out) == now  # and from now on as a dict
    run.seed = 2
    with pytest.raises(
        ValueError,
        match=r"pretrain \(student\) was finished with other settings \(seed 1, now 2\); --force",
    ):
        unfinished(results, run, STAGES, force=False)


def test_the_report_has_greedys_interval_in_the_table_and_in_the_plot(tmp_path, monkeypatch):
    """Both arms of every bar reach to the interval's ends, which need not lie equally far."""
    row = {"greedy": 0.25, "low": 0.125, "high": 0.5, "sampled": 0.75, "n": 8}
    results = {
        "size": "tiny",
        "seed": 1,
        "seconds": 1.0,
        "peak_memory_mb": None,
        "params": {},
        "stages": [
            {
                "name": "pretrain",
                "model": "student",
                "seconds": 1.0,
                "tokens": 3,
                "own": {},
                "eval": {"math": row},
            }
        ],
    }
    drawn, errorbar = [], Axes.errorbar
    monkeypatch.setattr(
        Axes,
        "errorbar",
        lambda self, *args, **how: drawn.append(args) or errorbar(self, *args, **how),
    )
    report(tmp_path, results)
    assert "| pretrain | student | 25 (12 to 50) / 75 | 1 | 3 |" in (
        tmp_path / "report.md"
    ).read_text(encoding="utf-8")
    assert drawn == [([0.0], [25.0], [[12.5], [25.0]])]


# ---- bad input: exit code 2 and one line ----


def refused(monkeypatch, capsys, *arguments):
    """The one line on stderr with which the command ends."""
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--threads", "1", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        pipeline.main()
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 1, lines
    return lines[0]


def test_an_unknown_stage_is_refused_with_the_names_that_there_are(monkeypatch, capsys, tmp_path):
    line = refused(
        monkeypatch, capsys, "--smoke", "--stages", "pretrain,warm_start", "--out", tmp_path
    )
    names = ", ".join(dict.fromkeys(name for name, _ in GIVEN))
    assert line == f"error: --stages warm_start: there is {names}"
    line = refused(
        monkeypatch,
        capsys,
        *"--smoke --stages given_teacher --teacher train --out".split(),
        tmp_path,
    )
    names = ", ".join(dict.fromkeys(name for name, _ in OWN))
    assert line == f"error: --stages given_teacher: there is {names}"


def test_several_seeds_are_runs_of_their_own(monkeypatch, tmp_path):
    runs = []
    monkeypatch.setattr(pipeline, "one_run", lambda args: runs.append((args.seed, args.out)))
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--seeds", "1,12", "--out", str(tmp_path)])
    pipeline.main()
    assert runs == [(1, f"{tmp_path}/seed1"), (12, f"{tmp_path}/seed12")]


def test_seeds_that_are_no_numbers_are_refused(monkeypatch, capsys):
    assert "1,x" in refused(monkeypatch, capsys, "--seeds", "1,x")


@pytest.mark.parametrize(
    "stages, missing",
    [("cold_start_sft", "student"), ("distill", "student"), ("pretrain,rl_stem", None)],
)
def test_a_stage_never_starts_from_random_weights_unless_it_is_pretraining(
    monkeypatch, capsys, tmp_path, stages, missing
):
    monkeypatch.setattr(
        pipeline, "run_stages", lambda run, todo, results: results.update(seconds=0.0)
    )
    if missing:
        assert f"has no {missing} to start from: give --{missing} CHECKPOINT" in refused(
            monkeypatch, capsys, "--smoke", "--stages", stages, "--out", tmp_path
        )
    else:
        monkeypatch.setattr(
            sys, "argv", ["pipeline.py", "--smoke", "--stages", stages, "--out", str(tmp_path)]
        )
        pipeline.main()


def test_distillation_needs_a_teacher(monkeypatch, capsys, tmp_path, tokenizer):
    save_checkpoint(tmp_path / "student.pt", GPT(SIZES["tiny"]["student"]), tokenizer, "elsewhere")
    line = refused(
        monkeypatch,
        capsys,
        *"--smoke --stages distill --student".split(),
        tmp_path / "student.pt",
        "--teacher",
        "train",
        "--out",
        tmp_path / "run",
    )
    assert "has no teacher to start from: give --teacher CHECKPOINT" in line


def test_a_teacher_that_is_too_short_for_the_students_rows_is_refused_at_the_start(
    monkeypatch, capsys, tmp_path, tokenizer
):
    for who, context in (("student", 256), ("teacher", 128)):
        save_checkpoint(
            tmp_path / f"{who}.pt",
            GPT(replace(SIZES["tiny"][who], context=context)),
            tokenizer,
            "elsewhere",
        )
    line = refused(
        monkeypatch,
        capsys,
        *"--smoke --stages distill --student".split(),
        tmp_path / "student.pt",
        "--teacher",
        tmp_path / "teacher.pt",
        "--out",
        tmp_path / "run",
    )
    assert (
        line
        == "error: --teacher: its context of 128 tokens is shorter than the student's rows of 256"
    )


def test_a_stage_tells_how_many_real_dialogues_are_too_long_for_it(run, tiny_model, capsys):
    dialogues = [
        {
            "messages": [
                {"role": "user", "content": "9" * length},
                {"role": "assistant", "content": "7"},
            ]
        }
        for length in (3, 300, 4)
    ]
    # a context of 128
    run.models["student"], run.data = (
        tiny_model,
        SimpleNamespace(demonstrations={"math": dialogues}),
    )
    assert len(real_rows.file_rows(run, ["math"])) == 2 and capsys.readouterr().out == ""
    assert len(real_rows.file_rows(run, ["math"], tell="cold_start_sft")) == 2
    assert (
        capsys.readouterr().out
        == "cold_start_sft: dropped 1 record: 1 longer than the context of 128 tokens\n"
    )


def test_one_of_several_ranks_says_that_all_were_stopped(monkeypatch, capsys):
    for rank, said in (("0", "\nstopped\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as caught:
            fail("stopped", 130)
        assert caught.value.code == 130 and capsys.readouterr().err == said


def test_a_file_in_place_of_a_folder_of_data_is_refused(monkeypatch, capsys, tmp_path):
    assert "x.jsonl: not a folder" in refused(
        monkeypatch, capsys, "--smoke", "--data", "x.jsonl", "--out", tmp_path / "run"
    )
    (tmp_path / "data").mkdir()
    error = refused(
        monkeypatch, capsys, "--smoke", "--data", tmp_path / "data", "--out", tmp_path / "run"
    )
    assert (
        "math.jsonl: no such file; the folder needs math.jsonl, code.jsonl and preference.jsonl"
        in error
    )


def test_a_missing_checkpoint_is_named(monkeypatch, capsys, tmp_path):
    line = refused(
        monkeypatch, capsys, "--smoke", "--teacher", tmp_path / "none.pt", "--out", tmp_path
    )
    assert line == f"error: --teacher {tmp_path}/none.pt: no such checkpoint"


def test_an_error_in_a_stage_is_one_line_that_says_where_the_finished_ones_are(
    monkeypatch, capsys, tmp_path
):
    def stop(*args):
        raise FloatingPointError("rl_stem: the loss is not finite at iteration 3")

    monkeypatch.setattr(pipeline, "run_stages", stop)
    line = refused(monkeypatch, capsys, "--smoke", "--out", tmp_path)
    assert "iteration 3" in line and str(tmp_path) in line


def test_ctrl_c_ends_with_130_and_names_what_is_finished(monkeypatch, capsys, tmp_path):
    def interrupt(run, todo, results):
        results["stages"].append({"name": "pretrain", "model": "teacher"})
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run_stages", interrupt)
    monkeypatch.setattr(
        sys, "argv", ["pipeline.py", "--smoke", "--threads", "1", "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as caught:
        pipeline.main()
    assert caught.value.code == 130 and "finished: pretrain (teacher)" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"stages": [', "", "[]", "{}", '{"stages": 3}'])
def test_a_broken_results_file_is_one_line_and_is_left_alone(monkeypatch, capsys, tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    assert "results.json" in refused(monkeypatch, capsys, "--smoke", "--out", tmp_path)
    assert path.read_text(encoding="utf-8") == text and list(tmp_path.iterdir()) == [path]


def test_a_missing_json_file_is_its_default(tmp_path):
    assert read_json(tmp_path / "none.json", {"stages": []}) == {"stages": []}


@pytest.mark.skipif(os.name != "posix", reason="only POSIX tells a process its peak memory")
def test_peak_memory_holds_what_was_allocated():
    block = torch.ones(8 * 2**20)  # 32 MB
    assert 32 < peak_memory_mb() < 64 * 1024
    del block


# ---- whole smoke runs ----

MINUTES = 60
# lines of a CSV; reward_model has as many as its rankings fill
STEPS = {
    **dict.fromkeys(("pretrain", "cold_start_sft", "overall_sft"), SMOKE["sft"]["steps"]),
    "distill": 2,
    "self_reward_1": 2,
    "self_reward_2": 2,
    **dict.fromkeys(("rl_stem", "rl_code", "rl_preference"), 1),
}
DATA = ("distill_pairs.jsonl", "rankings.jsonl", "self_reward_1.jsonl", "self_reward_2.jsonl")


# in another process, with the tests' own file in place of the repository's
GIVEN_THERE = """if True:
    import sys
    from pathlib import Path
    import pipeline
    from data.files import checkpoints
    checkpoints.TEACHER = Path(sys.argv.pop(1))
    pipeline.main()
"""


def command(out, *more):
    return [
        sys.executable,
        "-c",
        GIVEN_THERE,
        str(checkpoints.TEACHER),
        *"--smoke --threads 1 --out".split(),
        str(out),
        *more,
    ]


def smoke_run(out, *more):
    return subprocess.run(
        command(out, *more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30 * MINUTES,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder, seconds) of one smoke run from start to end."""
    out, began = tmp_path_factory.mktemp("uninterrupted"), time.perf_counter()
    done = smoke_run(out)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, time.perf_counter() - began


def refuse_constant(name):
    raise AssertionError(f"results.json holds {name}")


def results_of(out):
    # NaN, Infinity
    return json.loads(
        (out / "results.json").read_text(encoding="utf-8"), parse_constant=refuse_constant
    )


def stages_of(out):
    return {(stage["name"], stage["model"]): stage for stage in results_of(out)["stages"]}


def contents(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def weights_in(out, name, who):
    return torch.load(out / f"{name}.{who}.pt", map_location="cpu", weights_only=True)["model"]


def assert_same_weights(ours, theirs, what):
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), f"{what}: {key} differs"


def trained(stage):
    """False for the given teacher, an RL stage without a prompt,
    and a self-rewarding round without a pair."""
    if stage["name"] == "given_teacher":
        return False
    return not stage["measured"].get("skipped") and (
        not stage["name"].startswith("self_reward") or stage["measured"]["pairs"] > 0
    )


def without_times(value):
    """What is left when every time is taken out."""
    if isinstance(value, dict):
        return {
            key: without_times(item) for key, item in value.items() if not key.endswith("seconds")
        }
    return value


@pytest.mark.slow
def test_a_run_leaves_every_file_behind(uninterrupted):
    out, _ = uninterrupted
    for name in (
        "config.json",
        "env.json",
        "results.json",
        "samples.md",
        "samples.jsonl",
        "report.md",
        *DATA,
    ):
        assert (out / name).stat().st_size > 0, name
    samples, report = (
        (out / name).read_text(encoding="utf-8") for name in ("samples.md", "report.md")
    )
    for name, who in GIVEN:
        assert (out / f"{name}.{who}.pt").exists()
        assert f"| {name} | {who} |" in report
        assert (f"- {name} ({who}): " in samples) == (name != "reward_model")
    plots = list((out / "plots").glob("*.png"))
    assert {path.stem for path in plots} >= {"stages", "distill", "reward_model", "self_reward"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]


@pytest.mark.slow
def test_every_stage_that_trained_has_a_csv_with_a_line_for_each_step_and_the_others_have_none(
    uninterrupted,
):
    out, _ = uninterrupted
    for (name, who), stage in stages_of(out).items():
        path = out / f"{name}.{who}.csv"
        assert path.exists() == trained(stage), name
        if path.exists():
            head, *lines = path.read_text(encoding="utf-8").splitlines()
            assert "loss" in head.split(",") and len(lines) == STEPS.get(name, len(lines)) > 0, name


@pytest.mark.slow
def test_a_stage_that_did_not_train_leaves_the_student_as_it_was(uninterrupted):
    out, _ = uninterrupted
    students = [(name, who) for name, who in GIVEN if who == "student" and name != "reward_model"]
    for before, key in zip(students, students[1:]):
        stage = stages_of(out)[key]
        assert (stage["tokens"] > 0) == trained(stage), key
        if not trained(stage):
            assert_same_weights(weights_in(out, *key), weights_in(out, *before), key)


@pytest.mark.slow
def test_results_have_the_published_shape(uninterrupted):
    out, _ = uninterrupted
    results = results_of(out)
    assert set(results) == {
        "size",
        "seed",
        "world_version",
        "seconds",
        "peak_memory_mb",
        "params",
        "stages",
    }
    assert (results["size"], results["seed"], results["world_version"]) == (
        "tiny",
        1,
        world.WORLD_VERSION,
    )
    assert (
        results["seconds"] > 0
        and results["params"]["teacher"] > results["params"]["student"] > 0
        and len(results["params"]) == 2
    )
    assert results["peak_memory_mb"] is None or results["peak_memory_mb"] > 0
    assert names_of(results) == GIVEN
    for stage in results["stages"]:
        assert set(stage) == {
            "name",
            "model",
            "seconds",
            "tokens",
            "checkpoint",
            "settings",
            "eval",
            "measured",
            "weights",
        }
        assert bool(stage["measured"]) == (stage["name"] != "given_teacher")
        assert (
            stage["seconds"] > 0 and stage["tokens"] >= 0 and (out / stage["checkpoint"]).exists()
        )
        if stage["name"] == "reward_model":
            assert stage["eval"] is None
            continue
        assert list(stage["eval"]) == [*world.DOMAINS, "phrasing"] and len(world.DOMAINS) == 6
        for row in stage["eval"].values():
            assert 0 <= row["greedy"] <= 1 and 0 <= row["sampled"] <= 1 and row["n"] > 0
            assert 0 <= row["low"] <= row["greedy"] <= row["high"] <= 1 and row["low"] < row["high"]


@pytest.mark.slow
def test_the_datasets_hold_what_the_results_count(uninterrupted):
    out, _ = uninterrupted
    stages, data = stages_of(out), {name: formats.read_jsonl(out / name) for name in DATA}
    assert len(data["distill_pairs.jsonl"]) == stages["distill", "student"]["measured"]["pairs"] > 0
    assert (
        len(data["rankings.jsonl"]) == stages["reward_model", "student"]["measured"]["rankings"] > 0
    )
    for name in ("self_reward_1", "self_reward_2"):
        records = [record for record in data[f"{name}.jsonl"] if "dropped" not in record]
        own = stages[name, "student"]["measured"]
        assert (
            len(records) == own["prompts"]
            and sum(record["chosen"] is not None for record in records) == own["pairs"]
        )
    assert (
        "seed_judge" in stages["self_reward_1", "student"]["measured"]
        and "seed_judge" not in stages["self_reward_2", "student"]["measured"]
    )


@pytest.mark.slow
def test_every_checkpoint_loads_as_the_stage_that_it_is_called_after(uninterrupted, tokenizer):
    out, _ = uninterrupted
    for name, who in GIVEN:
        if name == "reward_model":
            assert (
                load_reward_model(out / "reward_model.student.pt", tokenizer).config
                == SIZES["tiny"]["student"]
            )
        else:
            model, saved = load_checkpoint(out / f"{name}.{who}.pt", tokenizer)
            assert saved["stage"] == name and model.config == SIZES["tiny"][who]


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(uninterrupted):
    out, _ = uninterrupted
    before = contents(out)
    done = smoke_run(out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert contents(out) == before


@pytest.mark.slow
def test_another_seed_in_the_same_folder_is_refused(uninterrupted):
    out, _ = uninterrupted
    before = contents(out)
    done = smoke_run(out, "--seed", "2")
    assert done.returncode == 2 and "--force" in done.stderr and len(done.stderr.splitlines()) == 1
    assert contents(out) == before


def start_and_kill(out, seconds):
    """Start the smoke run and kill it after so many seconds;
    True if it was killed, False if it had ended by itself."""
    process = subprocess.Popen(
        command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert process.wait(timeout=seconds) == 0
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_weights_scores_and_data(
    uninterrupted, tmp_path
):
    expected, seconds = uninterrupted
    rng = random.Random(0)
    # the first one may have had a slower machine
    killed = [start_and_kill(tmp_path, rng.uniform(0, seconds / 3)) for _ in range(5)]
    assert any(killed)
    done = smoke_run(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, who in GIVEN:
        assert_same_weights(
            weights_in(tmp_path, name, who), weights_in(expected, name, who), f"{name} ({who})"
        )
    ours, theirs = results_of(tmp_path), results_of(expected)
    for key in ("name", "model", "tokens", "settings", "eval", "measured", "weights"):
        assert [without_times(stage[key]) for stage in ours["stages"]] == [
            without_times(stage[key]) for stage in theirs["stages"]
        ], key
    for name in ("samples.md", "samples.jsonl", "config.json", *DATA):
        assert (tmp_path / name).read_bytes() == (expected / name).read_bytes(), name
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


# ---- real files ----


@pytest.mark.slow
def test_the_four_stages_run_on_real_files_from_given_models(tmp_path, tokenizer):
    """The formats of GSM8K, MBPP and UltraFeedback,
    and checkpoints that somebody else has trained."""
    folder = tmp_path / "data"
    folder.mkdir()
    writing.write_jsonl(
        folder / "math.jsonl",
        [{"question": f"{k}+{k}?", "answer": f"so {2 * k}\n#### {2 * k}"} for k in range(120)],
    )
    writing.write_jsonl(
        folder / "code.jsonl",
        [
            {
                "text": f"Add {k}.",
                "code": f"def f(x): return x+{k}",
                "test_list": [f"assert f(1) == {1 + k}"],
            }
            for k in range(120)
        ],
    )
    writing.write_jsonl(
        folder / "preference.jsonl",
        [
            {"prompt": f"Name fruit {k}.", "chosen": f"Plum {k}.", "rejected": "No."}
            for k in range(120)
        ],
    )
    for who in ("student", "teacher"):
        model = GPT(replace(SIZES["tiny"][who], context=512)).init_weights(1)
        save_checkpoint(tmp_path / f"{who}.pt", model, tokenizer, "elsewhere")
    command = [
        sys.executable,
        *"pipeline.py --smoke --threads 1 --data".split(),
        str(folder),
        "--student",
        str(tmp_path / "student.pt"),
        "--teacher",
        str(tmp_path / "teacher.pt"),
        "--eval-n",
        "4",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [*command, "--stages", "cold_start_sft,overall_sft,reward_model,rl_preference"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(pipeline.__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "run")
    names = [(stage["name"], stage["model"]) for stage in results["stages"]]
    assert names == [
        ("cold_start_sft", "student"),
        ("cold_start_sft", "teacher"),
        ("overall_sft", "student"),
        ("overall_sft", "teacher"),
        ("reward_model", "student"),
        ("rl_preference", "student"),
    ]
    assert (
        set(results["stages"][0]["eval"]) == {"math", "code"}
        and results["stages"][-1]["tokens"] > 0
    )
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "| stage | model | math | code | seconds" in report
    assert "Name fruit" in (tmp_path / "run" / "samples.md").read_text(encoding="utf-8")
    given = ("--teacher", str(tmp_path / "teacher.pt"))
    alone = [part for part in command if part not in given][:-1]
    alone += [str(tmp_path / "alone"), "--stages", "cold_start_sft"]
    done = subprocess.run(
        alone, capture_output=True, text=True, timeout=600, cwd=Path(pipeline.__file__).parent
    )
    assert done.returncode == 0, done.stderr
    assert [stage["model"] for stage in results_of(tmp_path / "alone")["stages"]] == ["student"], (
        done.stderr
    )
    again = subprocess.run(
        [*command, "--stages", "self_reward_1"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(pipeline.__file__).parent,
    )
    assert (
        again.returncode == 2
        and "self_reward_1: is not made from the files of --data" in again.stderr
        and again.stderr.count("\n") == 1
    )


def test_the_reward_model_learns_from_a_sample_of_the_pairs_and_not_from_the_first(
    run, monkeypatch
):
    pairs = [
        {"prompt": [{"role": "user", "content": f"{k}?"}], "chosen": "yes", "rejected": "no"}
        for k in range(200)
    ]
    pairs.insert(
        0, {"prompt": [{"role": "user", "content": "9" * 2000}], "chosen": "yes", "rejected": "no"}
    )
    run.data = real.Folder({}, {}, pairs, {})
    run.models["student"] = GPT(SIZES["tiny"]["student"])
    run.stages["reward_model"] = replace(run.stages["reward_model"], prompts=50)
    given = []
    monkeypatch.setattr(
        rewards,
        "reward_model",
        lambda *args, rankings, **how: given.append([r["opening"] for r in rankings]) or (None, {}),
    )
    pipeline.reward_model(run, "student")
    pipeline.reward_model(run, "student")
    run.seed = 2
    pipeline.reward_model(run, "student")
    assert all(len(set(openings)) == 50 for openings in given) and given[0] == given[1] != given[2]
    # the first fifty have a mean of 24.5
    assert sum(int(opening[:-1]) for opening in given[0]) / 50 > 70
