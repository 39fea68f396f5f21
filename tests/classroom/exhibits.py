"""Twelve small experiments, one a silent bug: what a log shows with it and without it.

museum.py runs this file twice for each, in the project and in a copy with the bug planted:

    python exhibits.py start START        makes what all begin with in the folder START
    python exhibits.py BUG START OUT      BUG: its name; OUT: a JSON of the lines, a list a seed

The chapters that it imports are those of the folder that it is run in.
"""

import csv
import json
import random
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import distill
import dpo
import ppo
import reward_model
import self_reward
import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files.checkpoints import TEACHER, save_checkpoint
from data.runtime import annotator, judging
from data.runtime.decoding import generate
from data.runtime.lessons import development_rows
from data.runtime.measures import pair_accuracy
from data.runtime.rows import dialogue_rows
from model import fresh_model, load_checkpoint

TOKENIZER = tokenizers.tiny()


def start(folder: Path) -> None:
    """base.pt, a student after a short pretraining, and sft.pt, the same after a short SFT."""
    schedule = sft.SCHEDULES["tiny"]["student"]
    short = replace(schedule.pretrain, steps=250)
    schedule = replace(schedule, documents=2500, pretrain=short)
    model = fresh_model("tiny", "student", TOKENIZER, 1)
    sft.pretrain(model, TOKENIZER, schedule, seed=1)
    save_checkpoint(folder / "base.pt", model, TOKENIZER, "pretrain")
    rows = dialogue_rows(TOKENIZER, demonstrations(), 256)[0]
    sft.train_in_passes(model, TOKENIZER, rows, sft.Settings(800), seed=1, stage="museum")
    save_checkpoint(folder / "sft.pt", model, TOKENIZER, "sft")


def demonstrations() -> list[dict]:
    """Math, code and STEM of the two lowest levels, chat and tools."""
    counts = {"reasoning": 8, "chat": 900, "agent": 400, "judge": 4, "new_prompt": 4}
    kinds = world.overall_demonstrations(1, counts, (2,))
    return world.cold_start_demonstrations(1, 1500, (1, 2)) + kinds["chat"] + kinds["agent"]


def model_of(path: Path):
    return load_checkpoint(path, TOKENIZER)[0]


def lines_of(log: Path) -> list[dict]:
    """The lines of a CSV that a loop has written; what is empty or nan is left out."""
    with open(log, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if v not in ("", "nan")} for row in rows]


# ---- SFT ----


def sft_rows() -> list:
    return dialogue_rows(TOKENIZER, demonstrations(), 256)[0]


def sft_losses(folder: Path, seed: int, log: Path) -> list[dict]:
    held_out = development_rows(TOKENIZER, 256, world.REASONING, (1, 2))[:40]
    settings = sft.Settings(60, held_out_every=10)
    how = {"seed": seed, "stage": "museum", "held_out": held_out, "log": log}
    sft.train_in_passes(model_of(folder / "base.pt"), TOKENIZER, sft_rows(), settings, **how)
    return lines_of(log)


def sft_lengths(folder: Path, seed: int, log: Path) -> list[dict]:
    """After every 20 steps, what the model answers to 48 prompts."""
    model = model_of(folder / "base.pt")
    tasks = world.draw_tasks(world.generator(seed, "museum"), ("agent", "chat"), 48)
    prompts = [TOKENIZER.prompt(task.messages) for task in tasks]
    rows = sft_rows()
    lines = []
    for piece in range(5):
        samples = generate(model, TOKENIZER, prompts, seed=seed, run_tool=world.run_tool)
        line = {"step": 20 * piece, "length": float(samples.lengths.float().mean())}
        lines.append(line | {"truncated": float(samples.truncated.float().mean())})
        random.Random(seed + piece).shuffle(rows)
        sft.train(model, TOKENIZER, rows, sft.Settings(20), seed=seed, stage="museum")
    return lines


# ---- preferences ----


def dpo_run(folder: Path, seed: int, log: Path) -> list[dict]:
    model = model_of(folder / "sft.pt")
    pairs = dpo.annotated_pairs(model, TOKENIZER, seed=seed, prompts=64)
    settings = dpo.Settings(steps=20, rows=12, probe_every=100)
    dpo.train(model, TOKENIZER, pairs, settings, seed=seed, log=log)
    return lines_of(log)


