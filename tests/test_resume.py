"""What was trained is not lost, and is taken up again
only where everything that decided it is the same."""

import builtins
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import distill
import dpo
import pipeline
import ppo
import reward_model as rewards
import self_reward
import sft
from data import world
from data.files import checkpoints, formats, keys, writing
from data.files.checkpoints import (
    digest,
    key_of,
    load_middle,
    once,
    save_checkpoint,
    save_middle,
    write,
)
from data.runtime import alone, command, rl_alone, rollouts, samples
from data.runtime.rows import dialogue_rows
from model import GPT, SIZES, Config, load_checkpoint
from model import export as export_model

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def small(seed):
    return GPT(Config(768, 256, 1, 16, 2, 1, 24)).init_weights(seed)


def same(one, other):
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values())
    )


def rows_of(tokenizer, seed, count=24):
    records = world.cold_start_demonstrations(seed, count, (1,))
    rows, dropped = dialogue_rows(tokenizer, records, 256)
    assert dropped == {}
    return rows[:count]


# ---- keys ----


def test_a_digest_tells_weights_rows_and_settings_apart_and_is_the_same_for_equals(tokenizer):
    settings, rows = sft.Settings(3), rows_of(tokenizer, 1)
    again = rows_of(tokenizer, 1)
    assert digest(small(0)) == digest(small(0)) != digest(small(1))
    assert digest(rows) == digest(again) != digest(rows_of(tokenizer, 2))
    assert digest(rows) != digest(rows[::-1])
    assert (
        digest(settings) == digest(sft.Settings(3)) != digest(sft.Settings(4))
        and len(digest(settings)) == 12
    )
    one = small(0)
    with torch.no_grad():
        one.norm.weight[3] += 1e-7
    assert digest(one) != digest(small(0))


def test_a_key_holds_where_a_training_ran(tokenizer, monkeypatch):
    key = key_of(tokenizer, CPU, weights=small(0))
    assert key_of(tokenizer, torch.device("meta"), weights=small(0)) != key
    for name, function in (("get_num_threads", lambda: 7),):
        with monkeypatch.context() as patch:
            patch.setattr(torch, name, function)
            assert key_of(tokenizer, CPU, weights=small(0)) != key
    for target, name, value in (
        (keys, "ranks", lambda: 2),
        (world, "WORLD_VERSION", -1),
        (keys.sandbox, "enabled", False),
        (tokenizer, "default_system", "Be brief."),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            assert key_of(tokenizer, CPU, weights=small(0)) != key
    assert key_of(tokenizer, CPU, weights=small(0)) == key


def test_a_stages_key_and_a_concept_files_hold_the_same_surroundings(run, monkeypatch):
    def both():
        stage = checkpoints.key_line(pipeline.settings_of(run, "distill", "student"))
        return stage, key_of(run.tokenizer, run.device, weights=1)

    before = both()
    for target, name, value in (
        (keys, "ranks", lambda: 2),
        (world, "WORLD_VERSION", -1),
        (keys.sandbox, "enabled", False),
        (torch, "get_num_threads", lambda: 7),
        (run.tokenizer, "default_system", "Be brief."),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            first, second = (
                [what for what, *_ in checkpoints.differences(*pair)]
                for pair in zip(before, both())
            )
            assert first == second and len(first) == 1


def test_a_lock_in_a_folder_of_data_is_no_data(tmp_path):
    (tmp_path / "math.jsonl").write_text("x")
    before = digest(tmp_path)
    (tmp_path / ".lock").write_text("1")
    assert digest(tmp_path) == before
    (tmp_path / "code.jsonl").write_text("x")
    assert digest(tmp_path) != before


def test_a_folder_of_data_is_another_where_a_file_of_it_has_another_name(tmp_path):
    for name in ("code", "math", "preference"):
        (tmp_path / f"{name}.jsonl").write_text(name)
    before = digest(tmp_path)
    (tmp_path / "math.jsonl").rename(tmp_path / "math_test.jsonl")
    assert digest(tmp_path) != before
    # one file: its bytes
    assert digest(tmp_path / "code.jsonl") == digest(
        (tmp_path / "code.jsonl").rename(tmp_path / "other")
    )


# ---- a stage in the middle ----


def stop_at(step, monkeypatch, module):
    """A context in which the module's training is interrupted at this step or iteration."""
    scale, patch = module.learning_rate_scale, monkeypatch.context()

    def scaled(now, *rest, **more):
        if now == step:
            raise KeyboardInterrupt
        return scale(now, *rest, **more)

    entered = patch.__enter__()
    entered.setattr(module, "learning_rate_scale", scaled)
    return patch


SFT = sft.Settings(6, rows=4, warmup=1, save_every=2)


@pytest.mark.parametrize(
    "other, steps",
    [("nothing", 2), ("weights", 6), ("rows", 6), ("held out", 6), ("threads", 6), ("settings", 6)],
)
def test_sft_takes_up_a_part_of_the_same_weights_rows_and_threads_only(
    tokenizer, tmp_path, monkeypatch, capsys, other, steps
):
    rows, weights, settings, held_out = rows_of(tokenizer, 1), 0, SFT, rows_of(tokenizer, 3, 4)
    how = {"seed": 1, "stage": "sft", "log": tmp_path / "sft.csv"}
    patch = stop_at(5, monkeypatch, sft)
    with pytest.raises(KeyboardInterrupt):
        sft.train(small(weights), tokenizer, rows, settings, held_out=held_out, **how)
    patch.__exit__(None, None, None)
    assert (tmp_path / "sft.part").exists()
    if other == "weights":
        weights = 1
    if other == "rows":
        rows = rows_of(tokenizer, 2)
    if other == "held out":
        held_out = rows_of(tokenizer, 4, 4)
    if other == "settings":
        settings = replace(SFT, adam_lr=0.001)
    if other == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    batches, loss = [], sft.batch_loss
    monkeypatch.setattr(
        sft, "batch_loss", lambda *args: batches.append(len(args[2])) or loss(*args)
    )
    model = small(weights)
    sft.train(model, tokenizer, rows, settings, held_out=held_out, **how)
    assert len(batches) - 1 == steps  # one look at the held-out loss
    whole = small(weights)
    sft.train(whole, tokenizer, rows, settings, seed=1, stage="sft", held_out=held_out)
    assert same(model, whole) and not (tmp_path / "sft.part").exists()
    named = {"nothing": "", "held out": "(held_out)"}.get(other, f"({other})")
    told = capsys.readouterr().out
    assert (
        told == ""
        if other == "nothing"
        else f"is of another training {named} and is removed" in told
    )


PPO = ppo.Settings(
    iterations=3,
    prompts=2,
    samples=2,
    epochs=1,
    minibatches=1,
    max_new=4,
    rehearsal_rows=1,
    save_every=1,
    mask_truncated=False,
)


@pytest.mark.parametrize(
    "other, iterations",
    [("nothing", 1), ("weights", 3), ("tasks", 3), ("rehearsal", 3), ("reward_model", 3)],
)
def test_rl_takes_up_a_part_of_the_same_weights_tasks_and_rehearsal_only(
    tokenizer, tmp_path, monkeypatch, other, iterations
):
    def tasks_of(seed):
        return world.draw_tasks(world.generator(seed, "x"), ("chat",), 2)

    given = {"weights": 0, "tasks": 1, "rehearsal": 1, "reward_model": 1}

    def train(log):
        policy = small(given["weights"])
        ppo.train(
            policy,
            tokenizer,
            tasks_of(given["tasks"]),
            PPO,
            seed=1,
            stage="rl_preference",
            log=log,
            reward_model=rewards.RewardModel(small(5), given["reward_model"]),
            rehearsal=rows_of(tokenizer, given["rehearsal"], 4),
        )
        return policy

    patch = stop_at(2, monkeypatch, ppo)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "x.csv")
    patch.__exit__(None, None, None)
    assert (tmp_path / "x.part").exists()
    if other != "nothing":
        given[other] = 2
    rolled, rollout = [], ppo.rollout
    monkeypatch.setattr(
        ppo, "rollout", lambda *args, **how: rolled.append(1) or rollout(*args, **how)
    )
    policy = train(tmp_path / "x.csv")
    assert len(rolled) == iterations and not (tmp_path / "x.part").exists()
    assert same(policy, train(None))


def test_a_part_that_cannot_be_written_does_not_stop_the_training(
    tokenizer, tmp_path, monkeypatch, capsys
):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    out = sft.train(
        small(0),
        tokenizer,
        rows_of(tokenizer, 1),
        SFT,
        seed=1,
        stage="sft",
        log=tmp_path / "sft.csv",
    )
    assert out["loss"] > 0 and capsys.readouterr().out.count("No space left on device") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["sft.csv"]


def test_a_damaged_part_is_one_line_with_its_remedy(tmp_path, tiny_model):
    (tmp_path / "x.part").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match="x.part: damaged .*; delete it to begin the stage again"):
        load_middle(tmp_path / "x.part", "key", model=tiny_model)
    with torch.no_grad():
        tiny_model.norm.weight[0] = float("nan")
    save_middle(tmp_path / "x.part", "key", {"step": 1}, model=tiny_model)
    with pytest.raises(ValueError, match="x.part: norm.weight is not finite"):
        load_middle(tmp_path / "x.part", "key", model=tiny_model)


