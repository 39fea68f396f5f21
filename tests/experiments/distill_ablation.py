"""Which part of dual-level distillation does the work? Every loss from the same student, at equal
updates.

    python -m tests.experiments.distill_ablation runs/tiny-seed1 runs/tiny-seed2 --out runs/ablation

Reads overall_sft of the student and the given teacher from each run folder. Every row makes as many
updates as the pipeline's distillation. Each has 8 sequences (or pairs of two) that the row is about
and 8 teacher samples of rehearsal; without rehearsal 16 of the former. Seconds and FLOPs of the
updates are printed (6 per parameter and token in the student's pass, 2 in the teacher's), because a
row that reads negatives and a teacher costs more. Sampling is not counted.

"on-policy" is no row of the diagram. Its negatives are sampled from the student again every 50
updates, right or wrong, and KL(T||S) on them has weight 1, like that on the positives (generalised
knowledge distillation, 2306.13649, with half of the data the student's own). The last row is what
no teacher can give: SFT on the world's own answers to the queries. A row that is in the folder
already is not made again.
"""

import argparse
import copy
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

import distill
import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime.command import fail, guarded
from data.runtime.decoding import generate
from data.runtime.devices import seed_of
from data.runtime.evaluation import evaluate, sampled_rows
from data.runtime.rows import dialogue_rows, interleave, repeated
from model import Optimizers, learning_rate_scale, load_checkpoint, parameter_count
from tests.experiments.tables import head, interval, told, told_over
from tests.experiments.tables import row as line_of

matplotlib.use("Agg")  # no window, wherever it runs

CPU = torch.device("cpu")
FOUR = ("math", "code", "stem", "agent")
# weights of L_DPO, L_pos and L_neg
LOSSES = {
    "L_pos": (0.0, 1.0, 0.0),
    "L_DPO": (1.0, 0.0, 0.0),
    "L_DPO + L_pos": (0.1, 1.0, 0.0),
    "joint": (0.1, 1.0, 0.3),
    "joint, all weights 1": (1.0, 1.0, 1.0),
}
REFRESH = 50  # updates between two samplings of the on-policy row


def on_policy(model, teacher, tokenizer, positives, rehearsal, settings, seed: int) -> dict:
    """L_pos + KL(T||S) on what the student itself says now, and rehearsal as in every row."""
    rng = random.Random(seed_of(seed, "on-policy"))
    optimizers = Optimizers(model, settings.adam_lr, settings.muon_lr)
    began = time.perf_counter()
    tokens = 0
    for step in range(settings.steps):
        turn = step % REFRESH
        if turn == 0:
            drawn = rng.sample(positives, min(len(positives), REFRESH * settings.rows))
            prompts = [ids[: mask.index(True)] for ids, mask in drawn]
            samples = generate(
                model,
                tokenizer,
                prompts,
                max_new=settings.max_new,
                temperature=1.0,
                seed=seed_of(seed, "own", step),
                run_tool=world.run_tool,
            )
            written = sampled_rows(prompts, samples)
            model.train()
        places = [(turn * settings.rows + k) % len(drawn) for k in range(settings.rows)]
        groups = (
            [drawn[k] for k in places],
            [written[k] for k in places],
            rng.sample(rehearsal, settings.rehearsal_rows),
        )
        rows = sum(groups, [])
        student, target, _, row = distill.both_logits(
            model, teacher, tokenizer, rows, settings.teacher_temperature, CPU
        )
        divergence = distill.token_divergence(student, target)  # (supervised tokens,)
        start, loss = 0, 0.0
        for group in groups:
            end = start + len(group)
            loss = loss + divergence[(row >= start) & (row < end)].mean()
            start = end
        loss.backward()
        optimizers.step(learning_rate_scale(step, settings.steps, settings.warmup, 0.4))
        tokens += sum(len(ids) for ids, _ in rows)
    model.eval()
    return {"seconds": time.perf_counter() - began, "tokens": tokens}


