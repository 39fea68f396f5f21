"""The whole schedule: every stage in order, each one evaluated, everything kept in one folder.

    pretraining -> cold-start SFT -> overall SFT -> distillation -> reward model -> multi-stage RL -> self-rewarding rounds

The schedule is the list STAGES below; a stage is a function that trains one model and returns what it alone measured.

    python pipeline.py --size tiny            about six minutes on two cores; the table grows as it goes
    python pipeline.py --size tiny --smoke    every stage in a few steps
    python model.py runs/tiny-seed1/overall_sft.student.pt   is how to talk to any checkpoint afterwards

A run that was stopped goes on at the first unfinished stage when the same command is given again, and ends with the same
weights; one that was stopped in a stage's evaluation trains nothing again, and the long SFT and RL stages of the larger sizes are saved in
the middle too. Other settings or other entering weights than a finished stage had are refused; --force redoes everything from there.
"""

import copy
import json
import math
import os
import platform
import random
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy
import torch

import distill as distillation
import ppo
import reward_model as rewards
import self_reward
import sft
from data import world
from data.files import formats, real, writing
from data.files.checkpoints import (
    damage,
    differences,
    digest,
    key_line,
    once,
    remove_middle,
    surroundings,
    tokenizer_of,
)
from data.files.checkpoints import given_teacher as given_teacher_of
from data.runtime.command import common_flags, fail, known_failure, out_folder, release
from data.runtime.decoding import generate
from data.runtime.devices import rank, seed_of, start
from data.runtime.evaluation import evaluate, table_head, table_line
from data.runtime.report import report
from data.runtime.rows import before_reply, check_prompts, dialogue_rows, tell_dropped
from data.runtime.sizes import sized
from model import SIZES, fresh_model, load_checkpoint, parameter_count, placed

COLUMNS = (*world.DOMAINS, "phrasing")
REHEARSAL = "distill_rehearsal.jsonl"


@dataclass
class Run:
    """What a stage is given: where to write, which models there are, and how much to do."""

    out: Path
    size: str
    seed: int
    device: torch.device
    tokenizer: object
    schedules: dict
    eval_n: int
    smoke: bool
    stages: dict  # the settings of each stage after SFT
    data: real.Folder | None = None  # --data: real files in place of the tiny world
    given: dict = field(default_factory=dict)  # what else decides the results: digests of --student, --teacher and --data, --compile
    taught: Path | None = None  # the teacher's samples that `distill` has kept, once the student has learned from them
    taught_student: str | None = None  # the digest of the weights that it ended with
    models: dict = field(default_factory=dict)  # "student" and "teacher", in place; then "reward_model" and "seed_model"


def pretrain(run: Run, who: str) -> dict:
    return sft.pretrain(run.models[who], run.tokenizer, run.schedules[who], **how(run, "pretrain", who))


def cold_start_sft(run: Run, who: str) -> dict:
    if run.data:
        rows = file_rows(run, real.CHECKED, tell="cold_start_sft")
        return sft.sft_on_rows(run.models[who], run.tokenizer, rows, run.schedules[who].cold_start, stage="cold_start_sft", **how(run, "cold_start_sft", who))
    return sft.cold_start_sft(run.models[who], run.tokenizer, run.schedules[who], **how(run, "cold_start_sft", who))


def overall_sft(run: Run, who: str) -> dict:
    if run.data:
        rows = file_rows(run, real.DOMAINS, tell="overall_sft")
        return sft.sft_on_rows(run.models[who], run.tokenizer, rows, run.schedules[who].overall, stage="overall_sft", **how(run, "overall_sft", who))
    return sft.overall_sft(run.models[who], run.tokenizer, run.schedules[who], **how(run, "overall_sft", who))


def given_teacher(run: Run, who: str) -> dict:
    """The teacher that comes with the project: nothing is trained (`python -m tests.experiments.teacher` has)."""
    return {"tokens": 0}


def distill(run: Run, who: str) -> dict:
    return distillation.distill(run.models[who], run.models["teacher"], run.tokenizer, run.stages["distill"], tasks=file_tasks(run, *real.CHECKED),
                                data=run.out / "distill_pairs.jsonl", kept=run.out / REHEARSAL, **how(run, "distill", who))


