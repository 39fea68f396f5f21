"""How many prompts can reinforcement learning learn from? Pass rates of checkpoints over 16 samples
a prompt.

    python -m tests.experiments.readiness runs/*/overall_sft.student.pt runs/*/distill.student.pt

A prompt is ready when its pass rate lies strictly between 10% and 90%. A group that is all right or
all wrong has no advantage and teaches nothing. Reads held-out prompts only. Prints the share by
domain and by level, and keeps the overall share of each checkpoint in readiness.json beside it, for
tests.experiments.targets.
"""

import argparse
import json
from pathlib import Path

import torch

from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import fail, guarded
from data.runtime.evaluation import pass_rates
from data.runtime.measures import interval
from model import load_checkpoint


def told(ready: list[float]) -> str:
    """The share that is ready, and its 95% interval, in percent."""
    low, high = interval(ready)
    return f"{100 * sum(ready) / len(ready):4.0f}% ({100 * low:.0f} to {100 * high:.0f})"


def percent(values) -> str:
    """The mean in percent, three places wide."""
    return f"{100 * sum(values) / len(values):3.0f}"


def ready_in(domain: str, model, tokenizer, args) -> tuple[list[float], str]:
    """(1 or 0 for each prompt of the domain, whether it is ready; the line on the domain)."""
    tasks = world.evaluation_tasks(domain, args.n, args.part)
    rates = pass_rates(model, tokenizer, tasks, seed=args.seed)
    known = [(task, rate) for task, rate in zip(tasks, rates) if rate is not None]
    rates = [rate for _, rate in known]
    ready = [float(0.1 < rate < 0.9) for rate in rates]
    by_level = {level: [] for level in range(1, 6)}
    for (task, _), one in zip(known, ready):
        by_level[task.level].append(one)
    columns = " ".join(percent(ones) if ones else "  -" for ones in by_level.values())
    never = percent([rate == 0 for rate in rates])
    line = (
        f"{domain:5} ready {told(ready)}  never right {never}%  mean {percent(rates)}%  "
        f"by level 1-5: {columns}"
    )
    return ready, line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--n", type=int, default=200, help="prompts a domain")
    parser.add_argument(
        "--part",
        default="test",
        choices=("test", "dev"),
        help="held-out prompts; settings are tuned on dev",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sampling")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    for path in args.checkpoints:
        try:
            model, saved = load_checkpoint(path, tokenizer)
        except ValueError as error:
            fail(error)
        every = []
        for domain in world.REASONING:
            ready, line = ready_in(domain, model, tokenizer, args)
            print(f"{path} {line}", flush=True)
            every += ready
        print(f"{path} all   ready {told(every)}", flush=True)
        kept = Path(path).with_name("readiness.json")
        shares = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        writing.write_json(kept, shares | {saved["stage"]: sum(every) / len(every)})


if __name__ == "__main__":
    guarded(main)
