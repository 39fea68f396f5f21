"""Is it the judge that makes the model better? The self-rewarding loop with its own judge, a random
one, the truth.

    python -m tests.experiments.judge_controls runs/tiny-seed1 runs/tiny-seed2 --start overall_sft

M_1, prompts, responses and DPO are the same, and only the scores differ. With the true reward as
judge, prompts that the world cannot parse are dropped (in that run only: nothing else could score
them). The failure is shown too: the learning rate three times as high and no rehearsal. From
`distill` the annotator's preferences are compared as well: the reward model and rl_preference, from
that one start. Prints the tables, draws the curves, and writes judge_controls.json for
tests.experiments.targets.
"""

import argparse
import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

import pipeline
import ppo
import reward_model
import self_reward
import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.runtime import queries
from data.runtime.command import fail, guarded
from data.runtime.devices import seed_of
from data.world import chat as world_chat
from data.world import judge as world_judge
from model import load_checkpoint
from tests.experiments.tables import head, interval, told
from tests.experiments.tables import row as line_of

matplotlib.use("Agg")  # no window, wherever it runs

MEASURED = (
    "pairs",
    "own_agreement",
    "equally_good",
    "true_gap",
    *(f"own_{name}" for name in world_chat.CRITERIA),
)


def random_judge(tokenizer, seed: int):
    """A judge that draws its scores: 0 to 5, each as likely."""
    rng = random.Random(seed_of(seed, "random judge"))

    def drawn(row):
        if self_reward.text_of(tokenizer, row) is None:  # it broke off: no judge scores it
            return None
        return float(rng.randrange(6))

    def score(prompts, responses):
        return [[drawn(row) for row in group] for group in responses]

    return score


def true_judge(tokenizer):
    """A judge that gives the true reward, and no score where the world knows none."""

    def reward(task, row):
        text = self_reward.text_of(tokenizer, row)
        if task is None or task.domain != "chat" or text is None:
            return None
        return float(world_judge.true_reward(task, text))

    def score(prompts, responses):
        return [
            [reward(task, row) for row in group]
            for task, group in zip(map(world.parse, prompts), responses)
        ]

    return score


def rehearsal_of(run: Path, start: str, tokenizer, seed: int, context: int) -> list:
    """What the pipeline would rehearse from this start.

    That is demonstrations before distill, and the teacher's samples after it.
    """
    if start == "overall_sft":
        return sft.rehearsal_data(tokenizer, "tiny", seed, context)
    return queries.kept_rehearsal(run / pipeline.REHEARSAL, chat=False)


def annotated(model, tokenizer, rehearsal: list, seed: int):
    """The policy after rl_preference by a reward model that learned from the annotator."""
    stages = pipeline.stage_settings("tiny", False)
    learned, _ = reward_model.reward_model(model, tokenizer, stages["reward_model"], seed=seed)
    policy = copy.deepcopy(model)
    ppo.rl_preference(
        policy, tokenizer, learned, stages["rl_preference"], seed=seed, rehearsal=rehearsal
    )
    return policy


