"""Every flag of every command against what it must reach: a setting, a seed, a file, a model.

A command runs with all that takes long replaced by recorders. An entry of TABLE says how a flag
is given, what to look at and the value that must be there; without the flag another value is there.
A last item says what is then given instead. A flag without an entry fails a test.
"""

import argparse
import builtins
import importlib
import re
import sys
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from recorder import Recorder

import data.runtime.devices
import distill
import dpo
import model as models
import pipeline
import ppo
import reward_model
import self_reward
import sft
from data import world
from data.files import checkpoints, comparisons, keys, preview, writing
from data.files import tokenizer as tokenizers
from data.runtime import alone, annotator, rl_alone, sizes, whole_run
from model import GPT, Config
from tests.experiments import (
    ceiling,
    cheating,
    compare,
    control,
    copying,
    curriculum,
    distill_ablation,
    judge_controls,
    overoptimise,
    pass_at_k,
    readiness,
    targets,
    teacher,
    ties,
)

# what replaces a measurement: whatever is looked up in it is there
SCORES = {
    domain: {"greedy": 0.5, "sampled": 0.5, "cool": 0.5, "n": 1, "low": 0.1, "high": 0.9}
    for domain in (*world.DOMAINS, "phrasing")
}
SIZES = ("tiny", "small", "base")


class Seen:
    """What a command did, to look at."""

    def __init__(self, calls, out):
        self.calls, self.out = list(calls), out

    def __getattr__(self, name):  # the arguments of the first call of `name`, or None
        return next(iter(self.of(name)), None)

    def of(self, name):
        return [given for called, given in self.calls if called == name]

    def times(self, name):
        return len(self.of(name))


def small(tokenizer, context=512) -> GPT:
    return GPT(Config(tokenizer.vocab_size, context, 1, 8, 1, 1, 8)).init_weights(0)


def through(function):
    return lambda **given: function(**given)


def measured(**given):
    judge = {
        "pairwise": 0.5,
        "parsed": 1.0,
        "ties": 0.0,
        "exact": 0.5,
        "spearman": 0.5,
        "kendall": 0.5,
    }
    return {
        "true_reward": 1.0,
        "correct": 0.5,
        "polite": 0.5,
        "length": 9.0,
        "judge": judge,
        "against_previous": {"wins": 0.3, "ties": 0.4, "losses": 0.3, "win_share": 0.5},
    }


