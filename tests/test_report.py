"""report.md and every plotted line by value, from a made-up run without two equal numbers."""

import copy
import math
import re

import matplotlib.pyplot as plt
import pytest

from data import world
from data.files import writing
from data.runtime import report as reports
from data.runtime.evaluation import table_head
from data.runtime.report import report
from pipeline import stage_line

OWN = "measured"  # results.json: what a stage alone measured
DOMAINS = ("math", "code", "stem", "chat", "agent", "judge", "phrasing")
STAGES = [
    ("pretrain", "student"),
    ("pretrain", "teacher"),
    ("overall_sft", "student"),
    ("overall_sft", "teacher"),
    ("distill", "student"),
    ("reward_model", "student"),
    ("rl_stem", "student"),
    ("rl_code", "student"),
    ("rl_preference", "student"),
    ("self_reward_1", "student"),
    ("self_reward_2", "student"),
]


def bounds(row: dict) -> tuple[float, float]:
    """The 95% interval of greedy's score, as (low, high)."""
    return row["low"], row["high"]


class Numbers:
    """Numbers from 0.1 to 0.9 of which no two are alike, not even in percent to one digit."""

    def __init__(self):
        self.count = 0

    def next(self) -> float:
        self.count += 1
        return 0.1 + (self.count * 347 % 797) / 1000


def made_up() -> dict:
    """The results of a run; sampled is not greedy, no interval has greedy in its middle."""
    numbers, stages = Numbers(), []
    for k, (name, who) in enumerate(STAGES):
        scores = {
            domain: {"greedy": numbers.next(), "sampled": numbers.next(), "n": 100}
            for domain in DOMAINS
        }
        for row in scores.values():
            row |= {
                "low": row["greedy"] - numbers.next() / 10,
                "high": row["greedy"] + numbers.next() / 20,
            }
        own = {"loss": numbers.next()}
        if name == "distill":
            own["filter"] = {"math: kept": 31, "math: positive wrong": 17, "chat: kept": 5}
        if name == "reward_model":
            names = (
                "accuracy",
                "annotator_agreement",
                "ceiling",
                "true_accuracy",
                "accuracy_longer_won",
                "accuracy_same_length",
                "accuracy_shorter_won",
            )
            own |= {name: numbers.next() for name in names}
            own["calibration"] = [
                {"predicted": numbers.next(), "observed": numbers.next(), "pairs": 10 + n}
                for n in range(4)
            ]
        if name.startswith("rl_"):
            own["reward"] = numbers.next()
        if name.startswith("self_reward"):
            own |= {
                name: numbers.next()
                for name in ("own_agreement", "correct", "polite", "true_reward")
            }
            own |= {
                name: 10 + numbers.next() for name in ("chosen_length", "rejected_length", "length")
            }
            for key in ("against_previous", "against_seed"):
                own[key] = {one: numbers.next() for one in ("wins", "ties", "losses", "win_share")}
            for key in ("judge", "seed_judge") if name.endswith("1") else ("judge",):
                own[key] = {
                    one: numbers.next()
                    for one in ("pairwise", "ties", "exact", "spearman", "kendall", "parsed")
                }
        stages.append(
            {
                "name": name,
                "model": who,
                "seconds": 100.0 + 7 * k,
                "tokens": 123456 + 1111 * k,
                "eval": None if name == "reward_model" else scores,
                OWN: own,
            }
        )
    return {
        "size": "small",
        "seed": 17,
        "seconds": 4321.0,
        "peak_memory_mb": 987.0,
        "params": {"student": 1234567, "teacher": 7654321},
        "stages": stages,
    }


LOGS = {
    "distill": (
        "dpo",
        "kl_positive",
        "kl_negative",
        "kl_rehearsal",
        "positive_logprob",
        "negative_logprob",
        "loss",
    ),
    **{
        name: ("reward", "true_reward", "kl", "rm_score", "entropy")
        for name in ("rl_stem", "rl_code", "rl_preference")
    },
}


