"""What `python ppo.py` has around its training: flags, tables of tokens, how it ends."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data import world
from data.files.checkpoints import key_of, once, save_checkpoint
from data.runtime.evaluation import scored
from data.runtime.rl_settings import CHOICES, GSPO, check
from data.runtime.rollouts import DOMAINS, Rollouts, own_tokens
from data.runtime.sizes import sized

FLAGS = (*CHOICES, "kl_coef", "iterations", "lr")  # that are called as the setting they reach

INIT = "the policy's checkpoint; default: a run's overall_sft, or SFT is done first"
STOPPED = (
    "stopped; the log of the finished iterations is kept, and so is a training that was finished"
)


# ---- flags ----


def settings_of(alone, stages: dict):
    """The settings of a command's stage; `stages`: those of size tiny.

    Raises ValueError for flags that have no meaning together, before any model is read.
    """
    args = alone.args
    if args.data:
        raise ValueError(
            "--data: RL needs a verifier or a reward model for its prompts, so it runs on the tiny "
            "world's"
        )
    together = GSPO if args.ratio == "sequence" else {}
    settings = alone.settings(stages[args.stage], *FLAGS, **together)
    check(settings)
    if args.baseline and settings.estimator == "gae":
        raise ValueError(
            "--baseline: is of --estimator group; under gae the critic is the baseline"
        )
    return settings


def flags(stages: list[str], tiny) -> dict[str, dict]:
    """{flag: how argparse adds it} of `python ppo.py`; `tiny`: the class of the settings."""

    def choice(name: str, told: str) -> dict:
        told = f"{told}; default: {getattr(tiny, name)}"
        return {"choices": CHOICES[name], "default": None, "help": told}

    def number(kind, told: str) -> dict:
        return {"type": kind, "default": None, "help": f"{told}; default: the stage's"}

    return {
        "--stage": {"choices": stages, "default": stages[0], "help": "which reward"},
        "--reward-model": {
            "default": None,
            "help": "checkpoint of python reward_model.py, for rl_preference; default: one is "
            "trained first",
        },
        "--estimator": {
            "choices": CHOICES["estimator"],
            "default": None,
            "help": "advantages; default: the stage's",
        },
        "--baseline": choice(
            "baseline",
            "what a group's scores are compared with: Dr. GRPO's mean, GRPO's z-score, RLOO's "
            "mean of the others",
        ),
        "--normalise": choice(
            "normalise",
            "what the loss is divided by: own tokens (DAPO), each response's own (GRPO), a "
            "constant (Dr. GRPO)",
        ),
        "--ratio": choice(
            "ratio",
            "of a token, or of a whole response: GSPO, which sets --normalise and its clip range "
            "too",
        ),
        "--kl-coef": number(float, "KL penalty"),
        "--iterations": number(int, "rounds of rollouts"),
        "--lr": number(float, "AdamW's learning rate"),
        "--show-rollout": {
            "action": "store_true",
            "help": "print one rollout as a table, and stop",
        },
        "--reference": {
            "default": None,
            "help": "with --show-rollout: the checkpoint that log-probabilities are compared "
            "with; default: the policy",
        },
    }


def stage_reward_model(alone, policy, out: Path, rewards):
    """The reward model of a command's stage; only rl_preference has one.

    It is that of --reward-model, or one that is trained first and kept in the folder `out`.
    `rewards`: the chapter that trains it, reward_model.py.
    """
    args = alone.args
    if args.stage != "rl_preference":
        return None
    if args.reward_model:
        return rewards.load_reward_model(args.reward_model, alone.tokenizer, alone.device)
    settings = sized(rewards.Settings(), "reward_model", args.size, args.smoke)
    key = key_of(alone.tokenizer, alone.device, weights=policy, settings=(args.seed, settings))
    train = partial(rewards.reward_model, policy, alone.tokenizer, settings, seed=args.seed)
    empty = partial(rewards.RewardModel, policy)
    path = out / "reward_model.pt"
    return once(path, key, empty, alone.tokenizer, "reward_model", train)[0]


# ---- tables of tokens ----


def token_table(pieces: list[str], columns: dict[str, Tensor]) -> str:
    """A line a token; each column has one number a token."""
    widths = [max(8, len(name)) for name in columns]
    lines = [f"{'token':>14} " + " ".join(f"{name:>{n}}" for name, n in zip(columns, widths))]
    for piece, *numbers in zip(pieces, *(column.tolist() for column in columns.values())):
        told = " ".join(f"{x + 0.0:{n}.3f}" for x, n in zip(numbers, widths))  # no -0.000
        lines.append(f"{piece:>14} {told}")
    return "\n".join(lines)


def show_rollout(alone, policy, reward_model, settings, load, *, rollout, reward, critic) -> None:
    """The first response of one group, token by token.

    `rollout`, and `reward` of tokens: functions of ppo.py. critic(policy): one without training.
    load(path, tokenizer, device): (the model of --reference, more).
    """
    args = alone.args
    values = None
    if settings.estimator == "gae":
        values = reward_model or critic(policy)
    reference = policy
    if args.reference:
        reference = load(args.reference, alone.tokenizer, alone.device)[0]
    tasks = world.draw_tasks(world.generator(args.seed, "show"), DOMAINS[args.stage], 1)
    models = policy, reference, values, reward_model, alone.tokenizer
    how = {"settings": replace(settings, samples=8, max_new=64), "kl_coef": settings.kl_coef}
    data = rollout(*models, tasks, **how, seed=0)
    logprobs = data.old_logprobs, data.reference_logprobs
    rewards = reward(data.scores, *logprobs, data.mask, settings.kl_coef)
    no_critic = settings.estimator == "gae" and reward_model is None
    print(rollout_table(data, rewards, alone.tokenizer, tasks[0], no_critic))


def rollout_table(data: Rollouts, reward: Tensor, tokenizer, task, no_critic: bool) -> str:
    """The first of these responses to a task, token by token; `reward` (N, S)."""
    row = data.rows[0]
    reply = tokenizer.read_reply(own_tokens(row))
    group = ", ".join(
        f"{float(score):.2f}" if kept else "masked out"
        for score, kept in zip(data.scores, data.kept)
    )
    told = (
        f"{task.prompt}\nscore {float(data.scores[0]):.3f}, "
        f"true reward {scored([task], [reply])[0]}, the group's scores {group}\n"
    )
    if no_critic:
        told += "no critic has been trained for this: its values are those of a random head\n"
    on = data.mask[0]
    old = data.old_logprobs[0]
    reference = data.reference_logprobs[0]
    columns = {
        "logprob": old,
        "ref": reference,
        "kl": old - reference,
        "value": data.old_values[0],
        "reward": reward[0],
        "advantage": data.advantages[0],
    }
    shown = [repr(piece) for piece, one in zip(tokenizer.pieces(row[0]), on.tolist()) if one]
    told += token_table(shown, {name: column[on] for name, column in columns.items()})
    if not on.any():
        told += "\nno token is in the loss: the response was cut off, or could not be checked"
    return told


def policy_table(old: Tensor, new: Tensor, advantages: Tensor, clip: dict, measured) -> str:
    """How the policy's loss of made-up responses comes about, token by token; (N, S) each.

    `clip`: clip_low and clip_high. `measured`: (loss, clip fraction, approx_kl).
    """
    low = 1 - clip["clip_low"]
    high = 1 + clip["clip_high"]
    rho = (new - old).exp()
    unclipped = -advantages * rho
    clipped = -advantages * rho.clamp(low, high)
    larger = torch.maximum(unclipped, clipped)
    columns = {"log old": old, "log new": new, "rho": rho, "A": advantages}
    columns |= {"-A rho": unclipped, "-A clip": clipped, "larger": larger}
    pieces = [f"{k + 1}: token {t + 1}" for k in range(len(old)) for t in range(old.shape[1])]
    told = token_table(pieces, {name: column.flatten() for name, column in columns.items()})
    loss, fraction, approx_kl = (float(number) for number in measured)
    return (
        "one prompt, two responses with the scores 1 and 0; A = score - mean of the group\n"
        f"{told}\n"
        f"clip: rho within {low:.2f} and {high:.2f}\n"
        f"loss = mean of the larger = {loss:.4f}, clip fraction {fraction:.4f}, "
        f"approx_kl {approx_kl:.4f}"
    )


def gae_table(reward: Tensor, values: Tensor, deltas: Tensor, advantages, returns) -> str:
    """The GAE of one made-up response, token by token; (1, S) each."""
    columns = {"reward": reward, "value": values, "delta": deltas}
    columns |= {"advantage": advantages, "return": returns}
    pieces = [f"token {t + 1}" for t in range(reward.shape[1])]
    told = token_table(pieces, {name: column[0] for name, column in columns.items()})
    return (
        "GAE of one response with the score 1: k1 0.4, -0.2 and 0.2, kl_coef 0.05, gamma 1, "
        f"lambda 0.95\n{told}"
    )


def show_losses(settings, group_advantages, policy_loss, token_rewards, gae) -> None:
    """The worked toy of ppo.py, whose functions are handed over: the group's loss, then GAE."""
    old = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, -1.2, -0.4]])  # (2, 3), log pi_old
    new = torch.tensor([[-0.9, -0.2, -2.1], [-1.1, -1.0, -0.5]])  # (2, 3), log pi
    scores = torch.tensor([1.0, 0.0])
    mask = torch.ones(2, 3, dtype=torch.bool)
    advantages = group_advantages(scores[None], mask[None, :, 0]).view(2, 1).expand(2, 3)
    clip = {"clip_low": settings.clip_low, "clip_high": settings.clip_high}
    measured = policy_loss(new, old, advantages, mask, **clip)
    print(policy_table(old, new, advantages, clip, measured))
    k1 = torch.tensor([[0.4, -0.2, 0.2]])  # (1, 3), log pi_old - log pi_ref of a response
    values = torch.tensor([[0.5, 0.6, 0.8]])  # (1, 3)
    reward = token_rewards(scores[:1], k1, 0 * k1, mask[:1], 0.05)
    deltas, _ = gae(reward, values, mask[:1], 1.0, 0.0)  # with lambda 0 an advantage is its delta
    print(gae_table(reward, values, deltas, *gae(reward, values, mask[:1], 1.0, 0.95)))


