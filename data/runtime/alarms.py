"""What is said when a training leaves its healthy range for long.

A chapter's "Watch" names the ranges, this table what is said once one of them has been left for so
many lines of the log in a row that it is no noise. The training goes on: a line on the terminal, at
most one an alarm, and nothing in the CSV.
"""

import math
from collections import deque
from collections.abc import Callable
from statistics import fmean
from typing import NamedTuple

LN2 = math.log(2)
BEGIN = 20  # lines that a later mean is compared with: one batch may be much easier than others


class Alarm(NamedTuple):
    """One row of the table.

    chapter: whose log has the column; self_reward.py's log is dpo.py's. lines: how many of those
    that have the column, in a row. left(last, first): whether they are outside the healthy range;
    last["kl"] are the numbers of the column in these lines, first["kl"] those of the first BEGIN
    lines. what, words: what is seen, and what it usually means.
    """

    chapter: str
    column: str
    lines: int
    left: Callable[[dict, dict], bool]
    what: str
    words: str


# the column that the lines of no other chapter have; the order matters, the first that fits is it
KNOWN_BY = (
    ("ppo", "dead_groups"),
    ("distill", "kl_positive"),
    ("dpo", "chosen_logprob"),
    ("reward_model", "accuracy"),
    ("sft", "loss"),
)


def rise(numbers: list[float]) -> float:
    """Mean of the second half less the mean of the first."""
    half = len(numbers) // 2
    return fmean(numbers[half:]) - fmean(numbers[:half])


def stuck(losses: list[float]) -> bool:
    """All at ln 2, where policy and reference are equal."""
    return max(abs(loss - LN2) for loss in losses) < 0.003


def free_fall(last: list[float], first: list[float]) -> bool:
    """A response costs twice the nats that it did before the first update, and 3 more."""
    return max(last) < 2 * first[0] - 3


def far(last: dict) -> bool:
    """A KL above 5 nats a response, or 0.1 nats a token where responses are longer than 50."""
    return min(last["kl"]) > max(5.0, fmean(last["length"] or [0.0]) / 10)


