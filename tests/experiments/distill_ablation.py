"""Which part of dual-level distillation does the work? Every loss from the same student, with and without rehearsal.

    python -m tests.experiments.distill_ablation runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3 --out runs/distill_ablation

Reads overall_sft of the student and the given teacher from each run folder. Every row makes the same number of updates with the same number
of positive sequences an update: 16, or 8 and 8 of rehearsal. Seconds and FLOPs (6 per parameter and token that is trained on,
2 per parameter and token that is only read) are printed, because a row that reads negatives and a teacher costs more.
The last rows are an upper bound that no teacher can give: SFT on the world's own answers to the queries. What is said of the joint
loss over another row has rehearsal on both sides.
"""

import argparse
import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch

import matplotlib.pyplot as plt

import distill
import sft
from data import tokenizer as tokenizers
from data import world
from data.command import fail, guarded
from data.devices import seed_of
from data.rows import dialogue_rows, interleave, repeated
from model import load_checkpoint, parameter_count
from tests.experiments.targets import interval

matplotlib.use("Agg")  # no window, wherever it runs

CPU = torch.device("cpu")
FOUR = ("math", "code", "stem", "agent")
# weights of L_DPO, L_pos and L_neg
LOSSES = {"L_pos": (0.0, 1.0, 0.0), "L_DPO": (1.0, 0.0, 0.0), "L_DPO + L_pos": (0.1, 1.0, 0.0), "joint": (0.1, 1.0, 0.3),
          "joint with all weights 1": (1.0, 1.0, 1.0)}