# ---- saved straight after training; a run with an equal key only evaluates ----


def test_what_was_trained_with_an_equal_key_is_not_trained_again(tokenizer, tmp_path, capsys):
    path, model = tmp_path / "x.pt", small(0)

    def training():
        model.load_state_dict(small(9).state_dict())
        return model, {"loss": 0.5, "losses": (1.0, float("inf")), "seconds": 3}

    def never():
        raise AssertionError("trained again")

    assert (
        once(path, "weights=a", lambda: model, tokenizer, "x", training, settings={"lr": 1})[1][
            "loss"
        ]
        == 0.5
    )
    again = small(0)
    made, measured = once(path, "weights=a", lambda: again, tokenizer, "x", never)
    assert (
        made is again
        and same(again, small(9))
        and measured == {"loss": 0.5, "losses": [1.0, float("inf")], "seconds": 3}
    )
    assert "holds this training already, only its evaluation follows" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        once(path, "weights=b", lambda: again, tokenizer, "x", never)
    assert load_checkpoint(path)[1] == {
        "config": vars(model.config),
        "tokenizer": tokenizer.fingerprint,
        "tokenizer_json": tokenizer.source,
        "stage": "x",
        "default_system": "",
        "json_calls": False,
        "key": "weights=a",
        "measured": measured,
        "settings": {"lr": 1},
    }


def interrupt(*args, **how):
    raise KeyboardInterrupt


def never(*args, **how):
    raise AssertionError("trained again")


EVALUATIONS = {
    "sft": (sft, "evaluate", 2, "sft.pt"),
    "dpo": (dpo, "evaluate", 2, "dpo.pt"),
    "distill": (distill, "evaluate", 3, "distill.pt"),
    "ppo": (ppo, "evaluate", 2, "rl_preference.pt"),
    "reward_model": (rewards, "held_out_report", 1, "reward_model.pt"),
    "self_reward": (self_reward, "measure", 1, "self_reward_1.pt"),
}


