"""What is a tie worth? The reward model with each of the four rules, on the same rankings, over seeds.

    python -m tests.experiments.ties runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3

Starts from the distilled student of each run folder (overall_sft where there is none). Prints held-out accuracy by the
annotator and by the true rubric, and the calibration error, as means with t intervals.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

import reward_model as rewards
from data.files import tokenizer as tokenizers
from data.runtime.command import fail, guarded
from data.runtime.devices import seed_of
from model import load_checkpoint
from tests.experiments.targets import interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--prompts", type=int, default=rewards.Settings.prompts, help="rankings to train on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, table = tokenizers.tiny(), {ties: [] for ties in rewards.TIES}
    for run in map(Path, args.runs):
        path = next((run / f"{stage}.student.pt" for stage in ("distill", "overall_sft") if (run / f"{stage}.student.pt").exists()), None)
        if path is None:
            fail(f"{run}: has no student checkpoint")
        policy, _ = load_checkpoint(path, tokenizer)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        rankings = rewards.annotated_rankings(policy, tokenizer, prompts=args.prompts, outputs=4, seed=seed)
        held_out = rewards.annotated_rankings(policy, tokenizer, prompts=400, outputs=4, seed=seed, part="test")
        for ties in rewards.TIES:
            model = rewards.RewardModel(policy, seed_of(seed, "reward_model"))
            rewards.train(model, tokenizer, rankings, replace(rewards.Settings(), ties=ties), seed=seed)
            own = rewards.report(model, tokenizer, held_out, ties)
            total = sum(row["pairs"] for row in own["calibration"])
            own["calibration_error"] = sum(row["pairs"] * abs(row["predicted"] - row["observed"]) for row in own["calibration"]) / total
            table[ties].append(own)
            print(f"seed {seed} {ties:12} accuracy {own['accuracy']:.3f} true {own['true_accuracy']:.3f} calibration error {own['calibration_error']:.3f} "
                  f"width {own['tie_width']:.2f}", flush=True)
    print("\n| ties | accuracy by the annotator | by the true rubric | calibration error |\n|---|---|---|---|")
    for ties, rows in table.items():
        cells = ["{:.1f} +-{:.1f}".format(*interval([100 * row[key] for row in rows])) for key in ("accuracy", "true_accuracy", "calibration_error")]
        print(f"| {ties} | " + " | ".join(cells) + " |")
    ceiling = interval([100 * row["annotator_agreement"] for row in table["drop"]])
    print(f"\nThe annotator agrees with itself on {ceiling[0]:.1f} +-{ceiling[1]:.1f}% of these pairs.")
    for ties in rewards.TIES[1:]:
        gap = interval([100 * (a["true_accuracy"] - b["true_accuracy"]) for a, b in zip(table[ties], table["drop"])])
        print(f"{ties} minus drop, by the true rubric: {gap[0]:+.1f} +-{gap[1]:.1f} points")


if __name__ == "__main__":
    guarded(main)
