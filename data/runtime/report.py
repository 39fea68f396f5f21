"""The report of a run: report.md with the table, and five plots.

It reads results.json and the CSVs of the run's folder. Each plot asks one question. Plots of
experiments are shown too where their PNG lies in the run folder.
"""

import math
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy

from data.files import writing

matplotlib.use("Agg")  # no window, wherever it runs


def report(out: Path, results: dict) -> None:
    """report.md with the table and the plots."""
    (out / "plots").mkdir(exist_ok=True)
    drawn = [
        plot(out, results)
        for plot in (plot_stages, plot_distill, plot_reward_model, plot_rl, plot_self_reward)
    ]
    columns = columns_in(results)
    memory = results["peak_memory_mb"] or math.nan
    sizes = [f"{who} {count:,} parameters" for who, count in results["params"].items()]
    text = [
        f"# Run: size {results['size']}, seed {results['seed']}",
        "",
        f"{results['seconds']:.0f} s in all stages, peak memory {memory:.0f} MB; "
        f"{', '.join(sizes)}.",
        "",
        "Percent on held-out prompts: greedy with its 95% interval / sampled at temperature 1; "
        f"{legend(columns)}.",
        "",
        "| stage | model | " + " | ".join(columns) + " | seconds | tokens |",
        "|---|---|" + "---|" * (len(columns) + 2),
    ]
    for stage in results["stages"]:
        cells = [""] * len(columns)
        if stage["eval"]:
            cells = [cell(row) for row in stage["eval"].values()]
        scores = " | ".join(cells)
        spent = f"{stage['seconds']:.0f} | {stage['tokens']:,}"
        text.append(f"| {stage['name']} | {stage['model']} | {scores} | {spent} |")
    for title, name in filter(None, drawn):
        text += ["", f"![{title}](plots/{name})"]
    for path in sorted(out.glob("*.png")):  # of experiments that were told to write here
        text += ["", f"![{path.stem}]({path.name})"]
    text += ["", "The same prompts answered by every stage are in samples.md."]
    writing.write_text(out / "report.md", "\n".join(text) + "\n")


def legend(columns: list[str]) -> str:
    """What the scores of the table's columns mean."""
    meanings = {
        "chat": "chat is the true reward divided by 5",
        "judge": "judge the agreement with the rubric on pairs of responses (0 means that no "
        "verdict could be read)",
        "phrasing": "phrasing is the score on phrasings that no demonstration used",
    }
    told = [words for column, words in meanings.items() if column in columns]
    told.append("the rest are accuracies" if "chat" in columns else "all are accuracies")
    return "; ".join(told)


def cell(row: dict) -> str:
    """A domain's scores in percent: greedy, its interval, sampled."""
    greedy, low, high, sampled = (100 * row[key] for key in ("greedy", "low", "high", "sampled"))
    return f"{greedy:.0f} ({low:.0f} to {high:.0f}) / {sampled:.0f}"


# ---- plots ----


def save_plot(figure, out: Path, name: str, title: str) -> tuple[str, str]:
    """Writes the figure as plots/`name` and returns (title, name)."""
    figure.suptitle(title)
    figure.tight_layout()
    with writing.replacing(out / "plots" / name) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)
    return title, name


def panels(titles: list, ylabels: list, xlabel: str):
    """(figure, axes): a row of axes, one a title."""
    figure, axes = plt.subplots(1, len(titles), figsize=(4.6 * len(titles), 3.6), squeeze=False)
    for axis, title, ylabel in zip(axes[0], titles, ylabels):
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axis.grid(alpha=0.3)
    return figure, axes[0]


def columns_of(path: Path) -> dict:
    """A stage's CSV as arrays by column; empty where there is none."""
    if not path.exists():
        return {}
    table = numpy.atleast_1d(numpy.genfromtxt(path, delimiter=",", names=True))
    return {name: table[name] for name in table.dtype.names}


def smooth(values, width: int = 10):
    """The mean over `width` neighbours; a short curve stays as it is."""
    if len(values) <= 2 * width:
        return values
    return numpy.convolve(values, numpy.ones(width) / width, mode="valid")


