"""Every flag of every command against what it must reach: the settings, seed, file or model that the work is done with.

A command runs with all that takes long replaced by recorders. Each entry of FLAGS says what to look at, and which value the flag
must put there; without the flag another value is there. A flag without an entry fails the first test.
"""

import argparse
import builtins
import importlib
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import data.devices
import distill
import dpo
import model as models
import pipeline
import ppo
import reward_model
import self_reward
import sft
from data import formats, world
from data import tokenizer as tokenizers
from model import GPT, Config
from recorder import Recorder
from tests.experiments import compare, control, curriculum, distill_ablation, judge_controls, overoptimise, readiness, targets, ties

# what replaces a measurement: whatever is looked up in it is there
SCORES = {domain: {"greedy": 0.5, "sampled": 0.5, "cool": 0.5, "n": 1} for domain in (*world.DOMAINS, "phrasing")}
SIZES = ("tiny", "small", "base")


class Seen:
    """What a command did, to look at in FLAGS."""

    def __init__(self, calls, out):
        self.calls, self.out = list(calls), out

    def __getattr__(self, name):  # the arguments of the first call of `name`, or None
        return next(iter(self.of(name)), None)

    def of(self, name):
        return [given for called, given in self.calls if called == name]

    def all(self, name, key):
        return {str(call[key]) for call in self.of(name)}

    def times(self, name):
        return len(self.of(name))


def small(tokenizer, context=512) -> GPT:
    return GPT(Config(tokenizer.vocab_size, context, 1, 8, 1, 1, 8)).init_weights(0)


def through(function):
    return lambda **given: function(**given)


def measured(**given):
    judge = {"pairwise": 0.5, "parsed": 1.0, "ties": 0.0, "exact": 0.5, "spearman": 0.5, "kendall": 0.5}
    return {"true_reward": 1.0, "correct": 0.5, "polite": 0.5, "length": 9.0, "judge": judge,
            "against_previous": {"wins": 0.3, "ties": 0.4, "losses": 0.3, "win_share": 0.5}}


