"""The whole schedule: every stage in order, each one evaluated, everything kept in one folder.

    cold-start SFT -> overall SFT -> distillation -> multi-stage RL -> self-rewarding rounds

The schedule is the list STAGES below; a stage is a function that trains one model and returns what it alone measured.

    python pipeline.py --size tiny            about two minutes for the stages that stand; the table grows as it goes
    python pipeline.py --size tiny --smoke    every stage in a few steps
    python -m model runs/tiny/overall_sft.student.pt   is how to talk to any checkpoint afterwards

A run that was stopped goes on at the first unfinished stage when the same command is given again, and ends with the same
weights. Changed settings for a finished stage are refused; --force redoes everything from there.
"""

import hashlib
import json
import math
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import matplotlib
import numpy
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend must be chosen first

import sft  # noqa: E402
from data import formats, world  # noqa: E402
from data import tokenizer as tokenizers  # noqa: E402
from model import (GPT, SIZES, common_flags, fail, generate, load_checkpoint, parameter_count, save_checkpoint, seed_of,  # noqa: E402
                   start)

COLUMNS = (*world.DOMAINS, "phrasing")


@dataclass
class Run:
    """What a stage is given: where to write, which models there are, and how much to do."""

    out: Path
    size: str
    seed: int
    device: torch.device
    tokenizer: object
    schedules: dict
    eval_n: int
    models: dict = field(default_factory=dict)  # "student" and "teacher", in place


def pretrain(run: Run, who: str) -> dict:
    return sft.pretrain(run.models[who], run.tokenizer, run.schedules[who], **how(run, "pretrain", who))


def cold_start_sft(run: Run, who: str) -> dict:
    return sft.cold_start_sft(run.models[who], run.tokenizer, run.schedules[who], **how(run, "cold_start_sft", who))


def overall_sft(run: Run, who: str) -> dict:
    return sft.overall_sft(run.models[who], run.tokenizer, run.schedules[who], **how(run, "overall_sft", who))


def how(run: Run, stage: str, who: str) -> dict:
    return {"seed": run.seed, "device": run.device, "log": run.out / f"{stage}.{who}.csv"}


STAGES = [(pretrain, "student"), (pretrain, "teacher"), (cold_start_sft, "student"), (cold_start_sft, "teacher"),
          (overall_sft, "student"), (overall_sft, "teacher")]


# ---- running ----