ALARMS = (
    # a batch is of rows of like length, whose losses differ by a factor of 10: means alone tell
    Alarm(
        "sft",
        "loss",
        50,
        lambda last, first: fmean(last["loss"]) > 1.1 * fmean(first["loss"]),
        "the mean loss is above that of the first 20 lines",
        "usually the learning rate is too high",
    ),
    # a look is a mean over all that is held out, and there are few of them
    Alarm(
        "sft",
        "held_out_loss",
        3,
        lambda last, first: min(last["held_out_loss"][1:]) > 1.02 * last["held_out_loss"][0],
        "the held-out loss rises",
        "usually the rows are learned by heart: fewer steps, or more data",
    ),
    # half of the shortest training that is worth its name; warm-up is over long before
    Alarm(
        "dpo",
        "loss",
        20,
        lambda last, first: stuck(last["loss"]),
        "the loss stays at 0.693",
        "nothing is learned; usually the learning rate is too low, or chosen and rejected differ "
        "in nothing that the model can see",
    ),
    # responses of a batch differ in length, five batches in a row do not
    Alarm(
        "dpo",
        "chosen_logprob",
        5,
        lambda last, first: free_fall(last["chosen_logprob"], first["chosen_logprob"]),
        "the chosen log-probability is in free fall",
        "probability goes to responses that nobody compared (likelihood displacement); usually the "
        "learning rate is too high, and --nll-coef holds the chosen ones up",
    ),
    # a look comes every 20 steps, which is long enough
    Alarm(
        "dpo",
        "kl",
        1,
        lambda last, first: far(last),
        "the KL to the reference is far up",
        "usually the learning rate is too high or beta too low",
    ),
    # a batch of 16 rankings has some 80 pairs; over 100 batches a coin's mean is within 0.01 of 0.5
    Alarm(
        "reward_model",
        "accuracy",
        100,
        lambda last, first: fmean(last["accuracy"]) < 0.53,
        "the accuracy is that of a coin",
        "nothing is learned; usually the learning rate is far too high or too low, or the rankings "
        "hold nothing that the model can see",
    ),
    # DPO is one of three losses here and moves slowly
    Alarm(
        "distill",
        "dpo",
        50,
        lambda last, first: stuck(last["dpo"]),
        "`dpo` stays at 0.693",
        "the student does not move; usually the learning rate is too low",
    ),
    # a batch is 8 pairs, whose KL varies by a factor of 3
    Alarm(
        "distill",
        "kl_positive",
        50,
        lambda last, first: fmean(last["kl_positive"]) > 1.5 * fmean(first["kl_positive"]),
        "the mean of `kl_positive` is above that of the first 20 lines",
        "the student goes away from its teacher; usually the learning rate is too high",
    ),
    Alarm(
        "distill",
        "positive_logprob",
        10,
        lambda last, first: free_fall(last["positive_logprob"], first["positive_logprob"]),
        "the positives' log-probability is in free fall",
        "probability goes to responses that nobody compared; usually dpo_coef is too high for "
        "pos_coef, or the learning rate is too high",
    ),
    # of an iteration 64 responses are measured; five in a row are a tenth of rl_stem
    Alarm(
        "ppo",
        "kl",
        5,
        lambda last, first: far(last),
        "the KL to the start is far up",
        "usually the learning rate is too high, or kl_coef too low for a reward that can be gamed",
    ),
    Alarm(
        "ppo",
        "entropy",
        5,
        lambda last, first: max(last["entropy"]) < 0.005,
        "the entropy is at 0",
        "all samples of a prompt are alike and nothing is left to choose from; usually the "
        "learning rate is too high, or few prompts came too often",
    ),
    Alarm(
        "ppo",
        "truncated",
        5,
        lambda last, first: min(last["truncated"]) > 0.5,
        "more than half of the responses are cut off",
        "they teach nothing; usually max_new is too small, or the reward pays for length",
    ),
    Alarm(
        "ppo",
        "dead_groups",
        5,
        lambda last, first: min(last["dead_groups"]) > 0.9,
        "more than 0.9 of the groups are scored alike",
        "they teach nothing; usually the prompts are too easy or too hard, or the reward pays all "
        "alike",
    ),
    Alarm(
        "ppo",
        "clip_fraction",
        5,
        lambda last, first: min(last["clip_fraction"]) > 0.2,
        "more than a fifth of the tokens are clipped",
        "usually the learning rate or epochs are too high (GSPO, whose clip range is narrow, clips "
        "more)",
    ),
    # 12 iterations against the 12 before: the noise of such a difference is 0.01
    Alarm(
        "ppo",
        "true_reward",
        24,
        lambda last, first: rise(last["reward"]) > 0.03 and rise(last["true_reward"]) < -0.03,
        "`reward` rises and `true_reward` falls",
        "the reward is being gamed; a higher kl_coef holds the policy back",
    ),
)


def chapter_of(line: dict) -> str | None:
    """The chapter that writes such lines."""
    for chapter, column in KNOWN_BY:
        if column in line:
            return chapter
    return None


def columns_of(column: str, lines) -> dict[str, list[float]]:
    """The numbers of an alarm's column in these lines, and of those that it is held against.

    Not every line of dpo.py has a length.
    """
    names = (column, "length", "reward")
    return {name: [line[name] for line in lines if name in line] for name in names}


class Alarms:
    """The alarms of one training, fed line by line; each is given once.

    `stage`: its name, for the words.
    """

    def __init__(self, stage: str):
        self.stage = stage
        self.first: dict[Alarm, list] = {}
        self.last: dict[Alarm, deque] = {}
        self.given: set[Alarm] = set()

    def of(self, line: dict) -> list[str]:
        """What is to be said after one more line of the log, a line of text each."""
        said = []
        chapter = chapter_of(line)
        for alarm in ALARMS:
            number = line.get(alarm.column)
            if alarm.chapter != chapter or number is None or not math.isfinite(number):
                continue
            first = self.first.setdefault(alarm, [])
            last = self.last.setdefault(alarm, deque(maxlen=alarm.lines))
            last.append(line)
            if len(first) < BEGIN:
                first.append(line)
            if alarm in self.given or len(last) < alarm.lines:
                continue
            columns = columns_of(alarm.column, last), columns_of(alarm.column, first)
            if alarm.left(*columns):
                self.given.add(alarm)
                said.append(self.words(alarm, line))
        return said

    def words(self, alarm: Alarm, line: dict) -> str:
        unit = "iteration" if "iteration" in line else "step"
        number = f"{alarm.column} {line[alarm.column]:.3g}"
        seen = number if alarm.lines == 1 else f"{number}, {alarm.lines} lines"
        return f"{self.stage}, {unit} {line.get(unit)}: {alarm.what} ({seen}): {alarm.words}"