def reward_model(run: Run, who: str) -> dict:
    run.models["reward_model"], measured = rewards.reward_model(
        run.models[who], run.tokenizer, run.stages["reward_model"], seed=run.seed, rankings=file_rankings(run, tell=True),
        data=run.out / "rankings.jsonl", log=run.out / f"reward_model.{who}.csv")
    return measured


def rl_stem(run: Run, who: str) -> dict:
    return ppo.rl_stem(run.models[who], run.tokenizer, run.stages["rl_stem"], tasks=file_tasks(run, "math"), rehearsal=rehearsal(run, chat=True),
                       **how(run, "rl_stem", who))


def rl_code(run: Run, who: str) -> dict:
    return ppo.rl_code(run.models[who], run.tokenizer, run.stages["rl_code"], tasks=file_tasks(run, "code"), rehearsal=rehearsal(run, chat=True),
                       **how(run, "rl_code", who))


def rl_preference(run: Run, who: str) -> dict:
    if "reward_model" not in run.models:
        raise ValueError("rl_preference needs the stage reward_model before it; name it in --stages too")
    return ppo.rl_preference(run.models[who], run.tokenizer, run.models["reward_model"], run.stages["rl_preference"], tasks=file_tasks(run, "chat"),
                             rehearsal=rehearsal(run, chat=False), **how(run, "rl_preference", who))


def self_reward_1(run: Run, who: str) -> dict:
    run.models["seed_model"] = copy.deepcopy(run.models[who])  # M_1
    return self_rewarding_round(run, who, 1)


def self_reward_2(run: Run, who: str) -> dict:
    if "seed_model" not in run.models:
        raise ValueError("self_reward_2 needs the stage self_reward_1 before it; name it in --stages too")
    return self_rewarding_round(run, who, 2)


def self_rewarding_round(run: Run, who: str, number: int) -> dict:
    seed_model, stage = run.models["seed_model"], f"self_reward_{number}"
    settings, measured = round_settings(run, stage), {}
    if number == 1:
        measured["seed_judge"] = self_reward.judge_report(seed_model, run.tokenizer, settings, run.seed)
        if not run.smoke:
            self_reward.check_seed_model(measured["seed_judge"])
    before = run.models[who]
    run.models[who], made = self_reward.next_iteration_model(before, seed_model, run.tokenizer, settings, round_number=number,
                                                             training_prompts=sft.chat_prompts(run.size, run.seed), rehearsal=rehearsal(run, chat=False),
                                                             data=run.out / f"{stage}.jsonl", **how(run, stage, who))
    return measured | made


def round_settings(run: Run, stage: str) -> self_reward.Settings:
    return replace(run.stages[stage], held_out=max(run.stages[stage].held_out, run.eval_n))


def measured_afterwards(run: Run, stage: str, who: str, before) -> dict:
    """What a stage alone measures of the model that it has trained and saved; `before` is the model that entered."""
    if stage == "reward_model":
        return rewards.held_out_report(run.models["reward_model"], before, run.tokenizer, run.stages[stage], seed=run.seed, rankings=file_rankings(run))
    if stage.startswith("self_reward"):
        return self_reward.measure(run.models[who], before, run.models["seed_model"], run.tokenizer, round_settings(run, stage), run.seed)
    return {}


def how(run: Run, stage: str, who: str) -> dict:
    return {"seed": run.seed, "device": run.device, "log": run.out / f"{stage}.{who}.csv"}


def context_of(run: Run) -> int:
    """The most tokens of one row: the model's, and with real files no more than 1,024, which nearly all of them keep to."""
    context = run.models["student"].config.context
    return min(context, 1024) if run.data else context


def file_rows(run: Run, domains, tell: str | None = None) -> list:
    """The demonstrations of the real files as rows; what is left out is counted on the terminal where a stage is named."""
    records = [record for domain in domains for record in run.data.demonstrations[domain]]
    rows, dropped = dialogue_rows(run.tokenizer, records, context_of(run))
    if tell:
        tell_dropped(tell, dropped)
        check_prompts(tell, list(map(before_reply, rows)), dropped)
    return rows