def settings_of(run: Run, stage: str, who: str) -> str:
    """A digest of what decides a stage's result, to notice that a finished stage was made with other settings."""
    text = json.dumps([stage, who, run.size, run.seed, asdict(SIZES[run.size][who]) if run.size in SIZES else None,
                       asdict(run.schedules[who]), torch.get_num_threads(), world.WORLD_VERSION, run.tokenizer.fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_json(path: Path, default):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError:
        raise ValueError(f"{path}: not valid JSON; delete the file, or give another --out") from None


def write_json(path: Path, value) -> None:
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def environment() -> dict:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__, "system": platform.system(),
            "machine": platform.machine(), "processors": os.cpu_count(), "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def peak_memory_mb() -> float | None:
    """The most memory that this process has held, or None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def unfinished(results: dict, run: Run, chosen: list, force: bool) -> list:
    """The stages still to be run. Raises ValueError where a finished one was made with other settings."""
    finished = {(stage["name"], stage["model"]): stage for stage in results["stages"]}
    todo = []
    for function, who in chosen:
        done = finished.get((function.__name__, who))
        same = done is not None and done["settings"] == settings_of(run, function.__name__, who)
        if done is not None and not same and not force:
            raise ValueError(f"{run.out}: {function.__name__} ({who}) was finished with other settings; --force redoes it and what follows, "
                             "or give another --out")
        if todo or not same:
            todo.append((function, who))
    redone = {(function.__name__, who) for function, who in todo}
    results["stages"] = [stage for stage in results["stages"] if (stage["name"], stage["model"]) not in redone]
    return todo


def run_stages(run: Run, todo: list, results: dict) -> None:
    """Train, evaluate, save and report, one stage after the other."""
    print(sft.table_head())
    for stage in results["stages"]:
        print(sft.table_line(f"{stage['name']} ({stage['model']})", stage["eval"]) + "  (done before)")
    for function, who in todo:
        began = time.perf_counter()
        name, model = function.__name__, run.models[who]
        own = function(run, who)
        evaluated = sft.evaluate(model, run.tokenizer, run.eval_n, seed=run.seed)
        answer_samples(run, name, who)
        checkpoint = f"{name}.{who}.pt"
        save_checkpoint(run.out / checkpoint, model, run.tokenizer, name)
        results["stages"].append({
            "name": name, "model": who, "seconds": round(time.perf_counter() - began, 2), "tokens": own["tokens"], "checkpoint": checkpoint,
            "settings": settings_of(run, name, who), "eval": evaluated, "own": {key: value for key, value in own.items() if key != "tokens"}})
        results["seconds"] = round(sum(stage["seconds"] for stage in results["stages"]), 1)
        results["peak_memory_mb"] = peak_memory_mb()
        write_json(run.out / "results.json", results)
        print(sft.table_line(f"{name} ({who})", evaluated) + f"  {results['stages'][-1]['seconds']:.0f} s", flush=True)
        if not all(math.isfinite(row["greedy"]) for key, row in evaluated.items() if key != "code"):
            raise FloatingPointError(f"{name} ({who}): the evaluation is not a number")
        report(run.out, results)


def answer_samples(run: Run, stage: str, who: str) -> None:
    """The same fixed prompts, two a domain, answered greedily; kept as JSONL and laid out in samples.md."""
    tasks = [task for domain in world.DOMAINS[:5] for task in world.evaluation_tasks(domain, 2)]
    samples = generate(run.models[who], run.tokenizer, [run.tokenizer.prompt(task.messages) for task in tasks], temperature=0.0,
                       run_tool=world.run_tool)
    path = run.out / "samples.jsonl"
    lines = [line for line in (formats.read_jsonl(path) if path.exists() else []) if (line["stage"], line["model"]) != (stage, who)]
    for task, ids in zip(tasks, samples.lists()):
        shown = "".join(run.tokenizer.encoding.decode([i]) for i in ids)
        lines.append({"stage": stage, "model": who, "domain": task.domain, "prompt": task.prompt, "reply": shown})
    formats.write_jsonl(path, lines)
    text = ["# The same prompts, answered by every stage", "", "Greedy, unedited, with all marks.", ""]
    for prompt in dict.fromkeys(line["prompt"] for line in lines):
        text += [f"## {prompt}", ""] + [f"- {line['stage']} ({line['model']}): `{line['reply']}`" for line in lines if line["prompt"] == prompt] + [""]
    temporary = run.out / "samples.md.tmp"
    temporary.write_text("\n".join(text), encoding="utf-8")
    os.replace(temporary, run.out / "samples.md")


# ---- the report ----

def report(out: Path, results: dict) -> None:
    """report.md with the table and the plots."""
    (out / "plots").mkdir(exist_ok=True)
    plot_stages(out, results)
    plot_losses(out, results)
    text = [f"# Run: size {results['size']}, seed {results['seed']}", "",
            f"{results['seconds']:.0f} s in all stages, peak memory {results['peak_memory_mb'] or float('nan'):.0f} MB; "
            f"student {results['params']['student']:,} parameters, teacher {results['params']['teacher']:,}.", "",
            "Percent on held-out prompts: greedy with the half-width of its 95% interval / sampled at temperature 1. chat is the true reward "
            "divided by 5, judge the agreement with the rubric on pairs of responses (0 means that no verdict could be read), the rest are "
            "accuracies; phrasing is the score on phrasings that no demonstration used.", "",
            "| stage | model | " + " | ".join(COLUMNS) + " | seconds | tokens |", "|---|---|" + "---|" * (len(COLUMNS) + 2)]
    for stage in results["stages"]:
        cells = [f"{100 * row['greedy']:.0f} ±{100 * row['ci']:.0f} / {100 * row['sampled']:.0f}" for row in stage["eval"].values()]
        text.append(f"| {stage['name']} | {stage['model']} | " + " | ".join(cells) + f" | {stage['seconds']:.0f} | {stage['tokens']:,} |")
    text += ["", "![Which stage teaches what?](plots/stages.png)", "", "![Where is the held-out loss lowest?](plots/losses.png)", "",
             "The same prompts answered by every stage are in samples.md."]
    temporary = out / "report.md.tmp"
    temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
    os.replace(temporary, out / "report.md")


def save_plot(figure, path: Path) -> None:
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)
    os.replace(temporary, path)


def plot_stages(out: Path, results: dict) -> None:
    names = list(dict.fromkeys(stage["name"] for stage in results["stages"]))
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), sharey=True)
    for axis, domain in zip(axes.flat, COLUMNS):
        for k, (who, colour) in enumerate((("student", "tab:blue"), ("teacher", "tab:orange"))):
            rows = [(names.index(stage["name"]), stage["eval"][domain]) for stage in results["stages"] if stage["model"] == who]
            if rows:
                axis.errorbar([x + 0.1 * k for x, _ in rows], [100 * row["greedy"] for _, row in rows], [100 * row["ci"] for _, row in rows],
                              marker="o", capsize=3, color=colour, label=f"{who}, greedy")
                axis.plot([x + 0.1 * k for x, _ in rows], [100 * row["sampled"] for _, row in rows], "x:", color=colour, label=f"{who}, sampled")
        axis.set_title(domain)
        axis.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=8)
        axis.set_ylim(-3, 103)
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("score, percent")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].axis("off")
    axes.flat[-1].legend(handles, labels, loc="center", frameon=False)
    figure.suptitle("Which stage teaches what? Held-out prompts, 95% intervals")
    figure.tight_layout()
    save_plot(figure, out / "plots" / "stages.png")


def plot_losses(out: Path, results: dict) -> None:
    names = list(dict.fromkeys(stage["name"] for stage in results["stages"]))
    figure, axes = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.6), squeeze=False)
    for axis, name in zip(axes[0], names):
        for who, colour in (("student", "tab:blue"), ("teacher", "tab:orange")):
            path = out / f"{name}.{who}.csv"
            if not path.exists() or (name, who) not in [(stage["name"], stage["model"]) for stage in results["stages"]]:
                continue
            columns = numpy.genfromtxt(path, delimiter=",", names=True)
            smooth = numpy.convolve(columns["loss"], numpy.ones(10) / 10, mode="valid") if len(columns["loss"]) > 20 else columns["loss"]
            axis.plot(numpy.arange(len(smooth)), smooth, color=colour, label=f"{who}, training (mean of 10 steps)")
            if "held_out_loss" in columns.dtype.names:
                seen = ~numpy.isnan(columns["held_out_loss"])
                axis.plot(columns["step"][seen], columns["held_out_loss"][seen], "o--", color=colour, label=f"{who}, held out")
        axis.set(title=name, xlabel="step", ylabel="loss, nats a supervised token", yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=7)
    figure.suptitle("Where is the held-out loss lowest?")
    figure.tight_layout()
    save_plot(figure, out / "plots" / "losses.png")


# ---- command line ----

def main() -> None:
    parser = common_flags(__doc__)
    parser.add_argument("--student", default=None, help="checkpoint that the student starts from")
    parser.add_argument("--teacher", default=None, help="checkpoint that the teacher starts from")
    parser.add_argument("--stages", default=None, help="only these stages, separated by commas; default: all")
    parser.add_argument("--eval-n", type=int, default=None, help="held-out prompts a domain; default: 128, 8 with --smoke")
    parser.add_argument("--force", action="store_true", help="redo stages that were finished with other settings")
    args = parser.parse_args()
    try:
        run, todo, results = prepare(args)
    except (ValueError, OSError) as error:
        fail(error)
    try:
        run_stages(run, todo, results)
    except KeyboardInterrupt:
        done = [f"{stage['name']} ({stage['model']})" for stage in results["stages"]]
        print(f"\nstopped; finished: {', '.join(done) or 'nothing'}. The same command goes on from there.", file=sys.stderr)
        raise SystemExit(130) from None
    except FloatingPointError as error:
        fail(f"{error}; finished stages and their checkpoints are in {run.out}")
    print(f"{results['seconds']:.0f} s in all; {run.out / 'report.md'}")


def prepare(args) -> tuple[Run, list, dict]:
    """The run, the stages still to do, and the results so far, from the command line and what lies in the folder."""
    device = start(args)
    if args.size not in sft.SCHEDULES:
        raise ValueError(f"--size {args.size} has no schedule yet; there is {', '.join(sft.SCHEDULES)}")
    if args.data:
        raise ValueError("--data: the pipeline runs on the tiny world; python sft.py --data FILE trains on your own records")
    chosen = STAGES
    if args.stages:
        names = {function.__name__ for function, _ in STAGES}
        asked = args.stages.split(",")
        if unknown := [name for name in asked if name not in names]:
            raise ValueError(f"--stages {unknown[0]}: there is {', '.join(dict.fromkeys(f.__name__ for f, _ in STAGES))}")
        chosen = [(function, who) for function, who in STAGES if function.__name__ in asked]
    out = Path(args.out or f"runs/{args.size}{'-smoke' if args.smoke else ''}-seed{args.seed}")
    out.mkdir(parents=True, exist_ok=True)
    schedules = {who: sft.smoke(s) if args.smoke else s for who, s in sft.SCHEDULES[args.size].items()}
    run = Run(out, args.size, args.seed, device, tokenizers.tiny(), schedules, args.eval_n or (8 if args.smoke else 128))
    results = read_json(out / "results.json", {"size": args.size, "seed": args.seed, "world_version": world.WORLD_VERSION, "stages": []})
    todo = unfinished(results, run, chosen, args.force)
    given = {"student": args.student, "teacher": args.teacher}
    for who in ("student", "teacher"):
        last = next((stage for stage in reversed(results["stages"]) if stage["model"] == who), None)
        path = out / last["checkpoint"] if last else given[who]
        if path:
            run.models[who], _ = load_checkpoint(path, run.tokenizer, device)
        else:
            run.models[who] = GPT(SIZES[args.size][who]).init_weights(seed_of(args.seed, who)).to(device)
    results["params"] = {who: parameter_count(model) for who, model in run.models.items()}
    write_json(out / "config.json", {"arguments": vars(args) | {"out": None}, "models": {who: asdict(m.config) for who, m in run.models.items()},
                                     "schedules": {who: asdict(schedule) for who, schedule in schedules.items()}})
    write_json(out / "env.json", environment())
    return run, todo, results


if __name__ == "__main__":
    main()
