"""How sure a mean is, and how well two orders agree: intervals, pairs that a score ranks rightly,
calibration, rank correlations, wins and losses."""

import functools
import math

import torch
from torch import Tensor

NORMAL_95 = 1.959964  # the normal distribution's 97.5% quantile


def mean_of(values: list[float | None]) -> float:
    """The mean of what is known; nan where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def finite(value):
    """The same with None for what is not a number, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def wilson(right: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share, `right` of n (Wilson 1927); never of width 0.

    It holds for the mean of any scores from 0 to 1 too: right and wrong are spread the most.
    """
    p = right / n
    z2 = NORMAL_95**2
    middle = p + z2 / (2 * n)
    half = NORMAL_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return min(p, max(0.0, low)), max(p, min(1.0, high))  # rounding could put p outside


def student_within(t: float, freedom: int) -> float:
    """The probability that Student's t lies between -t and t, exact for whole degrees of freedom.

    It is a finite series (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    theta = math.atan(t / math.sqrt(freedom))
    cos2 = math.cos(theta) ** 2
    odd = freedom % 2
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cos2 * (k - 1) / k
    if odd:
        return 2 / math.pi * (theta + math.sin(theta) * total)
    return math.sin(theta) * total


@functools.cache
def t_95(freedom: int) -> float:
    """Student's 97.5% quantile, by bisection: half of a 95% interval in standard errors."""
    low, high = NORMAL_95 - 1e-6, 12.71  # of infinitely many degrees of freedom, and of one
    for _ in range(50):
        middle = (low + high) / 2
        if student_within(middle, freedom) < 0.95:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def interval(scores: list[float]) -> tuple[float, float]:
    """The 95% interval (low, high) of the mean of independent scores from 0 to 1; nan without any.

    Wilson's where all are 0 or 1, Student's t otherwise, cut at 0 and 1; and Wilson's where all are
    equal, since their spread of 0 would say that nothing is left to chance.
    """
    if not scores:
        return math.nan, math.nan
    n = len(scores)
    mean = sum(scores) / n
    if set(scores) <= {0.0, 1.0} or min(scores) == max(scores):
        return wilson(sum(scores), n)
    error = math.sqrt(sum((score - mean) ** 2 for score in scores) / (n - 1) / n)
    return max(0.0, mean - t_95(n - 1) * error), min(1.0, mean + t_95(n - 1) * error)


def pairs_of(scores: list[float], levels: list[int]) -> list[tuple[float, int, int]]:
    """(winner's score minus loser's score, winner, loser) for every strict pair of one prompt.

    scores and levels: one a response. A level below 0: the response is not ranked.
    """
    present = [k for k in range(len(levels)) if levels[k] >= 0]
    return [
        (scores[i] - scores[j], i, j) for i in present for j in present if levels[i] < levels[j]
    ]


def pair_accuracy(scores: list[list[float]], levels: list[list[int]]) -> float:
    """Share of the strict pairs that the scores order as the levels do; equal scores count half."""
    right, pairs = right_pairs(scores, levels)
    return right / pairs if pairs else math.nan


def right_pairs(scores: list[list[float]], levels: list[list[int]]) -> tuple[float, int]:
    """(strict pairs that the scores order as the levels do, all strict pairs)."""
    gaps = []
    for prompt_scores, prompt_levels in zip(scores, levels):
        gaps += [gap for gap, _, _ in pairs_of(prompt_scores, prompt_levels)]
    return sum(won(gap) for gap in gaps), len(gaps)


def won(gap: float) -> float:
    """1 for a gap above 0, 0 below, and 0 counts as half won."""
    return 0.5 if gap == 0 else float(gap > 0)


def calibration(gaps: list[float], width: float = 0.0, bins: int = 5) -> list[dict]:
    """Predicted against observed win rate of pairs that are no tie, a row a bin of predictions.

    gaps: winner's score minus loser's. Each pair is seen from the side that the scores favour, so
    that a prediction lies between 0.5 and 1. Under Rao-Kupper with width w and a gap d it is
    sigmoid(d - w) / (sigmoid(d - w) + sigmoid(-d - w)). w = 0 is Bradley-Terry, and Davidson's is
    the same. A gap of 0 counts as half won.
    """

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, x))))

    def predicted(gap: float) -> float:
        win = sigmoid(gap - width)
        loss = sigmoid(-gap - width)
        return win / (win + loss)

    pairs = [(predicted(abs(gap)), won(gap)) for gap in gaps]
    table = []
    for b in range(bins):
        low = 0.5 + b / (2 * bins)
        high = 0.5 + (b + 1) / (2 * bins)
        last = b == bins - 1
        rows = [(p, win) for p, win in pairs if low <= p and (p < high or last)]
        if rows:
            row = {
                "predicted": sum(p for p, _ in rows) / len(rows),
                "observed": sum(win for _, win in rows) / len(rows),
                "pairs": len(rows),
            }
            table.append(row)
    return table


def mean_ranks(values: list[float]) -> list[float]:
    """Ranks from 1, the mean rank for equals."""
    ranks = []
    for value in values:
        below = sum(other < value for other in values)
        equal = sum(other == value for other in values)
        ranks.append(below + (equal + 1) / 2)
    return ranks


def spearman(a: list[float], b: list[float]) -> float | None:
    """Correlation of the ranks; None where one side is constant."""
    x = mean_ranks(a)
    y = mean_ranks(b)
    mx = sum(x) / len(x)
    my = sum(y) / len(y)
    norm = (sum((u - mx) ** 2 for u in x) * sum((v - my) ** 2 for v in y)) ** 0.5
    return sum((u - mx) * (v - my) for u, v in zip(x, y)) / norm if norm else None


def kendall(a: list[float], b: list[float]) -> float | None:
    """tau-b, which corrects for ties; None where one side is constant."""
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    signs = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i, j in pairs]
    norm = (sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)) ** 0.5
    return sum(x * y for x, y in signs) / norm if norm else None


def win_share(new: list[float], old: list[float]) -> dict:
    """Wins, ties and losses prompt by prompt, and the win share with ties as half."""
    wins = sum(a > b for a, b in zip(new, old))
    losses = sum(a < b for a, b in zip(new, old))
    ties = len(new) - wins - losses
    return {
        "wins": wins / len(new),
        "ties": ties / len(new),
        "losses": losses / len(new),
        "win_share": (wins + ties / 2) / len(new),
    }


# ---- of tensors with a mask ----


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask; where() and not a product, because nan * 0 is nan."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - var(R - V) / var(R) over the mask; 0 is a critic that knows only the mean."""
    v = values[mask]
    r = returns[mask]
    variance = r.var(unbiased=False)
    if not len(r) or not variance > 0:
        return math.nan
    return float(1 - (r - v).var(unbiased=False) / variance)


def whiten(x: Tensor, mask: Tensor, keep_mean: bool = False) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8) over the mask, biased variance; 0 elsewhere."""
    mean = masked_mean(x, mask)
    white = (x - mean) * torch.rsqrt(masked_mean((x - mean) ** 2, mask) + 1e-8)
    return torch.where(mask, white + mean if keep_mean else white, 0.0)