@pytest.fixture
def see(monkeypatch, tokenizer, tmp_path, capsys):
    """see(command, flags) -> what it did, in a folder with the SFT checkpoints of every size."""
    monkeypatch.chdir(tmp_path)
    starts = [f"{size}-seed{seed}" for size in SIZES for seed in (1, 5)]
    for path in (*(f"runs/{start}" for start in starts), "runs/sft-tiny-smoke-seed1", "run"):
        (tmp_path / path).mkdir(parents=True)
        for who in ("student", "teacher"):
            (tmp_path / path / f"overall_sft.{who}.pt").write_bytes(b"")
    for name in (
        "init.pt",
        "teacher.pt",
        "reward.pt",
        "run/cold_start_sft.student.pt",
        "run/given_teacher.teacher.pt",
        "run/rl_stem.student.pt",
        "run/distill_rehearsal.jsonl",
    ):
        (tmp_path / name).write_bytes(b"")
    lines = {
        "pairs": [
            {"prompt": f"Fruit {k}?", "chosen": f"Plum {k}.", "rejected": "No."} for k in range(40)
        ],
        "dialogues": [{"prompt": f"Fruit {k}?", "response": f"Plum {k}."} for k in range(40)],
    }
    for name, records in lines.items():
        writing.write_jsonl(tmp_path / f"{name}.jsonl", records)
    (tmp_path / "text.txt").write_text("abc " * 400)
    (tmp_path / "files").mkdir()
    writing.write_jsonl(
        tmp_path / "files/math.jsonl",
        [{"question": f"{k}+{k}?", "answer": f"#### {2 * k}"} for k in range(60)],
    )
    writing.write_jsonl(
        tmp_path / "files/code.jsonl",
        [
            {
                "text": f"Add {k}.",
                "code": f"def f(x): return x+{k}",
                "test_list": [f"assert f(1) == {1 + k}"],
            }
            for k in range(60)
        ],
    )
    writing.write_jsonl(tmp_path / "files/preference.jsonl", lines["pairs"] * 2)
    writing.write_json(
        tmp_path / "run/results.json",
        {
            "seed": 3,
            "stages": [
                {
                    "name": "rl_stem",
                    "model": "student",
                    "eval": SCORES,
                    "checkpoint": "rl_stem.student.pt",
                }
            ],
        },
    )
    writing.write_json(tmp_path / "other.json", {"marked": 1})
    recorder, spoken = Recorder(monkeypatch), {"messages": [{"role": "user", "content": "x"}]}
    own = {
        "tokens": 1,
        "seconds": 1.0,
        "held_out_loss": 0.5,
        "held_out_losses": [0.5],
        "losses_a_character": [0.5],
        "rows": 1,
        "held_out_rows": 1,
        "loss": 0.5,
        "kl": 0.5,
        "reward": 0.5,
        "first_reward": 0.5,
        "filter": {},
        "pairs": 1,
        "queries": 1,
        "sampling_seconds": 1.0,
        "parsed": 1.0,
        "novel": 1.0,
        "accuracy": 0.5,
        "annotator_agreement": 0.5,
        "true_accuracy": 0.5,
        "tie_width": 0.5,
        "calibration": [{"predicted": 0.6, "observed": 0.5, "pairs": 1}],
    }
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # or it has no signature
    recorder.stand_in(torch, "set_num_threads")
    recorder.stand_in(data.runtime.devices.sandbox, "disable")
    monkeypatch.setattr(GPT, "compile", lambda self, **how: None)
    # device meta shows where a model was sent, and has no weights to take a digest of
    monkeypatch.setattr(keys, "digest", lambda *values: "")
    for name in ("try_room", "save_checkpoint"):
        recorder.stand_in(checkpoints, name)
    places = (
        alone,
        whole_run,
        sft,
        dpo,
        reward_model,
        ppo,
        distill,
        self_reward,
        pipeline,
        models,
        ceiling,
        compare,
        control,
        copying,
        curriculum,
        distill_ablation,
        judge_controls,
        overoptimise,
        pass_at_k,
        readiness,
        targets,
        teacher,
        ties,
        preview,
    )
    answers = {
        "evaluate": SCORES,
        "held_out_loss": 0.5,
        "save_checkpoint": None,
        "rehearsal_data": lambda **given: [f"rehearsal {given['size']} {given['seed']}"],
        "chat_prompts": lambda **given: [f"prompt {given['size']} {given['seed']}"],
        "tokenizer_of": tokenizer,
        "fresh_model": lambda **given: small(tokenizer),
        "judge_report": lambda **given: measured()["judge"],
        "measure": measured,
        "load_checkpoint": lambda **given: (small(tokenizer), {"stage": "a stage"}),
        "load_reward_model": lambda **given: f"loaded {given['path']}",
        "pass_rates": lambda **given: [0.5 for _ in given["tasks"]],
        "reference_logprobs": lambda **given: 2 * (torch.zeros(len(given["pairs"])),),
    }
    for place in places:
        for name, answer in answers.items():
            if callable(getattr(place, name, None)):
                recorder.stand_in(place, name, answer)
    for name in ("pretrain", "cold_start_sft", "overall_sft", "pretrain_on_text", "sft_on_rows"):
        recorder.stand_in(sft, name, own)
    recorder.stand_in(sft, "show_mask")
    for place in (sft, dpo, reward_model):
        recorder.stand_in(place, "show")
    for place in (distill, self_reward):
        recorder.stand_in(place, "show")
    for place in (dpo, reward_model, ppo):
        recorder.stand_in(place, "train", own)
    recorder.stand_in(dpo, "annotated_pairs", lambda **given: [(k, k) for k in range(20)])
    recorder.stand_in(reward_model, "reward_model", ("a trained reward model", own))
    recorder.stand_in(
        annotator,
        "sample_outputs",
        lambda **given: [
            [(prompt + [7], [False] * len(prompt) + [True])] * given["outputs"]
            for prompt in given["prompts"]
        ],
    )
    recorder.stand_in(annotator, "annotated_rankings", lambda **given: [])
    for place, name in ((reward_model, "held_out_report"), (annotator, "report")):
        recorder.stand_in(place, name, own)
    recorder.stand_in(ppo, "rl_stage", own)
    recorder.stand_in(
        ppo,
        "rollout",
        SimpleNamespace(scores=None, old_logprobs=None, reference_logprobs=None, mask=None),
    )
    recorder.stand_in(ppo, "token_rewards")
    recorder.stand_in(rl_alone, "rollout_table", "")
    recorder.stand_in(ppo, "show")
    recorder.stand_in(distill, "distill", own)
    recorder.stand_in(distill, "preference_data", lambda **given: ([], [], [], {}))
    recorder.stand_in(
        self_reward, "next_iteration_model", lambda **given: (f"M_{given['round_number'] + 1}", own)
    )
    recorder.stand_in(
        pipeline, "run_stages", lambda run, todo, results: results.update(seconds=1.0)
    )
    recorder.stand_in(
        data.runtime.talk,
        "generate",
        lambda **given: SimpleNamespace(
            lists=lambda: [[tokenizer.end_id]] * given["n"],
            lengths=torch.ones(given["n"]),
            own=torch.ones(given["n"], 1, dtype=torch.bool),
        ),
    )
    recorder.stand_in(models, "export")
    recorder.stand_in(preview, "context_of", 512)
    for name in ("report", "rows_of"):
        recorder.stand_in(distill_ablation, name, [])
    recorder.stand_in(judge_controls, "report")
    recorder.stand_in(overoptimise, "measured", {"kl": 1.0, "rm": 1.0, "true": 1.0})
    recorder.stand_in(overoptimise, "best_of", [])
    recorder.stand_in(overoptimise, "plot")
    recorder.stand_in(pass_at_k, "plot")
    recorder.stand_in(targets, "build", [])
    for place in (ceiling, teacher):
        recorder.stand_in(
            place, "by_family", {"sum": {"domain": "math", "n": 1, "score": 0.5, "facts": 0}}
        )
    for name in ("family_scores", "honest_scores"):
        recorder.stand_in(
            cheating, name, {"all": {"a reply": 0.5}} if name[0] == "f" else {"all": 1.0}
        )
    recorder.stand_in(cheating, "judge_scores", {"always 3": 0.5})
    recorder.stand_in(copying, "curve", [{"step": 0, "copied": 0.5}])
    recorder.stand_in(copying, "plot")
    recorder.stand_in(writing, "write_json")
    for name in ("rl_code", "distill"):
        recorder.stand_in(pipeline, name, own)
    for place, name in ((pipeline, "unfinished"), (world, "evaluation_tasks")):
        recorder.stand_in(place, name, through(getattr(place, name)))
    recorder.stand_in(
        world,
        "overall_demonstrations",
        lambda **given: {"reasoning": [[spoken] * 40], "chat": [spoken]},
    )
    recorder.stand_in(alone.hf_tokenizer, "portable", tokenizer)
    recorder.stand_in(tokenizers, "trained")
    recorder.stand_in(world, "documents", lambda **given: ["a text"] * given["count"])
    recorder.stand_in(world, "tokenizer_text", ["abc"])
    recorder.stand_in(world, "evaluation_hash", "")
    for name in ("train", "save"):
        recorder.stand_in(tokenizers, name)

    def command(name, flags):
        recorder.calls.clear()
        typed = ["Hello?"]

        def answer(*prompt):
            if not typed:
                raise EOFError
            return typed.pop()

        monkeypatch.setattr(builtins, "input", answer)
        monkeypatch.setattr(sys, "argv", [name, *flags.split()])
        importlib.import_module(name).main()
        return Seen(recorder.calls, capsys.readouterr().out)

    return command


# ---- what there is to look at: functions of what was seen ----


def of(call, *path):
    """An argument of the first call, and what lies in it; None where nothing was called."""

    def look(seen):
        value = getattr(seen, call)
        for k, name in enumerate(path if value is not None else ()):
            value = value[name] if k == 0 else getattr(value, name)
        return value

    return look