def made_up_logs(out) -> dict:
    """A CSV for each stage that has one; {stage: {column: values}}."""
    numbers, logs = Numbers(), {}
    for name, columns in LOGS.items():
        lines = [
            {"step": k, "iteration": k} | {column: numbers.next() + 3 for column in columns}
            for k in range(6)
        ]
        writing.write_csv(out / f"{name}.student.csv", lines)
        logs[name] = {
            column: [line[column] for line in lines] for column in ("iteration", *columns)
        }
    return logs


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(results, logs, figures by the name of their file, folder) of a report."""
    out, results, figures = tmp_path_factory.mktemp("report"), made_up(), {}
    logs = made_up_logs(out)

    def keep(figure, out, name, title):
        figures[name] = figure
        return title, name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "save_plot", keep)
        report(out, copy.deepcopy(results))
    yield results, logs, figures, out
    plt.close("all")


def stage_of(results, name, who="student"):
    return next(
        stage for stage in results["stages"] if (stage["name"], stage["model"]) == (name, who)
    )


def own_of(results, name):
    return stage_of(results, name)[OWN]


def line_of(axis, label):
    (line,) = [line for line in axis.lines if line.get_label() == label]
    return line


def heights(axis, label):
    return pytest.approx([float(y) for y in line_of(axis, label).get_ydata()])


def axis_of(figure, title):
    (axis,) = [axis for axis in figure.axes if axis.get_title() == title]
    return axis


# ---- the text ----


def test_the_table_has_every_number_in_the_column_of_its_domain(drawn):
    results, _, _, out = drawn
    text = (out / "report.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    head, _, *lines = rows
    assert head == ["stage", "model", *DOMAINS, "seconds", "tokens"] and len(lines) == len(STAGES)
    for (name, who), cells in zip(STAGES, lines):
        stage, row = stage_of(results, name, who), dict(zip(head, cells))
        assert len(cells) == len(head) and (row["stage"], row["model"]) == (name, who)
        assert (
            float(row["seconds"]) == stage["seconds"]
            and int(row["tokens"].replace(",", "")) == stage["tokens"]
        )
        for domain in DOMAINS:
            found = [float(number) for number in re.findall(r"[0-9.]+", row[domain])]
            if stage["eval"] is None:
                assert found == []
                continue
            score = stage["eval"][domain]
            low, high = bounds(score)
            # greedy, then its interval's two ends, then sampled
            assert found[0] == pytest.approx(100 * score["greedy"], abs=0.51)
            assert found[-1] == pytest.approx(100 * score["sampled"], abs=0.51)
            assert found[1:-1] == pytest.approx([100 * low, 100 * high], abs=0.51)


def test_the_head_of_the_report_says_which_run_it_is(drawn):
    _, _, _, out = drawn
    lines = (out / "report.md").read_text(encoding="utf-8").splitlines()
    assert "small" in lines[0] and "17" in lines[0]
    told = next(line for line in lines if "parameters" in line)
    assert "student 1,234,567 parameters" in told and "teacher 7,654,321 parameters" in told
    assert "4321 s" in told and "987 MB" in told


def test_every_plot_is_shown_under_its_title(drawn):
    _, _, figures, out = drawn
    text = (out / "report.md").read_text(encoding="utf-8")
    assert (
        set(re.findall(r"\(plots/(.*?)\)", text))
        == set(figures)
        == {"stages.png", "distill.png", "reward_model.png", "rl.png", "self_reward.png"}
    )


def test_the_growing_table_has_greedy_before_sampled_in_the_order_of_its_head():
    results = made_up()
    stage = stage_of(results, "rl_code")
    line = stage_line(stage)
    assert line.startswith("rl_code (student)")
    found = re.findall(r"(\d+)/ *(\d+)", line)
    assert found == [
        (f"{100 * row['greedy']:.0f}", f"{100 * row['sampled']:.0f}")
        for row in stage["eval"].values()
    ]
    assert table_head().split()[-len(DOMAINS) :] == [*world.DOMAINS, "phrasing"]
    own = own_of(results, "reward_model")
    line = stage_line(stage_of(results, "reward_model"))
    assert [float(number) for number in re.findall(r"0\.\d+", line)] == pytest.approx(
        [own[name] for name in ("accuracy", "true_accuracy", "annotator_agreement")], abs=6e-4
    )


# ---- the plots ----


def test_a_given_teacher_is_a_line_across_the_stages_and_no_stage(monkeypatch, tmp_path):
    results, kept = made_up(), []
    teacher = copy.deepcopy(stage_of(results, "overall_sft")) | {
        "name": "given_teacher",
        "model": "teacher",
    }
    results["stages"] = [stage for stage in results["stages"] if stage["model"] == "student"] + [
        teacher
    ]
    monkeypatch.setattr(reports, "save_plot", lambda figure, out, name, title: kept.append(figure))
    reports.plot_stages(tmp_path, results)
    for domain in DOMAINS:
        axis = axis_of(kept[0], domain)
        assert "given_teacher" not in [label.get_text() for label in axis.get_xticklabels()]
        for key in ("greedy", "sampled"):
            score = 100 * teacher["eval"][domain][key]
            assert heights(axis, f"teacher (given), {key}") == [score, score]
    plt.close("all")


def test_the_plot_of_stages_has_every_score_at_its_stage(drawn):
    results, _, figures, _ = drawn
    for domain in DOMAINS:
        axis = axis_of(figures["stages.png"], domain)
        ticks = [label.get_text() for label in axis.get_xticklabels()]
        assert ticks == list(dict.fromkeys(name for name, _ in STAGES if name != "reward_model"))
        for who, bars in zip(("student", "teacher"), axis.containers):
            stages = [
                stage for stage in results["stages"] if stage["model"] == who and stage["eval"]
            ]
            places = [ticks.index(stage["name"]) for stage in stages]
            scores = [stage["eval"][domain] for stage in stages]
            points, _, (segments,) = bars
            assert bars.get_label().startswith(who) and "greedy" in bars.get_label()
            assert [round(x) for x in points.get_xdata()] == places
            assert list(points.get_ydata()) == pytest.approx(
                [100 * score["greedy"] for score in scores]
            )
            ends = [end for path in segments.get_segments() for end in path[:, 1]]
            assert ends == pytest.approx([100 * end for score in scores for end in bounds(score)])
            sampled = line_of(axis, f"{who}, sampled")
            assert [round(x) for x in sampled.get_xdata()] == places
            assert list(sampled.get_ydata()) == pytest.approx(
                [100 * score["sampled"] for score in scores]
            )


def test_the_plot_of_distillation_has_each_loss_under_its_name_and_the_filters_counts(drawn):
    results, logs, figures, _ = drawn
    losses, logprobs, counts = figures["distill.png"].axes
    for label, column in (
        ("L_DPO", "dpo"),
        ("L_pos", "kl_positive"),
        ("L_neg", "kl_negative"),
        ("L_pos on rehearsal", "kl_rehearsal"),
    ):
        assert logs["distill"][column] == heights(losses, label)
    assert list(line_of(losses, "ln 2").get_ydata()) == pytest.approx([math.log(2)] * 2)
    for label, column in (("positive", "positive_logprob"), ("negative", "negative_logprob")):
        assert logs["distill"][column] == heights(logprobs, label)
    reasons = [label.get_text() for label in counts.get_yticklabels()]
    assert (
        dict(zip(reasons, [bar.get_width() for bar in counts.patches]))
        == own_of(results, "distill")["filter"]
    )


def test_a_long_curve_is_a_moving_mean_of_ten():
    assert list(reports.smooth([float(k) for k in range(30)])) == pytest.approx(
        [k + 4.5 for k in range(21)]
    )
    assert list(reports.smooth([1.0, 5.0, 2.0])) == [1.0, 5.0, 2.0]


def test_the_plot_of_the_reward_model_has_each_accuracy_under_its_name(drawn):
    results, _, figures, _ = drawn
    own, (bars, curve) = own_of(results, "reward_model"), figures["reward_model.png"].axes
    names = {
        "by the annotator": "accuracy",
        "annotator with itself": "annotator_agreement",
        "the truth, by the annotator": "ceiling",
        "by the true rubric": "true_accuracy",
        "longer won": "accuracy_longer_won",
        "shorter won": "accuracy_shorter_won",
    }
    shown = dict(
        zip(
            [label.get_text() for label in bars.get_xticklabels()],
            [bar.get_height() for bar in bars.patches],
        )
    )
    assert shown == pytest.approx({label: own[key] for label, key in names.items()})
    line = line_of(curve, "reward model")
    assert list(line.get_xdata()) == pytest.approx([row["predicted"] for row in own["calibration"]])
    assert list(line.get_ydata()) == pytest.approx([row["observed"] for row in own["calibration"]])
    perfect = line_of(curve, "perfect")
    assert list(perfect.get_xdata()) == list(perfect.get_ydata())


def test_the_plot_of_rl_has_each_stages_reward_true_reward_and_kl(drawn):
    _, logs, figures, _ = drawn
    figure = figures["rl.png"]
    for k, name in enumerate(("rl_stem", "rl_code", "rl_preference")):
        axis, other = axis_of(figure, name), figure.axes[3 + k]
        lines = {line.get_label(): line for line in (*axis.lines, *other.lines)}
        assert len(lines) == 3
        for label, line in lines.items():
            column = (
                "kl"
                if label.startswith("KL")
                else "true_reward"
                if label.startswith("true reward")
                else "reward"
            )
            assert list(line.get_ydata()) == pytest.approx(logs[name][column]), label
            assert list(line.get_xdata()) == logs[name]["iteration"]


def test_the_plot_of_the_rounds_has_each_share_under_its_name(drawn):
    results, _, figures, _ = drawn
    rounds = [own_of(results, f"self_reward_{number}") for number in (1, 2)]
    wins, judge, length = figures["self_reward.png"].axes
    for label, key in (("against M_t", "against_previous"), ("against M_1", "against_seed")):
        assert [own[key]["win_share"] for own in rounds] == heights(wins, label)
    judges = [rounds[0]["seed_judge"], rounds[0]["judge"], rounds[1]["judge"]]
    for label, key in (
        ("pairwise agreement", "pairwise"),
        ("exact ranking", "exact"),
        ("verdicts parsed", "parsed"),
    ):
        assert [one[key] for one in judges] == heights(judge, label)
    assert [own["own_agreement"] for own in rounds] == heights(
        judge, "pairwise, on its own responses"
    )
    for label, key in (
        ("chosen", "chosen_length"),
        ("rejected", "rejected_length"),
        ("held-out answers", "length"),
    ):
        assert [own[key] for own in rounds] == heights(length, label)