def rewards_beside(folder: Path, seed: int, log: Path) -> list[dict]:
    """Scores of held-out outputs by how many rows are read in one forward."""
    policy = model_of(folder / "sft.pt")
    settings = reward_model.Settings(prompts=240, held_out=64)
    model, _ = reward_model.reward_model(policy, TOKENIZER, settings, seed=seed, log=log)
    rankings = annotator.rankings_of_part(policy, TOKENIZER, settings, seed, "test")
    rows = [row for ranking in rankings for row in ranking["rows"]]
    levels = [annotator.parse_ranking(one["ranking"], len(one["rows"])) for one in rankings]
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    lines = lines_of(log)
    for size in (1, 4, 16, 64, 256):
        scores = [0.0] * len(rows)
        for i in range(0, len(order), size):
            some = order[i : i + size]
            got = reward_model.predicted_reward(model, TOKENIZER, [rows[k] for k in some])
            for k, score in zip(some, got.tolist()):
                scores[k] = score
        groups = [scores[i : i + 4] for i in range(0, len(scores), 4)]
        line = {"rows": size, "mean_score": sum(scores) / len(scores)}
        lines.append(line | {"held_out_accuracy": pair_accuracy(groups, levels)})
    return lines


def rewards_of_ties(folder: Path, seed: int, log: Path) -> list[dict]:
    """Two outputs a prompt, of which many are alike."""
    policy = model_of(folder / "sft.pt")
    settings = reward_model.Settings(prompts=480, outputs=2, rows=32)
    reward_model.reward_model(policy, TOKENIZER, settings, seed=seed, log=log)
    return lines_of(log)


# ---- reinforcement learning ----


def rl(folder: Path, seed: int, log: Path, **changed) -> list[dict]:
    """The same twelve questions that need a tool in every iteration, so that what bends is not the
    questions; the reward is the verifier's."""
    rng = world.generator(seed, "museum")
    policy = model_of(folder / "sft.pt")
    tasks = world.draw_tasks(rng, ("agent",), 12, levels=(1, 2, 3))
    settings = replace(ppo.Settings(prompts=12, samples=6, iterations=8, minibatches=2), **changed)
    ppo.train(policy, TOKENIZER, tasks, settings, seed=seed, stage="museum", log=log)
    return lines_of(log)


# ---- distillation and judging ----


def distilled(folder: Path, seed: int, log: Path) -> list[dict]:
    student = model_of(folder / "sft.pt")
    settings = distill.Settings(steps=40, queries=120)
    how = {"seed": seed, "log": log}
    distill.distill(student, model_of(TEACHER), TOKENIZER, settings, **how)
    return lines_of(log)


def judged(folder: Path, seed: int, log: Path) -> list[dict]:
    """How the teacher judges, its verdicts drawn at rising temperatures."""
    model = model_of(TEACHER)
    lines = []
    for temperature in (0.5, 1.0, 1.5, 1.75, 2.0):
        given = []

        def judge(questions, responses, settings, seed):
            scores, verdicts = self_reward.judge(
                model, TOKENIZER, questions, responses, settings, seed
            )
            given.extend(score for score in scores if score is not None)
            return scores, verdicts

        settings = self_reward.Settings(held_out=32, temperature=temperature, top_p=1.0)
        line = judging.report(judge, settings, seed, "dev")
        line |= {"temperature": temperature, "mean_score": sum(given) / max(1, len(given))}
        lines.append(line)
    return lines


# each by the name of its bug in bugs.py
RUNS = {
    "the prompt is trained on too": sft_losses,
    "the end mark is left out of the loss": sft_lengths,
    "a mean over the response where DPO has a sum": dpo_run,
    "the reward is read at the padding": rewards_beside,
    "a tie counts as a win": rewards_of_ties,
    "the reference learns along": partial(rl, kl_coef=0.05),
    "the KL has the wrong sign": partial(rl, estimator="gae", kl_coef=0.5),
    "advantages are not centred": rl,
    "old log-probabilities at another temperature": partial(rl, iterations=4),
    "advantages run through what a tool wrote": partial(rl, estimator="gae"),
    "the KL of distillation runs the other way": distilled,
    "a verdict that cannot be read counts as 0": judged,
}


def main() -> None:
    torch.set_num_threads(1)
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "start":
        return start(folder)
    found = []
    for seed in (1, 2):
        with tempfile.TemporaryDirectory() as temporary:
            found.append(RUNS[what](folder, seed, Path(temporary) / "log.csv"))
    Path(sys.argv[3]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