@pytest.fixture
def see(monkeypatch, tokenizer, tmp_path, capsys):
    """see(command, flags) -> what it did, in an empty folder in which every size and seed has its SFT checkpoints."""
    monkeypatch.chdir(tmp_path)
    for path in [f"runs/{size}-seed{seed}" for size in SIZES for seed in (1, 5)] + [
            f"runs/sft-{size}-smoke-seed{seed}" for size in SIZES for seed in (1, 5)] + ["run"]:
        (tmp_path / path).mkdir(parents=True)
        for who in ("student", "teacher"):
            (tmp_path / path / f"overall_sft.{who}.pt").write_bytes(b"")
    for name in ("init.pt", "teacher.pt", "reward.pt", "run/cold_start_sft.student.pt", "run/rl_stem.student.pt"):
        (tmp_path / name).write_bytes(b"")
    lines = {"pairs": [{"prompt": f"Fruit {k}?", "chosen": f"Plum {k}.", "rejected": "No."} for k in range(40)],
             "dialogues": [{"prompt": f"Fruit {k}?", "response": f"Plum {k}."} for k in range(40)]}
    for name, records in lines.items():
        formats.write_jsonl(tmp_path / f"{name}.jsonl", records)
    (tmp_path / "text.txt").write_text("abc " * 400)
    (tmp_path / "files").mkdir()
    formats.write_jsonl(tmp_path / "files/math.jsonl", [{"question": f"{k}+{k}?", "answer": f"#### {2 * k}"} for k in range(60)])
    formats.write_jsonl(tmp_path / "files/code.jsonl", [{"text": f"Add {k}.", "code": f"def f(x): return x+{k}",
                                                         "test_list": [f"assert f(1) == {1 + k}"]} for k in range(60)])
    formats.write_jsonl(tmp_path / "files/preference.jsonl", lines["pairs"] * 2)
    formats.write_json(tmp_path / "run/results.json", {"seed": 3, "stages": [
        {"name": "rl_stem", "model": "student", "eval": SCORES, "checkpoint": "rl_stem.student.pt"}]})
    formats.write_json(tmp_path / "other.json", {"marked": 1})
    recorder, spoken = Recorder(monkeypatch), {"messages": [{"role": "user", "content": "x"}]}
    own = {"tokens": 1, "seconds": 1.0, "held_out_loss": 0.5, "held_out_losses": [0.5], "losses_a_character": [0.5], "rows": 1,
           "held_out_rows": 1, "loss": 0.5, "kl": 0.5, "reward": 0.5, "first_reward": 0.5, "filter": {}, "pairs": 1, "queries": 1,
           "sampling_seconds": 1.0, "parsed": 1.0, "novel": 1.0, "accuracy": 0.5, "annotator_agreement": 0.5, "true_accuracy": 0.5,
           "tie_width": 0.5, "calibration": [{"predicted": 0.6, "observed": 0.5, "pairs": 1}]}
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # a builtin has no signature
    recorder.stand_in(torch, "set_num_threads")
    recorder.stand_in(data.devices.sandbox, "disable")
    monkeypatch.setattr(GPT, "compile", lambda self, **how: None)
    places = (sft, dpo, reward_model, ppo, distill, self_reward, pipeline, models, compare, control, curriculum, distill_ablation,
              judge_controls, overoptimise, readiness, targets, ties)
    answers = {"evaluate": SCORES, "save_checkpoint": None, "rehearsal_data": lambda **given: [f"rehearsal {given['size']} {given['seed']}"],
               "chat_prompts": lambda **given: [f"prompt {given['size']} {given['seed']}"], "tokenizer_of": tokenizer,
               "fresh_model": lambda **given: small(tokenizer), "judge_report": lambda **given: measured()["judge"],
               "load_checkpoint": lambda **given: (small(tokenizer), {"stage": "a stage"}), "measure": measured,
               "load_reward_model": lambda **given: f"loaded {given['path']}", "pass_rates": lambda **given: [0.5 for _ in given["tasks"]],
               "reference_logprobs": lambda **given: (torch.zeros(len(given["pairs"])), torch.zeros(len(given["pairs"])))}
    for place in places:
        for name, answer in answers.items():
            if callable(getattr(place, name, None)):
                recorder.stand_in(place, name, answer)
    for name in ("pretrain", "cold_start_sft", "overall_sft", "pretrain_on_text", "sft_on_rows"):
        recorder.stand_in(sft, name, own)
    recorder.stand_in(sft, "show_mask")
    for place in (dpo, reward_model, ppo):
        recorder.stand_in(place, "train", own)
    recorder.stand_in(dpo, "annotated_pairs", lambda **given: [(k, k) for k in range(20)])
    recorder.stand_in(reward_model, "reward_model", ("a trained reward model", own))
    recorder.stand_in(reward_model, "sample_outputs", lambda **given: [[(given["prompts"][0] + [7], [False] * len(given["prompts"][0]) + [True])] * given["outputs"]])
    recorder.stand_in(reward_model, "annotated_rankings", lambda **given: [])
    recorder.stand_in(reward_model, "report", own)
    recorder.stand_in(ppo, "rl_stage", own)
    recorder.stand_in(ppo, "show")
    recorder.stand_in(distill, "distill", own)
    recorder.stand_in(distill, "preference_data", lambda **given: ([], [], [], {}))
    recorder.stand_in(self_reward, "next_iteration_model", lambda **given: (f"M_{given['round_number'] + 1}", own))
    recorder.stand_in(pipeline, "run_stages", lambda run, todo, results: results.update(seconds=1.0))
    recorder.stand_in(models, "generate", lambda **given: SimpleNamespace(lists=lambda: [[tokenizer.end_id]]))
    recorder.stand_in(models, "export")
    for name in ("report", "rows_of"):
        recorder.stand_in(distill_ablation, name, [])
    recorder.stand_in(judge_controls, "report")
    recorder.stand_in(overoptimise, "measured", {"kl": 1.0, "rm": 1.0, "true": 1.0})
    recorder.stand_in(overoptimise, "best_of", [])
    recorder.stand_in(overoptimise, "plot")
    recorder.stand_in(targets, "build", [])
    for name in ("rl_code", "distill"):
        recorder.stand_in(pipeline, name, own)
    for place, name in ((pipeline, "unfinished"), (world, "evaluation_tasks")):
        recorder.stand_in(place, name, through(getattr(place, name)))
    recorder.stand_in(world, "overall_demonstrations", lambda **given: {"reasoning": [[spoken] * 40], "chat": [spoken]})
    recorder.stand_in(sft.hf, "portable", tokenizer)
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
        monkeypatch.setattr(sys, "argv", [name, *flags])
        importlib.import_module(name).main()
        return Seen(recorder.calls, capsys.readouterr().out)
    return command