def file_rankings(run: Run, tell: bool = False) -> list | None:
    """The rankings of the real files; None where the tiny world makes them."""
    if not run.data:
        return None
    dropped, settings = {}, run.stages["reward_model"]
    records = map(formats.as_ranking, run.data.pairs)
    rankings = rewards.rankings_of(records, run.tokenizer, context_of(run), dropped)
    if tell:
        tell_dropped("reward_model", dropped)
        check_prompts("reward_model", [ranking["opening"] for ranking in rankings], dropped)
    rng = random.Random(seed_of(run.seed, "reward_model", "rankings"))
    return rng.sample(rankings, min(len(rankings), settings.prompts))


def file_tasks(run: Run, *domains) -> list | None:
    """The training prompts of the real files; None where the tiny world makes them."""
    return [task for domain in domains for task in run.data.tasks["train"][domain]] if run.data else None


def rehearsal(run: Run, chat: bool) -> list:
    """What a stage repeats so that it does not forget: what was learned last, which is the teacher's samples once they are distilled."""
    if run.data:
        return file_rows(run, real.CHECKED)
    if run.taught:
        return distillation.kept_rehearsal(run.taught, chat, run.taught_student)
    return sft.rehearsal_data(run.tokenizer, run.size, run.seed, context_of(run))


STAGES = [(pretrain, "student"), (pretrain, "teacher"), (cold_start_sft, "student"), (cold_start_sft, "teacher"),
          (overall_sft, "student"), (overall_sft, "teacher"), (given_teacher, "teacher"), (distill, "student"), (reward_model, "student"), (rl_stem, "student"),
          (rl_code, "student"), (rl_preference, "student"), (self_reward_1, "student"), (self_reward_2, "student")]


ORDER = [(function.__name__, who) for function, who in STAGES]


def schedule(stands_in: bool) -> list:
    """STAGES with `given_teacher` in place of the teacher's own three, or without it."""
    return [(function, who) for function, who in STAGES
            if who == "student" or (function is given_teacher) == stands_in]


def stage_settings(size: str, smoke: bool) -> dict:
    """The settings of each stage after SFT."""
    tiny = {"distill": distillation.Settings(), "reward_model": rewards.Settings(), **ppo.STAGE_SETTINGS}
    stages = {stage: sized(settings, stage, size, smoke) for stage, settings in tiny.items()}
    both_rounds = sized(self_reward.Settings(), "self_reward", size, smoke)
    return stages | {"self_reward_1": both_rounds, "self_reward_2": both_rounds}


# ---- running ----

def settings_of(run: Run, stage: str, who: str, entering: str = "none") -> str:
    """What decides a stage's result and its line of the table, to notice that a finished stage was made otherwise: "size=tiny seed=1 ...".
    `entering`: a digest of the weights that it began with (`entering_weights`)."""
    settings = None
    if stage != "given_teacher":
        settings = asdict(run.stages[stage] if stage in run.stages else run.schedules[who])
    made = {"model": asdict(SIZES[run.size][who]), "settings": [stage, who, settings]}
    given = dict(run.given)
    if who == "student" and ORDER.index((stage, who)) < ORDER.index(("distill", "student")):
        given.pop("teacher", None)  # what comes before distill knows no teacher
    return key_line({"size": run.size, "seed": run.seed, "eval-n": run.eval_n, **surroundings(run.tokenizer, run.device),
                     **given, **{name: digest(json.dumps(value, sort_keys=True)) for name, value in made.items()},
                     "entering-weights": entering})


def entering_weights(results: dict, stage: str, who: str) -> str:
    """The digest of every model of the finished stages that a stage is given: the same model's last, of `distill` the teacher's, of
    `rl_preference` the reward model's. "none" where it begins with what the command line gives, which the key names elsewhere."""
    before = [line for line in results["stages"] if ORDER.index((line["name"], line["model"])) < ORDER.index((stage, who))]
    given = [[line for line in before if line["model"] == model and line["name"] != "reward_model"]
             for model in ((who, "teacher") if stage == "distill" else (who,))]
    if stage == "rl_preference":
        given.append([line for line in before if line["name"] == "reward_model"])
    return "+".join(lines[-1]["weights"] for lines in given if lines and "weights" in lines[-1]) or "none"


def read_json(path: Path, default):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError:
        raise ValueError(f"{path}: not valid JSON; delete the file, or give another --out") from None


