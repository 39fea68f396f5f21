"""Does the rising curriculum help? Overall SFT from the same cold-start checkpoint, in curriculum order and shuffled.

    python -m tests.experiments.curriculum runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3
"""

import argparse
import json
from pathlib import Path

import torch

import sft
from data import tokenizer as tokenizers
from data import world
from data.command import fail, guarded
from model import load_checkpoint
from tests.experiments.targets import interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--eval-n", type=int, default=500, help="held-out prompts a domain")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, gaps = tokenizers.tiny(), {}
    for run in map(Path, args.runs):
        seed, scores = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"], {}
        for curriculum in (True, False):
            try:
                model, _ = load_checkpoint(run / "cold_start_sft.student.pt", tokenizer)
            except ValueError as error:
                fail(error)
            sft.overall_sft(model, tokenizer, sft.SCHEDULES["tiny"]["student"], curriculum, seed=seed)
            scores[curriculum] = sft.evaluate(model, tokenizer, args.eval_n, seed=seed, domains=world.DOMAINS)
            print(sft.table_line(f"seed {seed} {'rising' if curriculum else 'shuffled'}", scores[curriculum]), flush=True)
        for domain in world.DOMAINS:
            for key in ("greedy", "sampled"):
                gaps.setdefault((domain, key), []).append(100 * (scores[True][domain][key] - scores[False][domain][key]))
    print("\n| rising minus shuffled, points | " + " | ".join(world.DOMAINS) + " |\n|---|" + "---|" * len(world.DOMAINS))
    for key in ("greedy", "sampled"):
        print(f"| {key} | " + " | ".join("{:+.1f} +-{:.1f}".format(*interval(gaps[domain, key])) for domain in world.DOMAINS) + " |")


if __name__ == "__main__":
    guarded(main)