# ---- what there is to look at ----

TRAINER = {"sft": "cold_start_sft", "dpo": "train", "reward_model": "reward_model", "ppo": "rl_stage", "distill": "distill",
           "self_reward": "next_iteration_model"}
MODEL = {"sft": "model", "dpo": "model", "reward_model": "policy", "ppo": "policy", "distill": "student", "self_reward": "model"}


def trained(name, key):
    return lambda seen: getattr(seen, TRAINER[name])[key]


def setting(name, key):
    return lambda seen: getattr(getattr(seen, TRAINER[name])["settings"], key)


def schedule(key):
    return lambda seen: getattr(seen.cold_start_sft["schedule"].cold_start, key)


def files(seen):
    """The folders of everything that is written."""
    return {str(call[key]).rpartition("/")[0] for _, call in seen.calls for key in ("log", "path", "data")
            if call.get(key) and str(call[key]).startswith("there")}


def common(name, size):
    """The flags that every concept file has; size: (flags, what to look at, value) of --size small."""
    trainer = TRAINER[name]

    def from_model(attribute):
        return lambda seen: getattr(getattr(seen, trainer)[MODEL[name]], attribute)

    def seeds(seen):
        return {str(call["seed"]) for _, call in seen.calls if "seed" in call}

    return {"size": [size], "seed": [(["--seed", "5"], seeds, {"5"})],
            "device": [(["--device", "meta"], lambda seen: from_model("embedding")(seen).weight.device.type, "meta")],
            "threads": threads(), "out": [(["--out", "there"], files, {"there"})],
            "compile": [(["--compile"], from_model("compiled"), True)],
            "recompute": [(["--recompute"], from_model("recompute"), True)],
            "no_exec": [(["--no-exec"], lambda seen: seen.times("disable"), 1)]}


def threads(*base):
    return [([*base, "--threads", "7"], lambda seen: seen.set_num_threads and set(seen.set_num_threads.values()), {7})]


def evaluated(n, *base):
    return [([*base, "--eval-n", str(n)], lambda seen: seen.all("evaluate", "n"), {str(n)})]


def loaded(seen):
    return [str(call["path"]) for call in seen.of("load_checkpoint")]


def init(place=0, flag="--init"):
    path = f"{flag[2:]}.pt"
    return [([flag, path], lambda seen: loaded(seen)[place:place + 1], [path])]


def belongs(flag="--init"):
    """The tokenizer is the given checkpoint's."""
    return [([flag, "init.pt"], lambda seen: seen.all("tokenizer_of", "path"), {"init.pt"})]


def numbers(name, flags, key=None):
    """A flag that goes to a setting: {"steps": 3}."""
    return {flag: [([f"--{flag.replace('_', '-')}", str(value)], setting(name, key or flag), value)] for flag, value in flags.items()}


def refused(*flags):
    """A flag that the command has no use for, and says so."""
    return [(list(flags), None, 2)]


RL_SMALL, SMALL = ppo.LARGER["small"], sft.SCHEDULES["small"]["student"]
STUDENT_OF = {size: [f"runs/{size}-seed1/overall_sft.student.pt"] for size in SIZES}


def looked_up(size):
    return (["--size", size], lambda seen: loaded(seen)[:1], STUDENT_OF[size])