def environment() -> dict:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__, "system": platform.system(),
            "machine": platform.machine(), "processors": os.cpu_count(), "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def peak_memory_mb() -> float | None:
    """The most memory that this process has held, or None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def unfinished(results: dict, run: Run, wanted: list, force: bool) -> list:
    """The stages still to be run. Raises ValueError where a finished one was made with other settings."""
    finished = {(stage["name"], stage["model"]): stage for stage in results["stages"]}
    todo, redone = [], {}  # redone: each model of which a stage is run again -> the place of the first such stage in the schedule
    for function, who in wanted:
        name = function.__name__
        done = finished.get((name, who))
        key = settings_of(run, name, who, entering_weights(results, name, who))
        same = done is not None and done["settings"] == key
        if done is not None and not same and not force:
            told = ", ".join(f"{what} {was}, now {now}"
                             for what, was, now in differences(done["settings"], key) if was is not None)
            raise ValueError(f"{run.out}: {name} ({who}) was finished with other settings{told and f' ({told})'}; --force redoes it and what "
                             "follows, or give another --out")
        if not same or who in redone or name == "distill" and redone:
            todo.append((function, who))
            redone.setdefault(who, ORDER.index((name, who)))
    if "teacher" in redone:  # distill and all that follows it were made with the teacher that is now replaced
        redone.setdefault("student", ORDER.index(("distill", "student")))
    # what came later of the same model was made from weights that are now replaced, wanted or not
    results["stages"] = [stage for stage in results["stages"]
                         if ORDER.index((stage["name"], stage["model"])) < redone.get(stage["model"], len(ORDER))]
    return todo


def check_kept(out: Path, results: dict, wanted: list, force: bool) -> None:
    """Raises ValueError where the checkpoint of a wanted stage that was finished is missing or
    damaged; with --force the stage becomes one that was made with other settings."""
    for stage in results["stages"]:
        path = out / stage["checkpoint"]
        if (stage["name"], stage["model"]) in wanted and (wrong := damage(path)):
            if not force:
                raise ValueError(f"{path}: the checkpoint of the finished stage {stage['name']} "
                                 f"({stage['model']}) {wrong}; put it back, or --force redoes the "
                                 "stage and what follows")
            stage["settings"] = ""


def check_weights(path: Path, stage: dict, model, remedy: str) -> None:
    """Raises ValueError where a file of the right form holds other weights than its stage ended with."""
    if stage.get("weights", now := digest(model)) != now:
        raise ValueError(f"{path}: holds other weights than those that {stage['name']} "
                         f"({stage['model']}) ended with; {remedy}")


def finite(value):
    """The same with None for what is not a number, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def stage_line(stage: dict) -> str:
    """The stage's line of the growing table, and what it alone measured where that says more."""
    name, measured = f"{stage['name']} ({stage['model']})", stage["measured"]
    if stage["name"] == "given_teacher":
        name = "teacher (given)"
    if stage["eval"] is None:
        told = {"held-out accuracy": "accuracy", "by the true rubric": "true_accuracy", "the annotator with itself": "annotator_agreement"}
        return f"{name:26} " + ", ".join(f"{words} {measured[key]:.3f}" for words, key in told.items() if measured.get(key) is not None)
    return table_line(name, stage["eval"])


def run_stages(run: Run, todo: list, results: dict) -> None:
    """Train, save, evaluate and report, one stage after the other."""
    print(table_head(real.CHECKED if run.data else COLUMNS))
    for stage in results["stages"]:
        print(stage_line(stage) + "  (done before)")
    try:
        for function, who in todo:
            line = run_stage(run, function, who, entering_weights(results, function.__name__, who))
            results["stages"].append(line)
            results["stages"].sort(key=lambda stage: ORDER.index((stage["name"], stage["model"])))
            results["seconds"] = round(sum(stage["seconds"] for stage in results["stages"]), 1)
            results["peak_memory_mb"] = max(peak_memory_mb() or 0, results.get("peak_memory_mb") or 0) or None
            writing.write_json(run.out / "results.json", finite(results))
            print(stage_line(line) + f"  {line['seconds']:.0f} s", flush=True)
            if line["eval"] and not all(math.isfinite(row["greedy"]) for key, row in line["eval"].items() if key != "code"):
                raise FloatingPointError(f"{line['name']} ({who}): the evaluation is not a number")
    finally:  # once, since the plots take longer than many a stage of a smoke run
        if results["stages"] and rank() == 0:
            report(run.out, results)