def columns_in(results: dict) -> list[str]:
    """The domains that the run was evaluated on."""
    return next((list(stage["eval"]) for stage in results["stages"] if stage["eval"]), [])


def measured_of(results: dict, name: str) -> dict:
    """What a stage measured while it trained; {} where there is no such stage."""
    return next((stage["measured"] for stage in results["stages"] if stage["name"] == name), {})


def plot_stages(out: Path, results: dict):
    names = [
        name
        for name in dict.fromkeys(stage["name"] for stage in results["stages"])
        if name not in ("reward_model", "given_teacher")
    ]
    # one or none: it is drawn as a line, not as a stage
    given = [stage for stage in results["stages"] if stage["name"] == "given_teacher"]
    trained = [stage for stage in results["stages"] if stage["eval"] and stage not in given]
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.5), sharey=True)
    for axis, domain in zip(axes.flat, columns_in(results)):
        for k, (who, colour) in enumerate((("student", "tab:blue"), ("teacher", "tab:orange"))):
            rows = [
                (names.index(stage["name"]), stage["eval"][domain])
                for stage in trained
                if stage["model"] == who
            ]
            if rows:
                plot_scores(axis, rows, 0.1 * k, who, colour)
        for key, style in (("greedy", "--"), ("sampled", ":")):
            for stage in given:
                axis.axhline(
                    100 * stage["eval"][domain][key],
                    linestyle=style,
                    color="tab:orange",
                    label=f"teacher (given), {key}",
                )
        axis.set(title=domain, ylim=(-3, 103))
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("score, percent")
    axes.flat[-1].axis("off")
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", frameon=False)
    return save_plot(
        figure, out, "stages.png", "Which stage teaches what? Held-out prompts, 95% intervals"
    )


def plot_scores(axis, rows: list, shift: float, who: str, colour: str) -> None:
    """A model's greedy scores with intervals, and its sampled ones. rows: (place, scores)."""
    places = [place + shift for place, _ in rows]
    greedy = [100 * row["greedy"] for _, row in rows]
    below = [100 * (row["greedy"] - row["low"]) for _, row in rows]
    above = [100 * (row["high"] - row["greedy"]) for _, row in rows]
    sampled = [100 * row["sampled"] for _, row in rows]
    how = {"marker": "o", "capsize": 3, "color": colour}
    axis.errorbar(places, greedy, [below, above], label=f"{who}, greedy", **how)
    axis.plot(places, sampled, "x:", color=colour, label=f"{who}, sampled")


def plot_distill(out: Path, results: dict):
    columns = columns_of(out / "distill.student.csv")
    if not columns or not measured_of(results, "distill"):
        return None
    figure, (losses, logprobs, counts) = panels(
        ["the three losses", "log-probability of a response", "what the filter did"],
        ["nats", "nats", "queries"],
        "step",
    )
    labels = {
        "dpo": "L_DPO",
        "kl_positive": "L_pos",
        "kl_negative": "L_neg",
        "kl_rehearsal": "L_pos on rehearsal",
    }
    for name, label in labels.items():
        losses.plot(smooth(columns[name]), label=label)
    losses.axhline(math.log(2), color="grey", linestyle=":", label="ln 2")
    for name, label in (("positive_logprob", "positive"), ("negative_logprob", "negative")):
        logprobs.plot(smooth(columns[name]), label=label)
    reasons = measured_of(results, "distill")["filter"]
    counts.barh(list(reasons), list(reasons.values()))
    counts.set(xlabel="queries", ylabel="")
    counts.tick_params(labelsize=7)
    losses.legend(fontsize=7)
    logprobs.legend(fontsize=7)
    return save_plot(
        figure, out, "distill.png", "Does the teacher move the student, and by which loss?"
    )