FLAGS = {
    "sft": common("sft", (["--size", "small"], schedule("rows"), SMALL.cold_start.rows)) | {
        "data": [(["--data", "dialogues.jsonl"], lambda seen: seen.sft_on_rows and len(seen.sft_on_rows["rows"]), 40),
                 (["--data", "text.txt", "--pretrain"], lambda seen: seen.pretrain_on_text and seen.pretrain_on_text["text"], "abc " * 400)],
        "smoke": [(["--smoke"], schedule("steps"), sft.SMOKE["steps"]), (["--smoke"], lambda seen: seen.all("evaluate", "n"), {"4"})],
        "init": init() + belongs(),
        "pretrain": [(["--pretrain"], lambda seen: (seen.times("pretrain"), seen.times("cold_start_sft")), (1, 0))],
        "show_mask": [(["--show-mask"], lambda seen: (seen.times("show_mask") > 0, seen.times("cold_start_sft")), (True, 0))],
        "steps": [(["--steps", "3"], schedule("steps"), 3),
                  (["--steps", "3", "--pretrain"], lambda seen: seen.pretrain and seen.pretrain["schedule"].pretrain.steps, 3),
                  (["--steps", "3", "--data", "dialogues.jsonl"], lambda seen: seen.sft_on_rows and seen.sft_on_rows["settings"].steps, 3)],
        "eval_n": evaluated(9)},
    "dpo": common("dpo", (["--size", "small"], setting("dpo", "rows"), dpo.LARGER["small"]["rows"]))
    | numbers("dpo", {"steps": 3, "lr": 0.25, "beta": 0.75, "kind": "ipo", "nll_coef": 0.5}) | {
        "data": [(["--data", "pairs.jsonl"], lambda seen: seen.times("annotated_pairs"), 0)],
        "smoke": [(["--smoke"], setting("dpo", "steps"), dpo.SMOKE["steps"]), (["--smoke"], lambda seen: seen.all("evaluate", "n"), {"4"})],
        "init": init() + belongs(), "eval_n": evaluated(9)},
    "reward_model": common("reward_model", (["--size", "small"], setting("reward_model", "prompts"), reward_model.LARGER["small"]["prompts"]))
    | numbers("reward_model", {"ties": "davidson", "outputs": 7}) | {
        "data": [(["--data", "pairs.jsonl"], lambda seen: len(trained("reward_model", "rankings")(seen) or ()), 40)],
        "smoke": [(["--smoke"], setting("reward_model", "prompts"), reward_model.SMOKE["prompts"])],
        "init": init() + belongs(),
        "rank": [(["--rank", "init.pt"], lambda seen: (loaded(seen), seen.times("reward_model")), (["init.pt"], 0))]},
    "ppo": common("ppo", (["--size", "small"], setting("ppo", "samples"), RL_SMALL["samples"]))
    | numbers("ppo", {"estimator": "gae", "kl_coef": 0.5, "iterations": 3, "lr": 0.25}) | {
        "data": refused("--data", "pairs.jsonl"),
        "smoke": [(["--smoke"], setting("ppo", "iterations"), ppo.SMOKE["iterations"]), (["--smoke"], lambda seen: seen.all("evaluate", "n"), {"4"})],
        "init": init() + belongs(),
        "stage": [(["--stage", "rl_code"], trained("ppo", "stage"), "rl_code"),
                  (["--stage", "rl_code"], trained("ppo", "settings"), ppo.STAGE_SETTINGS["rl_code"]),
                  (["--stage", "rl_preference"], trained("ppo", "reward_model"), "a trained reward model")],
        "reward_model": [(["--stage", "rl_preference", "--reward-model", "reward.pt"], trained("ppo", "reward_model"), "loaded reward.pt")],
        "show": [(["--show"], lambda seen: (seen.times("show"), seen.times("rl_stage")), (1, 0))],
        "reference": [(["--show", "--reference", "teacher.pt"], lambda seen: loaded(seen)[-1], "teacher.pt")],
        "eval_n": evaluated(9)},
    "distill": common("distill", (["--size", "small"], setting("distill", "queries"), distill.LARGER["small"]["queries"]))
    | numbers("distill", {"steps": 3, "direction": "jsd", "dpo_coef": 0.75, "pos_coef": 0.25, "neg_coef": 0.5, "rehearsal_rows": 0}) | {
        "data": refused("--data", "pairs.jsonl"),
        "smoke": [(["--smoke"], setting("distill", "steps"), distill.SMOKE["steps"]), (["--smoke"], lambda seen: seen.all("evaluate", "n"), {"4"})],
        "init": init() + belongs(), "teacher": init(1, "--teacher"), "eval_n": evaluated(9)},
    "self_reward": common("self_reward", (["--size", "small"], setting("self_reward", "requests"), self_reward.LARGER["small"]["requests"]))
    | numbers("self_reward", {"rho": 0.25}) | {
        "data": refused("--data", "pairs.jsonl"),
        "smoke": [(["--smoke"], setting("self_reward", "requests"), self_reward.SMOKE["requests"]),
                  (["--smoke"], lambda seen: seen.all("evaluate", "n"), {"4"})],
        "init": init() + belongs(),
        "rounds": [(["--rounds", "3"], lambda seen: [call["round_number"] for call in seen.of("next_iteration_model")], [1, 2, 3])],
        "lr": [(["--lr", "0.25"], lambda seen: setting("self_reward", "training")(seen).lr, 0.25)],
        "no_rehearsal": [(["--no-rehearsal"], trained("self_reward", "rehearsal"), [])],
        "eval_n": evaluated(9)},
}
FLAGS["dpo"]["size"].append(looked_up("small"))
for name in ("reward_model", "ppo", "distill", "self_reward"):
    FLAGS[name]["size"].append(looked_up("small"))