def in_run(*path):
    """Of the run that the pipeline starts."""
    return of("run_stages", "run", *path)


def in_round(*path):
    """Of the first round of self-rewarding."""
    return of("next_iteration_model", *path)


def size_of(call, name):
    return lambda seen: len(of(call, name)(seen) or ())


def texts(call, *path):
    return lambda seen: str(of(call, *path)(seen))


def every(call, name):
    return lambda seen: {str(given[name]) for given in seen.of(call)}


def each(call, *path):
    """The same of every call, in order."""
    return lambda seen: [of(call, *path)(Seen([(call, given)], "")) for given in seen.of(call)]


def of_stage(name, field):
    """A setting of a stage of the pipeline, each time that the stage is run."""
    return lambda seen: [getattr(given["run"].stages[name], field) for given in seen.of(name)]


def times(*calls):
    return lambda seen: [seen.times(call) for call in calls]


def loaded(seen):
    return [str(given["path"]) for given in seen.of("load_checkpoint")]


def first_loaded(seen):
    return loaded(seen)[:1]


def then_loaded(seen):
    return loaded(seen)[1:]


def folders(seen):
    return [path.split("/")[0] for path in loaded(seen)]


def seeds(seen):
    return {str(given["seed"]) for _, given in seen.calls if "seed" in given}


def devices(seen):
    return {given["device"].type for _, given in seen.calls if "device" in given}


def held_out(seen):
    return {given["settings"].held_out for _, given in seen.calls if "settings" in given}


def pairs_read(seen):
    data = seen.run_stages["run"].data
    return len(data.pairs) if data else 0


def kl_coefs(seen):
    return sorted({given["settings"].kl_coef for given in seen.of("train")})


def timed_seed(seen):
    return (seen.build["time_run"] or {}).get("seed")


def hash_told(seen):
    return "evaluation hash" in seen.out


def run_folders(seen):
    return [str(out) for out in each("run_stages", "run", "out")(seen)]


def written(seen):
    """The folders of everything that is written to `there`."""
    paths = [
        str(given[name])
        for _, given in seen.calls
        for name in ("log", "path", "data")
        if given.get(name)
    ]
    return {path.rpartition("/")[0] for path in paths if path.startswith("there")}


def stages_to_do(model):
    return lambda seen: [
        function.__name__ for function, who in seen.run_stages["todo"] if who == model
    ]


to_do = stages_to_do("student")


def student(*path):
    return lambda seen: attrgetter(*path)(seen.run_stages["run"].models["student"])


# ---- the table: command, flag, how it is given, what to look at, what must be there ----

# the function that does a command's work, and what the model is called there
TRAINER = {
    "sft": "cold_start_sft",
    "dpo": "train",
    "reward_model": "reward_model",
    "ppo": "rl_stage",
    "distill": "distill",
    "self_reward": "next_iteration_model",
}
MODEL = {
    "sft": "model",
    "dpo": "model",
    "reward_model": "policy",
    "ppo": "policy",
    "distill": "student",
    "self_reward": "model",
}
SMALL = sft.SCHEDULES["small"]["student"]
SIZE = {
    "sft": ("schedule", "cold_start", "rows", SMALL.cold_start.rows),
    "dpo": ("settings", "rows", sizes.LARGER["small"]["dpo"]["rows"]),
    "reward_model": ("settings", "prompts", sizes.LARGER["small"]["reward_model"]["prompts"]),
    "ppo": ("settings", "samples", sizes.LARGER["small"]["rl_stem"]["samples"]),
    "distill": ("settings", "queries", sizes.LARGER["small"]["distill"]["queries"]),
    "self_reward": ("settings", "requests", sizes.LARGER["small"]["self_reward"]["requests"]),
}
SMOKE = {
    "sft": ("schedule", "cold_start", "steps", sizes.SMOKE["sft"]["steps"]),
    "dpo": ("settings", "steps", sizes.SMOKE["dpo"]["steps"]),
    "reward_model": ("settings", "prompts", sizes.SMOKE["reward_model"]["prompts"]),
    "ppo": ("settings", "iterations", sizes.SMOKE["rl_stem"]["iterations"]),
    "distill": ("settings", "steps", sizes.SMOKE["distill"]["steps"]),
    "self_reward": ("settings", "requests", sizes.SMOKE["self_reward"]["requests"]),
}
# what must be given in any case
COMPARED = "rl_code lr=0.5 lr=0.25 run"
BASE = {
    "model": "teacher.pt",
    "data.files.preview": "pairs.jsonl",
    "tests.experiments.compare": COMPARED,
    "tests.experiments.readiness": "init.pt",
    "tests.experiments.teacher": "--out teacher.pt",
    **{
        f"tests.experiments.{name}": "run"
        for name in (
            "control",
            "curriculum",
            "distill_ablation",
            "judge_controls",
            "overoptimise",
            "pass_at_k",
            "targets",
            "ties",
        )
    },
}

TABLE = []
for name, trainer in TRAINER.items():
    model = MODEL[name]
    device = of(trainer, model, "embedding", "weight", "device", "type")
    TABLE += [
        (name, "size", "--size small", of(trainer, *SIZE[name][:-1]), SIZE[name][-1]),
        (name, "smoke", "--smoke", of(trainer, *SMOKE[name][:-1]), SMOKE[name][-1]),
        (name, "seed", "--seed 5", seeds, {"5"}),
        (name, "device", "--device meta", device, "meta"),
        (name, "threads", "--threads 7", of("set_num_threads", "threads"), 7),
        (name, "out", "--out there", written, {"there"}),
        (name, "compile", "--compile", of(trainer, model, "compiled"), True),
        (name, "recompute", "--recompute", of(trainer, model, "recompute"), True),
        (name, "no_exec", "--no-exec", times("disable"), [1]),
        (name, "init", "--init init.pt", first_loaded, ["init.pt"]),
        (name, "init", "--init init.pt", every("tokenizer_of", "path"), {"init.pt"}),
    ]
    if name != "sft":  # starts from SFT's checkpoint
        path = "runs/small-seed1/overall_sft.student.pt"
        TABLE += [(name, "size", "--size small", first_loaded, [path])]
    if name != "reward_model":
        TABLE += [
            (name, "eval_n", "--eval-n 9", every("evaluate", "n"), {"9"}),
            (name, "smoke", "--smoke", every("evaluate", "n"), {"4"}),
        ]
