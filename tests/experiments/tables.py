"""What the experiments print: numbers over the seeds with their intervals, and markdown tables."""

import math

from data.runtime.measures import t_95


def interval(values: list[float]) -> tuple[float, float]:
    """(mean, half-width of its 95% t interval); an infinite half-width for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, t_95(len(values) - 1) * spread / math.sqrt(len(values))


def told(mean_and_half: tuple[float, float], digits: int = 1, sign: str = "+") -> str:
    """`+2.5 +-1.3` of (2.5, 1.3); with sign="" a mean that is no difference, `2.5 +-1.3`."""
    mean, half = mean_and_half
    return f"{mean:{sign}.{digits}f} +-{half:.{digits}f}"


def told_over(values: list[float], digits: int = 1, sign: str = "+") -> str:
    """The mean of one value a seed, with its interval. Differences are paired: one a seed too."""
    return told(interval(values), digits, sign)


def row(*cells: str) -> str:
    """`| a | b |`."""
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> str:
    """The first two lines of a markdown table."""
    return row(*cells) + "\n|" + "---|" * len(cells)
