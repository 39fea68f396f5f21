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


def looks(measured: dict, name: str = "held_out_losses") -> str:
    """The losses of every look that a training had at what is held out."""
    return ", ".join(f"{loss:.3f}" for loss in measured[name])


def sft_result(args, measured: dict) -> str:
    """What `python sft.py` tells of what is held out, by what was learned from."""
    if args.pretrain and args.data:
        told = looks(measured, "losses_a_character")
        return f"validation loss at each quarter, nats a character: {told}"
    if args.pretrain:
        return f"held-out loss {measured['held_out_loss']:.3f}"
    told = f"held-out loss at each quarter: {looks(measured)}"
    if args.data:
        told += f", on {measured['held_out_rows']} rows; {measured['rows']} rows trained on"
    return told


def sft_summary(measured: dict, out: Path, name: str) -> str:
    """The last line of `python sft.py`."""
    return (
        f"{measured['tokens']:,} tokens in {measured['seconds']:.0f} s; "
        f"checkpoint {out / name}.pt, log {out / name}.csv"
    )