def rows_of(settings, student, teacher, tokenizer, seed: int):
    """(name, function that trains a copy of the student and returns its seconds and tokens)."""
    pairs, rehearsal, _, _ = distill.preference_data(
        teacher, student, tokenizer, settings, seed=seed, device=CPU
    )
    rehearsal = [row for _, row in rehearsal]
    rng = random.Random(seed_of(seed, "ablation"))
    context = student.config.context
    count = settings.steps * 2 * settings.rows
    like = sft.Settings(
        settings.steps, rows=2 * settings.rows, muon_lr=settings.muon_lr, adam_lr=settings.adam_lr
    )
    schedule = sft.SCHEDULES["tiny"]["student"]
    demonstrations, _ = sft.overall_rows(tokenizer, schedule, seed, context, False)
    tasks = distill.queries(seed, settings.queries)
    answered = [world.demonstration(task, rng) for task in tasks]
    answers, _ = dialogue_rows(tokenizer, answered, context)
    positives = [positive for positive, _ in pairs]

    def supervised(rows, rehearsed: bool):
        half = count // 2
        rows = [repeated(rows, half if rehearsed else count, rng)]
        if rehearsed:
            rows.append(repeated(rehearsal, half, rng))
        mixed = interleave(rows, rng)
        return lambda model: sft.train(model, tokenizer, mixed, like, seed=seed, stage="ablation")

    def preferred(weights, rehearsed: bool):
        dpo_coef, pos_coef, neg_coef = weights
        used = replace(settings, dpo_coef=dpo_coef, pos_coef=pos_coef, neg_coef=neg_coef)
        if not rehearsed:
            used = replace(used, rows=2 * settings.rows, rehearsal_rows=0)
        return lambda model: distill.train(
            model, teacher, tokenizer, pairs, rehearsal, used, seed=seed, stage="ablation"
        )

    yield "more SFT on own demonstrations", supervised(demonstrations, False)
    yield "more SFT on own demonstrations, rehearsal", supervised(demonstrations, True)
    yield "SFT on teacher samples, rehearsal", supervised(positives, True)
    for name, weights in LOSSES.items():
        yield f"{name}, rehearsal", preferred(weights, True)
    yield (
        "on-policy, rehearsal",
        lambda model: on_policy(model, teacher, tokenizer, positives, rehearsal, settings, seed),
    )
    yield "joint", preferred(LOSSES["joint"], False)
    yield "SFT on the world's own answers, rehearsal", supervised(answers, True)