def in_place(patch, module, name, function):
    """The function in the place of what a chapter calls;
    `evaluate` is called for it by data/runtime/alone.py."""
    for place in (module, alone) if name == "evaluate" else (module,):
        patch.setattr(place, name, function, raising=name != "evaluate")


@pytest.fixture
def concept(tmp_path, tokenizer, monkeypatch, capsys):
    """(name, flags) -> (exit code, stderr) of a concept file in this process."""
    save_checkpoint(tmp_path / "init.pt", small(0), tokenizer, "overall_sft")
    save_checkpoint(tmp_path / "other.pt", small(1), tokenizer, "overall_sft")
    monkeypatch.setattr(
        dpo,
        "annotated_pairs",
        lambda *args, **how: [tuple(rows_of(tokenizer, k, 2)) for k in range(8)],
    )
    monkeypatch.setattr(self_reward, "judge_report", lambda *args: {"pairwise": 1, "parsed": 1})
    monkeypatch.setattr(self_reward, "rehearsal_data", lambda *args: [])
    pair = [tuple(rows_of(tokenizer, k, 2)) for k in range(8)]
    monkeypatch.setattr(
        distill, "preference_data", lambda *args, **how: (pair, [], [], {"kept": 8})
    )

    def run(name, *flags):
        module = EVALUATIONS[name][0]
        more = {
            "ppo": ("--stage", "rl_preference"),
            "distill": ("--teacher", tmp_path / "other.pt"),
            "self_reward": ("--rounds", "1"),
        }.get(name, ())
        flags = (
            f"{name}.py",
            *"--smoke --threads 1 --device cpu --init".split(),
            tmp_path / "init.pt",
            "--out",
            tmp_path / "out",
            *more,
            *flags,
        )
        monkeypatch.setattr(sys, "argv", list(map(str, flags)))
        code = 0
        try:
            module.main()
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", EVALUATIONS)
@pytest.mark.slow
def test_a_concept_file_that_was_stopped_in_its_last_evaluation_has_saved_and_trains_nothing_again(
    concept, name, tmp_path, monkeypatch
):
    module, evaluation, which, file = EVALUATIONS[name]
    original, calls = getattr(module, evaluation, None), []

    def stopped(*args, **how):
        calls.append(1)
        if len(calls) == which:
            raise KeyboardInterrupt
        return {} if evaluation == "evaluate" else original(*args, **how)

    if evaluation != "evaluate":
        in_place(monkeypatch, module, "evaluate", lambda *args, **how: {})
    with monkeypatch.context() as patch:
        in_place(patch, module, evaluation, stopped)
        code, err = concept(name)
    assert code == 130 and err.startswith("\nstopped; ") and err.count("\n") == 2, err
    saved = (tmp_path / "out" / file).read_bytes()
    if evaluation == "evaluate":
        in_place(monkeypatch, module, "evaluate", lambda *args, **how: {})
    with monkeypatch.context() as patch:
        patch.setattr(
            self_reward if name == "self_reward" else module,
            "next_iteration_model" if name == "self_reward" else "train",
            never,
        )
        assert concept(name) == (0, "")
    assert (tmp_path / "out" / file).read_bytes() == saved
    monkeypatch.setattr(
        self_reward if name == "self_reward" else module,
        "next_iteration_model" if name == "self_reward" else "train",
        interrupt,
    )
    assert concept(name, "--seed", "2")[0] == 130  # trained again
    # other weights under the same name
    (tmp_path / "init.pt").write_bytes((tmp_path / "other.pt").read_bytes())
    assert concept(name)[0] == 130


def test_a_changed_source_file_trains_again(concept, tmp_path, tokenizer, monkeypatch):
    in_place(monkeypatch, dpo, "evaluate", lambda *args, **how: {})
    assert concept("dpo") == (0, "")
    read = Path.read_bytes
    monkeypatch.setattr(
        Path,
        "read_bytes",
        lambda path: read(path) + (b"# a changed loss" if path.name == "dpo.py" else b""),
    )
    monkeypatch.setattr(dpo, "train", interrupt)
    assert concept("dpo")[0] == 130


# ---- the pipeline ----


