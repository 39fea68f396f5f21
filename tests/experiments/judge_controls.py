"""Is it the judge that makes the model better? The self-rewarding loop with its own judge, a random one, and the truth.

    python -m tests.experiments.judge_controls runs/tiny-seed1 runs/tiny-seed2 --start overall_sft --out runs/judge_controls

The same M_1, prompts, responses and DPO; only the scores differ. With the true reward as judge, prompts that the world cannot
parse are dropped (in that run only: nothing else could score them). Also the failure: the learning rate three times as high
and no rehearsal. Prints the tables, draws the curves, and writes judge_controls.json for tests.experiments.targets.
"""

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch

import matplotlib.pyplot as plt

import self_reward
import sft
from data import tokenizer as tokenizers
from data import world, world_judge
from data.command import fail, guarded
from data.devices import seed_of
from model import load_checkpoint
from tests.experiments.targets import interval

matplotlib.use("Agg")  # no window, wherever it runs


def random_judge(tokenizer, seed: int):
    rng = random.Random(seed_of(seed, "random judge"))

    def score(prompts, responses):  # what broke off has no score, as with the other judges
        return [[None if self_reward.text_of(tokenizer, row) is None else float(rng.randrange(6)) for row in group] for group in responses]
    return score


def true_judge(tokenizer):
    def score(prompts, responses):
        tasks = [world.parse(prompt) for prompt in prompts]
        return [[None if task is None or task.domain != "chat" or (text := self_reward.text_of(tokenizer, row)) is None
                 else float(world_judge.true_reward(task, text)) for row in group] for task, group in zip(tasks, responses)]
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--start", default="rl_preference", help="which student checkpoint is M_1")
    parser.add_argument("--held-out", type=int, default=500, help="prompts for win rates and for the judge")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", default="runs/judge_controls", help="folder for judge_controls.json and .png")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, out, curves = tokenizers.tiny(), Path(args.out), {}
    out.mkdir(parents=True, exist_ok=True)
    settings = replace(self_reward.Settings(), held_out=args.held_out)
    hot = replace(settings, training=replace(settings.training, lr=3 * settings.training.lr))
    for run in map(Path, args.runs):
        try:
            seed_model, _ = load_checkpoint(run / f"{args.start}.student.pt", tokenizer)
        except ValueError as error:
            fail(error)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        rehearsal = sft.rehearsal_data(tokenizer, "tiny", seed, seed_model.config.context)
        prompts = sft.chat_prompts("tiny", seed)
        first = self_reward.measure(seed_model, seed_model, seed_model, tokenizer, settings, seed)
        for name, score, chosen, rows in (("its own judge", None, settings, rehearsal), ("random judge", random_judge(tokenizer, seed), settings, rehearsal),
                                          ("true reward as judge", true_judge(tokenizer), settings, rehearsal),
                                          ("three times the learning rate, no rehearsal", None, hot, [])):
            model, path = seed_model, [first]
            for number in (1, 2):
                following, own = self_reward.next_iteration_model(model, seed_model, tokenizer, chosen, seed=seed, round_number=number, training_prompts=prompts, rehearsal=rows, score=score)
                path.append(self_reward.measure(following, model, seed_model, tokenizer, settings, seed) | {key: own.get(key) for key in ("pairs", "own_agreement", "equally_good", "true_gap")})
                model = following
            curves.setdefault(name, []).append(path)
            print(f"seed {seed} {name:44} true reward " + " ".join(f"{m['true_reward']:.2f}" for m in path) + "  win share "
                  + " ".join(f"{m['against_previous']['win_share']:.3f}" for m in path[1:]) + "  correct " + " ".join(f"{m['correct']:.2f}" for m in path) + "  judge " + " ".join(f"{m['judge']['pairwise']:.3f}" for m in path)
                  + f"  parsed {path[-1]['judge']['parsed']:.2f}  pairs {[m['pairs'] for m in path[1:]]}", flush=True)
    report(curves, out, args.start)


def report(curves: dict, out: Path, start: str) -> None:
    gains = {name: interval([path[2]["true_reward"] - path[0]["true_reward"] for path in paths]) for name, paths in curves.items()}
    print(f"\n| judge, M_1 = {start} | true reward M_1, M_2, M_3 | gain | win share of M_2, M_3 | correct M_1, M_3 | polite M_1, M_3 | judge's agreement M_1, M_3 | on its own responses, round 1, 2 "
          "| length M_1, M_3 |\n|---|---|---|---|---|---|---|---|---|")
    for name, paths in curves.items():
        def mean(function):
            return sum(map(function, paths)) / len(paths)
        rewards = ", ".join(f"{mean(lambda p: p[k]['true_reward']):.2f}" for k in range(3))
        wins = ", ".join(f"{mean(lambda p: p[k]['against_previous']['win_share']):.3f}" for k in (1, 2))
        judged = ", ".join(f"{mean(lambda p: p[k]['judge']['pairwise']):.3f}" for k in (0, 2))
        kept = " | ".join(", ".join(f"{mean(lambda p: p[k][name]):.2f}" for k in (0, 2)) for name in ("correct", "polite"))
        length = ", ".join(f"{mean(lambda p: p[k]['length']):.1f}" for k in (0, 2))
        told = ", ".join("{:.2f}".format(sum(known) / len(known)) if (known := [p[k]["own_agreement"] for p in paths if p[k]["own_agreement"] is not None]) else "-" for k in (1, 2))
        print(f"| {name} | {rewards} | {gains[name][0]:+.2f} +-{gains[name][1]:.2f} | {wins} | {kept} | {judged} | {told} | {length} |")
    truth = gains["true reward as judge"][0]
    (out / "judge_controls.json").write_text(json.dumps({"start": start, "share_of_truth": gains["its own judge"][0] / truth if truth > 0 else None,
                                                         "random": gains["random judge"], "gains": gains, "curves": curves}, indent=1) + "\n", encoding="utf-8")
    figure, (reward, correct, judge) = plt.subplots(1, 3, figsize=(13, 4.2))
    for name, paths in curves.items():
        for axis, function in ((reward, lambda m: m["true_reward"]), (correct, lambda m: m["correct"]), (judge, lambda m: m["judge"]["pairwise"])):
            axis.plot(["M_1", "M_2", "M_3"], [sum(function(path[k]) for path in paths) / len(paths) for k in range(3)], "o-", label=name)
    reward.set(ylabel="true reward, 0 to 5", title="answers to held-out chat prompts")
    correct.set(ylabel="share of correct answers", title="correctness", ylim=(0, None))
    judge.set(ylabel="pairwise agreement with the truth", title="the judge, on responses of mixed quality", ylim=(0.5, 0.9))
    for axis in (reward, correct, judge):
        axis.grid(alpha=0.3)
    figure.suptitle(f"Is it the judge that makes the model better? M_1 = {start}, {len(paths)} seeds")
    figure.tight_layout()
    figure.legend(*reward.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=4, frameon=False)
    figure.savefig(out / "judge_controls.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    guarded(main)
