"""Every number that the project set out to reach, beside what finished runs measured: value, 95% interval, target, verdict.

    python -m tests.experiments.targets runs/tiny-seed1 runs/tiny-seed2 ... --time runs/tiny-seed1 --nanogpt-seconds 106

Differences are paired by seed on the same prompts; intervals are t intervals over the seeds. "reached" wants the whole
condition of the row, "missed" is as much a result, and what no file tells is "not measured". Extra figures are read where
they lie: control.json (tests.experiments.control) and readiness.json (tests.experiments.readiness) in the run folders,
peers.json (tests.benchmarks.peers) and judge_controls.json (tests.experiments.judge_controls) by flag.
"""

import argparse
import csv
import json
import math
from pathlib import Path

from data.runtime.command import fail, guarded
from data.runtime.measures import t_95

DOMAINS = ("math", "code", "stem", "chat", "agent", "judge")


def interval(values: list[float]) -> tuple[float, float]:
    """(mean, half-width of the t interval); an infinite half-width for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, t_95(len(values) - 1) * spread / math.sqrt(len(values))


def stage_of(run: dict, name: str, model: str = "student") -> dict | None:
    return next((stage for stage in run["stages"] if (stage["name"], stage["model"]) == (name, model)), None)


def score(run: dict, name: str, domains, key: str, model: str = "student") -> float | None:
    stage = stage_of(run, name, model)
    return None if stage is None else 100 * sum(stage["eval"][domain][key] for domain in domains) / len(domains)


class Table:
    def __init__(self, runs: list[dict]):
        self.runs, self.rows = runs, []

    def add(self, row: str, what: str, text: str, target: str, reached: bool | None) -> None:
        self.rows.append((row, what, text, target, "not measured" if reached is None else "reached" if reached else "missed"))

    def values(self, function) -> list[float]:
        return [value for run in self.runs if (value := function(run)) is not None]

    def difference(self, row: str, what: str, function, target: str, reached, sign: str = "+") -> None:
        """A row of a number a run, with its sign where it is a gain; reached(mean, low end of the interval)."""
        values = self.values(function)
        if not values:
            return self.add(row, what, "", target, None)
        mean, half = interval(values)
        self.add(row, what, f"{mean:{sign}.1f} +-{half:.1f}", target, reached(mean, mean - half) if math.isfinite(half) else None)

    def gain(self, row: str, after: str, before: str, domains, target: str, reached, model: str = "student") -> None:
        """Paired gains greedy and sampled, and what the entering checkpoint gains from temperature 0.5 alone."""
        for key in ("greedy", "sampled"):
            self.difference(row, f"{', '.join(domains)}: {key}", lambda run: minus(score(run, after, domains, key, model), score(run, before, domains, key, model)),
                            target if key == "greedy" else "up", reached if key == "greedy" else lambda mean, low: low > 0)
        if model == "student" and before != "pretrain":
            cool = self.values(lambda run: minus(None if before not in run["control"] else 100 * sum(run["control"][before][d] for d in domains) / len(domains),
                                                 score(run, before, domains, "sampled")))
            gains = self.values(lambda run: minus(score(run, after, domains, "sampled"), score(run, before, domains, "sampled")))
            beyond = interval([gain - own for gain, own in zip(gains, cool)]) if cool and len(cool) == len(gains) else None
            self.add(row, f"{', '.join(domains)}: sampled gain beyond the control, the entering checkpoint at temperature 0.5",
                     "{:+.1f} +-{:.1f} beyond {:+.1f}".format(*beyond, interval(cool)[0]) if beyond else "", "above 0: else it is sharpening", beyond[0] > beyond[1] if beyond else None)

    def forgetting(self, row: str, after: str, before: str, domains) -> None:
        worst = []
        for domain in domains:
            values = self.values(lambda run: minus(score(run, after, (domain,), "greedy"), score(run, before, (domain,), "greedy")))
            if values:
                worst.append((interval(values)[0], domain))
        self.add(row, "largest fall of another domain", f"{min(worst)[0]:+.1f} ({min(worst)[1]})" if worst else "", "-3 or better", min(worst)[0] >= -3 if worst else None)


def minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def column(path: Path, name: str) -> list[float]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [float(line[name]) for line in csv.DictReader(file) if line.get(name) not in (None, "", "nan")]


FOUR = ("math", "code", "stem", "agent")
ABLATION = {"more SFT on own demonstrations": "above", "SFT on teacher samples": "above",
                "L_DPO alone": "above", "L_pos alone": "aim: above"}


def time_rows(table: Table, time_run: dict | None, nanogpt: float | None) -> None:
    if not time_run:
        table.add("time", "whole tiny run", "", "at most 3 nanoGPT commands", None)
        return
    seconds, memory = time_run["seconds"], time_run["peak_memory_mb"]
    limit = f"at most {3 * nanogpt:.0f}" if nanogpt else "at most 3 nanoGPT commands"
    table.add("time", "whole tiny run, seconds", f"{seconds:.0f}", limit,
              seconds <= 3 * nanogpt if nanogpt else None)
    table.add("memory", "peak, MB", f"{memory:.0f}", "below 1200", memory < 1200)


def ceiling_row(table: Table, row: str, families: dict) -> None:
    """`families` as tests.experiments.ceiling keeps them; chat counts by correct answers."""
    share = {name: one.get("correct", one["score"]) for name, one in families.items()}
    low = [f"{name} {100 * value:.0f}" for name, value in share.items() if value < 0.9]
    text = f"{len(share) - len(low)} of {len(share)}" if share else ""
    told = f"{text}; below: {', '.join(low)}" if low else text
    table.add(row, "families of 90% or more, chat by correct answers", told, "all",
              not low if share else None)


def teacher_rows(table: Table, teacher: dict) -> None:
    """`teacher`: what tests.experiments.teacher keeps with --scores."""
    scores, families = teacher.get("eval"), teacher.get("families", {})
    four = judge = None
    if scores:
        four = 100 * sum(scores[domain]["greedy"] for domain in FOUR) / 4
        judge = 100 * scores["judge"]["greedy"]
    chat = [one["correct"] for one in families.values() if "correct" in one]
    correct = 100 * sum(chat) / len(chat) if chat else None
    for what, value, least in (("mean of math, code, stem, agent: greedy", four, 90),
                               ("chat answers correct, mean of families", correct, 90),
                               ("judge: greedy", judge, 85)):
        table.add("teacher, given", what, "" if value is None else f"{value:.1f}",
                  f"{least} or more", None if value is None else value >= least)


def overall_rows(table: Table) -> None:
    for what, domains in (("mean of math, code, stem, agent", FOUR), ("score in chat", ("chat",))):
        table.difference("overall SFT", f"{what}: greedy",
                         lambda run: score(run, "overall_sft", domains, "greedy"),
                         "between 45 and 65", lambda mean, low: 45 <= mean <= 65, sign="")
    for domain in ("chat", "agent", "judge"):
        table.gain("overall SFT", "overall_sft", "cold_start_sft", (domain,), "up",
                   lambda mean, low: low > 0)
    table.forgetting("overall SFT", "overall_sft", "cold_start_sft", ("math", "code", "stem"))
    for stage in ("overall_sft", "distill"):
        ready = table.values(lambda run: run["readiness"].get(stage))
        told = "{:.0f}% +-{:.0f}".format(*(100 * x for x in interval(ready))) if ready else ""
        table.add("RL-readiness", f"prompts with a pass rate in 10% to 90% after {stage}", told,
                  "25% or more", interval(ready)[0] >= 0.25 if ready else None)


def distill_rows(table: Table, ablation: dict) -> None:
    table.gain("distill", "distill", "overall_sft", FOUR, "+12 or more",
               lambda mean, low: mean >= 12)
    table.gain("distill", "distill", "overall_sft", ("chat",), "up", lambda mean, low: low > 0)
    table.forgetting("distill", "distill", "overall_sft", ("judge",))
    for other, aim in ABLATION.items():
        gap = ablation.get(other)
        table.add("distill", f"joint loss over {other}",
                  "{:+.1f} +-{:.1f}".format(*gap) if gap else "", aim,
                  gap[0] - gap[1] > 0 if gap else None)


def pass_row(table: Table, stage: str, before: str, domains, pass_at_k: dict) -> None:
    """`pass_at_k` as tests.experiments.pass_at_k keeps it: {stage: {run: {domain: {"1": 0.5, "8": 0.7}}}}."""
    gaps = [100 * sum(row[domain]["8"] - pass_at_k[before][run][domain]["8"] for domain in domains) / len(domains)
            for run, row in pass_at_k.get(stage, {}).items()]
    gap = interval(gaps) if len(gaps) > 1 else None
    table.add(stage, f"{', '.join(domains)}: pass@8", "{:+.1f} +-{:.1f}".format(*gap) if gap else "", "not down",
              gap[0] + gap[1] >= 0 if gap else None)


def closed_row(table: Table) -> None:
    """How much of the distance from overall_sft to the teacher the final student has gone."""
    def closed(run: dict) -> float | None:
        first, last = (score(run, name, DOMAINS, "greedy") for name in ("overall_sft", "rl_preference"))
        goal = score(run, "given_teacher", DOMAINS, "greedy", "teacher")
        return None if None in (first, last, goal) else 100 * (last - first) / (goal - first)
    third = all(3 * run["params"]["student"] <= run["params"]["teacher"] for run in table.runs)
    table.difference("final student", "share of the distance to its teacher that is closed, percent",
                     closed, "50 or more, at most a third of the parameters",
                     lambda mean, low: mean >= 50 and third)


def build(runs: list[dict], time_run: dict | None, nanogpt: float | None, peers: dict,
          controls: list[dict], ablation: dict, shakespeare: float | None,
          ceiling: dict | None = None, teacher: dict | None = None, pass_at_k: dict | None = None) -> list[tuple]:
    table = Table(runs)
    time_rows(table, time_run, nanogpt)
    ceiling_row(table, "ceiling", (ceiling or {}).get("families", {}))
    teacher_rows(table, teacher or {})
    overall_rows(table)
    distill_rows(table, ablation)
    gaps = table.values(lambda run: (own := (stage_of(run, "reward_model") or {}).get("measured")) and 100 * (own["accuracy"] - own["annotator_agreement"]))
    table.add("reward model", "accuracy minus the annotator's agreement with itself, points", "{:+.1f} +-{:.1f}".format(*interval(gaps)) if gaps else "", "-5 or better",
              interval(gaps)[0] >= -5 if gaps else None)
    table.gain("rl_stem", "rl_stem", "distill", ("math", "stem"), "+5 or more", lambda mean, low: mean >= 5)
    pass_row(table, "rl_stem", "distill", ("math", "stem"), pass_at_k or {})
    table.forgetting("rl_stem", "rl_stem", "distill", ("code", "chat", "agent", "judge"))
    table.gain("rl_code", "rl_code", "rl_stem", ("code",), "+3 or more", lambda mean, low: mean >= 3)
    pass_row(table, "rl_code", "rl_stem", ("code",), pass_at_k or {})
    table.forgetting("rl_code", "rl_code", "rl_stem", ("math", "stem", "chat", "agent", "judge"))
    table.difference("rl_preference", "reward model's score, last over first iteration",
                     lambda run: (c := column(run["folder"] / "rl_preference.student.csv", "rm_score")) and c[-1] - c[0] or None, "up", lambda mean, low: low > 0)
    table.gain("rl_preference", "rl_preference", "rl_code", ("chat",), "up", lambda mean, low: low > 0)
    table.forgetting("rl_preference", "rl_preference", "rl_code", ("math", "code", "stem", "agent", "judge"))
    for number in (1, 2):
        table.difference("self-rewarding", f"win share of M_{number + 1} over M_{number} by the true reward, minus one half, percent",
                         lambda run: (stage := stage_of(run, f"self_reward_{number}")) and 100 * (stage["measured"]["against_previous"]["win_share"] - 0.5),
                         "above 0", lambda mean, low: low > 0)
    table.difference("self-rewarding", "judge's pairwise agreement, M_3 minus M_1, points",
                     lambda run: (last := stage_of(run, "self_reward_2")) and 100 * (last["measured"]["judge"]["pairwise"] - stage_of(run, "self_reward_1")["measured"]["seed_judge"]["pairwise"]),
                     "-2 or better", lambda mean, low: mean >= -2)
    table.forgetting("self-rewarding", "self_reward_2", "rl_preference", ("math", "code", "stem", "agent", "judge"))
    for one in controls or [{}]:
        row, paths = f"self-rewarding from {one.get('start', 'rl_preference')}", one.get("curves", {}).get("its own judge", [])
        for number in (1, 2) if paths else ():
            gap = interval([100 * (path[number]["against_previous"]["win_share"] - 0.5) for path in paths])
            most = number == 1 and one["start"] == "distill"
            table.add(row, f"win share of M_{number + 1} over M_{number} minus one half, percent (500 prompts)", "{:+.1f} +-{:.1f}".format(*gap),
                      "5 or more" if most else "above 0", gap[0] > gap[1] and (gap[0] >= 5 or not most))
        if paths:
            fall = interval([100 * (path[2]["judge"]["pairwise"] - path[0]["judge"]["pairwise"]) for path in paths])
            table.add(row, "judge's pairwise agreement, M_3 minus M_1, points", "{:+.1f} +-{:.1f}".format(*fall), "-2 or better", fall[0] >= -2)
        gains = one.get("gains", {})
        own, truth, rand = (gains.get(name) for name in ("its own judge", "true reward as judge", "random judge"))
        table.add(row, "gain of true reward, of 5, beside that with the truth as judge", "{:+.2f} +-{:.2f} beside {:+.2f} +-{:.2f}".format(*own, *truth) if own else "",
                  "60% or more of it", own[0] >= 0.6 * truth[0] if own else None)
        right = one.get("correct", {}).get("its own judge")
        table.add(row, "correct answers, M_3 minus M_1, points", "{:+.1f} +-{:.1f}".format(*right) if right else "", "not down",
                  right[0] + right[1] >= 0 if right else None)
        table.add(row, "random judge's gain of true reward", "{:+.2f} +-{:.2f}".format(*rand) if rand else "", "not up", rand[0] - rand[1] <= 0 if rand else None)
    closed_row(table)
    for name, label, least in (("sft", "SFT step", 1), ("reward_model", "RM step", 1), ("dpo", "DPO step", 1), ("group_rl", "group RL step", 1), ("generation", "generation", 3)):
        ratio = peers.get(name)
        table.add("speed", f"{label}, times the peer's speed", f"{ratio:.2f}" if ratio else "", f"{least} or more", ratio >= least if ratio else None)
    table.add("tinyshakespeare", "validation loss in nanoGPT's CPU seconds, nats a character", f"{shakespeare:.3f}" if shakespeare else "", "1.50 or less",
              shakespeare <= 1.5 if shakespeare else None)
    return table.rows


def read(path, default):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8")) if path else default
    except (OSError, ValueError) as error:
        fail(f"{path}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of finished runs, one a seed")
    parser.add_argument("--time", default=None, help="folder of a default run on an idle machine")
    parser.add_argument("--nanogpt-seconds", type=float, default=None, help="seconds of nanoGPT's CPU command on the same machine")
    parser.add_argument("--peers", default=None, help="JSON of tests.benchmarks.peers")
    parser.add_argument("--controls", nargs="*", default=(), help="JSON files of tests.experiments.judge_controls, one a start")
    parser.add_argument("--ablation", default=None, help="JSON of tests.experiments.distill_ablation")
    parser.add_argument("--tinyshakespeare", type=float, default=None, help="loss a character of python sft.py --pretrain --data tinyshakespeare.txt in those seconds")
    parser.add_argument("--ceiling", default=None, help="JSON of tests.experiments.ceiling, on test prompts")
    parser.add_argument("--teacher", default=None, help="JSON of tests.experiments.teacher --scores")
    parser.add_argument("--pass-at-k", default=None, help="JSON of tests.experiments.pass_at_k")
    args = parser.parse_args()
    runs = []
    for folder in map(Path, args.runs):
        run = read(folder / "results.json", None) | {"folder": folder}
        for extra in ("control", "readiness"):
            run[extra] = read(folder / f"{extra}.json", {}) if (folder / f"{extra}.json").exists() else {}
        runs.append(run)
    time_run = read(Path(args.time) / "results.json", None) if args.time else None
    rows = build(runs, time_run, args.nanogpt_seconds, read(args.peers, {}), [read(path, None) for path in args.controls], read(args.ablation, {}), args.tinyshakespeare,
                 read(args.ceiling, None), read(args.teacher, None), read(args.pass_at_k, None))
    print(f"{len(runs)} runs, seeds {', '.join(str(run['seed']) for run in runs)}; points of percent unless said otherwise\n")
    print("| row | what | measured | target | |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    counts = [row[-1] for row in rows]
    print(f"\n{counts.count('reached')} reached, {counts.count('missed')} missed, {counts.count('not measured')} not measured")


if __name__ == "__main__":
    guarded(main)
