"""What the chapters tell at their end: lines of results for the terminal."""

from pathlib import Path

from torch import Tensor

from data.runtime.measures import wilson


def held_out_pairs(losses: Tensor, margins: Tensor, before: tuple, after: tuple) -> dict:
    """What DPO's held-out pairs say, as means over the pairs.

    `before` and `after`: (chosen, rejected) log-probabilities of the policy, (P,) each. "likelier":
    the share of the pairs whose chosen response has the higher one.
    """
    accuracy = float((margins > 0).float().mean())
    low, high = wilson(accuracy * len(margins), len(margins))
    result = {"pairs": len(margins), "loss": float(losses.mean()), "accuracy": accuracy}
    result |= {"accuracy_low": low, "accuracy_high": high, "margin": float(margins.mean())}
    for name, (chosen, rejected) in (("before", before), ("after", after)):
        result[f"chosen_{name}"] = float(chosen.mean())
        result[f"rejected_{name}"] = float(rejected.mean())
        result[f"likelier_{name}"] = float((chosen > rejected).float().mean())
    return result


def dpo_result(held_out: dict) -> str:
    """Two lines about what `held_out_pairs` gives."""
    return (
        "held-out pairs: loss {loss:.3f}, accuracy {accuracy:.2f}, margin {margin:.3f}; "
        "log-probability chosen {chosen_before:.1f} -> {chosen_after:.1f}, "
        "rejected {rejected_before:.1f} -> {rejected_after:.1f}\n"
        "of {pairs} pairs: accuracy's 95% interval {accuracy_low:.2f} to {accuracy_high:.2f}; "
        "chosen likelier than rejected in {likelier_before:.2f} -> {likelier_after:.2f}"
    ).format(**held_out)


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


def distill_step(sums: dict) -> str:
    """What stands beside the progress bar of distill.py."""
    kls = f"{sums['kl_positive']:.3f} {sums['kl_negative']:.3f}"
    return f"loss {sums['loss']:.3f}, dpo {sums['dpo']:.3f}, kl {kls}"


def distill_side(name: str, words: list[str], side, divergence: Tensor) -> str:
    """A made-up response, a `distill.Side`: KL(T || S) word by word at each of its tokens."""
    student = side.student_logits.log_softmax(-1)  # (M, words)
    teacher = side.teacher_logits.log_softmax(-1)  # (M, words)
    said = " ".join(words[token] for token in side.tokens)
    lines = [f"{name}: {said}", f"    {'':21}" + "".join(f"{word:>9}" for word in words)]
    for t, token in enumerate(side.tokens):
        terms = teacher[t].exp() * (teacher[t] - student[t])  # (words,)
        lines.append(f"    token {t}, {words[token]}")
        for label, row in (("log pi_T", teacher[t]), ("log pi_S", student[t])):
            lines.append(f"    {label:21}" + "".join(f"{value:9.4f}" for value in row.tolist()))
        told = "".join(f"{value:9.4f}" for value in terms.tolist())
        lines.append(f"    pi_T log(pi_T / pi_S){told}  sum: KL {divergence[t]:.4f}")
    logps = side.student_logps().item(), side.reference_logps.item()
    lines.append(f"    log pi_S(y|x) = {logps[0]:.4f}, log pi_ref(y|x) = {logps[1]:.4f}")
    return "\n".join(lines)


def distill_joint(joint, settings) -> str:
    """The terms of a made-up pair's `distill.Joint`, under distill.Settings."""
    scores = f"{joint.positive_score.item():.4f} and {joint.negative_score.item():.4f}"
    weights = settings.dpo_coef, settings.pos_coef, settings.neg_coef
    terms = joint.dpo.item(), joint.positive_kl.item(), joint.negative_kl.item()
    products = " + ".join(f"{weight} * {term:.4f}" for weight, term in zip(weights, terms))
    return (
        f"L_pos = mean of the positive's KL = {terms[1]:.4f}\n"
        f"L_neg = mean of the negative's KL = {terms[2]:.4f}\n"
        f"scores, {settings.beta} * (log pi_S - log pi_ref): {scores}\n"
        f"L_DPO = -log sigmoid(their difference) = {terms[0]:.4f}\n"
        f"L = {products} = {joint.loss.item():.4f}"
    )


def distill_summary(measured: dict, out: Path) -> str:
    """The last two lines of `python distill.py`: what the filter did, times and files."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in measured["filter"].items())
    return (
        f"{measured['pairs']} pairs of {measured['queries']} queries: {reasons}\n"
        f"{measured['sampling_seconds']:.0f} s of sampling, {measured['seconds']:.0f} s of "
        f"training; checkpoint {out / 'distill.pt'}, "
        f"pairs {out / 'distill_pairs.jsonl'}, log {out / 'distill.csv'}"
    )