# ---- how a command ends ----


def trained(alone, policy, settings, training, path: Path, reward_model) -> None:
    """The table before and after training(seed=, reward_model=, log=, device=) -> measured.

    The policy is kept at `path`, also where the training ends with a number that is not finite: it
    holds the weights of the last good iteration then.
    """
    alone.scores("before", policy)

    def train() -> tuple:
        how = {"seed": alone.args.seed, "reward_model": reward_model, "device": alone.device}
        return policy, training(log=path.with_suffix(".csv"), **how)

    try:
        policy, measured = alone.once(path, policy, settings, train, reward=reward_model)
    except FloatingPointError as error:
        save_checkpoint(path, policy, alone.tokenizer, path.stem, settings=asdict(settings))
        raise FloatingPointError(f"{error}; the weights before it are in {path}") from None
    alone.scores("after", policy)
    print(summary(measured, path))


def summary(measured: dict, path: Path) -> str:
    """The last lines of `python ppo.py`."""
    counts = ", ".join(f"{name} {count}" for name, count in measured["filter"].items())
    learned = ""
    if not measured.get("skipped"):
        learned = (
            f"reward {measured['first_reward']:.3f} -> {measured['reward']:.3f}, "
            f"{measured['seconds']:.0f} s; log {path.with_suffix('.csv')}; "
        )
    return f"prompts: {counts}\n{learned}checkpoint {path}"


# ---- lines for the terminal ----


def skipped(stage: str, counts: dict) -> str:
    """The line of a stage whose filter leaves no prompt."""
    return (
        f"{stage}: skipped, because none of {counts['prompts']} prompts has a pass rate between "
        f"10% and 90% (too hard {counts['too_hard']}, too easy {counts['too_easy']}, "
        f"not checked {counts['not_checked']})"
    )