for name in ("ppo", "self_reward"):
    FLAGS[name]["size"].append((["--size", "small"], trained(name, "rehearsal"), ["rehearsal small 1"]))
    FLAGS[name]["seed"].append((["--seed", "5"], trained(name, "rehearsal"), ["rehearsal tiny 5"]))


def run_of(key):
    return lambda seen: getattr(seen.run_stages["run"], key)


def runs(key):
    return lambda seen: [getattr(call["run"], key) for call in seen.of("run_stages")]


def to_do(seen):
    return [function.__name__ for function, who in seen.run_stages["todo"] if who == "student"]


def student(attribute):
    return lambda seen: getattr(seen.run_stages["run"].models["student"], attribute)


GIVEN = ["--student", "init.pt", "--teacher", "teacher.pt"]
FLAGS["pipeline"] = {
    "size": [(["--size", "small"], run_of("schedules"), sft.SCHEDULES["small"]), (["--size", "small"], run_of("size"), "small"),
             (["--size", "small"], run_of("stages"), pipeline.stage_settings("small", False)),
             (["--size", "small"], lambda seen: seen.all("fresh_model", "size"), {"small"})],
    "seed": [(["--seed", "5"], run_of("seed"), 5), (["--seed", "5"], lambda seen: seen.all("fresh_model", "seed"), {"5"}),
             (["--seed", "5"], lambda seen: seen.run_stages["results"]["seed"], 5)],
    "device": [(["--device", "meta"], lambda seen: run_of("device")(seen).type, "meta"),
               (["--device", "meta"], lambda seen: student("embedding")(seen).weight.device.type, "meta")],
    "threads": threads(),
    "out": [(["--out", "there"], lambda seen: str(run_of("out")(seen)), "there")],
    "data": [(["--data", "files", *GIVEN], lambda seen: (run := run_of("data")(seen)) and len(run.pairs), 80)],
    "smoke": [(["--smoke"], run_of("stages"), pipeline.stage_settings("tiny", True)), (["--smoke"], run_of("smoke"), True),
              (["--smoke"], run_of("schedules"), {who: sft.smoke(one) for who, one in sft.SCHEDULES["tiny"].items()}),
              (["--smoke"], run_of("eval_n"), 8)],
    "compile": [(["--compile"], student("compiled"), True)], "recompute": [(["--recompute"], student("recompute"), True)],
    "no_exec": [(["--no-exec"], lambda seen: seen.times("disable"), 1)],
    "student": [(["--student", "init.pt"], loaded, ["init.pt"]), *belongs("--student")],
    "teacher": [(["--teacher", "teacher.pt"], loaded, ["teacher.pt"])],
    "stages": [(["--stages", "pretrain,rl_code"], to_do, ["pretrain", "rl_code"])],
    "eval_n": [(["--eval-n", "9"], run_of("eval_n"), 9), (["--eval-n", "9", "--smoke"], run_of("eval_n"), 9)],
    "force": [(["--force"], lambda seen: seen.unfinished["force"], True)],
    "seeds": [(["--seeds", "1,5"], runs("seed"), [1, 5]), (["--seeds", "1,5", "--out", "there"],
                                                          lambda seen: [str(one) for one in runs("out")(seen)], ["there/seed1", "there/seed5"])],
}
FLAGS["model"] = {
    "checkpoint": [(["init.pt"], loaded, ["init.pt"]), (["init.pt"], lambda seen: seen.all("tokenizer_of", "path"), {"init.pt"})],
    "temperature": [(["init.pt", "--temperature", "0.25"], lambda seen: seen.generate and seen.generate["temperature"], 0.25)],
    "device": [(["init.pt", "--device", "meta"], lambda seen: seen.load_checkpoint["device"].type, "meta")],
    "seed": [(["init.pt", "--seed", "5"], lambda seen: seen.generate and seen.generate["seed"], data.devices.seed_of(5, 1))],
    "export": [(["init.pt", "--export", "there"], lambda seen: seen.export and seen.export["folder"], "there")],
}
FLAGS["data.world"] = {
    "show": [(["--show", "3"], lambda seen: seen.out.count("\n\n"), 3)],
    "stats": [(["--show", "3", "--stats"], lambda seen: "evaluation hash" in seen.out, True, ["--show", "3"])],
    "tokenizer": [(["--tokenizer"], lambda seen: seen.times("save"), 1)],
    "seed": [(["--show", "3", "--seed", "5"], lambda seen: seen.all("overall_demonstrations", "seed") | seen.all("documents", "seed"), {"5"})],
}