for name in ("ppo", "self_reward"):
    rehearsal = of(TRAINER[name], "rehearsal")
    TABLE += [
        (name, "size", "--size small", rehearsal, ["rehearsal small 1"]),
        (name, "seed", "--seed 5", rehearsal, ["rehearsal tiny 5"]),
    ]
for name in ("ppo", "distill", "self_reward"):
    TABLE += [(name, "data", "--data pairs.jsonl", None, "--data")]  # refused, by its name
for name, flags in {
    "dpo": {"steps": 3, "lr": 0.25, "beta": 0.75, "kind": "ipo", "nll_coef": 0.5},
    "reward_model": {"ties": "davidson", "outputs": 7},
    "ppo": {
        "estimator": "gae",
        "kl_coef": 0.5,
        "iterations": 3,
        "lr": 0.25,
        "baseline": "zscore",
        "normalise": "constant",
        "ratio": "sequence",
    },
    "distill": {
        "steps": 3,
        "direction": "jsd",
        "dpo_coef": 0.75,
        "pos_coef": 0.25,
        "neg_coef": 0.5,
        "rehearsal_rows": 0,
    },
    "self_reward": {"rho": 0.25},
}.items():
    # flags that are called as the setting that they reach
    for flag, value in flags.items():
        given = f"--{flag.replace('_', '-')} {value}"
        TABLE += [(name, flag, given, of(TRAINER[name], "settings", flag), value)]
