"""One stage with two settings, side by side: what does the change do, over seeds?

    python -m tests.experiments.compare rl_preference estimator=group estimator=gae runs/tiny-seed*
    python -m tests.experiments.compare distill direction=forward direction=reverse runs/tiny-seed*
    python -m tests.experiments.compare rl_stem rehearsal_rows=16 rehearsal_rows=0 runs/tiny-seed*

Each run folder must hold the checkpoints that enter the stage. Nothing in it is changed. Several
settings are joined by a comma: lr=0.001,epochs=1. Prints the second minus the first by domain, with
t intervals over the runs.
"""

import argparse
import json
import math
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
from tests.experiments.tables import head, row, told_over

# the stages of the student in their order; the reward model's trains another model
STUDENT = [name for name, who in pipeline.ORDER if who == "student" and name != "reward_model"]
AFTER_SFT = STUDENT[STUDENT.index("overall_sft") + 1 :]


def changed(settings, text: str):
    """The settings with `name=value,name=value` applied.

    Raises ValueError for a name that they do not have.
    """
    names = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values = {}
    for change in text.split(","):
        name, _, value = change.partition("=")
        if name not in names:
            raise ValueError(f"{name!r} is no setting; there is {', '.join(names)}")
        try:
            values[name] = value if isinstance(names[name], str) else json.loads(value)
        except ValueError:
            raise ValueError(
                f"{change}: {value!r} is no value for {name}, which is {names[name]!r}"
            ) from None
    return replace(settings, **values)


def entering_files(stage: str, entering: str) -> list[str]:
    """The files of a run that a stage starts from."""
    more = {
        "distill": ["given_teacher.teacher"],
        "rl_preference": ["reward_model.student"],
        "self_reward_2": ["rl_preference.student"],
    }
    taught = [] if entering == "overall_sft" else [pipeline.REHEARSAL]
    return [f"{name}.pt" for name in (f"{entering}.student", *more.get(stage, []))] + taught


def entering_run(folder: Path, out: str, stage: str, settings: dict, args) -> pipeline.Run:
    """What the stage would be given in the run of this folder, but it writes to `out`."""
    run = pipeline.Run(
        out=Path(out),
        size="tiny",
        seed=seed_of_run(folder),
        device=torch.device("cpu"),
        tokenizer=tokenizers.tiny(),
        schedules=sft.SCHEDULES["tiny"],
        eval_n=args.eval_n,
        smoke=False,
        stages=settings,
    )

    def load(name: str):
        return load_checkpoint(folder / f"{name}.pt", run.tokenizer)[0]

    run.models = {"student": load(f"{before(stage)}.student")}
    if stage == "distill":
        run.models["teacher"] = load("given_teacher.teacher")
    if stage == "rl_preference":
        path = folder / "reward_model.student.pt"
        run.models["reward_model"] = reward_model.load_reward_model(path, run.tokenizer)
    if stage == "self_reward_2":
        run.models["seed_model"] = load("rl_preference.student")
    if STUDENT.index(stage) > STUDENT.index("distill"):
        run.taught = folder / pipeline.REHEARSAL
    return run


def seed_of_run(folder: Path) -> int:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["seed"]


def before(stage: str) -> str:
    """The student's stage before this one."""
    return STUDENT[STUDENT.index(stage) - 1]


def compared(folder: Path, both: dict, args) -> dict:
    """The scores after the stage with each of the settings in `both`, and a line for each."""
    stages = pipeline.stage_settings("tiny", False)
    train = getattr(pipeline, args.stage)
    scores = {}
    for text, settings in both.items():
        with tempfile.TemporaryDirectory() as out:
            run = entering_run(folder, out, args.stage, stages | {args.stage: settings}, args)
            measured = train(run, "student")
            scores[text] = evaluate(
                run.models["student"],
                run.tokenizer,
                args.eval_n,
                seed=run.seed,
                domains=world.DOMAINS,
            )
        line = table_line(f"seed {run.seed} {text}"[:26], scores[text])
        explained = measured.get("explained_variance", math.nan)
        told = f", explained variance {explained:.2f}" if math.isfinite(explained) else ""
        print(f"{line}  {measured['seconds']:.0f} s{told}", flush=True)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("stage", choices=AFTER_SFT)
    parser.add_argument("first", help="setting=value")
    parser.add_argument("second", help="setting=value")
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--eval-n", type=int, default=400, help="held-out prompts a domain")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = pipeline.stage_settings("tiny", False)[args.stage]
    gaps = {(domain, key): [] for domain in world.DOMAINS for key in ("greedy", "sampled")}
    try:
        both = {text: changed(settings, text) for text in (args.first, args.second)}
        for folder in map(Path, args.runs):
            for name in entering_files(args.stage, before(args.stage)):
                if not (folder / name).exists():
                    raise ValueError(f"{folder / name}: no such file, and {args.stage} needs it")
        for folder in map(Path, args.runs):
            scores = compared(folder, both, args)
            for domain, key in gaps:
                first, second = (scores[text][domain][key] for text in (args.first, args.second))
                gaps[domain, key].append(100 * (second - first))
    except (ValueError, OSError) as error:
        fail(error)
    print("\n" + head(f"{args.stage}: {args.second} minus {args.first}, points", *world.DOMAINS))
    for key in ("greedy", "sampled"):
        print(row(key, *(told_over(gaps[domain, key]) for domain in world.DOMAINS)))


if __name__ == "__main__":
    guarded(main)