@pytest.fixture
def run(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(pipeline, "report", lambda *args: None)
    schedules = {who: sft.smoke(schedule) for who, schedule in sft.SCHEDULES["tiny"].items()}
    run = pipeline.Run(
        tmp_path,
        "tiny",
        1,
        CPU,
        tokenizer,
        schedules,
        2,
        True,
        pipeline.stage_settings("tiny", True),
    )
    run.models = {
        who: GPT(SIZES["tiny"][who]).init_weights(k) for k, who in enumerate(("student", "teacher"))
    }
    return run


SCORES = {"math": {"greedy": 0.5, "sampled": 0.25, "n": 2, "low": 0.1, "high": 0.9}}


def moved(name, trained):
    def stage(run, who):
        trained.append(name)
        with torch.no_grad():
            for parameter in run.models[who].parameters():
                parameter += 0.001
        return {"tokens": 5, "loss": 0.25, "seconds": 1.0}

    stage.__name__ = name
    return stage


def test_a_stage_that_was_stopped_in_its_evaluation_is_evaluated_and_not_trained_again(
    run, monkeypatch
):
    trained, first = [], {"stages": []}
    start = {who: model.state_dict() for who, model in run.models.items()}
    start = {
        who: {name: tensor.clone() for name, tensor in state.items()}
        for who, state in start.items()
    }
    todo = [
        (moved("cold_start_sft", trained), "student"),
        (moved("overall_sft", trained), "student"),
    ]
    monkeypatch.setattr(pipeline, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_stages(run, todo, first)
    assert (
        trained == ["cold_start_sft"]
        and first["stages"] == []
        and (run.out / "cold_start_sft.student.pt").exists()
    )
    ended = {name: tensor.clone() for name, tensor in run.models["student"].state_dict().items()}
    for who, model in run.models.items():
        model.load_state_dict(start[who])
    monkeypatch.setattr(
        pipeline,
        "evaluate",
        lambda model, *args, **how: {
            "math": SCORES["math"] | {"sampled": float(model.norm.weight[0].detach())}
        },
    )
    monkeypatch.setattr(pipeline, "answer_samples", lambda *args: None)
    results = {"stages": []}
    pipeline.run_stages(run, todo, results)
    assert trained == ["cold_start_sft", "overall_sft"]
    line = results["stages"][0]
    assert (
        line["measured"] == {"loss": 0.25, "seconds": 1.0}
        and line["tokens"] == 5
        and line["weights"] == digest(load_checkpoint(run.out / line["checkpoint"])[0])
    )
    assert torch.equal(
        load_checkpoint(run.out / "cold_start_sft.student.pt")[0].norm.weight, ended["norm.weight"]
    )
    assert line["eval"]["math"]["sampled"] == pytest.approx(float(ended["norm.weight"][0]))
    assert results["stages"][1]["settings"]["entering-weights"] == line["weights"]
    run.seed = 2  # another seed is another training
    pipeline.run_stages(run, todo[:1], {"stages": []})
    assert trained == ["cold_start_sft", "overall_sft", "cold_start_sft"]


def test_a_finished_stage_that_was_made_from_other_weights_is_refused(run):
    results = {
        "stages": [
            {
                "name": "pretrain",
                "model": "student",
                "weights": "aaaa",
                "settings": pipeline.settings_of(run, "pretrain", "student"),
            }
        ]
    }
    entered = pipeline.entering_weights(results, "cold_start_sft", "student")
    assert entered == "aaaa" and pipeline.entering_weights(results, "pretrain", "student") == "none"
    results["stages"].append(
        {
            "name": "cold_start_sft",
            "model": "student",
            "weights": "bbbb",
            "settings": pipeline.settings_of(run, "cold_start_sft", "student", entered),
        }
    )
    chosen = [stage for stage in pipeline.STAGES[:3] if stage[1] == "student"]
    assert pipeline.unfinished(results, run, chosen, force=False) == []
    results["stages"][0]["weights"] = "cccc"
    with pytest.raises(
        ValueError,
        match=r"cold_start_sft \(student\) was finished with other settings "
        r"\(entering-weights aaaa, now cccc\)",
    ):
        pipeline.unfinished(results, run, chosen, force=False)
    assert pipeline.unfinished(results, run, chosen, force=True) == chosen[1:]


def test_the_key_of_a_stage_names_every_model_that_it_was_given():
    found = {}
    for stands_in in (True, False):
        order = [(function.__name__, who) for function, who in pipeline.schedule(stands_in)]
        stages = [{"name": name, "model": who, "weights": f"{name}-{who}"} for name, who in order]
        found[stands_in] = {
            key: pipeline.entering_weights({"stages": stages}, *key) for key in order
        }
    assert found[True]["given_teacher", "teacher"] == "none"
    assert found[True]["distill", "student"] == "overall_sft-student+given_teacher-teacher"
    found = found[False]
    assert found["overall_sft", "teacher"] == "cold_start_sft-teacher"
    assert found["distill", "student"] == "overall_sft-student+overall_sft-teacher"
    assert found["rl_stem", "student"] == "distill-student"
    assert found["rl_preference", "student"] == "rl_code-student+reward_model-student"


def command_line(monkeypatch, capsys, *flags):
    monkeypatch.setattr(
        sys,
        "argv",
        ["pipeline.py", "--smoke", "--threads", "1", "--device", "cpu", *map(str, flags)],
    )
    with pytest.raises(SystemExit) as stop:
        pipeline.main()
    return stop.value.code, capsys.readouterr().err


def test_a_checkpoint_that_was_replaced_is_refused_and_a_redone_stage_loses_its_part_and_its_line(
    run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pipeline, "settings_of", lambda *key: {"all": "the same"})
    student = GPT(SIZES["tiny"]["student"]).init_weights(7)
    save_checkpoint(tmp_path / "pretrain.student.pt", student, run.tokenizer, "pretrain")
    line = {
        "name": "pretrain",
        "model": "student",
        "settings": {"all": "the same"},
        "checkpoint": "pretrain.student.pt",
        "eval": SCORES,
        "weights": digest(student),
    }
    (tmp_path / "results.json").write_text(json.dumps({"stages": [line]}))
    monkeypatch.setattr(pipeline, "run_stages", interrupt)
    flags = ("--stages", "pretrain,cold_start_sft", "--out", tmp_path)
    assert command_line(monkeypatch, capsys, *flags)[0] == 130  # as it was
    save_checkpoint(
        tmp_path / "pretrain.student.pt",
        GPT(SIZES["tiny"]["student"]).init_weights(8),
        run.tokenizer,
        "pretrain",
    )
    code, err = command_line(monkeypatch, capsys, *flags)
    assert (
        code == 2
        and "pretrain.student.pt: holds other weights than those that pretrain (student) ended with"
        in err
        and err.count("\n") == 1
    )
    (tmp_path / "pretrain.student.part").write_text("half")
    monkeypatch.setattr(pipeline, "settings_of", lambda *key: {"all": "changed"})
    assert command_line(monkeypatch, capsys, "--force", *flags)[0] == 130
    assert (
        not (tmp_path / "pretrain.student.part").exists()
        and json.loads((tmp_path / "results.json").read_text())["stages"] == []
    )


@pytest.mark.parametrize(
    "harm, told",
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "is cut off or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is cut off or damaged"),
    ],
    ids=["missing", "empty", "cut off"],
)
def test_a_finished_stage_without_its_checkpoint_is_named_and_force_redoes_it(
    run, tmp_path, monkeypatch, capsys, harm, told
):
    """Of the first of two finished stages: nothing would load it."""
    monkeypatch.setattr(pipeline, "settings_of", lambda *key: {"all": "the same"})
    lines = []
    for k, name in enumerate(("pretrain", "cold_start_sft")):
        model = GPT(SIZES["tiny"]["student"]).init_weights(k)
        save_checkpoint(tmp_path / f"{name}.student.pt", model, run.tokenizer, name)
        lines.append(
            {
                "name": name,
                "model": "student",
                "settings": {"all": "the same"},
                "eval": SCORES,
                "checkpoint": f"{name}.student.pt",
                "weights": digest(model),
            }
        )
    (tmp_path / "results.json").write_text(json.dumps({"stages": lines}))
    monkeypatch.setattr(pipeline, "run_stages", interrupt)
    flags = ("--stages", "pretrain,cold_start_sft", "--out", tmp_path)
    assert command_line(monkeypatch, capsys, *flags)[0] == 130
    harm(path := tmp_path / "pretrain.student.pt")
    assert command_line(monkeypatch, capsys, *flags) == (
        2,
        f"error: {path}: the checkpoint of the finished stage pretrain (student) {told}; put it "
        "back, or --force redoes the stage and what follows\n",
    )
    # a stage that is not asked for may have lost its checkpoint: what follows goes on without it
    assert (
        command_line(
            monkeypatch,
            capsys,
            "--stages",
            "cold_start_sft",
            "--teacher",
            tmp_path / "cold_start_sft.student.pt",
            "--out",
            tmp_path,
        )[0]
        == 130
    )
    assert command_line(monkeypatch, capsys, "--force", *flags)[0] == 130
    assert json.loads((tmp_path / "results.json").read_text())["stages"] == []


