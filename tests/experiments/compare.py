"""One stage with two settings, side by side: what does the change do, over seeds?

    python -m tests.experiments.compare rl_preference estimator=group estimator=gae runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3
    python -m tests.experiments.compare distill direction=forward direction=reverse runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3
    python -m tests.experiments.compare rl_stem rehearsal_rows=16 rehearsal_rows=0 runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3

Each run folder must hold the checkpoints that enter the stage; nothing in it is changed. Several settings are joined by a
comma: lr=0.001,epochs=1. Prints the second minus the first by domain, with t intervals over the runs.
"""

import argparse
import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import torch

import pipeline
import reward_model
import sft
from data import world
from data.files import tokenizer as tokenizers
from data.runtime.command import fail, guarded
from data.runtime.evaluation import evaluate, table_line
from model import load_checkpoint
from tests.experiments.targets import interval

AFTER_SFT = [name for name, who in pipeline.ORDER if who == "student" and name not in ("pretrain", "cold_start_sft", "overall_sft", "reward_model")]


def changed(settings, text: str):
    """The settings with `name=value,name=value` applied; raises ValueError for a name that they do not have."""
    names = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in names:
            raise ValueError(f"{name!r} is no setting; there is {', '.join(names)}")
        try:
            values[name] = value if isinstance(names[name], str) else json.loads(value)
        except ValueError:
            raise ValueError(f"{part}: {value!r} is no value for {name}, which is {names[name]!r}") from None
    return replace(settings, **values)


def entering_files(stage: str, entering: str) -> list[str]:
    """The files of a run that a stage starts from."""
    more = {"distill": ["given_teacher.teacher"], "rl_preference": ["reward_model.student"], "self_reward_2": ["rl_preference.student"]}
    taught = [] if entering == "overall_sft" else [pipeline.REHEARSAL]
    return [f"{name}.pt" for name in (f"{entering}.student", *more.get(stage, []))] + taught


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("stage", choices=AFTER_SFT)
    parser.add_argument("first", help="setting=value")
    parser.add_argument("second", help="setting=value")
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--eval-n", type=int, default=400, help="held-out prompts a domain")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, stages, gaps = tokenizers.tiny(), pipeline.stage_settings("tiny", False), {}
    function = getattr(pipeline, args.stage)
    students = [name for name, who in pipeline.ORDER if who == "student" and name != "reward_model"]
    entering = students[students.index(args.stage) - 1]
    try:
        both = {text: changed(stages[args.stage], text) for text in (args.first, args.second)}
        for needed in (Path(folder) / name for folder in args.runs for name in entering_files(args.stage, entering)):
            if not needed.exists():
                raise ValueError(f"{needed}: no such file, and {args.stage} needs it")
        for folder in map(Path, args.runs):
            seed, scores = json.loads((folder / "results.json").read_text(encoding="utf-8"))["seed"], {}
            for text, settings in both.items():
                with tempfile.TemporaryDirectory() as out:
                    run = pipeline.Run(Path(out), "tiny", seed, torch.device("cpu"), tokenizer, sft.SCHEDULES["tiny"], args.eval_n, False,
                                       stages | {args.stage: settings})
                    run.models = {"student": load_checkpoint(folder / f"{entering}.student.pt", tokenizer)[0]}
                    if args.stage == "distill":
                        run.models["teacher"] = load_checkpoint(folder / "given_teacher.teacher.pt", tokenizer)[0]
                    if args.stage == "rl_preference":
                        run.models["reward_model"] = reward_model.load_reward_model(folder / "reward_model.student.pt", tokenizer)
                    if args.stage == "self_reward_2":
                        run.models["seed_model"] = load_checkpoint(folder / "rl_preference.student.pt", tokenizer)[0]
                    if students.index(args.stage) > students.index("distill"):
                        run.taught = folder / pipeline.REHEARSAL
                    own = function(run, "student")
                    scores[text] = evaluate(run.models["student"], tokenizer, args.eval_n, seed=seed, domains=world.DOMAINS)
                print(table_line(f"seed {seed} {text}"[:26], scores[text]) + f"  {own['seconds']:.0f} s", flush=True)
            for domain in world.DOMAINS:
                for key in ("greedy", "sampled"):
                    gaps.setdefault((domain, key), []).append(100 * (scores[args.second][domain][key] - scores[args.first][domain][key]))
    except (ValueError, OSError) as error:
        fail(error)
    print(f"\n| {args.stage}: {args.second} minus {args.first}, points | " + " | ".join(world.DOMAINS) + " |\n|---|" + "---|" * len(world.DOMAINS))
    for key in ("greedy", "sampled"):
        print(f"| {key} | " + " | ".join("{:+.1f} +-{:.1f}".format(*interval(gaps[domain, key])) for domain in world.DOMAINS) + " |")


if __name__ == "__main__":
    guarded(main)
