"""What the museum shows of each silent bug: its curves, and what a visitor is told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """One panel: a column of the lines against another."""

    x: str
    y: str
    x_label: str
    y_label: str
    x_scale: str = "linear"
    y_scale: str = "linear"


@dataclass(frozen=True)
class Exhibit:
    bug: str  # its name in bugs.py
    title: str
    told: str  # what was run, in QUIZ.md
    curves: tuple[Curve, ...]


def by_step(y: str, label: str, **scale) -> Curve:
    return Curve("step", y, "step", label, **scale)


def by_iteration(y: str, label: str, **scale) -> Curve:
    return Curve("iteration", y, "iteration", label, **scale)


STARTS = ("base.pt", "sft.pt")  # what exhibits.py makes first

KL = by_iteration("kl", "KL to the start, nats")
TRUE_REWARD = by_iteration("true_reward", "share of right answers")

EXHIBITS = (
    Exhibit(
        "the prompt is trained on too",
        "SFT",
        "SFT of a base model on dialogues.",
        (
            by_step("loss", "loss, nats"),
            by_step("held_out_loss", "loss, held out"),
        ),
    ),
    Exhibit(
        "the end mark is left out of the loss",
        "SFT, and what the model then writes",
        "SFT of a base model on dialogues; at times it answers 48 prompts in at most 64 tokens.",
        (
            by_step("length", "tokens of a response"),
            by_step("truncated", "share cut off by the limit"),
        ),
    ),
    Exhibit(
        "a mean over the response where DPO has a sum",
        "DPO",
        "DPO on pairs of a model's own responses to chat prompts.",
        (
            by_step("loss", "loss"),
            by_step("margin", "margin of the implicit rewards"),
            by_step("chosen_logprob", "log-probability of the chosen"),
        ),
    ),
    Exhibit(
        "the reward is read at the padding",
        "A reward model",
        "A reward model learns from rankings; then it scores held-out ones, so many rows at once.",
        (
            by_step("loss", "loss"),
            Curve("rows", "mean_score", "rows scored at once", "mean score, held out", "log"),
            Curve("rows", "held_out_accuracy", "rows scored at once", "accuracy, held out", "log"),
        ),
    ),
    Exhibit(
        "a tie counts as a win",
        "A reward model",
        "A reward model learns from rankings of two responses to a prompt.",
        (
            by_step("loss", "loss"),
            by_step("accuracy", "pairs in the right order"),
        ),
    ),
    Exhibit(
        "the reference learns along",
        "RL with a KL penalty",
        "RL on twelve questions that need a tool, with a group baseline and a KL penalty.",
        (KL, TRUE_REWARD),
    ),
    Exhibit(
        "the KL has the wrong sign",
        "PPO with a KL penalty",
        "PPO with a critic on twelve questions that need a tool, and a KL penalty.",
        (KL, TRUE_REWARD),
    ),
    Exhibit(
        "advantages are not centred",
        "RL with a group baseline",
        "RL on twelve questions that need a tool, with a group baseline.",
        (by_iteration("loss", "loss"), TRUE_REWARD),
    ),
    Exhibit(
        "old log-probabilities at another temperature",
        "RL with a group baseline",
        "The first iterations of RL on twelve questions that need a tool.",
        (
            by_iteration("first_log_ratio", "largest log-ratio at first"),
            by_iteration("clip_fraction", "share of clipped tokens"),
        ),
    ),
    Exhibit(
        "advantages run through what a tool wrote",
        "PPO with a critic",
        "PPO with a critic on twelve questions that need a tool.",
        (
            by_iteration("value_loss", "loss of the critic", y_scale="log"),
            by_iteration("explained_variance", "explained variance"),
        ),
    ),
    Exhibit(
        "the KL of distillation runs the other way",
        "Distillation",
        "A student learns from a larger teacher.",
        (
            by_step("kl_positive", "KL on the teacher's responses"),
            by_step("positive_logprob", "their log-probability, nats"),
        ),
    ),
    Exhibit(
        "a verdict that cannot be read counts as 0",
        "A judge",
        "A model judges answers whose truth is known, at rising sampling temperatures.",
        (
            Curve("temperature", "parsed", "temperature", "share of verdicts that are read"),
            Curve("temperature", "mean_score", "temperature", "mean score of an answer"),
            Curve("temperature", "pairwise", "temperature", "agreement with the truth"),
        ),
    ),
)