OWN_DIALOGUES = "--data dialogues.jsonl"
OWN_PAIRS = "--data pairs.jsonl"
HELD_OUT_OF_10, HELD_OUT_OF_20 = 3, 1  # of its 40 prompts
SHORT = 16  # tokens, which the ten prompts with one digit keep to
ROLLOUT = "--show-rollout"
SFT_STAGES = ["pretrain", "cold_start_sft", "overall_sft"]
TINY_SMOKE = {who: sft.smoke(schedule) for who, schedule in sft.SCHEDULES["tiny"].items()}
TRAINED_TEACHER = "runs/tiny-seed1/overall_sft.teacher.pt"
SAMPLING_SEED = data.runtime.devices.seed_of(5, 1)
ASKED = [tokenizers.tiny().prompt([{"role": "user", "content": "Why?"}])]
rounds = each("next_iteration_model", "round_number")
TABLE += [
    ("sft", "data", OWN_DIALOGUES, size_of("sft_on_rows", "rows"), 40),
    ("sft", "data", "--data text.txt --pretrain", of("pretrain_on_text", "text"), "abc " * 400),
    ("sft", "pretrain", "--pretrain", times("pretrain", "cold_start_sft"), [1, 0]),
    ("sft", "show_mask", f"--show-mask {OWN_DIALOGUES}", times("show_mask", "sft_on_rows"), [3, 0]),
    ("sft", "show", "--show", times("show", "cold_start_sft"), [1, 0]),
    ("sft", "steps", "--steps 3", of("cold_start_sft", "schedule", "cold_start", "steps"), 3),
    ("sft", "steps", "--steps 3 --pretrain", of("pretrain", "schedule", "pretrain", "steps"), 3),
    ("sft", "steps", f"--steps 3 {OWN_DIALOGUES}", of("sft_on_rows", "settings", "steps"), 3),
    ("dpo", "data", "--data pairs.jsonl", times("annotated_pairs"), [0]),
    ("dpo", "show", "--show", times("show", "train"), [1, 0]),
    ("reward_model", "data", "--data pairs.jsonl", size_of("reward_model", "rankings"), 40),
    ("reward_model", "show", "--show", times("show", "reward_model"), [1, 0]),
    ("sft", "rows", "--rows 3", of("cold_start_sft", "schedule", "cold_start", "rows"), 3),
    (
        "sft",
        "rows",
        f"--rows 3 --size base {OWN_DIALOGUES}",
        lambda seen: attrgetter("rows", "batch_tokens")(seen.sft_on_rows["settings"]),
        (3, 0),
        f"--size base {OWN_DIALOGUES}",
    ),
    (
        "sft",
        "records",
        f"--records 5 {OWN_DIALOGUES}",
        size_of("sft_on_rows", "rows"),
        5 + HELD_OUT_OF_20,
        OWN_DIALOGUES,
    ),
    (
        "sft",
        "context",
        f"--context {SHORT} {OWN_DIALOGUES}",
        size_of("sft_on_rows", "rows"),
        10,
        OWN_DIALOGUES,
    ),
    (
        "sft",
        "test",
        f"--test files/math.jsonl {OWN_DIALOGUES}",
        lambda seen: [(*one["tasks"], one["temperatures"]) for one in seen.of("evaluate")],
        2 * [("math", {"greedy": 0.0})],
        OWN_DIALOGUES,
    ),
    ("dpo", "rows", "--rows 3", of("train", "settings", "rows"), 3),
    (
        "dpo",
        "records",
        f"--records 5 {OWN_PAIRS}",
        lambda seen: (len(seen.train["pairs"]), len(seen.reference_logprobs["pairs"])),
        (5, HELD_OUT_OF_10),
        OWN_PAIRS,
    ),
    (
        "dpo",
        "context",
        f"--context {SHORT} {OWN_PAIRS}",
        lambda seen: len(seen.train["pairs"]) + len(seen.reference_logprobs["pairs"]),
        10,
        OWN_PAIRS,
    ),
    ("reward_model", "rows", "--rows 3", of("reward_model", "settings", "rows"), 3),
    (
        "reward_model",
        "records",
        f"--records 5 {OWN_PAIRS}",
        size_of("reward_model", "rankings"),
        5 + HELD_OUT_OF_10,
        OWN_PAIRS,
    ),
    (
        "reward_model",
        "context",
        f"--context {SHORT} {OWN_PAIRS}",
        size_of("reward_model", "rankings"),
        10,
        OWN_PAIRS,
    ),
    ("reward_model", "rank", "--rank init.pt", loaded, ["init.pt"]),
    ("reward_model", "rank", "--rank init.pt", times("reward_model", "sample_outputs"), [0, 1]),
    ("ppo", "stage", "--stage rl_code", of("rl_stage", "stage"), "rl_code"),
    ("ppo", "stage", "--stage rl_code", of("rl_stage", "settings"), ppo.STAGE_SETTINGS["rl_code"]),
    (
        "ppo",
        "reward_model",
        "--stage rl_preference --reward-model reward.pt",
        of("rl_stage", "reward_model"),
        "loaded reward.pt",
        "--stage rl_preference",
    ),
    ("ppo", "show", "--show", times("show", "rl_stage"), [1, 0]),
    ("ppo", "show_rollout", "--show-rollout", times("rollout_table", "rl_stage"), [1, 0]),
    ("ppo", "reference", f"{ROLLOUT} --reference teacher.pt", then_loaded, ["teacher.pt"], ROLLOUT),
    ("distill", "teacher", "--teacher teacher.pt", then_loaded, ["teacher.pt"]),
    ("distill", "teacher", "--teacher train", then_loaded, [TRAINED_TEACHER]),
    ("distill", "show", "--show", times("show", "distill"), [1, 0]),
    ("self_reward", "rounds", "--rounds 3", rounds, [1, 2, 3]),
    ("self_reward", "lr", "--lr 0.25", in_round("settings", "training", "lr"), 0.25),
    ("self_reward", "no_rehearsal", "--no-rehearsal", in_round("rehearsal"), []),
    ("self_reward", "show", "--show", times("show", "next_iteration_model"), [1, 0]),
    ("pipeline", "size", "--size small", in_run("schedules"), sft.SCHEDULES["small"]),
    ("pipeline", "size", "--size small", in_run("size"), "small"),
    ("pipeline", "size", "--size small", in_run("stages"), pipeline.stage_settings("small", False)),
    ("pipeline", "size", "--size small", every("fresh_model", "size"), {"small"}),
    ("pipeline", "seed", "--seed 5", in_run("seed"), 5),
    ("pipeline", "seed", "--seed 5", every("fresh_model", "seed"), {"5"}),
    ("pipeline", "seed", "--seed 5", lambda seen: seen.run_stages["results"]["seed"], 5),
    ("pipeline", "device", "--device meta", in_run("device", "type"), "meta"),
    ("pipeline", "device", "--device meta", student("embedding.weight.device.type"), "meta"),
    ("pipeline", "threads", "--threads 7", of("set_num_threads", "threads"), 7),
    ("pipeline", "out", "--out there", texts("run_stages", "run", "out"), "there"),
    ("pipeline", "data", "--data files --student init.pt --teacher teacher.pt", pairs_read, 80),
    ("pipeline", "smoke", "--smoke", in_run("smoke"), True),
    ("pipeline", "smoke", "--smoke", in_run("stages"), pipeline.stage_settings("tiny", True)),
    ("pipeline", "smoke", "--smoke", in_run("schedules"), TINY_SMOKE),
    ("pipeline", "smoke", "--smoke", in_run("eval_n"), 8),
    ("pipeline", "compile", "--compile", student("compiled"), True),
    ("pipeline", "recompute", "--recompute", student("recompute"), True),
    ("pipeline", "no_exec", "--no-exec", times("disable"), [1]),
    ("pipeline", "student", "--student init.pt", first_loaded, ["init.pt"]),
    ("pipeline", "student", "--student init.pt", every("tokenizer_of", "path"), {"init.pt"}),
    ("pipeline", "teacher", "--teacher teacher.pt", loaded, ["teacher.pt"]),
    ("pipeline", "teacher", "--teacher train", loaded, []),
    ("pipeline", "teacher", "--teacher train", stages_to_do("teacher"), SFT_STAGES),
    ("pipeline", "stages", "--stages pretrain,rl_code", to_do, ["pretrain", "rl_code"]),
    ("pipeline", "eval_n", "--eval-n 9", in_run("eval_n"), 9),
    ("pipeline", "eval_n", "--eval-n 9 --smoke", in_run("eval_n"), 9, "--smoke"),
    ("pipeline", "force", "--force", of("unfinished", "force"), True),
    ("pipeline", "seeds", "--seeds 1,5", each("run_stages", "run", "seed"), [1, 5]),
    ("pipeline", "seeds", "--seeds 1,5 --out there", run_folders, ["there/seed1", "there/seed5"]),
    ("model", "checkpoints", "init.pt teacher.pt", loaded, ["init.pt", "teacher.pt"]),
    ("model", "checkpoints", "init.pt", every("tokenizer_of", "path"), {"init.pt"}),
    ("model", "prompt", "init.pt --prompt Why?", of("generate", "prompts"), ASKED),
    ("model", "n", "init.pt --n 4", of("generate", "n"), 4),
    ("model", "temperature", "init.pt --temperature 0.25", of("generate", "temperature"), 0.25),
    ("model", "device", "init.pt --device meta", of("load_checkpoint", "device", "type"), "meta"),
    ("model", "seed", "init.pt --seed 5", of("generate", "seed"), SAMPLING_SEED),
    ("model", "export", "init.pt --export there", of("export", "folder"), "there"),
    ("data.files.preview", "file", "dialogues.jsonl", lambda seen: "chosen" in seen.out, False),
    (
        "data.files.preview",
        "init",
        "pairs.jsonl --init init.pt",
        of("context_of", "path"),
        "init.pt",
    ),
    (
        "data.files.preview",
        "show",
        "pairs.jsonl --show 3",
        lambda seen: "record 3" in seen.out,
        True,
    ),
    ("data.world.__main__", "show", "--show 3", lambda seen: seen.out.count("\n\n"), 3),
    ("data.world.__main__", "stats", "--show 3 --stats", hash_told, True, "--show 3"),
    ("data.world.__main__", "tokenizer", "--tokenizer", times("save"), [1]),
    ("data.world.__main__", "seed", "--show 3 --seed 5", seeds, {"5"}, "--show 3"),
]

