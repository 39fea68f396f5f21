"""Every number that the project set out to reach, beside what finished runs measured: value, 95%
interval, target, verdict.

    python -m tests.experiments.targets runs/tiny-seed1 runs/tiny-seed2 runs/tiny-seed3
    ... --time runs/tiny-seed1 --nanogpt-seconds 106

Differences are paired by seed on the same prompts. Intervals are t intervals over the seeds.
"reached" wants the whole condition of the row. "missed" is as much a result. What no file tells is
"not measured". Extra figures are read where they lie: control.json (tests.experiments.control) and
readiness.json (tests.experiments.readiness) in the run folders, the others by a flag each.
"""

import argparse
import csv
import json
import math
from functools import partial
from pathlib import Path

from data.runtime.command import fail, guarded
from tests.experiments.tables import interval, told
from tests.experiments.tables import row as line_of

DOMAINS = ("math", "code", "stem", "chat", "agent", "judge")
FOUR = ("math", "code", "stem", "agent")
ABLATION = {
    "more SFT on own demonstrations": "above",
    "SFT on teacher samples": "above",
    "L_DPO alone": "above",
    "L_pos alone": "aim: above",
}
# key of peers.json -> (what is compared, how many times as fast ours should be)
SPEEDS = {
    "sft": ("SFT step", 1),
    "reward_model": ("RM step", 1),
    "dpo": ("DPO step", 1),
    "group_rl": ("group RL step", 1),
    "generation": ("generation", 3),
}


# ---- what a run measured ----


def stage_of(run: dict, name: str, model: str = "student") -> dict | None:
    for stage in run["stages"]:
        if (stage["name"], stage["model"]) == (name, model):
            return stage
    return None


def score(run: dict, name: str, domains, key: str, model: str = "student") -> float | None:
    """The mean over domains in percent after a stage, None where that is not there."""
    stage = stage_of(run, name, model)
    if stage is None or any(key not in stage["eval"][domain] for domain in domains):
        return None
    return 100 * sum(stage["eval"][domain][key] for domain in domains) / len(domains)


def gained(run: dict, after: str, before: str, domains, key: str, model: str = "student"):
    """How many points a stage's scores lie above those of another one."""
    return minus(score(run, after, domains, key, model), score(run, before, domains, key, model))


def minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def column(path: Path, name: str) -> list[float]:
    """A column of a stage's CSV, without empty cells; [] where there is no file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        cells = [line.get(name) for line in csv.DictReader(file)]
    return [float(cell) for cell in cells if cell not in (None, "", "nan")]


# ---- the table ----


def positive(mean: float, low: float) -> bool:
    """The whole interval lies above 0."""
    return low > 0


class Table:
    """The rows: (row, what, what was measured, target, verdict), all strings."""

    def __init__(self, runs: list[dict]):
        self.runs = runs
        self.rows = []

    def add(self, row: str, what: str, text: str, target: str, reached: bool | None) -> None:
        verdict = "not measured"
        if reached is not None:
            verdict = "reached" if reached else "missed"
        self.rows.append((row, what, text, target, verdict))

    def add_gap(self, row: str, what: str, gap, target: str, reached, *, digits: int = 1) -> None:
        """A row of (mean, half-width), or of None; reached(mean, half-width)."""
        if gap is None:
            self.add(row, what, "", target, None)
        else:
            self.add(row, what, told(gap, digits), target, reached(*gap))

    def values(self, function) -> list[float]:
        """function(run) of the runs that have it."""
        found = [function(run) for run in self.runs]
        return [value for value in found if value is not None]

    def difference(
        self, row: str, what: str, function, target: str, reached, sign: str = "+"
    ) -> None:
        """A row of a number a run, with its sign where it is a gain.

        reached(mean, low end of the interval). One run has no interval: it is not measured.
        """
        values = self.values(function)
        if not values:
            self.add(row, what, "", target, None)
            return
        mean, half = interval(values)
        verdict = reached(mean, mean - half) if math.isfinite(half) else None
        self.add(row, what, told((mean, half), sign=sign), target, verdict)

    def gain(
        self, row: str, after: str, before: str, domains, target: str, reached=positive
    ) -> None:
        """Paired gains greedy and sampled, and the sampled gain beyond the control."""
        names = ", ".join(domains)
        self.difference(
            row,
            f"{names}: greedy",
            lambda run: gained(run, after, before, domains, "greedy"),
            target,
            reached,
        )
        self.difference(
            row,
            f"{names}: sampled",
            lambda run: gained(run, after, before, domains, "sampled"),
            "up",
            positive,
        )
        self.beyond_control(row, after, before, domains)

    def beyond_control(self, row: str, after: str, before: str, domains) -> None:
        """The sampled gain, less what the entering checkpoint gains from temperature 0.5 alone."""

        def control(run: dict) -> float | None:
            if before not in run["control"]:
                return None
            cool = 100 * sum(run["control"][before][domain] for domain in domains) / len(domains)
            return minus(cool, score(run, before, domains, "sampled"))

        cool = self.values(control)
        gains = self.values(lambda run: gained(run, after, before, domains, "sampled"))
        what = (
            f"{', '.join(domains)}: sampled gain beyond the control, "
            "the entering checkpoint at temperature 0.5"
        )
        target = "above 0: else it is sharpening"
        if not cool or len(cool) != len(gains):
            self.add(row, what, "", target, None)
            return
        mean, half = interval([gain - without for gain, without in zip(gains, cool)])
        text = f"{told((mean, half))} beyond {interval(cool)[0]:+.1f}"
        self.add(row, what, text, target, mean > half)

    def forgetting(self, row: str, after: str, before: str, domains) -> None:
        """The largest fall of a domain that the stage is not about."""
        falls = []
        for domain in domains:
            values = self.values(lambda run: gained(run, after, before, (domain,), "greedy"))
            if values:
                falls.append((interval(values)[0], domain))
        what = "largest fall of another domain"
        target = "-3 or better"
        if not falls:
            self.add(row, what, "", target, None)
            return
        fall, domain = min(falls)
        self.add(row, what, f"{fall:+.1f} ({domain})", target, fall >= -3)


def build(
    runs: list[dict],
    *,
    time_run: dict | None = None,
    nanogpt: float | None = None,
    shakespeare: float | None = None,
    peers: dict | None = None,
    controls: list[dict] | None = None,
    ablation: dict | None = None,
    ceiling: dict | None = None,
    teacher: dict | None = None,
    pass_at_k: dict | None = None,
) -> list[tuple]:
    """The rows of the table.

    nanogpt: seconds of its command. shakespeare: the loss. The rest is JSON as it was kept.
    """
    table = Table(runs)
    time_rows(table, time_run, nanogpt)
    ceiling_row(table, "ceiling", (ceiling or {}).get("families", {}))
    teacher_rows(table, teacher or {})
    overall_rows(table)
    distill_rows(table, ablation or {})
    reward_model_row(table)
    rl_rows(table, pass_at_k or {})
    self_reward_rows(table)
    for control in controls or [{}]:
        control_rows(table, control)
    closed_row(table)
    speed_rows(table, peers or {})
    shakespeare_row(table, shakespeare)
    return table.rows


# ---- the rows, in the order of the table ----


def time_rows(table: Table, time_run: dict | None, nanogpt: float | None) -> None:
    if not time_run:
        table.add("time", "whole tiny run", "", "at most 3 nanoGPT commands", None)
        return
    seconds = time_run["seconds"]
    memory = time_run["peak_memory_mb"]
    limit = f"at most {3 * nanogpt:.0f}" if nanogpt else "at most 3 nanoGPT commands"
    in_time = seconds <= 3 * nanogpt if nanogpt else None
    table.add("time", "whole tiny run, seconds", f"{seconds:.0f}", limit, in_time)
    table.add("memory", "peak, MB", f"{memory:.0f}", "below 1200", memory < 1200)


def ceiling_row(table: Table, row: str, families: dict) -> None:
    """`families` as tests.experiments.ceiling keeps them; chat counts by correct answers."""
    what = "families of 90% or more, chat by correct answers"
    if not families:
        table.add(row, what, "", "all", None)
        return
    share = {name: one.get("correct", one["score"]) for name, one in families.items()}
    low = [f"{name} {100 * value:.0f}" for name, value in share.items() if value < 0.9]
    text = f"{len(share) - len(low)} of {len(share)}"
    if low:
        text += f"; below: {', '.join(low)}"
    table.add(row, what, text, "all", not low)


def teacher_rows(table: Table, teacher: dict) -> None:
    """`teacher`: what tests.experiments.teacher keeps with --scores."""
    scores = teacher.get("eval")
    families = teacher.get("families", {})
    four = judge = correct = None
    if scores:
        four = 100 * sum(scores[domain]["greedy"] for domain in FOUR) / 4
        judge = 100 * scores["judge"]["greedy"]
    chat = [one["correct"] for one in families.values() if "correct" in one]
    if chat:
        correct = 100 * sum(chat) / len(chat)
    for what, value, least in (
        ("mean of math, code, stem, agent: greedy", four, 90),
        ("chat answers correct, mean of families", correct, 90),
        ("judge: greedy", judge, 85),
    ):
        text = "" if value is None else f"{value:.1f}"
        reached = None if value is None else value >= least
        table.add("teacher, given", what, text, f"{least} or more", reached)


def overall_rows(table: Table) -> None:
    row = "overall SFT"
    for what, domains in (("mean of math, code, stem, agent", FOUR), ("score in chat", ("chat",))):
        table.difference(
            row,
            f"{what}: greedy",
            lambda run: score(run, "overall_sft", domains, "greedy"),
            "between 45 and 65",
            lambda mean, low: 45 <= mean <= 65,
            sign="",
        )
    for domain in ("chat", "agent", "judge"):
        table.gain(row, "overall_sft", "cold_start_sft", (domain,), "up")
    table.forgetting(row, "overall_sft", "cold_start_sft", ("math", "code", "stem"))
    for stage in ("overall_sft", "distill"):
        what = f"prompts with a pass rate in 10% to 90% after {stage}"
        ready = table.values(lambda run: run["readiness"].get(stage))
        if not ready:
            table.add("RL-readiness", what, "", "25% or more", None)
            continue
        mean, half = interval(ready)
        text = f"{100 * mean:.0f}% +-{100 * half:.0f}"
        table.add("RL-readiness", what, text, "25% or more", mean >= 0.25)


def distill_rows(table: Table, ablation: dict) -> None:
    """`ablation`: the gaps that tests.experiments.distill_ablation keeps."""
    row = "distill"
    table.gain(row, "distill", "overall_sft", FOUR, "+12 or more", lambda mean, low: mean >= 12)
    table.gain(row, "distill", "overall_sft", ("chat",), "up")
    table.forgetting(row, "distill", "overall_sft", ("judge",))
    for other, target in ABLATION.items():
        table.add_gap(
            row,
            f"joint loss over {other}",
            ablation.get(other),
            target,
            lambda mean, half: mean - half > 0,
        )


def reward_model_row(table: Table) -> None:
    def short_of_itself(run: dict) -> float | None:
        stage = stage_of(run, "reward_model")
        if stage is None:
            return None
        measured = stage["measured"]
        return 100 * (measured["accuracy"] - measured["annotator_agreement"])

    gaps = table.values(short_of_itself)
    table.add_gap(
        "reward model",
        "accuracy minus the annotator's agreement with itself, points",
        interval(gaps) if gaps else None,
        "-5 or better",
        lambda mean, half: mean >= -5,
    )


def rl_rows(table: Table, pass_at_k: dict) -> None:
    row, domains = "rl_stem", ("math", "stem")
    table.gain(row, row, "distill", domains, "+5 or more", lambda mean, low: mean >= 5)
    pass_row(table, row, "distill", domains, pass_at_k)
    table.forgetting(row, row, "distill", ("code", "chat", "agent", "judge"))

    row, domains = "rl_code", ("code",)
    table.gain(row, row, "rl_stem", domains, "+3 or more", lambda mean, low: mean >= 3)
    pass_row(table, row, "rl_stem", domains, pass_at_k)
    table.forgetting(row, row, "rl_stem", ("math", "stem", "chat", "agent", "judge"))

    def risen(run: dict) -> float | None:
        scores = column(run["folder"] / "rl_preference.student.csv", "rm_score")
        return scores[-1] - scores[0] if len(scores) > 1 else None

    row = "rl_preference"
    what = "reward model's score, last over first iteration"
    table.difference(row, what, risen, "up", positive)
    table.gain(row, row, "rl_code", ("chat",), "up")
    for key in ("greedy_correct", "sampled_correct", "greedy_polite", "sampled_polite"):
        what = f"chat, share that is {key.partition('_')[2]}: {key.partition('_')[0]}"
        gain = partial(gained, after=row, before="rl_code", domains=("chat",), key=key)
        table.difference(row, what, gain, "up", positive)
    table.forgetting(row, row, "rl_code", ("math", "code", "stem", "agent", "judge"))


def pass_row(table: Table, stage: str, before: str, domains, pass_at_k: dict) -> None:
    """What a stage adds to pass@8 in these domains.

    `pass_at_k` as tests.experiments.pass_at_k keeps it:
    {stage: {run: {domain: {"1": 0.5, "8": 0.7}}}}.
    """
    gaps = []
    for run, scores in pass_at_k.get(stage, {}).items():
        earlier = pass_at_k[before][run]
        gap = sum(scores[domain]["8"] - earlier[domain]["8"] for domain in domains)
        gaps.append(100 * gap / len(domains))
    table.add_gap(
        stage,
        f"{', '.join(domains)}: pass@8",
        interval(gaps) if len(gaps) > 1 else None,
        "not down",
        lambda mean, half: mean + half >= 0,
    )


def self_reward_rows(table: Table) -> None:
    row = "self-rewarding"
    for number in (1, 2):

        def win_share(run: dict) -> float | None:
            stage = stage_of(run, f"self_reward_{number}")
            if stage is None:
                return None
            return 100 * (stage["measured"]["against_previous"]["win_share"] - 0.5)

        what = (
            f"win share of M_{number + 1} over M_{number} by the true reward, "
            "minus one half, percent"
        )
        table.difference(row, what, win_share, "above 0", positive)

    def judge_kept(run: dict) -> float | None:
        last = stage_of(run, "self_reward_2")
        if last is None:
            return None
        first = stage_of(run, "self_reward_1")["measured"]["seed_judge"]
        return 100 * (last["measured"]["judge"]["pairwise"] - first["pairwise"])

    table.difference(
        row,
        "judge's pairwise agreement, M_3 minus M_1, points",
        judge_kept,
        "-2 or better",
        lambda mean, low: mean >= -2,
    )
    others = ("math", "code", "stem", "agent", "judge")
    table.forgetting(row, "self_reward_2", "rl_preference", others)


def control_rows(table: Table, control: dict) -> None:
    """`control`: what tests.experiments.judge_controls keeps of one start, or {}."""
    start = control.get("start", "rl_preference")
    row = f"self-rewarding from {start}"
    paths = control.get("curves", {}).get("its own judge", [])
    if paths:
        for number in (1, 2):
            shares = [path[number]["against_previous"]["win_share"] for path in paths]
            least = 5 if number == 1 and start == "distill" else 0
            table.add_gap(
                row,
                f"win share of M_{number + 1} over M_{number} minus one half, percent",
                interval([100 * (share - 0.5) for share in shares]),
                "5 or more" if least else "above 0",
                lambda mean, half: mean > half and mean >= least,
            )
        judged = [[path[place]["judge"]["pairwise"] for place in (0, 2)] for path in paths]
        table.add_gap(
            row,
            "judge's pairwise agreement, M_3 minus M_1, points",
            interval([100 * (last - first) for first, last in judged]),
            "-2 or better",
            lambda mean, half: mean >= -2,
        )
    gains = control.get("gains", {})
    by_itself = gains.get("its own judge")
    text, reached = "", None
    if by_itself:
        by_truth = gains["true reward as judge"]
        text = f"{told(by_itself, 2)} beside {told(by_truth, 2)}"
        reached = by_itself[0] >= 0.6 * by_truth[0]
    what = "gain of true reward, of 5, beside that with the truth as judge"
    table.add(row, what, text, "60% or more of it", reached)
    table.add_gap(
        row,
        "correct answers, M_3 minus M_1, points",
        control.get("correct", {}).get("its own judge"),
        "not down",
        lambda mean, half: mean + half >= 0,
    )
    table.add_gap(
        row,
        "random judge's gain of true reward",
        gains.get("random judge"),
        "not up",
        lambda mean, half: mean - half <= 0,
        digits=2,
    )


def closed_row(table: Table) -> None:
    """How much of the distance from overall_sft to the teacher the final student has gone.

    A teacher that scores as overall_sft does leaves no distance to close: not measured.
    """

    def closed(run: dict) -> float | None:
        first = score(run, "overall_sft", DOMAINS, "greedy")
        last = score(run, "rl_preference", DOMAINS, "greedy")
        goal = score(run, "given_teacher", DOMAINS, "greedy", "teacher")
        if None in (first, last, goal) or goal == first:
            return None
        return 100 * (last - first) / (goal - first)

    third = all(3 * run["params"]["student"] <= run["params"]["teacher"] for run in table.runs)
    table.difference(
        "final student",
        "share of the distance to its teacher that is closed, percent",
        closed,
        "50 or more, at most a third of the parameters",
        lambda mean, low: mean >= 50 and third,
    )


def speed_rows(table: Table, peers: dict) -> None:
    """`peers`: what tests.benchmarks.peers keeps, our speed divided by theirs."""
    for name, (label, least) in SPEEDS.items():
        ratio = peers.get(name)
        text = f"{ratio:.2f}" if ratio else ""
        reached = ratio >= least if ratio else None
        table.add("speed", f"{label}, times the peer's speed", text, f"{least} or more", reached)


def shakespeare_row(table: Table, loss: float | None) -> None:
    table.add(
        "tinyshakespeare",
        "validation loss in nanoGPT's CPU seconds, nats a character",
        f"{loss:.3f}" if loss else "",
        "1.50 or less",
        loss <= 1.5 if loss else None,
    )


# ---- alone ----


def read(path, default):
    """The JSON of a file; `default` where no file was named."""
    if not path:
        return default
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{path}: {error}")


def read_run(folder: Path) -> dict:
    """results.json of a run, with its folder, its control.json and its readiness.json."""
    run = read(folder / "results.json", None) | {"folder": folder}
    for extra in ("control", "readiness"):
        path = folder / f"{extra}.json"
        run[extra] = read(path, {}) if path.exists() else {}
    return run


def command() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )

    def given(flag: str, text: str, **how) -> None:
        parser.add_argument(flag, default=None, help=text, **how)

    parser.add_argument("runs", nargs="+", help="folders of finished runs, one a seed")
    given("--time", "folder of a default run on an idle machine")
    seconds = "seconds of nanoGPT's CPU command on the same machine"
    given("--nanogpt-seconds", seconds, type=float)
    given("--peers", "JSON of tests.benchmarks.peers")
    controls = "JSON files of tests.experiments.judge_controls, one a start"
    parser.add_argument("--controls", nargs="*", default=(), help=controls)
    given("--ablation", "JSON of tests.experiments.distill_ablation")
    loss = (
        "loss a character of python sft.py --pretrain --data tinyshakespeare.txt in those seconds"
    )
    given("--tinyshakespeare", loss, type=float)
    given("--ceiling", "JSON of tests.experiments.ceiling, on test prompts")
    given("--teacher", "JSON of tests.experiments.teacher --scores")
    given("--pass-at-k", "JSON of tests.experiments.pass_at_k")
    return parser.parse_args()


def main() -> None:
    args = command()
    runs = [read_run(Path(folder)) for folder in args.runs]
    rows = build(
        runs,
        time_run=read(Path(args.time) / "results.json", None) if args.time else None,
        nanogpt=args.nanogpt_seconds,
        shakespeare=args.tinyshakespeare,
        peers=read(args.peers, {}),
        controls=[read(path, None) for path in args.controls],
        ablation=read(args.ablation, {}),
        ceiling=read(args.ceiling, None),
        teacher=read(args.teacher, None),
        pass_at_k=read(args.pass_at_k, None),
    )
    seeds = ", ".join(str(run["seed"]) for run in runs)
    print(f"{len(runs)} runs, seeds {seeds}; points of percent unless said otherwise\n")
    print("| row | what | measured | target | |\n|---|---|---|---|---|")
    for cells in rows:
        print(line_of(*cells))
    verdicts = [cells[-1] for cells in rows]
    counts = [f"{verdicts.count(one)} {one}" for one in ("reached", "missed", "not measured")]
    print(f"\n{', '.join(counts)}")


if __name__ == "__main__":
    guarded(main)