def two_rounds(
    seed_model, tokenizer, first: dict, *, settings, trained, rehearsal, score, prompts, seed: int
) -> list[dict]:
    """What M_1, M_2 and M_3 measure. first: M_1's. score: the judge, None for its own.

    settings are those of the measurement, `trained` those of the training.
    """
    model = seed_model
    path = [first]
    for number in (1, 2):
        following, training = self_reward.next_iteration_model(
            model,
            seed_model,
            tokenizer,
            trained,
            seed=seed,
            round_number=number,
            training_prompts=prompts,
            rehearsal=rehearsal,
            score=score,
        )
        measured = self_reward.measure(following, model, seed_model, tokenizer, settings, seed)
        path.append(measured | {key: training.get(key) for key in MEASURED})
        model = following
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders, one a seed")
    parser.add_argument("--start", default="rl_preference", help="which student checkpoint is M_1")
    parser.add_argument(
        "--held-out", type=int, default=500, help="prompts for win rates and for the judge"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", default="runs/judge_controls", help="folder of table and plot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    out = Path(args.out)
    curves = {}
    out.mkdir(parents=True, exist_ok=True)
    settings = replace(self_reward.Settings(), held_out=args.held_out)
    hot = replace(settings, training=replace(settings.training, lr=3 * settings.training.lr))
    for run in map(Path, args.runs):
        try:
            seed_model, _ = load_checkpoint(run / f"{args.start}.student.pt", tokenizer)
        except ValueError as error:
            fail(error)
        seed = json.loads((run / "results.json").read_text(encoding="utf-8"))["seed"]
        rehearsal = rehearsal_of(run, args.start, tokenizer, seed, seed_model.config.context)
        prompts = sft.chat_prompts("tiny", seed)
        first = self_reward.measure(seed_model, seed_model, seed_model, tokenizer, settings, seed)
        judges = {
            "its own judge": (None, settings, rehearsal),
            "random judge": (random_judge(tokenizer, seed), settings, rehearsal),
            "true reward as judge": (true_judge(tokenizer), settings, rehearsal),
            "three times the learning rate, no rehearsal": (None, hot, []),
        }
        for name, (score, trained, rows) in judges.items():
            path = two_rounds(
                seed_model,
                tokenizer,
                first,
                settings=settings,
                trained=trained,
                rehearsal=rows,
                score=score,
                prompts=prompts,
                seed=seed,
            )
            curves.setdefault(name, []).append(path)
            tell(f"seed {seed} {name}", path)
        if args.start == "distill":
            policy = annotated(seed_model, tokenizer, rehearsal, seed)
            then = self_reward.measure(policy, seed_model, seed_model, tokenizer, settings, seed)
            path = [first, then]
            curves.setdefault("the annotator: reward model, rl_preference", []).append(path)
            tell(f"seed {seed} the annotator", path)
    report(curves, out, args.start)


def tell(name: str, path: list[dict]) -> None:
    """One line of a seed: M_1 and what followed it."""
    rewards = " ".join(f"{m['true_reward']:.2f}" for m in path)
    wins = " ".join(f"{m['against_previous']['win_share']:.3f}" for m in path[1:])
    right = " ".join(f"{m['correct']:.2f}" for m in path)
    judged = " ".join(f"{m['judge']['pairwise']:.3f}" for m in path)
    print(
        f"{name:52} true reward {rewards}  win share {wins}  correct {right}  judge {judged}",
        flush=True,
    )


def over(paths: list[list[dict]], place: int, key: str) -> str:
    """The mean of what was measured at a place of every path, "-" where nothing was."""
    known = [path[place][key] for path in paths if path[place].get(key) is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"


def over_places(paths: list[list[dict]], places, key: str) -> str:
    return ", ".join(over(paths, place, key) for place in places)


def means_of(paths: list[list[dict]], places, group: str, key: str) -> str:
    """The means of a number that stands in a group of what was measured, to three digits."""
    means = [sum(path[place][group][key] for path in paths) / len(paths) for place in places]
    return ", ".join(f"{mean:.3f}" for mean in means)


def report(curves: dict, out: Path, start: str) -> None:
    """The tables, the curves, and the figures for targets.py."""
    gains = {
        name: interval([path[-1]["true_reward"] - path[0]["true_reward"] for path in paths])
        for name, paths in curves.items()
    }
    right = {
        name: interval([100 * (path[-1]["correct"] - path[0]["correct"]) for path in paths])
        for name, paths in curves.items()
    }
    columns = ("true reward", "gain", "win shares", "correct", "change, points", "polite")
    columns += ("judge on mixed", "on its own, by round", "length")
    print("\n" + head(f"judge, M_1 = {start}", *columns))
    for name, paths in curves.items():
        places = range(len(paths[0]))
        cells = [
            over_places(paths, places, "true_reward"),
            told(gains[name], 2),
            means_of(paths, places[1:], "against_previous", "win_share"),
            over_places(paths, places, "correct"),
            told(right[name]),
            over_places(paths, places, "polite"),
            means_of(paths, (0, places[-1]), "judge", "pairwise"),
            over_places(paths, places[1:], "own_agreement"),
            over_places(paths, places, "length"),
        ]
        print(line_of(name, *cells))
    what = "agreement on the model's own answers, rounds 1 and 2, where they differ in being"
    print("\n" + head(what, *world_chat.CRITERIA))
    for name, paths in curves.items():
        rounds = range(1, len(paths[0]))
        names = [f"own_{criterion}" for criterion in world_chat.CRITERIA]
        print(line_of(name, *(over_places(paths, rounds, key) for key in names)))
    truth = gains["true reward as judge"][0]
    share = gains["its own judge"][0] / truth if truth > 0 else None
    kept = {
        "start": start,
        "share_of_truth": share,
        "random": gains["random judge"],
        "gains": gains,
        "correct": right,
        "curves": curves,
    }
    writing.write_json(out / "judge_controls.json", kept)
    plot(curves, out, start)


def plot(curves: dict, out: Path, start: str) -> None:
    """Three panels over the rounds: true reward, correctness, the judge."""
    panels = (
        ("true reward, 0 to 5", "answers to held-out chat prompts", lambda m: m["true_reward"]),
        ("share of correct answers", "correctness", lambda m: m["correct"]),
        (
            "pairwise agreement with the truth",
            "the judge, on responses of mixed quality",
            lambda m: m["judge"]["pairwise"],
        ),
    )
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    for name, paths in curves.items():
        names = [f"M_{k + 1}" for k in range(len(paths[0]))]
        for axis, (_, _, value) in zip(axes, panels):
            means = [sum(value(path[k]) for path in paths) / len(paths) for k in range(len(names))]
            axis.plot(names, means, "o-", label=name)
    for axis, (label, title, _) in zip(axes, panels):
        axis.set(ylabel=label, title=title)
        axis.grid(alpha=0.3)
    figure.suptitle(
        f"Is it the judge that makes the model better? M_1 = {start}, "
        f"{len(next(iter(curves.values())))} seeds"
    )
    figure.tight_layout()
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncol=3,
        frameon=False,
    )
    figure.savefig(out / "judge_controls.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    guarded(main)