SMOKE_AMPLE = sft.smoke(ceiling.AMPLE)
trained_anew = times(*SFT_STAGES, "save_checkpoint")
experiments = [
    ("ceiling", "checkpoint", "--checkpoint init.pt", loaded, ["init.pt"]),
    ("ceiling", "checkpoint", "--checkpoint init.pt", trained_anew, [0] * 4),
    ("ceiling", "part", "--part test", of("by_family", "part"), "test"),
    ("ceiling", "part", "--part test", every("evaluate", "part"), {"test"}),
    ("ceiling", "n", "--n 9", of("by_family", "count"), 9),
    ("ceiling", "seed", "--seed 5", seeds, {"5"}),
    ("ceiling", "device", "--device meta", devices, {"meta"}),
    ("ceiling", "smoke", "--smoke", each("pretrain", "schedule"), [SMOKE_AMPLE]),
    ("ceiling", "smoke", "--smoke", each("overall_sft", "schedule"), [SMOKE_AMPLE]),
    ("ceiling", "smoke", "--smoke", of("by_family", "count"), 4),
    ("ceiling", "smoke", "--smoke", every("evaluate", "n"), {"4"}),
    ("ceiling", "out", "--out there", written, {"there"}),
    ("cheating", "n", "--n 9", every("family_scores", "n"), {"9"}),
    ("cheating", "n", "--n 9", every("judge_scores", "n"), {"9"}),
    ("cheating", "part", "--part dev", every("family_scores", "part"), {"dev"}),
    ("cheating", "part", "--part dev", every("honest_scores", "part"), {"dev"}),
    ("cheating", "part", "--part dev", every("judge_scores", "part"), {"dev"}),
    ("compare", "stage", "distill steps=3 steps=4 run", of_stage("distill", "steps"), [3, 4]),
    ("compare", "first", "rl_code lr=0.125 lr=0.25 run", of_stage("rl_code", "lr"), [0.125, 0.25]),
    ("compare", "second", "rl_code lr=0.5 lr=0.125 run", of_stage("rl_code", "lr"), [0.5, 0.125]),
    ("compare", "runs", f"{COMPARED} run", times("rl_code"), [4]),
    ("copying", "steps", "--steps 30", every("curve", "steps"), {"30"}),
    ("copying", "every", "--every 7", every("curve", "every"), {"7"}),
    ("copying", "alone", "--alone", every("curve", "alone"), {"True"}),
    ("copying", "seeds", "--seeds 2", every("curve", "seed"), {"1", "2"}),
    ("copying", "first", "--first 5 --seeds 2", every("curve", "seed"), {"5", "6"}),
    ("copying", "out", "--out there", written, {"there"}),
    ("copying", "out", "--out there", texts("plot", "path"), "there/copying.png"),
    ("distill_ablation", "steps", "run --steps 3", of("rows_of", "settings", "steps"), 3),
    ("distill_ablation", "out", "run --out there", texts("report", "out"), "there"),
    ("judge_controls", "start", "run --start distill", loaded, ["run/distill.student.pt"]),
    ("judge_controls", "held_out", "run --held-out 9", held_out, {9}),
    ("judge_controls", "out", "run --out there", texts("report", "out"), "there"),
    ("overoptimise", "runs", "run run", times("best_of"), [2]),
    ("overoptimise", "kl_coefs", "run --kl-coefs 0.25,0.5", kl_coefs, [0.25, 0.5]),
    ("overoptimise", "iterations", "run --iterations 30", times("train"), [4 * 3]),
    ("overoptimise", "out", "run --out there", texts("plot", "out"), "there"),
    ("curriculum", "out", "run --out there/gaps.json", written, {"there"}),
    ("distill_ablation", "part", "run --part dev", every("evaluate", "part"), {"dev"}),
    ("pass_at_k", "n", "run --n 7", size_of("pass_rates", "tasks"), 7),
    ("pass_at_k", "part", "run --part dev", every("evaluation_tasks", "part"), {"dev"}),
    ("pass_at_k", "out", "run --out there", written, {"there"}),
    ("pass_at_k", "out", "run --out there", texts("plot", "path"), "there/pass_at_k.png"),
    ("readiness", "checkpoints", "init.pt teacher.pt", loaded, ["init.pt", "teacher.pt"]),
    ("readiness", "n", "init.pt --n 7", size_of("pass_rates", "tasks"), 7),
    ("readiness", "part", "init.pt --part dev", every("evaluation_tasks", "part"), {"dev"}),
    ("readiness", "seed", "init.pt --seed 5", every("pass_rates", "seed"), {"5"}),
    ("targets", "runs", "run run", size_of("build", "runs"), 2),
    ("targets", "time", "run --time run", timed_seed, 3),
    ("targets", "nanogpt_seconds", "run --nanogpt-seconds 0.5", of("build", "nanogpt"), 0.5),
    ("targets", "peers", "run --peers other.json", of("build", "peers"), {"marked": 1}),
    ("targets", "controls", "run --controls other.json", of("build", "controls"), [{"marked": 1}]),
    ("targets", "ablation", "run --ablation other.json", of("build", "ablation"), {"marked": 1}),
    ("targets", "ceiling", "run --ceiling other.json", of("build", "ceiling"), {"marked": 1}),
    ("targets", "teacher", "run --teacher other.json", of("build", "teacher"), {"marked": 1}),
    ("targets", "pass_at_k", "run --pass-at-k other.json", of("build", "pass_at_k"), {"marked": 1}),
    ("targets", "tinyshakespeare", "run --tinyshakespeare 0.25", of("build", "shakespeare"), 0.25),
    ("teacher", "out", "--out init.pt", every("save_checkpoint", "path"), {"init.pt"}),
    ("teacher", "out", "--out init.pt", loaded, ["init.pt"]),
    ("teacher", "eval_n", "--out teacher.pt --eval-n 9", every("evaluate", "n"), {"9"}),
    ("teacher", "scores", "--out teacher.pt --scores there/s.json", written, {"there"}),
    ("teacher", "smoke", "--out teacher.pt --smoke", each("pretrain", "schedule"), [SMOKE_AMPLE]),
    ("teacher", "smoke", "--out teacher.pt --smoke", of("by_family", "count"), 4),
    ("teacher", "smoke", "--out teacher.pt --smoke", every("evaluate", "n"), {"4"}),
    ("ties", "prompts", "run --prompts 9", lambda seen: seen.annotated_rankings["prompts"], 9),
]
for name, models_a_run in {
    "control": 1,
    "curriculum": 2,
    "distill_ablation": 2,
    "judge_controls": 1,
    "pass_at_k": 5,
    "ties": 1,
}.items():
    experiments += [(name, "runs", "run run", folders, ["run"] * 2 * models_a_run)]