def run_stage(run: Run, function, who: str, entering: str) -> dict:
    """One stage: its entry in results.json. The checkpoint is written straight after training; a run that was stopped after that trains
    nothing again."""
    name, began = function.__name__, time.perf_counter()
    trained, before = "reward_model" if name == "reward_model" else who, run.models[who]
    checkpoint, key, evaluated = f"{name}.{who}.pt", settings_of(run, name, who, entering), None

    def training() -> tuple:
        measured = function(run, who)
        return run.models[trained], measured | {"training_seconds": time.perf_counter() - began}

    def untrained():
        return rewards.RewardModel(before) if name == "reward_model" else copy.deepcopy(before)
    run.models[trained], measured = once(run.out / checkpoint, key, untrained, run.tokenizer, name, training)
    if name == "self_reward_1":
        run.models["seed_model"] = before  # M_1, where the round was trained before
    if name == "distill":
        run.taught, run.taught_student = run.out / REHEARSAL, digest(run.models["student"])
    evaluation = time.perf_counter()
    measured |= measured_afterwards(run, name, who, before)
    if name != "reward_model":
        how_long = {"tasks": {domain: run.data.tasks["test"][domain] for domain in real.CHECKED}, "max_new": 256} if run.data else {}
        evaluated = evaluate(run.models[who], run.tokenizer, run.eval_n, seed=run.seed, **how_long)
        answer_samples(run, name, who)
    seconds = measured.pop("training_seconds") + time.perf_counter() - evaluation
    return {"name": name, "model": who, "seconds": round(seconds, 2), "tokens": measured.pop("tokens"), "checkpoint": checkpoint,
            "weights": digest(run.models[trained]), "settings": key, "eval": evaluated, "measured": finite(measured)}


def answer_samples(run: Run, stage: str, who: str) -> None:
    """The same fixed prompts, two a domain, answered greedily; kept as JSONL and laid out in samples.md."""
    if run.data:
        tasks = [task for domain in real.DOMAINS for task in run.data.tasks["test"][domain][:2]]
    else:
        tasks = [task for domain in world.DOMAINS[:5] for task in world.evaluation_tasks(domain, 2)]
    samples = generate(run.models[who], run.tokenizer, [run.tokenizer.prompt(task.messages) for task in tasks], temperature=0.0,
                       max_new=256 if run.data else 64, run_tool=world.run_tool)
    path = run.out / "samples.jsonl"
    lines = [line for line in (formats.read_jsonl(path) if path.exists() else []) if (line["stage"], line["model"]) != (stage, who)]
    for task, ids in zip(tasks, samples.lists()):
        lines.append({"stage": stage, "model": who, "domain": task.domain, "prompt": task.prompt, "reply": run.tokenizer.shown(ids)})
    writing.write_jsonl(path, lines)
    text = ["# The same prompts, answered by every stage", "", "Greedy, unedited, with all marks.", ""]
    for prompt in dict.fromkeys(line["prompt"] for line in lines):
        replies = [f"- {line['stage']} ({line['model']}): `{line['reply']}`" for line in lines if line["prompt"] == prompt]
        text += [f"## {prompt}", "", *replies, ""]
    writing.write_text(run.out / "samples.md", "\n".join(text))


# ---- command line ----

def main() -> None:
    parser = common_flags(__doc__, "runs/SIZE-seedSEED, with -data and -smoke after SIZE where those "
                          "flags are given")
    parser.add_argument("--student", default=None, help="checkpoint that the student starts from; name the stages that follow in --stages")
    parser.add_argument("--teacher", default=None,
                        help="checkpoint of the teacher, or `train` for one that this run trains; default: at size tiny "
                             "data/teacher.tiny.pt, at other sizes train")
    parser.add_argument("--stages", default=None, help="only these stages, separated by commas; default: all")
    parser.add_argument("--eval-n", type=int, default=None, help="held-out prompts a domain; default: 128, 8 with --smoke")
    parser.add_argument("--force", action="store_true", help="redo stages that were finished with other settings")
    parser.add_argument("--seeds", default=None, help="several runs one after the other, such as 1,2,3; each has a folder of its own in --out")
    args = parser.parse_args()
    if args.seeds is None:
        return one_run(args)
    seeds = args.seeds.split(",")
    if not all(seed.isdecimal() for seed in seeds) or len(set(seeds)) < len(seeds):
        fail(f"--seeds {args.seeds}: needs different numbers separated by commas")
    parent = args.out
    for args.seed in map(int, seeds):
        args.out = parent and f"{parent}/seed{args.seed}"
        one_run(args)


