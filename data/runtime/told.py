"""What the chapters tell at their end: lines of results for the terminal."""

from torch import Tensor


def held_out_pairs(losses: Tensor, margins: Tensor, before: tuple, after: tuple) -> str:
    """A line about DPO's held-out pairs.

    `before` and `after`: (chosen, rejected) log-probabilities of the policy, (P,) each.
    """
    accuracy = (margins > 0).float().mean()
    chosen, rejected = (
        f"{float(was.mean()):.1f} -> {float(now.mean()):.1f}" for was, now in zip(before, after)
    )
    return (
        f"held-out pairs: loss {float(losses.mean()):.3f}, accuracy {float(accuracy):.2f}, "
        f"margin {float(margins.mean()):.3f}; "
        f"log-probability chosen {chosen}, rejected {rejected}"
    )