for name in ("compare", "control", "curriculum", "distill_ablation"):
    given = BASE[f"tests.experiments.{name}"]
    experiments += [(name, "eval_n", f"{given} --eval-n 9", every("evaluate", "n"), {"9"})]
for name in (
    "ceiling",
    "compare",
    "control",
    "copying",
    "curriculum",
    "distill_ablation",
    "judge_controls",
    "overoptimise",
    "pass_at_k",
    "readiness",
    "teacher",
    "ties",
):
    given = BASE.get(f"tests.experiments.{name}", "")
    experiments += [(name, "threads", f"{given} --threads 7", of("set_num_threads", "threads"), 7)]
TABLE += [(f"tests.experiments.{name}", *entry) for name, *entry in experiments]


def parser_of(name, monkeypatch) -> argparse.ArgumentParser:
    class Captured(Exception):
        pass

    def capture(parser, *args):
        raise Captured(parser)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", capture)
        with pytest.raises(Captured) as caught:
            importlib.import_module(name).main()
    return caught.value.args[0]


@pytest.mark.parametrize("name", sorted({entry[0] for entry in TABLE}))
def test_every_flag_has_an_entry(name, monkeypatch):
    parser = parser_of(name, monkeypatch)
    flags = {action.dest for action in parser._actions if action.dest != "help"}
    told = {flag for command, flag, *_ in TABLE if command == name}
    assert flags == told, "state in TABLE what the flag must reach"


@pytest.mark.parametrize(
    "name, folder",
    [
        ("sft", "runs/sft, "),
        ("dpo", "runs/dpo, "),
        ("distill", "runs/distill, "),
        ("ppo", "runs/STAGE, "),
        ("reward_model", "runs/reward_model, "),
        ("self_reward", "runs/self_reward, "),
        ("pipeline", "runs/SIZE-seedSEED, "),
        ("model", None),
    ],
)
def test_help_tells_the_default_folder_and_no_default_of_none(name, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(name).main()
    told = " ".join(capsys.readouterr().out.split())
    assert "(default: None)" not in told and "(default: " in told
    assert folder is None or f"leaves behind; default: {folder}" in told


def test_every_command_has_entries():
    root = Path(__file__).parents[1]
    commands = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for place in ("*.py", "data/*/*.py", "tests/experiments/*.py")
        for path in root.glob(place)
        if re.search("add_argument|_flags\\(", path.read_text(encoding="utf-8"))
    }
    # what stands in data/runtime hands flags to a command, and is none itself
    commands = {name for name in commands if not name.startswith("data.runtime.")}
    assert commands == {entry[0] for entry in TABLE}


WITHOUT = {}  # what each command does without the flag


@pytest.mark.parametrize(
    "entry", TABLE, ids=[f"{name} {flags}-{k}" for k, (name, _, flags, *_) in enumerate(TABLE)]
)
def test_a_flag_reaches_what_it_is_for(see, capsys, entry):
    name, _, flags, look, value, *without = entry
    if look is None:
        with pytest.raises(SystemExit) as caught:
            see(name, flags)
        assert caught.value.code == 2 and value in capsys.readouterr().err
        return
    assert look(see(name, flags)) == value
    bare = without[0] if without else BASE.get(name, "")
    if (name, bare) not in WITHOUT:
        WITHOUT[name, bare] = see(name, bare)
    assert look(WITHOUT[name, bare]) != value


# ---- what every command hands on beside its flags ----


@pytest.mark.parametrize("name", TRAINER)
@pytest.mark.parametrize("seed, size", [(1, "tiny"), (5, "small")])
def test_a_command_trains_and_saves_one_model_and_evaluates_it_before_and_after(
    see, tokenizer, name, seed, size
):
    seen = see(name, f"--seed {seed} --size {size} --out there")
    given, saved = getattr(seen, TRAINER[name]), seen.of("save_checkpoint")
    model = given[MODEL[name]]
    assert given["tokenizer"] is tokenizer and given["seed"] == seed
    assert str(given["log"]).startswith("there/")
    assert all(one["tokenizer"] is tokenizer for one in saved)
    # every checkpoint of a finished command carries the settings that it was trained with
    settings = given["schedule"].cold_start if name == "sft" else given["settings"]
    assert all(one["settings"] == asdict(settings) for one in saved)
    if name == "reward_model":
        assert [one["model"] for one in saved] == ["a trained reward model"]
        assert given["rankings"] is None and str(given["data"]) == "there/rankings.jsonl"
        reported = seen.held_out_report
        assert reported["model"] == "a trained reward model" and reported["policy"] is model
        assert reported["settings"] == settings and reported["seed"] == seed
        assert reported["tokenizer"] is tokenizer and reported["rankings"] is None
        return
    made = ["M_2", "M_3"] if name == "self_reward" else [model]
    assert [one["model"] for one in saved] == made
    scored = [one["model"] for one in seen.of("evaluate")]
    first = [given["teacher"]] if name == "distill" else []
    assert scored == [*first, model, *made]
    # measured with the command's seed on the test prompts, at the temperatures of every other stage
    for one in seen.of("evaluate"):
        assert (
            one["seed"] == seed
            and one["n"] == 128
            and one["part"] == "test"
            and one["temperatures"] is None
        )
        assert one["tokenizer"] is tokenizer and one["tasks"] is None and one["max_new"] == 64