def one_run(args) -> None:
    run, results = None, {"stages": []}
    try:
        run, todo, results = prepare(args)
        run_stages(run, todo, results)
        print(f"{results['seconds']:.0f} s in all; {run.out / 'report.md'}")
    except KeyboardInterrupt:
        done = [f"{stage['name']} ({stage['model']})" for stage in results["stages"]]
        fail(f"stopped; finished: {', '.join(done) or 'nothing'}. The same command goes on from there.", 130)
    except Exception as error:
        if (line := known_failure(error)) is None:
            raise
        fail(f"{line}; finished stages and their checkpoints are in {run.out}" if run else line)
    finally:
        release()


def stages_of(args, given: dict, stands_in: bool) -> list:
    """The stages that --stages names; by default all, but pretraining of a model that is given, and with real files what they allow.
    stands_in: the teacher that comes with the project takes the place of its three stages."""
    stages = schedule(stands_in)
    names = list(dict.fromkeys(function.__name__ for function, _ in stages))
    asked = [name.strip() for name in args.stages.split(",")] if args.stages is not None else names
    if unknown := [name for name in asked if name not in names]:
        raise ValueError(f"--stages {unknown[0]}: there is {', '.join(names)}")
    wanted = [(function, who) for function, who in stages if function.__name__ in asked
              and not (args.stages is None and function is pretrain and given[who])]
    if args.data:
        refused = [name for name in asked if name == "pretrain" or name.startswith("self_reward")]
        if args.stages and refused:
            raise ValueError(f"--stages {refused[0]}: is not made from the files of --data")
        wanted = [(function, who) for function, who in wanted if function.__name__ not in refused]
        if given["teacher"] is None:
            if args.stages is None:
                print("no --teacher: distill is left out")
            wanted = [(function, who) for function, who in wanted if who == "student" and (args.stages or function is not distill)]
    return wanted


