"""When does a learned reward stop meaning anything? RM score and true reward against the KL to the
start, on the same axes.

    python -m tests.experiments.overoptimise runs/tiny-seed1 runs/tiny-seed2 --out runs/overoptimise

The reward is climbed in two ways. PPO's clipped loss with the group baseline and several kl_coef (0
among them) runs several times longer than the pipeline does. Best-of-n goes up to n = 64; its KL is
log n - (n-1)/n (Gao et al., 2210.10760). Both rewards are measured on held-out prompts with known
truth.
"""

import argparse
import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

import dpo
import ppo
import reward_model as rewards
from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import fail, guarded
from data.runtime.decoding import generate
from data.runtime.devices import seed_of
from data.runtime.evaluation import sampled_rows
from model import load_checkpoint

matplotlib.use("Agg")  # no window, wherever it runs

CPU = torch.device("cpu")


def measured(policy, reference, model, tokenizer, tasks, seed: int) -> dict:
    """Means over what the policy writes to held-out prompts.

    "rm" is the RM score, "true" the true reward (0 to 5), "kl" the KL to the reference in nats a
    response.
    """
    prompts = [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(policy, tokenizer, prompts, seed=seed_of(seed, "overoptimise"))
    rows = sampled_rows(prompts, samples)
    true = world.score_replies(tasks, [tokenizer.read_reply(ids) for ids in samples.lists()])
    with torch.no_grad():
        now = dpo.sequence_logprobs(policy, tokenizer, rows, CPU)  # (prompts,)
        before = dpo.sequence_logprobs(reference, tokenizer, rows, CPU)  # (prompts,)
    return {
        "kl": max(0.0, float((now - before).mean())),
        "rm": float(rewards.predicted_reward(model, tokenizer, rows).mean()),
        "true": 5 * sum(true) / len(true),
    }


def best_of_n_kl(n: int) -> float:
    """KL of best-of-n to the policy that it picks from, in nats (Gao et al., 2210.10760).

    Of a discrete policy, as a language model is, it is an upper bound.
    """
    return math.log(n) - (n - 1) / n


def best_of(policy, model, tokenizer, tasks, seed: int, most: int = 64) -> list[dict]:
    """A point for each n up to `most`: the best of n by the RM score.

    Every sample is used, in groups of n.
    """
    prompts = [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(policy, tokenizer, prompts, n=most, seed=seed_of(seed, "best of n"))
    rows = sampled_rows(prompts, samples)
    score = rewards.predicted_reward(model, tokenizer, rows)  # (tasks * most,)
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    true = world.score_replies([task for task in tasks for _ in range(most)], replies)
    true = 5 * torch.tensor(true)  # (tasks * most,)
    points = []
    for n in (1, 2, 4, 8, 16, 32, 64):
        groups = score.view(len(tasks), -1, n)  # (tasks, groups, n)
        truths = true.view(len(tasks), -1, n)
        best = groups.argmax(2, keepdim=True)  # (tasks, groups, 1)
        rm = float(groups.gather(2, best).mean())
        points.append(
            {"kl": best_of_n_kl(n), "rm": rm, "true": float(truths.gather(2, best).mean())}
        )
    return points


def climbed(start, model, tokenizer, queries, tasks, *, kl_coef: float, iterations: int, seed: int):
    """A point for every ten iterations of RL with this kl_coef, the start among them.

    They are pieces of ten iterations, each with its own warm-up and decay, so that the policy can
    be looked at in between. Without rehearsal nothing but the KL holds it.
    """
    policy = copy.deepcopy(start)
    points = [measured(start, start, model, tokenizer, tasks, seed)]
    settings = replace(
        ppo.STAGE_SETTINGS["rl_preference"], iterations=10, kl_coef=kl_coef, rehearsal_rows=0
    )
    for piece in range(iterations // 10):
        ppo.train(
            policy,
            tokenizer,
            queries,
            settings,
            seed=seed_of(seed, kl_coef, piece),
            stage="overoptimise",
            reward_model=model,
            reference=start,
        )
        points.append(measured(policy, start, model, tokenizer, tasks, seed))
    return points


def told(points: list[dict]) -> str:
    return ", ".join(f"KL {p['kl']:.1f} RM {p['rm']:.2f} true {p['true']:.2f}" for p in points)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders that have finished reward_model")
    parser.add_argument("--kl-coefs", default="0,0.01,0.03,0.1", help="values to compare")
    parser.add_argument("--iterations", type=int, default=60, help="of RL; looked at every tenth")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--out", default="runs/overoptimise", help="folder for overoptimise.json and .png"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    out = Path(args.out)
    curves = {}
    out.mkdir(parents=True, exist_ok=True)
    tasks = world.evaluation_tasks("chat", 200)
    for run in map(Path, args.runs):
        try:
            start, _ = load_checkpoint(run / "distill.student.pt", tokenizer)
            model = rewards.load_reward_model(run / "reward_model.student.pt", tokenizer)
        except ValueError as error:
            fail(error)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        queries = world.draw_tasks(world.generator(seed, "overoptimise"), ("chat",), 256)
        for kl_coef in map(float, args.kl_coefs.split(",")):
            how = {"kl_coef": kl_coef, "iterations": args.iterations, "seed": seed}
            points = climbed(start, model, tokenizer, queries, tasks, **how)
            curves.setdefault(f"RL, kl_coef {kl_coef:g}", []).append(points)
            print(f"seed {seed} kl_coef {kl_coef:g}: {told(points)}", flush=True)
        points = best_of(start, model, tokenizer, tasks, seed)
        curves.setdefault("best of n", []).append(points)
        print(f"seed {seed} best of n: {told(points)}", flush=True)
        writing.write_json(out / "overoptimise.json", curves)
    plot(curves, out)


def plot(curves: dict, out: Path) -> None:
    """Two panels over the root of the KL: what the reward model says, and what is true."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), sharex=True)
    for name, paths in curves.items():
        mean = [
            {key: sum(path[k][key] for path in paths) / len(paths) for key in ("kl", "rm", "true")}
            for k in range(len(paths[0]))
        ]
        for axis, key in zip(axes, ("rm", "true")):
            axis.plot([math.sqrt(p["kl"]) for p in mean], [p[key] for p in mean], "o-", label=name)
    axes[0].set(title="what the reward model says", ylabel="RM score")
    axes[1].set(title="what is true", ylabel="true reward, 0 to 5")
    for axis in axes:
        axis.set(xlabel="square root of the KL to the start, nats a response")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    seeds = len(curves["best of n"])
    figure.suptitle(
        f"When does a learned reward stop meaning anything? {seeds} seeds, held-out prompts"
    )
    figure.savefig(out / "overoptimise.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    guarded(main)
