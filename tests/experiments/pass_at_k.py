"""Does RL add what could not be done, or concentrate what could? pass@1 and pass@8 around each RL
stage.

    python -m tests.experiments.pass_at_k runs/tiny-seed1 runs/tiny-seed2 --out runs/pass_at_k

pass@k is the chance that one of k samples at temperature 1 is right, estimated without bias from 16
of them: 1 - C(n - c, k) / C(n, k) for c right of n (Chen et al., 2107.03374, eq. 1). A stage that
only concentrates raises pass@1 and not pass@8; one that adds raises both. Held-out prompts; a
folder's differences are paired, the intervals are t intervals over the folders.
"""

import argparse
import math
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import fail, guarded
from data.runtime.devices import seed_of
from data.runtime.evaluation import pass_rates
from model import load_checkpoint
from tests.experiments.tables import head, row, told_over

matplotlib.use("Agg")  # no window, wherever it runs

SAMPLES = 16
STAGES = ("overall_sft", "distill", "rl_stem", "rl_code", "rl_preference")
DOMAINS = ("math", "stem", "code")


def pass_at(k: int, right: int, samples: int) -> float:
    """The chance that one of k drawn without return is right: 1 - C(n - right, k) / C(n, k).

    n: samples.
    """
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def measured(path: Path, tokenizer, count: int, part: str, seed: int) -> dict:
    """{"math": {"1": 0.47, "8": 0.73}, ...} of a checkpoint."""
    try:
        model, _ = load_checkpoint(path, tokenizer)
    except ValueError as error:
        fail(error)
    table = {}
    for domain in DOMAINS:
        tasks = world.evaluation_tasks(domain, count, part)
        rates = pass_rates(model, tokenizer, tasks, seed=seed_of(seed, "pass at k"))
        rights = [round(rate * SAMPLES) for rate in rates if rate is not None]
        table[domain] = {
            str(k): sum(pass_at(k, right, SAMPLES) for right in rights) / len(rights)
            for k in (1, 8)
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--n", type=int, default=300, help="held-out prompts a domain")
    parser.add_argument("--part", default="test", choices=("test", "dev"), help="held-out prompts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", default="runs/pass_at_k", help="folder of table and plot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    out = Path(args.out)
    table = {}
    out.mkdir(parents=True, exist_ok=True)
    for run in args.runs:
        for stage in STAGES:
            path = Path(run) / f"{stage}.student.pt"
            table.setdefault(stage, {})[run] = measured(path, tokenizer, args.n, args.part, seed=1)
            told = "  ".join(
                f"{domain} {row['1']:.3f} {row['8']:.3f}"
                for domain, row in table[stage][run].items()
            )
            print(f"{run} {stage:14} pass@1, pass@8: {told}", flush=True)
        writing.write_json(out / "pass_at_k.json", table)
    report(table)
    plot(table, out / "pass_at_k.png")


def over_runs(table: dict, stage: str, domain: str, k: str) -> list[float]:
    return [100 * row[domain][k] for row in table[stage].values()]


def report(table: dict) -> None:
    """A row a stage: the mean, and the change since the stage before with its interval."""
    columns = [f"{domain} pass@{k}" for domain in DOMAINS for k in (1, 8)]
    print("\n" + head("after", *columns))
    for before, stage in zip((None, *STAGES), STAGES):
        cells = []
        for domain in DOMAINS:
            for k in ("1", "8"):
                values = over_runs(table, stage, domain, k)
                cell = f"{sum(values) / len(values):.1f}"
                if before:
                    earlier = over_runs(table, before, domain, k)
                    changes = [now - then for now, then in zip(values, earlier)]
                    cell += f" ({told_over(changes)})"
                cells.append(cell)
        print(row(stage, *cells))


def plot(table: dict, path: Path) -> None:
    """A panel a domain; pass@1 solid, pass@8 dashed; a thin line a run, the mean thick."""
    figure, axes = plt.subplots(1, len(DOMAINS), figsize=(12, 4), sharey=True)
    for axis, domain in zip(axes, DOMAINS):
        for k, style, colour in (("1", "-", "tab:blue"), ("8", "--", "tab:orange")):
            columns = [over_runs(table, stage, domain, k) for stage in STAGES]
            for values in zip(*columns):
                axis.plot(STAGES, values, style, color=colour, alpha=0.3, linewidth=1)
            means = [sum(column) / len(column) for column in columns]
            axis.plot(STAGES, means, "o" + style, color=colour, label=f"pass@{k}")
        axis.set(title=domain)
        axis.tick_params(axis="x", rotation=30)
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="percent of held-out prompts, temperature 1", ylim=(0, 100))
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    guarded(main)