def plot_reward_model(out: Path, results: dict):
    measured = measured_of(results, "reward_model")
    if not measured:
        return None
    figure, (bars, curve) = panels(
        ["accuracy on held-out rankings", "calibration"],
        ["share of pairs", "observed win rate"],
        "",
    )
    names = {
        "accuracy": "by the annotator",
        "annotator_agreement": "annotator with itself",
        "ceiling": "the truth, by the annotator",
        "true_accuracy": "by the true rubric",
        "accuracy_longer_won": "longer won",
        "accuracy_shorter_won": "shorter won",
    }
    limits = ("annotator_agreement", "ceiling")
    # real pairs have no second annotator and no truth
    known = [key for key in names if measured.get(key) is not None]
    colours = ["grey" if key in limits else "tab:blue" for key in known]
    bars.bar([names[key] for key in known], [measured[key] for key in known], color=colours)
    bars.tick_params(axis="x", rotation=25, labelsize=7)
    bars.set_ylim(0, 1)
    curve.plot([0.5, 1], [0.5, 1], ":", color="grey", label="perfect")
    predicted = [row["predicted"] for row in measured["calibration"]]
    observed = [row["observed"] for row in measured["calibration"]]
    curve.plot(predicted, observed, "o-", label="reward model")
    curve.set_xlabel("predicted win rate")
    curve.legend(fontsize=7)
    return save_plot(
        figure, out, "reward_model.png", "Does the reward model rank as the annotator does?"
    )


def plot_rl(out: Path, results: dict):
    names = [
        name
        for name in ("rl_stem", "rl_code", "rl_preference")
        if "reward" in measured_of(results, name)
    ]
    if not names:
        return None
    figure, axes = panels(names, ["reward of a response"] * len(names), "iteration")
    for axis, name in zip(axes, names):
        columns = columns_of(out / f"{name}.student.csv")
        iterations = columns["iteration"]
        label = "reward, from the squashed RM score" if name == "rl_preference" else "reward"
        axis.plot(iterations, columns["reward"], "o-", label=label)
        axis.plot(iterations, columns["true_reward"], "s-", label="true reward (0 to 1)")
        other = axis.twinx()
        other.plot(iterations, columns["kl"], ":", color="tab:red", label="KL to the start (right)")
        other.set_ylabel("nats a response")
        lines = [*axis.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
        axis.legend(lines, [line.get_label() for line in lines], fontsize=7)
    return save_plot(figure, out, "rl.png", "Does the true reward rise with the reward?")


def plot_self_reward(out: Path, results: dict):
    rounds = [measured_of(results, f"self_reward_{number}") for number in (1, 2)]
    rounds = [measured for measured in rounds if measured]
    if not rounds:
        return None
    figure, (wins, judge, length) = panels(
        ["win share by the true reward", "the judge on held-out pairs", "length"],
        ["share, ties half", "share", "tokens"],
        "",
    )
    models = [f"M_{k + 1}" for k in range(len(rounds) + 1)]
    later = models[1:]
    for key, label in (("against_previous", "against M_t"), ("against_seed", "against M_1")):
        shares = [measured[key]["win_share"] for measured in rounds]
        wins.plot(later, shares, "o-", label=label)
    wins.axhline(0.5, color="grey", linestyle=":")
    wins.set_ylim(0.3, 0.7)
    judges = [
        rounds[0].get("seed_judge", rounds[0]["judge"]),
        *(measured["judge"] for measured in rounds),
    ]
    labels = {
        "pairwise": "pairwise agreement",
        "exact": "exact ranking",
        "parsed": "verdicts parsed",
    }
    for key, label in labels.items():
        judge.plot(models, [one[key] for one in judges], "o-", label=label)
    known = [k for k in range(len(rounds)) if rounds[k].get("own_agreement") is not None]
    agreement = [rounds[k]["own_agreement"] for k in known]
    label = "pairwise, on its own responses"
    judge.plot([models[k] for k in known], agreement, "s--", label=label)
    labels = {
        "chosen_length": "chosen",
        "rejected_length": "rejected",
        "length": "held-out answers",
    }
    for key, label in labels.items():
        lengths = [measured.get(key, numpy.nan) for measured in rounds]
        length.plot(later, lengths, "o-", label=label)
    for axis in (wins, judge, length):
        axis.legend(fontsize=7, framealpha=0.5)
    return save_plot(
        figure,
        out,
        "self_reward.png",
        "Does the model get better by its own judgement, and does its judgement last?",
    )
