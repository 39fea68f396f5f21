"""Does the rising curriculum help? Overall SFT from the same cold-start checkpoint, rising and
shuffled.

    python -m tests.experiments.curriculum runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3

The rising order is that of the pipeline, so its student is the run's own after overall_sft.
"""

import argparse
import json
from pathlib import Path

import torch

import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import fail, guarded
from data.runtime.evaluation import evaluate, table_line
from model import load_checkpoint
from tests.experiments.tables import head, row, told_over


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--eval-n", type=int, default=500, help="held-out prompts a domain")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", default="runs/curriculum.json", help="the differences by seed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    schedule = sft.SCHEDULES["tiny"]["student"]
    gaps = {}
    for run in map(Path, args.runs):
        try:
            rising, _ = load_checkpoint(run / "overall_sft.student.pt", tokenizer)
            shuffled, _ = load_checkpoint(run / "cold_start_sft.student.pt", tokenizer)
        except ValueError as error:
            fail(error)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        sft.overall_sft(shuffled, tokenizer, schedule, curriculum=False, seed=seed)
        scores = {}
        for name, model in (("rising", rising), ("shuffled", shuffled)):
            scores[name] = evaluate(model, tokenizer, args.eval_n, seed=seed, domains=world.DOMAINS)
            print(table_line(f"seed {seed} {name}", scores[name]), flush=True)
        for key in ("greedy", "sampled"):
            by_domain = gaps.setdefault(key, {domain: [] for domain in world.DOMAINS})
            for domain in world.DOMAINS:
                difference = scores["rising"][domain][key] - scores["shuffled"][domain][key]
                by_domain[domain].append(100 * difference)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    writing.write_json(args.out, gaps)
    print("\n" + head("rising minus shuffled, points", *world.DOMAINS))
    for key, by_domain in gaps.items():
        print(row(key, *map(told_over, by_domain.values())))


if __name__ == "__main__":
    guarded(main)