def prepare(args) -> tuple[Run, list, dict]:
    """The run, the stages still to do, and the results so far, from the command line and what lies in the folder."""
    device = start(args)
    given = {"student": args.student, "teacher": None if args.teacher == "train" else args.teacher}
    for who, path in given.items():
        if path and not Path(path).exists():
            raise ValueError(f"--{who} {path}: no such checkpoint")
    data = real.read_folder(args.data) if args.data else None
    tokenizer = tokenizer_of(given["student"] or given["teacher"])
    stands_in = None if args.teacher or data else given_teacher_of(args.size, tokenizer)
    if stands_in:
        given["teacher"] = stands_in
    wanted = stages_of(args, given, stands_in is not None)
    out = out_folder(args.out or f"runs/{args.size}{'-data' if data else ''}{'-smoke' if args.smoke else ''}-seed{args.seed}")
    schedules = {who: sft.smoke(s) if args.smoke else s for who, s in sft.SCHEDULES[args.size].items()}
    run = Run(out, args.size, args.seed, device, tokenizer, schedules, args.eval_n or (8 if args.smoke else 128), args.smoke,
              stage_settings(args.size, args.smoke), data)
    run.given = {what: path and digest(Path(path)) for what, path in (given | {"data": args.data}).items()}
    run.given["compile"] = args.compile
    results = read_json(out / "results.json", {"stages": []})
    if not isinstance(results, dict) or not isinstance(results.get("stages"), list):
        raise ValueError(f"{out / 'results.json'}: not the results of a run; delete the file, or give another --out")
    for row in (row for stage in results["stages"] for row in (stage["eval"] or {}).values()):
        row |= {key: math.nan for key, value in row.items() if value is None}  # a score that could not be found; the file has null
        if "low" not in row:
            raise ValueError(f"{out / 'results.json'}: of an older version, which kept no interval's ends; "
                             "give another --out")
    finished = list(results["stages"])
    scheduled = [(function.__name__, who) for function, who in schedule(stands_in is not None)]
    results["stages"] = [stage for stage in finished if (stage["name"], stage["model"]) in scheduled]
    other = [stage for stage in finished if stage not in results["stages"]]
    if other and not args.force:
        raise ValueError(f"{out}: {other[0]['name']} ({other[0]['model']}) was finished with another --teacher; "
                         "--force redoes what follows from it, or give another --out")
    check_kept(out, results, [(function.__name__, who) for function, who in wanted], args.force)
    todo = unfinished(results, run, wanted, args.force)
    redone = [stage for stage in finished if stage not in results["stages"]]
    for who in given:  # no stage but pretrain starts from random weights
        needs = [name for name, model in ((function.__name__, model) for function, model in todo) if who in (model, {"distill": "teacher"}.get(name))]
        if needs and needs[0] != "pretrain" and not given[who] and not any(stage["model"] == who for stage in results["stages"]):
            remedy = "" if data else ", or name the stages before it in --stages too"
            raise ValueError(f"{needs[0]} has no {who} to start from: give --{who} CHECKPOINT{remedy}")
    results |= {"size": args.size, "seed": args.seed, "world_version": world.WORLD_VERSION}
    for who in ("student", "teacher"):
        last = next((stage for stage in reversed(results["stages"]) if stage["model"] == who and stage["eval"]), None)
        path = out / last["checkpoint"] if last else given[who]
        if path is None and not any(model == who for _, model in todo):
            continue  # nothing is asked of it
        model = load_checkpoint(path, run.tokenizer)[0] if path else fresh_model(args.size, who, run.tokenizer, args.seed)
        if last:
            check_weights(path, last, model, "to go on from them, give another --out and this file "
                          f"as --{who}")
        run.models[who] = placed(model, args, device)
    if {"student", "teacher"} <= set(run.models) and run.models["teacher"].config.context < context_of(run):
        raise ValueError(f"--teacher: its context of {run.models['teacher'].config.context} tokens is shorter than the student's rows of {context_of(run)}")
    names = [stage["name"] for stage in results["stages"]]
    if "distill" in names and not data:
        run.taught, run.taught_student = out / REHEARSAL, results["stages"][names.index("distill")].get("weights")
    if "reward_model" in names:
        path = out / "reward_model.student.pt"
        run.models["reward_model"] = rewards.load_reward_model(path, run.tokenizer, device)
        stage = results["stages"][names.index("reward_model")]
        check_weights(path, stage, run.models["reward_model"], "put it back, or give another --out")
    if "self_reward_1" in names:  # M_1 is the student that entered the first round
        entered = [stage for stage in results["stages"][:names.index("self_reward_1")] if stage["model"] == "student" and stage["eval"]]
        seed_model, _ = load_checkpoint(out / entered[-1]["checkpoint"] if entered else given["student"], run.tokenizer)
        run.models["seed_model"] = placed(seed_model, args, device)
    if data:
        if context_of(run) < 512:
            raise ValueError(f"--data: the student's context of {context_of(run)} tokens is too short for real prompts and 256 tokens of reply; "
                             "give --student a checkpoint with at least 512")
        real.drop_long(data, lambda messages: len(tokenizer.prompt(messages)), context_of(run) - 256)
        print("".join(f"{note}\n" for note in data.notes), end="")
        if data.dropped:
            print(formats.dropped_line(data.dropped))
    for stage in redone:
        remove_middle(out / f"{stage['name']}.{stage['model']}.csv")
    if redone:  # the file must not say finished of what is now replaced, should this run be killed
        writing.write_json(out / "results.json", finite(results))
    results["params"] = {who: parameter_count(model) for who, model in run.models.items() if who in given}
    writing.write_json(out / "config.json", {"arguments": vars(args) | {"out": None},
                                             "models": {who: asdict(run.models[who].config) for who in results["params"]},
                                             "schedules": {who: asdict(schedule) for who, schedule in schedules.items()},
                                             "stages": {name: asdict(settings) for name, settings in run.stages.items()}})
    writing.write_json(out / "env.json", environment())
    return run, todo, results


if __name__ == "__main__":
    main()