def test_a_reward_model_that_was_replaced_is_refused(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "settings_of", lambda *key: {"all": "the same"})
    student = GPT(SIZES["tiny"]["student"]).init_weights(0)
    save_checkpoint(tmp_path / "pretrain.student.pt", student, run.tokenizer, "pretrain")
    path = tmp_path / "reward_model.student.pt"
    save_checkpoint(path, rewards.RewardModel(student), run.tokenizer, "reward_model")
    ends = {
        "pretrain": (student, SCORES),
        "reward_model": (rewards.load_reward_model(path, run.tokenizer), None),
    }
    lines = [
        {
            "name": name,
            "model": "student",
            "settings": {"all": "the same"},
            "eval": scores,
            "checkpoint": f"{name}.student.pt",
            "weights": digest(model),
        }
        for name, (model, scores) in ends.items()
    ]
    (tmp_path / "results.json").write_text(json.dumps({"stages": lines}))
    monkeypatch.setattr(pipeline, "run_stages", interrupt)
    flags = ("--stages", "reward_model,rl_preference", "--out", tmp_path)
    assert command_line(monkeypatch, capsys, *flags)[0] == 130
    other = rewards.RewardModel(GPT(SIZES["tiny"]["student"]).init_weights(1))
    save_checkpoint(path, other, run.tokenizer, "reward_model")
    code, err = command_line(monkeypatch, capsys, *flags)
    assert code == 2 and err.count("\n") == 1
    assert f"{path}: holds other weights than those that reward_model (student) ended with" in err


def started(code, *args, **more):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


@pytest.mark.slow
def test_runs_killed_in_a_stage_and_in_its_evaluation_end_with_the_same_weights_and_results(
    tmp_path,
):
    """kill -9, by the run itself at a step of pretraining behind a save,
    and in the first and the second evaluation."""
    code = """if True:
        import os, signal, sys, pipeline, sft
        from data.runtime import whole_run
        from dataclasses import replace
        where, out = sys.argv[1:3]
        smoke = sft.smoke
        def saving(s): return replace(smoke(s), pretrain=replace(smoke(s).pretrain, save_every=2))
        whole_run.smoke = saving
        scale, evaluate, calls = sft.learning_rate_scale, pipeline.evaluate, []
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        def step(now, *rest):
            if where == "middle" and now == 3: die()
            return scale(now, *rest)
        def look(*args, **how):
            calls.append(1)
            if where == f"evaluation {len(calls)}": die()
            return evaluate(*args, **how)
        sft.learning_rate_scale, pipeline.evaluate = step, look
        sys.argv = ["pipeline.py", "--smoke", "--threads", "1", "--eval-n", "1",
                    "--teacher", "train", "--stages", "pretrain,cold_start_sft", "--out", out]
        pipeline.main()
    """
    for where in ("middle", "evaluation 1", "evaluation 2"):
        process = started(code, where, tmp_path / "killed")
        process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, where
        assert (tmp_path / "killed" / "pretrain.student.part").exists() == (where == "middle")
    for folder in ("killed", "whole"):
        process = started(code, "nowhere", tmp_path / folder)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.count("only its evaluation follows") == (folder == "killed"), out
    results = [
        json.loads((tmp_path / folder / "results.json").read_text())["stages"]
        for folder in ("killed", "whole")
    ]

    def timeless(value):
        return (
            {key: timeless(item) for key, item in value.items() if "seconds" not in key}
            if isinstance(value, dict)
            else value
        )

    assert [timeless(stage) for stage in results[0]] == [timeless(stage) for stage in results[1]]
    assert len(results[0]) == 4
    assert (tmp_path / "killed" / "samples.jsonl").read_bytes() == (
        tmp_path / "whole" / "samples.jsonl"
    ).read_bytes()
    assert not [
        path
        for path in (tmp_path / "killed").rglob("*")
        if path.name == ".lock" or path.suffix in (".tmp", ".part")
    ]


# ---- two runs in one folder ----