def test_the_commands_hand_on_teacher_reward_model_rehearsal_and_rounds(see):
    seen = see("distill", "--init init.pt --teacher teacher.pt --out there")
    assert (
        loaded(seen) == ["init.pt", "teacher.pt"]
        and seen.distill["teacher"] is not seen.distill["student"]
    )
    assert (
        seen.distill["tasks"] is None and str(seen.distill["data"]) == "there/distill_pairs.jsonl"
    )
    for more in ("", " --smoke", " --seed 5"):  # the teacher that comes with the project
        seen = see("distill", f"--init init.pt --out there{more}")
        assert loaded(seen) == ["init.pt", str(checkpoints.TEACHER)]
    assert loaded(see("distill", "--init init.pt --size small --out there"))[1:] == [
        "runs/small-seed1/overall_sft.teacher.pt"
    ]
    seen = see("ppo", "--stage rl_preference --seed 5 --out there")
    trained_first = seen.reward_model
    assert trained_first["policy"] is seen.rl_stage["policy"] and trained_first["seed"] == 5
    assert seen.rl_stage["reward_model"] == "a trained reward model"
    assert seen.rl_stage["rehearsal"] == ["rehearsal tiny 5"]
    assert (
        seen.rl_stage["settings"] == ppo.STAGE_SETTINGS["rl_preference"]
        and seen.rl_stage["stage"] == "rl_preference"
    )
    for stage in ("rl_stem", "rl_code"):
        seen = see("ppo", f"--stage {stage}")
        assert (
            seen.rl_stage["reward_model"] is None
            and seen.rl_stage["settings"] == ppo.STAGE_SETTINGS[stage]
        )
    seen = see("self_reward", "--seed 5 --size small")
    first, second = seen.of("next_iteration_model")
    for one in (first, second):
        assert (
            one["seed_model"] is first["model"]
            and one["rehearsal"] == ["rehearsal small 5"]
            and one["score"] is None
        )
        assert (
            one["training_prompts"] == ["prompt small 5"] and one["settings"] == first["settings"]
        )
    assert second["model"] == "M_2"
    measured_rounds = [
        (one["model"], one["before"], one["seed_model"]) for one in seen.of("measure")
    ]
    assert measured_rounds == [
        ("M_2", first["model"], first["model"]),
        ("M_3", "M_2", first["model"]),
    ]
    assert every("measure", "seed")(seen) == {"5"} and seen.judge_report["seed"] == 5


def texts_of(tokenizer, pair):
    """(prompt and reply) of the two sides of a pair."""
    return [tokenizer.read_reply([token for token, on in zip(*row) if on]).content for row in pair]


@pytest.mark.parametrize("seed", [1, 5])
def test_own_pairs_reach_dpo_with_the_chosen_reply_chosen_and_a_reference_of_the_same_order(
    see, tokenizer, seed
):
    seen = see("dpo", f"--data pairs.jsonl --seed {seed}")
    assert seen.train["seed"] == seed and seen.train["pairs"]
    before, after = seen.of("reference_logprobs")
    for pair in (*seen.train["pairs"], *before["pairs"]):
        chosen, rejected = texts_of(tokenizer, pair)
        assert chosen.startswith("Plum ") and rejected == "No."
    assert (
        before["pairs"] == after["pairs"]
        and before["model"] is after["model"] is seen.train["model"]
    )
    order = [called for called, _ in seen.calls if called in ("train", "reference_logprobs")]
    assert order == ["reference_logprobs", "train", "reference_logprobs"]


def test_dpo_tells_its_held_out_pairs_loss_against_the_model_that_entered(see, monkeypatch):
    """Chosen -4 to -2 and rejected -5 to -8: h is 2 + 3, beta h 2.5, the loss log(1 + e^-2.5)."""
    looks = iter([(-4.0, -5.0), (-2.0, -8.0)])
    monkeypatch.setattr(
        dpo,
        "reference_logprobs",
        lambda model, tokenizer, pairs, *rest: tuple(
            torch.full((len(pairs),), value) for value in next(looks)
        ),
    )
    seen = see("dpo", "--data pairs.jsonl --beta 0.5")
    line = next(line for line in seen.out.splitlines() if line.startswith("held-out pairs"))
    told = [float(number) for number in re.findall(r"-?[0-9]+\.[0-9]+", line)]
    assert told == pytest.approx([0.0789, 1.0, 2.5, -4.0, -2.0, -5.0, -8.0], abs=1e-3)


def test_own_pairs_reach_the_reward_model_with_the_chosen_reply_ranked_first(see, tokenizer):
    seen = see("reward_model", "--data pairs.jsonl")
    for ranking in seen.reward_model["rankings"]:
        levels = comparisons.parse_ranking(ranking["ranking"], 2)
        replies = texts_of(tokenizer, ranking["rows"])
        assert replies[levels.index(0)].startswith("Plum ") and replies[levels.index(1)] == "No."
    # measured on the tenth of the same rankings that was not trained on
    assert seen.held_out_report["rankings"] == seen.reward_model["rankings"]


def test_a_teacher_of_a_few_steps_never_replaces_the_one_that_is_given(see):
    with pytest.raises(ValueError, match="--smoke: would overwrite the teacher"):
        see("tests.experiments.teacher", "--smoke")


def test_an_sft_model_that_is_not_there_yet_is_made_with_the_size_and_seed_asked_for(see, tmp_path):
    for who in ("student", "teacher"):
        (tmp_path / f"runs/small-seed5/overall_sft.{who}.pt").unlink()
    seen = see("distill", "--size small --seed 5")
    made = [
        (called, given)
        for called, given in seen.calls
        if called in ("pretrain", "cold_start_sft", "overall_sft")
    ]
    assert [called for called, _ in made] == 2 * ["pretrain", "cold_start_sft", "overall_sft"]
    assert [given["schedule"] for _, given in made] == 3 * [SMALL] + 3 * [
        sft.SCHEDULES["small"]["teacher"]
    ]
    assert {given["seed"] for _, given in made} == {5}
    assert [(given["size"], given["who"], given["seed"]) for given in seen.of("fresh_model")] == [
        ("small", "student", 5),
        ("small", "teacher", 5),
    ]
    models = [given["model"] for _, given in made]
    assert (
        models[0] is models[1] is models[2] and models[3] is models[4] is models[5] is not models[0]
    )
