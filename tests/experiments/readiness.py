"""How many prompts can reinforcement learning learn from? Pass rates of checkpoints over 16 samples a prompt.

    python -m tests.experiments.readiness runs/*/overall_sft.student.pt runs/*/distill.student.pt

A prompt is ready when its pass rate lies strictly between 10% and 90%: a group that is all right or all wrong has no
advantage and teaches nothing. Reads held-out prompts only; prints the share by domain and by level, and keeps the overall
share of each checkpoint in readiness.json beside it, for tests.experiments.targets.
"""

import argparse
import json
from pathlib import Path

import torch

from data import world
from data.files import tokenizer as tokenizers
from data.runtime.command import fail, guarded
from data.runtime.evaluation import pass_rates
from data.runtime.measures import interval
from model import load_checkpoint


def told(ready: list[float]) -> str:
    """The share that is ready, and its 95% interval, in percent."""
    low, high = interval(ready)
    return f"{100 * sum(ready) / len(ready):4.0f}% ({100 * low:.0f} to {100 * high:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--n", type=int, default=200, help="prompts a domain")
    parser.add_argument("--part", default="test", choices=("test", "dev"), help="held-out prompts; settings are tuned on dev")
    parser.add_argument("--seed", type=int, default=1, help="of the sampling")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, table = tokenizers.tiny(), {}
    for path in args.checkpoints:
        try:
            model, saved = load_checkpoint(path, tokenizer)
        except ValueError as error:
            fail(error)
        every, table[path] = [], {}
        for domain in world.REASONING:
            tasks = world.evaluation_tasks(domain, args.n, args.part)
            rates = pass_rates(model, tokenizer, tasks, seed=args.seed)
            known = [(task, rate) for task, rate in zip(tasks, rates) if rate is not None]
            tasks, rates = zip(*known)
            ready = [float(0.1 < rate < 0.9) for rate in rates]
            by_level = {level: [r for r, task in zip(ready, tasks) if task.level == level] for level in range(1, 6)}
            levels = " ".join(f"{100 * sum(rows) / len(rows):3.0f}" if rows else "  -" for rows in by_level.values())
            table[path][domain] = sum(ready) / len(ready)
            print(f"{path} {domain:5} ready {told(ready)}  never right "
                  f"{100 * sum(rate == 0 for rate in rates) / len(rates):3.0f}%  mean {100 * sum(rates) / len(rates):3.0f}%  by level 1-5: {levels}", flush=True)
            every += ready
        table[path]["all"] = sum(every) / len(every)
        print(f"{path} all   ready {told(every)}", flush=True)
        kept = Path(path).with_name("readiness.json")
        shares = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        kept.write_text(json.dumps(shares | {saved["stage"]: table[path]["all"]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    guarded(main)
