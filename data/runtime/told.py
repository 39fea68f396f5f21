"""What the chapters tell at their end: lines of results for the terminal."""

from pathlib import Path

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


def dpo_summary(measured: dict, out: Path) -> str:
    """The last line of `python dpo.py`."""
    return (
        f"loss {measured['loss']:.3f}, KL {measured['kl']:.2f} nats a response, "
        f"{measured['seconds']:.0f} s; checkpoint {out / 'dpo.pt'}, log {out / 'dpo.csv'}"
    )