HOLD = (
    "import sys, time; from data.runtime.command import out_folder; "
    "out_folder(sys.argv[1]); print('held', flush=True); time.sleep(60)"
)


def test_a_second_run_in_a_folder_is_refused_with_the_others_id_and_a_killed_one_resumes_at_once(
    tmp_path, capsys
):
    other = started(HOLD, tmp_path)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            ValueError, match=rf"another run is writing there \(process {other.pid}\)"
        ) as caught:
            command.out_folder(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    finally:
        other.kill()
        other.communicate()
    assert (
        command.out_folder(tmp_path) == tmp_path
        and (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    )
    command.release()
    assert not list(tmp_path.iterdir())


def test_a_folder_is_held_by_rank_0_alone_and_again_by_who_holds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    command.out_folder(tmp_path)
    assert not command.HELD and not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    command.out_folder(tmp_path)
    command.out_folder(tmp_path)
    assert list(command.HELD) == [tmp_path / ".lock"]
    command.release()
    assert not command.HELD


def test_a_folder_that_cannot_be_written_is_refused_before_any_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError) as caught:
            command.out_folder(path)
        assert str(caught.value) == (
            f"{path}: the folder cannot be made ({tmp_path / 'file'} is a file); give another --out"
        )
    long = tmp_path / ("x" * 300)
    with pytest.raises(OSError) as caught:
        command.out_folder(long)
    assert str(caught.value) == (
        f"{long}: the folder cannot be made (File name too long); give another --out"
    )
    monkeypatch.setattr(
        builtins,
        "open",
        lambda *args, **how: (_ for _ in ()).throw(PermissionError(13, "Permission denied")),
    )
    with pytest.raises(
        OSError, match="run: nothing can be written there .Permission denied.; give another --out"
    ):
        command.out_folder(tmp_path / "run")
    monkeypatch.setattr(
        Path,
        "mkdir",
        lambda *args, **how: (_ for _ in ()).throw(PermissionError(13, "Permission denied")),
    )
    with pytest.raises(
        OSError, match="more: the folder cannot be made .Permission denied.; give another --out"
    ):
        command.out_folder(tmp_path / "more")


def test_an_export_or_a_kept_sft_into_a_place_where_a_file_is_ends_in_one_line(
    tmp_path, tokenizer, monkeypatch
):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        export_model(GPT(Config(768, 256, 1, 16, 2, 1, 24)), tokenizer, tmp_path / "file")
    assert str(caught.value).endswith("file is a file); give another --export DIR")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    monkeypatch.setattr(sft, "pretrain", never)  # before minutes of training
    args = command.common_flags("x", "runs/x").parse_args(["--smoke"])
    args.init = None
    with pytest.raises(OSError) as caught:
        sft.starting_model(args, "student", tokenizer, CPU)
    assert str(caught.value) == (
        "runs/sft-tiny-smoke-seed1: the folder cannot be made (runs is a "
        "file); give --init CHECKPOINT"
    )


@pytest.mark.parametrize("name", ["sft", "dpo", "distill", "ppo", "reward_model", "self_reward"])
@pytest.mark.slow
def test_every_concept_file_holds_its_folder_while_it_trains(concept, name, monkeypatch, tmp_path):
    module, held = EVALUATIONS[name][0], []
    in_place(monkeypatch, module, "evaluate", lambda *args, **how: {})

    def stop(*args, **how):
        held.append([path.parent for path in command.HELD])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "next_iteration_model" if name == "self_reward" else "train", stop)
    assert concept(name)[0] == 130
    assert (
        held == [[tmp_path / "out"]]
        and not command.HELD
        and not (tmp_path / "out" / ".lock").exists()
    )


# ---- files whole or not at all; one line for every failure ----