def rows_of(settings, student, teacher, tokenizer, seed: int):
    """(name, function that trains a copy of the student and returns what sft.train or distill.train does) for every row."""
    pairs, rehearsal, _, _ = distill.preference_data(teacher, student, tokenizer, settings, seed=seed, device=CPU)
    rng = random.Random(seed_of(seed, "ablation"))
    context, count = student.config.context, settings.steps * 2 * settings.rows
    like = sft.Settings(settings.steps, rows=2 * settings.rows, muon_lr=settings.muon_lr, adam_lr=settings.adam_lr)
    own, _ = sft.overall_rows(tokenizer, sft.SCHEDULES["tiny"]["student"], seed, context, False)
    answers, _ = dialogue_rows(tokenizer, [world.demonstration(task, rng) for task in distill.queries(seed, settings.queries)], context)
    positives = [positive for positive, _ in pairs]

    def with_rehearsal(rows):
        return interleave([repeated(rows, count // 2, rng), repeated(rehearsal, count // 2, rng)], rng)

    def supervised(rows):
        return lambda model: sft.train(model, tokenizer, repeated(rows, count, rng) if len(rows) < count else rows[:count], like, seed=seed, stage="ablation")

    def both(name, rows):
        return [(name, supervised(rows)), (name + ", rehearsal", supervised(with_rehearsal(rows)))]

    for name, rows in (("more SFT on own demonstrations", own), ("SFT on teacher samples", positives)):
        yield from both(name, rows)
    for name, (dpo_coef, pos_coef, neg_coef) in LOSSES.items():
        for rehearsed in (False, True):
            chosen = replace(settings, dpo_coef=dpo_coef, pos_coef=pos_coef, neg_coef=neg_coef,
                             **({} if rehearsed else {"rows": 2 * settings.rows, "rehearsal_rows": 0}))
            yield name + (", rehearsal" if rehearsed else ""), lambda model, chosen=chosen: distill.train(
                model, teacher, tokenizer, pairs, rehearsal, chosen, seed=seed, stage="ablation")
    yield from both("upper bound: SFT on the world's answers", answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of runs that have finished overall_sft")
    parser.add_argument("--eval-n", type=int, default=400, help="held-out prompts a domain")
    parser.add_argument("--steps", type=int, default=200, help="updates of every row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", default="runs/distill_ablation", help="folder for distill_ablation.json and .png")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, settings, out = tokenizers.tiny(), distill.Settings(steps=args.steps), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "distill_ablation.json"
    table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}  # name -> seed -> figures
    for run in map(Path, args.runs):
        try:
            student, _ = load_checkpoint(run / "overall_sft.student.pt", tokenizer)
            teacher, _ = load_checkpoint(run / "given_teacher.teacher.pt", tokenizer)
        except ValueError as error:
            fail(error)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        for name, train in [("entering student", None), *rows_of(settings, student, teacher, tokenizer, seed)]:
            model = copy.deepcopy(student)
            own = train(model) if train else {"seconds": 0.0, "tokens": 0}
            scores = sft.evaluate(model, tokenizer, args.eval_n, seed=seed, domains=world.DOMAINS)
            read = own["tokens"] if name.startswith(("L_", "joint")) else 0
            table.setdefault(name, {})[str(seed)] = {
                **{key: {domain: row[key] for domain, row in scores.items()} for key in ("greedy", "sampled")}, "seconds": own["seconds"],
                "flops": 6 * parameter_count(student) * own["tokens"] + 2 * parameter_count(teacher) * read}
            four = [100 * sum(scores[d][key] for d in FOUR) / 4 for key in ("greedy", "sampled")]
            print(f"seed {seed} {name:40} {four[0]:5.1f} / {four[1]:5.1f}  chat {100 * scores['chat']['greedy']:.0f} judge {100 * scores['judge']['greedy']:.0f}"
                  f"  {own['seconds']:5.1f} s", flush=True)
            path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    report(table, out)


def report(table: dict, out: Path) -> None:
    """The README's table, the plot, and the gaps of the joint loss with rehearsal over the other rows for targets.py."""
    def mean4(name, seed, key):
        return 100 * sum(table[name][seed][key][domain] for domain in FOUR) / 4

    seeds = sorted(table["entering student"])
    print("\n| from the same student | math, code, stem, agent: greedy | sampled | chat | judge | seconds | TFLOP |\n|---|---|---|---|---|---|---|")
    bars = []
    for name in table:
        gains = {key: interval([mean4(name, seed, key) - mean4("entering student", seed, key) for seed in seeds]) for key in ("greedy", "sampled")}
        other = {domain: 100 * sum(table[name][seed]["greedy"][domain] for seed in seeds) / len(seeds) for domain in ("chat", "judge")}
        mean = {key: sum(mean4(name, seed, key) for seed in seeds) / len(seeds) for key in ("greedy", "sampled")}
        cells = [f"{mean[key]:.1f}" if name == "entering student" else f"{mean[key]:.1f} ({gains[key][0]:+.1f} +-{gains[key][1]:.1f})" for key in mean]
        cost = [sum(table[name][seed][key] for seed in seeds) / len(seeds) for key in ("seconds", "flops")]
        print(f"| {name} | {cells[0]} | {cells[1]} | {other['chat']:.0f} | {other['judge']:.0f} | {cost[0]:.0f} | {cost[1] / 1e12:.1f} |")
        bars.append((name, gains["greedy"]))
    gaps = {}
    for other, row in (("more SFT on own demonstrations",) * 2, ("L_DPO alone", "L_DPO"), ("SFT on teacher samples",) * 2,
                       ("L_pos alone", "L_pos")):
        gaps[other] = interval([mean4("joint, rehearsal", seed, "greedy") - mean4(f"{row}, rehearsal", seed, "greedy")
                                for seed in seeds])
    (out / "gaps.json").write_text(json.dumps(gaps, indent=1) + "\n", encoding="utf-8")
    figure, axis = plt.subplots(figsize=(9, 5))
    names = [name for name, _ in bars[1:]][::-1]
    means, halves = zip(*[gain for _, gain in bars[1:]][::-1])
    axis.barh(names, means, xerr=halves if len(seeds) > 1 else None, capsize=3, color=["tab:green" if "upper" in n else "tab:blue" if "joint" in n else "tab:grey" for n in names])
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(xlabel="gain over the entering student, points of percent (mean of math, code, stem, agent; greedy)",
             title=f"Which part of distillation does the work? {len(seeds)} seeds, 95% intervals")
    figure.savefig(out / "distill_ablation.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    guarded(main)
