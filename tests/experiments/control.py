"""Is a gain more than sharpening? Every student checkpoint of finished runs, sampled at temperature
0.5.

    python -m tests.experiments.control runs/tiny-seed1 runs/tiny-seed2

A stage that only makes the model surer of what it said anyway gains no more than its entering
checkpoint gains from a lower temperature. Writes control.json into each run folder, which
tests.experiments.targets reads.
"""

import argparse
import json
from pathlib import Path

import torch

from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import fail, guarded
from data.runtime.evaluation import evaluate, table_head
from model import load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    parser.add_argument("--eval-n", type=int, default=1000, help="held-out prompts a domain")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    print(table_head())
    for run in map(Path, args.runs):
        try:
            results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fail(f"{run}: not the folder of a run ({error})")
        table = {}
        for stage in results["stages"]:
            if stage["model"] != "student" or not stage["eval"]:
                continue
            if stage["name"] in ("pretrain", "self_reward_2"):  # no gain is read from these
                continue
            model, _ = load_checkpoint(run / stage["checkpoint"], tokenizer)
            scores = evaluate(
                model, tokenizer, args.eval_n, seed=results["seed"], temperatures={"cool": 0.5}
            )
            cool = {domain: row["cool"] for domain, row in scores.items()}
            table[stage["name"]] = cool
            name = f"{run.name} {stage['name']}"
            cells = "".join(f"{100 * value:9.0f} " for value in cool.values())
            print(f"{name:26}{cells}", flush=True)
        writing.write_json(run / "control.json", table)


if __name__ == "__main__":
    guarded(main)