LIMITED = """if True:
    import resource, sys
    from pathlib import Path
    import torch
    from data.files import checkpoints, formats, writing
    from data.runtime import command
    path = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    def attempt(write):
        try:
            write()
        except OSError as error:
            print(error)
    attempt(lambda: checkpoints.write(path / "x.pt", {"a": torch.zeros(100_000)}))
    attempt(lambda: writing.write_text(path / "x.txt", "x" * 200_000))
    attempt(lambda: checkpoints.try_room(path / "y.pt", torch.nn.Linear(300, 300)))
    checkpoints.try_room(path / "y.pt", torch.nn.Linear(3, 3))
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX limits the size of a file")
def test_a_full_disk_is_one_line_that_names_the_file_and_leaves_what_was_there(tmp_path):
    for name in ("x.pt", "x.txt"):
        (tmp_path / name).write_text("as it was")
    out, err = started(LIMITED, tmp_path).communicate(timeout=60)
    lines = out.splitlines()
    assert err == "" and len(lines) == 3, (out, err)
    assert all(
        line.startswith(f"{tmp_path / name}: cannot be written")
        for line, name in zip(lines, ("x.pt", "x.txt", "y.pt"))
    )
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "x.pt": "as it was",
        "x.txt": "as it was",
    }


@pytest.mark.skipif(os.name != "posix", reason="only POSIX limits the size of a file")
def test_under_a_limit_on_the_size_of_files_a_command_ends_before_it_trains(tmp_path, tokenizer):
    save_checkpoint(tmp_path / "init.pt", small(0), tokenizer, "overall_sft")
    writing.write_jsonl(
        tmp_path / "pairs.jsonl",
        [
            {"prompt": f"Name {n}.", "chosen": "Mars " * n, "rejected": "No. " * n}
            for n in range(1, 7)
        ],
    )
    code = """if True:
        import resource, sys, dpo
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        dpo.train = None
        dpo.main()
    """
    process = started(
        code,
        "--smoke",
        "--threads",
        1,
        "--device",
        "cpu",
        "--init",
        tmp_path / "init.pt",
        "--data",
        tmp_path / "pairs.jsonl",
        "--out",
        tmp_path / "out",
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith(
        f"error: {tmp_path}/out/dpo.pt: cannot be written (File too large); "
        "the checkpoint needs 0.1 MB"
    )
    assert err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_temporary_file_is_removed_on_any_failure(tmp_path, tiny_model, monkeypatch):
    def fails(content, name):
        Path(name).write_text("half")
        raise RuntimeError(
            "[enforce fail at inline_container.cc:664] . unexpected pos 128 vs 22\nframe #0"
        )

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="x.pt: cannot be written .*the disk is full") as caught:
        write(tmp_path / "x.pt", {})
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        with writing.replacing(tmp_path / "y"):
            (tmp_path / "y.tmp").write_text("half")
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error, told",
    [
        (MemoryError(), "out of memory; a smaller --size or --recompute needs less"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee docs"),
            "out of memory (CUDA out of memory. Tried to allocate 2 GiB.)",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. "
                "DefaultCPUAllocator: can't allocate memory: you tried"
            ),
            "out of memory (",
        ),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ValueError("two\nlines"), "two lines"),
    ],
)
def test_a_failure_that_is_no_mistake_in_the_code_is_one_line_and_code_two(error, told, capsys):
    def run():
        raise error

    with pytest.raises(SystemExit) as stop:
        command.guarded(run)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith(f"error: {told}") and err.count("\n") == 1


def test_memory_that_the_cpu_refuses_is_such_a_failure(capsys):
    with pytest.raises(SystemExit):
        command.guarded(lambda: torch.empty(2**55))
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory (") and err.count("\n") == 1
    with pytest.raises(RuntimeError, match="shape"):  # a mistake in the code keeps its traceback
        command.guarded(lambda: (_ for _ in ()).throw(RuntimeError("a wrong shape")))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_whose_weights_are_not_finite_is_refused_wherever_it_is_read(
    tmp_path, tokenizer, value
):
    model = small(0)
    with torch.no_grad():
        model.blocks[0].down.weight[0, 0] = value
    save_checkpoint(tmp_path / "x.pt", model, tokenizer, "sft", key="k", measured={})
    save_checkpoint(tmp_path / "rm.pt", rewards.RewardModel(model), tokenizer, "reward_model")
    with pytest.raises(ValueError, match="x.pt: blocks.0.down.weight is not finite"):
        load_checkpoint(tmp_path / "x.pt", tokenizer)
    with pytest.raises(ValueError, match=r"rm.pt: .*blocks.0.down.weight is not finite"):
        rewards.load_reward_model(tmp_path / "rm.pt", tokenizer)
    assert checkpoints.kept_training(tmp_path / "x.pt", "k") is None
    pytest.importorskip("safetensors")
    export_model(model, tokenizer, tmp_path / "folder")
    with pytest.raises(ValueError, match="folder: blocks.0.down.weight is not finite"):
        load_checkpoint(tmp_path / "folder", tokenizer)


def test_a_damaged_directory_is_one_line(tmp_path, tokenizer):
    pytest.importorskip("safetensors")
    export_model(small(0), tokenizer, tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    config = json.loads((tmp_path / "config.json").read_text())
    for damaged in (whole[:-100], whole[:4], b"", b"\xff" * 50):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="model.safetensors: cannot be read") as caught:
            load_checkpoint(tmp_path, tokenizer)
        assert "\n" not in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(whole)
    for name, wrong in (("hidden_size", 32), ("hidden_size", "sixteen")):
        (tmp_path / "config.json").write_text(json.dumps(config | {name: wrong}))
        with pytest.raises(ValueError, match="other shapes than config.json says"):
            load_checkpoint(tmp_path, tokenizer)


def test_an_export_that_fails_leaves_no_half_file(tmp_path, tokenizer, monkeypatch):
    safetensors = pytest.importorskip("safetensors.torch")

    def fails(tensors, name, **how):
        Path(name).write_bytes(b"half")
        raise RuntimeError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(safetensors, "save_file", fails)
    with pytest.raises(OSError, match="model.safetensors: cannot be written .*No space left"):
        export_model(small(0), tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())


# ---- the terminal ----

SHOWN = ("sft.py", "--show-mask", "--threads", "1")


def shown(tmp_path, **more):
    writing.write_jsonl(tmp_path / "x.jsonl", [{"prompt": "Größe?", "response": "Größe ☃"}])
    return subprocess.run(
        [sys.executable, *SHOWN, "--data", str(tmp_path / "x.jsonl")],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        **more,
    )


@pytest.mark.slow
def test_what_the_console_cannot_show_is_escaped(tmp_path):
    done = shown(tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (
        done.returncode == 0
        and rb"<|user|>Gr\xf6\xdfe?<|assistant|>[G][r][][\xf6][][\xdf][e]" in done.stdout
        and done.stderr == b""
    )


@pytest.mark.skipif(os.name != "posix", reason="closes file descriptors by their numbers")
@pytest.mark.parametrize(
    "closed",
    [
        pytest.param((1,), marks=pytest.mark.slow),
        pytest.param((2,), marks=pytest.mark.slow),
        (0, 1, 2),
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_training_outlives_a_terminal_that_is_closed(tmp_path, tokenizer, closed):
    save_checkpoint(tmp_path / "init.pt", small(0), tokenizer, "overall_sft")
    writing.write_jsonl(
        tmp_path / "pairs.jsonl",
        [
            {"prompt": f"Name {n}.", "chosen": "Mars " * n, "rejected": "No. " * n}
            for n in range(1, 7)
        ],
    )
    flags = [
        "--smoke",
        "--threads",
        1,
        "--device",
        "cpu",
        "--init",
        tmp_path / "init.pt",
        "--data",
        tmp_path / "pairs.jsonl",
        "--out",
        tmp_path / "out",
    ]
    redirected = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "dpo.py", *map(str, flags)],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert load_checkpoint(tmp_path / "out" / "dpo.pt", tokenizer)[1]["stage"] == "dpo"


def test_a_pipe_that_nobody_reads_any_more_does_not_end_a_run(monkeypatch):
    """`| head -1`: what is printed after it is lost,
    and Python's last flush finds nothing to complain about."""
    code = (
        "import sys, time; from data.runtime.command import Parser; Parser('x').parse_args([]); "
        "print('first', flush=True); sys.stdin.readline()\n"
        "for k in range(3): print('x' * 9000, flush=True)\n"
        "print('end'); sys.stderr.write('alive')"
    )
    process = started(code, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "first\n"
    process.stdout.close()
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == "alive"


def test_a_home_folder_is_meant_by_a_tilde_in_every_flag(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    parser = command.common_flags("x", "runs/x")
    parser.add_argument("--init")
    parser.add_argument("runs", nargs="*")
    args = parser.parse_args(["~/run", "--out=~/out", "--data=~/a/b.jsonl", "--init", "~/x.pt"])
    expected = [os.path.join(str(tmp_path), part) for part in ("run", "out", "a/b.jsonl", "x.pt")]
    assert [args.runs[0], args.out, args.data, args.init] == expected


def test_a_closed_standard_input_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="standard input is closed"):
        command.ask("you> ")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(EOFError):
        command.ask("you> ")


# ---- characters of several tokens ----

TEXT = "Größe ☃ 😀"


def test_a_character_of_several_tokens_stands_whole_at_its_last_one(tokenizer):
    ids = tokenizer.encode(TEXT)
    pieces = tokenizer.pieces(ids)
    assert (
        len(pieces) == len(ids) > len(TEXT)
        and "".join(pieces) == TEXT == tokenizer.shown(ids)
        and "\ufffd" not in "".join(pieces)
    )
    assert pieces[2:4] == ["", "ö"]
    assert tokenizer.pieces(tokenizer.encode("ö")[:1]) == ["\ufffd"] and tokenizer.pieces([]) == []
    assert (
        tokenizer.shown([*tokenizer.encode("ö"), tokenizer.end_id, tokenizer.pad_id])
        == "ö<|end|><|pad|>"
    )


def test_show_mask_writes_whole_characters_and_a_bracket_for_every_supervised_token(
    tokenizer, capsys
):
    sft.show_mask(
        tokenizer,
        {"messages": [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]},
    )
    out = capsys.readouterr().out
    assert out.startswith(f"<|user|>{TEXT}<|assistant|>[G][r][][ö][][ß][e]") and "\ufffd" not in out
    assert out.count("[") == len(tokenizer.encode(TEXT)) + 1


def scripted(tokenizer, monkeypatch, module):
    """The module's generate writes TEXT and the end mark, to every prompt."""
    from data.runtime.decoding import Samples

    ids = torch.tensor([*tokenizer.encode(TEXT), tokenizer.end_id])

    def generate(model, tokenizer, prompts, n=1, **how):
        count = len(prompts) * n
        return Samples(
            ids.repeat(count, 1),
            torch.zeros(count, len(ids)),
            torch.ones(count, len(ids), dtype=torch.bool),
            torch.full((count,), len(ids)),
            torch.zeros(count, dtype=torch.bool),
        )

    monkeypatch.setattr(module, "generate", generate)


def test_the_samples_of_a_run_hold_whole_characters(run, tokenizer, monkeypatch):
    scripted(tokenizer, monkeypatch, samples)
    pipeline.answer_samples(run, "pretrain", "student")
    assert {line["reply"] for line in formats.read_jsonl(run.out / "samples.jsonl")} == {
        f"{TEXT}<|end|>"
    }
    assert f"`{TEXT}<|end|>`" in (run.out / "samples.md").read_text(encoding="utf-8")


def test_the_table_of_a_rollout_holds_whole_characters(tokenizer, monkeypatch, capsys):
    scripted(tokenizer, monkeypatch, rollouts)
    args = SimpleNamespace(stage="rl_preference", seed=1, reference=None)
    given = SimpleNamespace(args=args, tokenizer=tokenizer, device=CPU)
    how = {"rollout": ppo.rollout, "reward": ppo.token_rewards, "critic": None}
    rl_alone.show_rollout(given, small(0), rewards.RewardModel(small(0)), PPO, None, **how)
    out = capsys.readouterr().out
    assert "'ö'" in out and "'ß'" in out and "'☃'" in out and "\ufffd" not in out


def test_the_pairs_of_distillation_hold_whole_characters(tokenizer, monkeypatch):
    scripted(tokenizer, monkeypatch, distill.asking)
    tasks = world.draw_tasks(world.generator(1, "x"), ("math",), 2)
    plain, ids = tokenizer.encode("7"), tokenizer.prompt(tasks[0].messages)

    def wrong(student, tokenizer, asked, *args, **how):
        rows = [
            (ids + [*plain, tokenizer.end_id], [False] * len(ids) + [True] * (len(plain) + 1))
            for _ in asked
        ]
        return rows, [0.0] * len(asked)

    monkeypatch.setattr(distill, "sample_negative", wrong)
    monkeypatch.setattr(distill.asking, "scored", lambda tasks, replies: [1.0] * len(tasks))
    records = distill.preference_data(
        small(1), small(0), tokenizer, distill.Settings(), seed=1, device=CPU, tasks=tasks
    )[2]
    assert [record["positive"] for record in records] == [f"{TEXT}<|end|>"] * 2
    assert records[0]["negative"] == "7<|end|>"