# ---- the experiments ----

def folders(seen):
    return [path.split("/")[0] for path in loaded(seen)]


def compared(seen):
    return [call["run"].stages["rl_code"].lr for call in seen.of("rl_code")]


def built(key):
    return lambda seen: seen.build[key]


COMPARED = ["rl_code", "lr=0.5", "lr=0.25", "run"]
FLAGS |= {f"tests.experiments.{name}": flags for name, flags in {
    "compare": {
        "stage": [(["distill", "steps=3", "steps=4", "run"], lambda seen: [call["run"].stages["distill"].steps for call in seen.of("distill")],
                   [3, 4], COMPARED)],
        "first": [(["rl_code", "lr=0.125", "lr=0.25", "run"], compared, [0.125, 0.25], COMPARED)],
        "second": [(["rl_code", "lr=0.5", "lr=0.125", "run"], compared, [0.5, 0.125], COMPARED)],
        "runs": [([*COMPARED, "run"], lambda seen: seen.times("rl_code"), 4, COMPARED)],
        "eval_n": evaluated(9, *COMPARED), "threads": threads(*COMPARED)},
    "control": {"runs": [(["run", "run"], folders, ["run", "run"], ["run"])], "eval_n": evaluated(9, "run"), "threads": threads("run")},
    "curriculum": {"runs": [(["run", "run"], folders, ["run"] * 4, ["run"])], "eval_n": evaluated(9, "run"), "threads": threads("run")},
    "distill_ablation": {
        "runs": [(["run", "run"], folders, ["run"] * 4, ["run"])], "eval_n": evaluated(9, "run"), "threads": threads("run"),
        "steps": [(["run", "--steps", "3"], lambda seen: seen.rows_of["settings"].steps, 3)],
        "out": [(["run", "--out", "there"], lambda seen: str(seen.report["out"]), "there")]},
    "judge_controls": {
        "runs": [(["run", "run"], folders, ["run", "run"], ["run"])], "threads": threads("run"),
        "start": [(["run", "--start", "distill"], loaded, ["run/distill.student.pt"])],
        "held_out": [(["run", "--held-out", "9"], lambda seen: {call["settings"].held_out for call in seen.of("measure")
                                                                + seen.of("next_iteration_model")}, {9})],
        "out": [(["run", "--out", "there"], lambda seen: str(seen.report["out"]), "there")]},
    "overoptimise": {
        "runs": [(["run", "run"], lambda seen: seen.times("best_of"), 2, ["run"])], "threads": threads("run"),
        "kl_coefs": [(["run", "--kl-coefs", "0.25,0.5"], lambda seen: {call["settings"].kl_coef for call in seen.of("train")}, {0.25, 0.5})],
        "iterations": [(["run", "--iterations", "30"], lambda seen: seen.times("train"), 4 * 3)],
        "out": [(["run", "--out", "there"], lambda seen: str(seen.plot["out"]), "there")]},
    "readiness": {
        "checkpoints": [(["init.pt", "teacher.pt"], loaded, ["init.pt", "teacher.pt"], ["init.pt"])], "threads": threads("init.pt"),
        "n": [(["init.pt", "--n", "7"], lambda seen: len(seen.pass_rates["tasks"]), 7)],
        "part": [(["init.pt", "--part", "dev"], lambda seen: seen.all("evaluation_tasks", "part"), {"dev"})],
        "seed": [(["init.pt", "--seed", "5"], lambda seen: seen.all("pass_rates", "seed"), {"5"})]},
    "targets": {
        "runs": [(["run", "run"], lambda seen: len(seen.build["runs"]), 2, ["run"])],
        "time": [(["run", "--time", "run"], lambda seen: (seen.build["time_run"] or {}).get("seed"), 3)],
        "nanogpt_seconds": [(["run", "--nanogpt-seconds", "0.5"], built("nanogpt"), 0.5)],
        "peers": [(["run", "--peers", "other.json"], built("peers"), {"marked": 1})],
        "controls": [(["run", "--controls", "other.json"], built("controls"), [{"marked": 1}])],
        "ablation": [(["run", "--ablation", "other.json"], built("ablation"), {"marked": 1})],
        "tinyshakespeare": [(["run", "--tinyshakespeare", "0.25"], built("shakespeare"), 0.25)]},
    "ties": {"runs": [(["run", "run"], folders, ["run", "run"], ["run"])], "threads": threads("run"),
             "prompts": [(["run", "--prompts", "9"], lambda seen: "9" in seen.all("annotated_rankings", "prompts"), True)]},
}.items()}
# what must be given in any case
BASE = {"model": ["teacher.pt"], "tests.experiments.compare": COMPARED, "tests.experiments.readiness": ["init.pt"]}
BASE |= {name: ["run"] for name in FLAGS if name.startswith("tests.") and name not in BASE}


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


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_has_an_entry(name, monkeypatch):
    flags = {action.dest for action in parser_of(name, monkeypatch)._actions if action.dest != "help"}
    assert flags == set(FLAGS[name]), "state in FLAGS what the flag must reach"