def mean_of_four(scores: dict, key: str) -> float:
    """The mean of math, code, stem and agent in percent; key: "greedy" or "sampled"."""
    return 100 * sum(scores[key][domain] for domain in FOUR) / len(FOUR)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="folders of runs that have finished overall_sft")
    parser.add_argument("--eval-n", type=int, default=400, help="held-out prompts a domain")
    parser.add_argument("--part", default="test", choices=("test", "dev"), help="held-out prompts")
    parser.add_argument(
        "--steps", type=int, default=distill.Settings.steps, help="updates of every row"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", default="runs/distill_ablation", help="folder of table and plot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    out = Path(args.out)
    settings = distill.Settings(steps=args.steps)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "distill_ablation.json"
    made = {"steps": args.steps, "part": args.part, "eval_n": args.eval_n}
    kept = {"made": made, "rows": {}}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
    if kept.get("made") != made:
        fail(f"{path}: was made with {kept.get('made')}, now {made}; give another --out")
    table = kept["rows"]
    for run in map(Path, args.runs):
        try:
            student, _ = load_checkpoint(run / "overall_sft.student.pt", tokenizer)
            teacher, _ = load_checkpoint(run / "given_teacher.teacher.pt", tokenizer)
        except ValueError as error:
            fail(error)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        rows = rows_of(settings, student, teacher, tokenizer, seed)
        for name, train in [("entering student", None), *rows]:
            if str(seed) in table.get(name, {}):
                continue
            model = copy.deepcopy(student)
            spent = train(model) if train else {"seconds": 0.0, "tokens": 0}
            scores = evaluate(
                model, tokenizer, args.eval_n, seed=seed, domains=world.DOMAINS, part=args.part
            )
            # distillation reads a teacher on every token that it trains on
            read = spent["tokens"] if name.startswith(("L_", "joint", "on-policy")) else 0
            flops = 6 * parameter_count(student) * spent["tokens"]
            flops += 2 * parameter_count(teacher) * read
            found = {
                key: {domain: row[key] for domain, row in scores.items()}
                for key in ("greedy", "sampled")
            }
            line = found | {"seconds": spent["seconds"], "flops": flops}
            table.setdefault(name, {})[str(seed)] = line
            print(
                f"seed {seed} {name:50} {mean_of_four(found, 'greedy'):5.1f} / "
                f"{mean_of_four(found, 'sampled'):5.1f}  chat {100 * scores['chat']['greedy']:.0f} "
                f"judge {100 * scores['judge']['greedy']:.0f}  {spent['seconds']:5.1f} s",
                flush=True,
            )
            writing.write_json(path, kept)
    report(table, out)


def report(table: dict, out: Path) -> None:
    """The table, the plot, and the gaps of the joint loss over the other rows for targets.py."""
    seeds = sorted(table["entering student"])

    def gaps_over(name: str, other: str, key: str) -> list[float]:
        return [
            mean_of_four(table[name][seed], key) - mean_of_four(table[other][seed], key)
            for seed in seeds
        ]

    def mean(name: str, value) -> float:
        return sum(value(table[name][seed]) for seed in seeds) / len(seeds)

    columns = ("math, code, stem, agent: greedy", "sampled", "chat", "judge", "seconds", "TFLOP")
    print("\n" + head("from the same student", *columns))
    gains = {}
    for name in table:
        cells = []
        for key in ("greedy", "sampled"):
            gains[name, key] = interval(gaps_over(name, "entering student", key))
            cell = f"{mean(name, lambda row: mean_of_four(row, key)):.1f}"
            if name != "entering student":
                cell += f" ({told(gains[name, key])})"
            cells.append(cell)
        for domain in ("chat", "judge"):
            cells.append(f"{100 * mean(name, lambda row: row['greedy'][domain]):.0f}")
        cells.append(f"{mean(name, lambda row: row['seconds']):.0f}")
        cells.append(f"{mean(name, lambda row: row['flops']) / 1e12:.1f}")
        print(line_of(name, *cells))
    others = {
        "more SFT on own demonstrations": "more SFT on own demonstrations, rehearsal",
        "L_DPO alone": "L_DPO, rehearsal",
        "SFT on teacher samples": "SFT on teacher samples, rehearsal",
        "L_pos alone": "L_pos, rehearsal",
    }
    gaps = {
        other: interval(gaps_over("joint, rehearsal", row, "greedy"))
        for other, row in others.items()
    }
    writing.write_json(out / "gaps.json", gaps)
    print("\n" + head("joint, rehearsal, over", "greedy", "sampled"))
    for name in table:
        if name not in ("entering student", "joint, rehearsal"):
            greedy, sampled = (
                told_over(gaps_over("joint, rehearsal", name, key)) for key in ("greedy", "sampled")
            )
            print(line_of(name, greedy, sampled))
    plot([name for name in table if name != "entering student"], gains, len(seeds), out)


def plot(names: list[str], gains: dict, seeds: int, out: Path) -> None:
    """A pair of bars a row: greedy and sampled."""
    figure, axis = plt.subplots(figsize=(9, 6))
    names = names[::-1]
    for shift, key, colour in ((0.2, "greedy", "tab:blue"), (-0.2, "sampled", "tab:orange")):
        means, halves = zip(*[gains[name, key] for name in names])
        axis.barh(
            [place + shift for place in range(len(names))],
            means,
            height=0.38,
            color=colour,
            xerr=halves if seeds > 1 else None,
            capsize=2,
            label=key,
        )
    axis.set_yticks(range(len(names)), names)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.legend(loc="lower right")
    axis.set(
        xlabel="gain over the entering student, points of percent (math, code, stem, agent)",
        title=f"Which part of distillation does the work? {seeds} seeds, 95% intervals",
    )
    figure.savefig(out / "distill_ablation.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    guarded(main)
