"""What is a tie worth? The reward model with each of the four rules, on the same rankings, over
seeds.

    python -m tests.experiments.ties runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3

Starts from the distilled student of each run folder (overall_sft where there is none). Prints
held-out accuracy by the annotator and by the true rubric, and the calibration error, as means with
t intervals.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

import reward_model as rewards
from data.files import tokenizer as tokenizers
from data.runtime import annotator
from data.runtime.command import fail, guarded
from data.runtime.devices import seed_of
from model import load_checkpoint
from tests.experiments.tables import head, row, told_over


def student_of(run: Path) -> Path:
    """The checkpoint that the reward model of a run starts from."""
    for stage in ("distill", "overall_sft"):
        path = run / f"{stage}.student.pt"
        if path.exists():
            return path
    fail(f"{run}: has no student checkpoint")


def calibration_error(table: list[dict]) -> float:
    """The mean distance of predicted and observed win rates, by pairs."""
    pairs = sum(bin["pairs"] for bin in table)
    return sum(bin["pairs"] * abs(bin["predicted"] - bin["observed"]) for bin in table) / pairs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument(
        "--prompts", type=int, default=rewards.Settings.prompts, help="rankings to train on"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    table = {ties: [] for ties in rewards.TIES}
    for run in map(Path, args.runs):
        policy, _ = load_checkpoint(student_of(run), tokenizer)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        rankings = annotator.annotated_rankings(
            policy, tokenizer, prompts=args.prompts, outputs=4, seed=seed
        )
        held_out = annotator.annotated_rankings(
            policy, tokenizer, prompts=400, outputs=4, seed=seed, part="test"
        )
        for ties in rewards.TIES:
            model = rewards.RewardModel(policy, seed_of(seed, "reward_model"))
            settings = replace(rewards.Settings(), ties=ties)
            rewards.train(model, tokenizer, rankings, settings, seed=seed)
            score = rewards.predicted_reward
            measured = annotator.report(model, tokenizer, held_out, score, ties)
            measured["calibration_error"] = calibration_error(measured["calibration"])
            table[ties].append(measured)
            print(
                f"seed {seed} {ties:12} accuracy {measured['accuracy']:.3f} "
                f"true {measured['true_accuracy']:.3f} "
                f"calibration error {measured['calibration_error']:.3f} "
                f"width {measured['tie_width']:.2f}",
                flush=True,
            )
    report(table)


def report(table: dict[str, list[dict]]) -> None:
    """A row a rule, and how each differs from dropping ties. `table`: rule -> one dict a seed."""
    columns = ("accuracy by the annotator", "by the true rubric", "calibration error")
    print("\n" + head("ties", *columns))

    def percent(ties: str, key: str) -> list[float]:
        return [100 * measured[key] for measured in table[ties]]

    for ties in table:
        keys = ("accuracy", "true_accuracy", "calibration_error")
        print(row(ties, *(told_over(percent(ties, key), sign="") for key in keys)))
    ceiling = told_over(percent("drop", "annotator_agreement"), sign="")
    print(f"\nThe annotator agrees with itself on {ceiling}% of these pairs.")
    for ties in rewards.TIES[1:]:
        gaps = [
            100 * (a["true_accuracy"] - b["true_accuracy"])
            for a, b in zip(table[ties], table["drop"])
        ]
        print(f"{ties} minus drop, by the true rubric: {told_over(gaps)} points")


if __name__ == "__main__":
    guarded(main)