def test_every_command_has_a_table():
    root = Path(__file__).parents[1]
    commands = {".".join(path.relative_to(root).with_suffix("").parts) for place in (".", "data", "tests/experiments")
                for path in (root / place).glob("*.py") if "add_argument(" in path.read_text(encoding="utf-8")}
    assert commands - {"data.command"} == set(FLAGS)


WITHOUT = {}  # what each command does without the flag
CASES = [(name, flag, k) for name, flags in FLAGS.items() for flag, entries in flags.items() for k in range(len(entries))]


@pytest.mark.parametrize("name, flag, k", CASES)
def test_a_flag_reaches_what_it_is_for(see, capsys, name, flag, k):
    given, look, value, *base = FLAGS[name][flag][k]
    if look is None:
        with pytest.raises(SystemExit) as caught:
            see(name, given)
        assert caught.value.code == value and f"--{flag}" in capsys.readouterr().err
        return
    assert look(see(name, given)) == value
    key = (name, *(base[0] if base else BASE.get(name, [])))
    if key not in WITHOUT:
        WITHOUT[key] = see(name, list(key[1:]))
    assert look(WITHOUT[key]) != value


# ---- what every command hands on beside its flags ----

@pytest.mark.parametrize("name", TRAINER)
@pytest.mark.parametrize("seed, size", [(1, "tiny"), (5, "small")])
def test_a_command_trains_and_saves_one_model_and_evaluates_it_before_and_after(see, tokenizer, name, seed, size):
    seen = see(name, ["--seed", str(seed), "--size", size, "--out", "there"])
    given, saved = getattr(seen, TRAINER[name]), seen.of("save_checkpoint")
    model = given[MODEL[name]]
    assert given["tokenizer"] is tokenizer and given["seed"] == seed and str(given["log"]).startswith("there/")
    assert all(one["tokenizer"] is tokenizer for one in saved)
    # every checkpoint of a finished command carries the settings that it was trained with
    settings = given["schedule"].cold_start if name == "sft" else given["settings"]
    assert all(one["settings"] == asdict(settings) for one in saved)
    if name == "reward_model":
        assert [one["model"] for one in saved] == ["a trained reward model"]
        assert given["rankings"] is None and str(given["data"]) == "there/rankings.jsonl"
        return
    made = ["M_2", "M_3"] if name == "self_reward" else [model]
    assert [one["model"] for one in saved] == made
    scored = [one["model"] for one in seen.of("evaluate")]
    first = [given["teacher"]] if name == "distill" else []
    assert scored == [*first, model, *made]
    # measured with the command's seed on the test prompts, at the temperatures of every other stage
    for one in seen.of("evaluate"):
        assert one["seed"] == seed and one["n"] == 128 and one["part"] == "test" and one["temperatures"] is None
        assert one["tokenizer"] is tokenizer and one["tasks"] is None and one["max_new"] == 64


def test_the_commands_hand_on_teacher_reward_model_rehearsal_and_rounds(see):
    seen = see("distill", ["--init", "init.pt", "--teacher", "teacher.pt", "--out", "there"])
    assert loaded(seen) == ["init.pt", "teacher.pt"] and seen.distill["teacher"] is not seen.distill["student"]
    assert seen.distill["tasks"] is None and str(seen.distill["data"]) == "there/distill_pairs.jsonl"
    seen = see("ppo", ["--stage", "rl_preference", "--seed", "5", "--out", "there"])
    trained_first = seen.reward_model
    assert trained_first["policy"] is seen.rl_stage["policy"] and trained_first["seed"] == 5
    assert seen.rl_stage["reward_model"] == "a trained reward model" and seen.rl_stage["rehearsal"] == ["rehearsal tiny 5"]
    assert seen.rl_stage["settings"] == ppo.STAGE_SETTINGS["rl_preference"] and seen.rl_stage["stage"] == "rl_preference"
    for stage in ("rl_stem", "rl_code"):
        seen = see("ppo", ["--stage", stage])
        assert seen.rl_stage["reward_model"] is None and seen.rl_stage["settings"] == ppo.STAGE_SETTINGS[stage]
    seen = see("self_reward", ["--seed", "5", "--size", "small"])
    first, second = seen.of("next_iteration_model")
    for one in (first, second):
        assert one["seed_model"] is first["model"] and one["rehearsal"] == ["rehearsal small 5"] and one["score"] is None
        assert one["training_prompts"] == ["prompt small 5"] and one["settings"] == first["settings"]
    assert second["model"] == "M_2"
    measured_rounds = [(one["model"], one["before"], one["seed_model"]) for one in seen.of("measure")]
    assert measured_rounds == [("M_2", first["model"], first["model"]), ("M_3", "M_2", first["model"])]
    assert seen.all("measure", "seed") == {"5"} and seen.judge_report["seed"] == 5


def texts_of(tokenizer, pair):
    """(prompt and reply) of the two sides of a pair."""
    return [tokenizer.read_reply([token for token, on in zip(*row) if on]).content for row in pair]


@pytest.mark.parametrize("seed", [1, 5])
def test_own_pairs_reach_dpo_with_the_chosen_reply_chosen_and_a_reference_of_the_same_order(see, tokenizer, seed):
    seen = see("dpo", ["--data", "pairs.jsonl", "--seed", str(seed)])
    assert seen.train["seed"] == seed and seen.train["pairs"]
    before, after = seen.of("reference_logprobs")
    for pair in (*seen.train["pairs"], *before["pairs"]):
        chosen, rejected = texts_of(tokenizer, pair)
        assert chosen.startswith("Plum ") and rejected == "No."
    assert before["pairs"] == after["pairs"] and before["model"] is after["model"] is seen.train["model"]
    order = [called for called, _ in seen.calls if called in ("train", "reference_logprobs")]
    assert order == ["reference_logprobs", "train", "reference_logprobs"]


def test_own_pairs_reach_the_reward_model_with_the_chosen_reply_ranked_first(see, tokenizer):
    seen = see("reward_model", ["--data", "pairs.jsonl"])
    for ranking in seen.reward_model["rankings"]:
        levels = formats.parse_ranking(ranking["ranking"], 2)
        replies = texts_of(tokenizer, ranking["rows"])
        assert replies[levels.index(0)].startswith("Plum ") and replies[levels.index(1)] == "No."


def test_an_sft_model_that_is_not_there_yet_is_made_by_all_three_stages_with_the_size_and_seed_asked_for(see, tmp_path):
    for who in ("student", "teacher"):
        (tmp_path / f"runs/small-seed5/overall_sft.{who}.pt").unlink()
    seen = see("distill", ["--size", "small", "--seed", "5"])
    made = [(called, given) for called, given in seen.calls if called in ("pretrain", "cold_start_sft", "overall_sft")]
    assert [called for called, _ in made] == 2 * ["pretrain", "cold_start_sft", "overall_sft"]
    assert [given["schedule"] for _, given in made] == 3 * [SMALL] + 3 * [sft.SCHEDULES["small"]["teacher"]]
    assert {given["seed"] for _, given in made} == {5}
    assert [(given["size"], given["who"], given["seed"]) for given in seen.of("fresh_model")] == [
        ("small", "student", 5), ("small", "teacher", 5)]
    models = [given["model"] for _, given in made]
    assert models[0] is models[1] is models[2] and models[3] is models[4] is models[5] is not models[0]
