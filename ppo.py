"""Reinforcement learning: a complete PPO, the group baseline beside it, and multi-stage RL with a robust reward.

Step 3 of RLHF: the policy writes responses, the reward model gives each its `predicted_reward`, which updates the policy.

    r_t   = -kl_coef (log pi_old - log pi_ref)_t + [t last] score                  reward of one token
    A_t   = delta_t + gamma lambda A_{t+1},  delta_t = r_t + gamma V_{t+1} - V_t   (GAE, 1506.02438, eq. 16)
    L_pi  = mean max(-A rho, -A clip(rho, 1 - e_low, 1 + e_high)),  rho = pi / pi_old   (PPO, 1707.06347, eq. 7)
    L_v   = mean max((V - R)^2, (clip(V, V_old - e, V_old + e) - R)^2) / 2,  R = A + V_old

pi is the policy that learns, pi_old the one that sampled, pi_ref the one that entered; V is the critic's guess of what is still to
come, R the return that it learns; A says how much better a token did than expected (whitened under GAE); e is the clip range.

With a group of samples a prompt the critic can be left out: A is then score - kl_coef sum_t (log pi_old - log pi_ref)_t minus
the group's mean of that, the same for every token (GRPO, 2402.03300; Dr. GRPO, 2503.20783; leave-one-out, 2402.14740), under
the same clipped loss. Multi-stage RL is the schedule's last stage: `rl_stem` (verifier of math and STEM), `rl_code` (sandbox),
`rl_preference` (reward model). Each trains on the prompts that the entering model gets right between 10% and 90% of 16 times.

The score is `reward_model.robust_reward`: with a verifier 1 or 0 plus 0.2 times a shaping term (length, repetition) in [-1, 1], for
chat the reward model's score squashed to (-1, 1) plus the same; -1 without an end mark; a response that was cut off leaves the
loss. `true_reward` is what the tiny world knows, 0 to 1; nothing is trained on it in rl_preference. Every update also takes
0.5 times the SFT loss on a few earlier rows, or the other skills go.

Left out: whitening of rewards, weight averaging, asynchronous rollouts, a KL term inside the loss (here it is in the reward).

    python ppo.py                       rl_stem on the tiny SFT model, evaluated before and after
    python ppo.py --stage rl_preference --estimator gae --kl-coef 0     over-optimise the reward model on purpose
    python ppo.py --ratio sequence      GSPO; GRPO is --baseline zscore --normalise sequence, Dr. GRPO --normalise constant
    python ppo.py --show                one rollout as a table: token, log-probability, reference, KL, value, reward, advantage;
                                        with --init and --reference two checkpoints differ, with --estimator gae values are the critic's

Watch: `reward` rises; `true_reward` rises with it or the reward is being gamed; `kl` to the start grows slowly; `clip_fraction` stays below
0.2; `entropy` falls, but not to 0; `dead_groups` (all samples scored alike) grows as prompts are mastered.
`loss` itself says little: on the first pass of a group baseline it is near 0 while its gradient is not.
"""

import copy
import math
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import reward_model as rewards
from data import world
from data.files.checkpoints import (
    Resume,
    key_of,
    key_of_run,
    once,
    save_checkpoint,
    tokenizer_of,
)
from data.files.writing import write_csv
from data.runtime.command import command, common_flags, out_folder
from data.runtime.decoding import generate
from data.runtime.devices import (
    autocast,
    in_parts,
    micro_batches,
    parallel,
    progress,
    seed_of,
    start,
    summed,
)
from data.runtime.evaluation import (
    evaluate,
    pass_rates,
    sampled_rows,
    scored,
    table_head,
    table_line,
)
from data.runtime.measures import mean_of
from data.runtime.rows import Row, pad_rows
from data.runtime.sizes import sized
from model import GPT, Optimizers, learning_rate_scale, load_checkpoint, token_logprobs
from reward_model import RewardModel, load_reward_model, predicted_reward, robust_reward
from sft import rehearsal_data, rehearse, starting_model


@dataclass(frozen=True)
class Settings:
    iterations: int = 24
    prompts: int = 32  # prompts an iteration
    samples: int = 8  # responses a prompt
    epochs: int = 2  # passes over the responses of an iteration
    minibatches: int = 4  # updates a pass
    lr: float = 6e-4  # AdamW; 1e-3 gains more where it trains and forgets elsewhere
    critic_lr: float = 1e-3  # the critic has a trunk and an optimizer of its own, so no value_coef is needed
    temperature: float = 1.0  # of sampling, and so of old, new and reference log-probabilities
    max_new: int = 64
    estimator: str = "group"  # or "gae", with a critic
    baseline: str = "centre"  # group: "zscore" (GRPO), "centre" (Dr. GRPO), "leave_one_out"
    clip_low: float = 0.2
    clip_high: float = 0.28  # DAPO: room for rare tokens to grow
    normalise: str = "token"  # over all own tokens (DAPO); or "sequence", "constant"
    ratio: str = "token"  # or "sequence" (GSPO)
    value_clip: float = 0.2
    gamma: float = 1.0
    gae_lambda: float = 0.95
    kl_coef: float = 0.0  # 0 for a verifier, which cannot be gamed; the KL is measured and logged all the same
    kl_target: float | None = None  # nats a response: adapts kl_coef (Ziegler et al., 1909.08593)
    kl_horizon: int = 10000  # episodes
    micro_rows: int = 128  # responses of one forward; a larger minibatch is accumulated
    rehearsal_rows: int = 16  # rows of what was learned before in every update: InstructGPT's pretraining mix (ptx), which keeps the other skills
    rehearsal_coef: float = 0.5
    candidates: int = 512  # prompts that the pass-rate filter looks at; with fewer left than 100 they are learned by heart
    warmup: int = 2
    save_every: int = 0  # iterations between saves in the middle of a stage; 0: none, for short ones
    mask_truncated: bool = True  # a response that the length limit cut off leaves the loss (DAPO); False: MISSING_END


CHOICES = {"estimator": ("group", "gae"), "baseline": ("centre", "zscore", "leave_one_out"),
           "normalise": ("token", "sequence", "constant"), "ratio": ("token", "sequence")}
# 2507.18071, section 5.1: a geometric mean over a response lies much nearer 1 than a token's ratio
GSPO = {"ratio": "sequence", "normalise": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}


def check(settings: Settings) -> None:
    """Raises ValueError for an unknown choice, and for choices that together are no method that anybody published."""
    for name, known in CHOICES.items():
        if (given := getattr(settings, name)) not in known:
            raise ValueError(f"{name} is {given!r}; there is {', '.join(known)}")
    if settings.ratio == "sequence" and (
            settings.normalise != "sequence" or settings.estimator != "group"
            or max(settings.clip_low, settings.clip_high) > 0.01):
        raise ValueError("ratio 'sequence' is GSPO only with estimator 'group', normalise 'sequence' and a clip range of its own "
                         f"(clip_low {GSPO['clip_low']}, clip_high {GSPO['clip_high']}; here at most 0.01)")
    if settings.kl_target and not settings.kl_coef:
        raise ValueError("kl_target multiplies kl_coef, which is 0; give a kl_coef to begin with")


# ---- rewards and advantages: tensors (N, S), one number a token, at the token's own position ----

def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over mask; where() and not a product, because nan * 0 is nan."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def kl_estimates(logprobs: Tensor, reference_logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(k1, k2, k3) of KL(pi||ref) a token, for tokens drawn from pi: k1 = log pi - log ref, k2 = k1^2 / 2, k3 = e^-k1 - 1 + k1.

    k1 and k3 are unbiased. k1 belongs into the reward; as a loss its expected gradient is 0 (Schulman, Approximating KL
    Divergence, 2020).
    """
    k1 = logprobs - reference_logprobs
    return k1, k1 ** 2 / 2, torch.expm1(-k1) + k1


def token_rewards(scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """-kl_coef k1 at every own token, plus the response's score (N,) at the last one; (N, S)."""
    reward = torch.where(mask, -kl_coef * (logprobs - reference_logprobs), 0.0)
    last = mask.shape[1] - 1 - mask.flip(1).float().argmax(1)  # (N,)
    return reward.scatter_add(1, last[:, None], torch.where(mask.any(1), scores, 0.0)[:, None])


def gae(reward: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns), (N, S). values[:, t] is V before token t is drawn; tokens outside the mask are stepped over,
    so what a tool inserted takes no part. After the last token V is 0. Returns are of the advantages before whitening."""
    advantages, following, ahead = torch.zeros_like(reward), torch.zeros_like(reward[:, 0]), torch.zeros_like(reward[:, 0])
    for t in reversed(range(reward.shape[1])):
        delta = reward[:, t] + gamma * following - values[:, t]
        ahead = torch.where(mask[:, t], delta + gamma * gae_lambda * ahead, ahead)
        advantages[:, t] = torch.where(mask[:, t], ahead, 0.0)
        following = torch.where(mask[:, t], values[:, t], following)
    return advantages, torch.where(mask, advantages + values, 0.0)


def whiten(x: Tensor, mask: Tensor, keep_mean: bool = False) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8) over the mask, biased variance; 0 elsewhere."""
    mean = masked_mean(x, mask)
    white = (x - mean) * torch.rsqrt(masked_mean((x - mean) ** 2, mask) + 1e-8)
    return torch.where(mask, white + mean if keep_mean else white, 0.0)


def group_advantages(scores: Tensor, kept: Tensor, baseline: str = "centre") -> Tensor:
    """Advantages (B, G) of scores (B, G), prompt-major. kept (B, G) False masks a sample out: it gets 0 and is no part of its
    group's mean (ours: DAPO does not say); a group with fewer than two samples left gets 0.

    "zscore" (r - mean) / std with the population's std (GRPO), "centre" r - mean (Dr. GRPO), "leave_one_out" r_i - mean of the
    others (RLOO). Raises ValueError for another name.
    """
    count = kept.sum(1, keepdim=True)
    centred = torch.where(kept, scores - torch.where(kept, scores, 0.0).sum(1, keepdim=True) / count.clamp(min=1), 0.0)
    if baseline == "zscore":
        std = (centred ** 2).sum(1, keepdim=True).div(count.clamp(min=1)).sqrt()
        centred = torch.where(std > 1e-6, centred / std.clamp(min=1e-6), 0.0)
    elif baseline == "leave_one_out":
        centred = centred * count / (count - 1).clamp(min=1)
    elif baseline != "centre":
        raise ValueError(f"baseline is {baseline!r}; there is zscore, centre and leave_one_out")
    return torch.where(count >= 2, centred, 0.0)


def next_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """Proportional controller (1909.08593, section 2.2); kl is the mean over responses of the SUM over their tokens."""
    return kl_coef * (1 + max(-0.2, min(0.2, kl / target - 1)) * episodes / horizon)


# ---- the losses ----

def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_low: float = 0.2, clip_high: float = 0.2,
                normalise: str = "token", longest: int | None = None, ratio: str = "token",
                count: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, clip fraction, approx_kl) of (N, S) tensors: the clipped surrogate (1707.06347, eq. 7).

    normalise: "token" divides by all own tokens (DAPO), "sequence" averages within a response first (GRPO), "constant" divides
    by N * longest (Dr. GRPO). ratio "sequence" uses the geometric mean of a response's ratios (GSPO, 2507.18071, eq. 5 and 7), whose
    loss is the mean over responses, and so needs normalise "sequence"; its clip range is about a thousandth of a token's.
    approx_kl is masked_mean((log rho)^2) / 2. `count` is the number of own tokens, or for the other two of responses, in the whole
    minibatch, where this is only a part of it. Raises ValueError for another name, or "sequence" for the ratio alone.
    """
    if normalise not in CHOICES["normalise"] or ratio not in CHOICES["ratio"]:
        raise ValueError(f"normalise is {normalise!r} and ratio {ratio!r}; there is token, sequence and constant, and token and sequence")
    if ratio == "sequence" and normalise != "sequence":
        raise ValueError(f"ratio 'sequence' (GSPO) needs normalise 'sequence', not {normalise!r}")
    log_ratio, advantages = torch.where(mask, logprobs - old_logprobs, 0.0), torch.where(mask, advantages, 0.0)
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    approx_kl = masked_mean(log_ratio.detach() ** 2, mask) / 2
    rho = (log_ratio.sum(1, keepdim=True) / lengths).expand_as(log_ratio).exp() if ratio == "sequence" else log_ratio.exp()
    losses = torch.maximum(-advantages * rho, -advantages * rho.clamp(1 - clip_low, 1 + clip_high))
    clipped = masked_mean(((rho < 1 - clip_low) & (advantages < 0) | (rho > 1 + clip_high) & (advantages > 0)).float(), mask)
    losses = torch.where(mask, losses, 0.0)
    if normalise == "sequence":
        loss = (losses.sum(1, keepdim=True) / lengths).sum() / (count or len(losses))
    elif normalise == "constant":
        loss = losses.sum() / ((count or len(losses)) * longest)
    else:
        loss = losses.sum() / (count or mask.sum().clamp(min=1))
    return loss, clipped, approx_kl


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2, count: int | None = None) -> Tensor:
    """Half the mean of the worse of the squared errors of V and of V clipped around its old value (ppo2 of OpenAI baselines).

    `count` is the number of own tokens in the whole minibatch, where this is only a part of it."""
    values, old_values, returns = (torch.where(mask, x, 0.0) for x in (values, old_values, returns))  # or a nan there spoils the gradient
    near = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    worse = torch.where(mask, torch.maximum((values - returns) ** 2, (near - returns) ** 2), 0.0)
    return worse.sum() / (count or mask.sum().clamp(min=1)) / 2


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - var(R - V) / var(R) over the mask; 0 is a critic that knows only the mean."""
    v, r = values[mask], returns[mask]
    variance = r.var(unbiased=False)
    return float(1 - (r - v).var(unbiased=False) / variance) if len(r) and variance > 0 else float("nan")


# ---- rollouts ----

@dataclass
class Rollouts:
    """N = prompts * samples responses, prompt-major; (N, S) tensors hold one number a token at the token's own position."""

    rows: list[Row]
    ids: Tensor  # (N, S), padded on the right
    mask: Tensor  # (N, S) True for the model's own tokens, False for those of a response that is masked out
    old_logprobs: Tensor
    reference_logprobs: Tensor
    old_values: Tensor
    scores: Tensor  # (N,) robust reward; 0 where masked out
    kept: Tensor  # (N,) False where the response is masked out
    advantages: Tensor
    returns: Tensor
    squashed: bool  # whether the values are in the units of a squashed score
    log: dict


def critic_values(critic: RewardModel, ids: Tensor, squashed: bool) -> Tensor:
    """V before each token is drawn, (N, S): what the head reads at the position in front of it.

    squashed: in the units of a squashed score, as `robust_reward` makes of the reward model's that the critic begins as; or it
    would begin up to several times as large as its returns.
    """
    values = critic(ids)[:, :-1]
    return F.pad(torch.tanh(values / 2) if squashed else values, (1, 0))


def entropy_of(model: GPT, ids: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Entropy of the distribution of each masked token, in nats, (N, S)."""
    logprobs = (model(ids, select=F.pad(mask[:, 1:], (0, 1))).float() / temperature).log_softmax(-1)
    return torch.zeros(ids.shape, device=ids.device).masked_scatter(mask, -(logprobs.exp() * logprobs).sum(-1))


def rollout(policy: GPT, reference: GPT, critic: RewardModel | None, reward_model: RewardModel | None, tokenizer, tasks: list,
            settings: Settings, kl_coef: float, seed: int) -> Rollouts:
    """Sample, score, and compute everything that the update needs, in no-grad forwards of the kind that the update does."""
    device, prompts = next(policy.parameters()).device, [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(policy, tokenizer, prompts, n=settings.samples, max_new=settings.max_new, temperature=settings.temperature, seed=seed,
                       run_tool=world.run_tool)
    rows, replies = sampled_rows(prompts, samples), [tokenizer.read_reply(ids) for ids in samples.lists()]
    repeated = [task for task in tasks for _ in range(settings.samples)]
    truth, truncated = scored(repeated, replies), samples.truncated.tolist()
    learned = predicted_reward(reward_model, tokenizer, rows).tolist() if reward_model is not None else [None] * len(rows)
    scores = [robust_reward(task.domain, verified=true, learned=score, complete=reply.complete, truncated=cut, longest=settings.max_new,
                            mask_truncated=settings.mask_truncated, tokens=[token for token, on in zip(*row) if on])
              for task, true, score, reply, cut, row in zip(repeated, truth, learned, replies, truncated, rows)]
    if any(score is not None and not math.isfinite(score) for score in scores):
        raise FloatingPointError("a reward is not finite")
    kept = torch.tensor([score is not None for score in scores], device=device)
    score = torch.tensor([0.0 if score is None else score for score in scores], device=device)
    ids = pad_rows([row[0] for row in rows], tokenizer.pad_id, device=device)
    own = pad_rows([row[1] for row in rows], False, device=device)
    mask = own & kept[:, None]
    with autocast(device):
        old = in_parts(lambda i, m: token_logprobs(policy, i, m, settings.temperature), ids, own, size=settings.micro_rows)
        ref = in_parts(lambda i, m: token_logprobs(reference, i, m, settings.temperature), ids, own, size=settings.micro_rows)
        # spread over the prompts, which lie one after the other
        some = torch.linspace(0, len(rows) - 1, min(64, len(rows)), device=device).long()
        entropy = in_parts(lambda i, m: entropy_of(policy, i, m, settings.temperature), ids[some], own[some],
                           size=settings.micro_rows)
        squashed = reward_model is not None
        values = in_parts(lambda i: critic_values(critic, i, squashed), ids, size=settings.micro_rows) if critic is not None else torch.zeros_like(old)
    groups, group_kept = score.view(-1, settings.samples), kept.view(-1, settings.samples)
    if settings.estimator == "gae":
        advantages, returns = gae(token_rewards(score, old, ref, mask, kl_coef), values, mask, settings.gamma, settings.gae_lambda)
        advantages = whiten(advantages, mask)
    else:
        k1 = torch.where(mask, kl_estimates(old, ref)[0], 0.0).sum(1).view_as(groups)
        advantages = group_advantages(groups - kl_coef * k1, group_kept, settings.baseline).reshape(-1, 1) * mask  # (N, S)
        returns = torch.zeros_like(advantages)
    sampled = torch.zeros_like(old).masked_scatter(own, samples.logprobs.to(device)[samples.own.to(device)])
    spread = torch.where(group_kept, groups, -torch.inf).amax(1) - torch.where(group_kept, groups, torch.inf).amin(1)
    # these three of the same responses, the kept ones; what follows them of all that were written
    these = kept.nonzero()[:, 0].tolist()
    reward, true_reward, rm_score = (mean_of([column[k] for k in these]) for column in (scores, truth, learned))
    log = {"reward": reward, "true_reward": true_reward, "rm_score": rm_score, "kl": float((old - ref).sum(1).mean()),
           "entropy": float(entropy[own[some]].mean()), "length": float(own.sum(1).float().mean()), "truncated": sum(truncated) / len(rows),
           "dead_groups": float((spread < 1e-6).float().mean()), "sampling_gap": float((old - sampled).abs().max())}
    return Rollouts(rows, ids, mask, old, ref, values, score, kept, advantages, returns, squashed, log)


# ---- the loop ----

def train(policy: GPT, tokenizer, tasks: list, settings: Settings, *, seed: int, stage: str, reward_model: RewardModel | None = None,
          reference: GPT | None = None, rehearsal: list[Row] = (), log: Path | None = None, device=torch.device("cpu")) -> dict:
    """`settings.iterations` rounds of rollouts and updates on `tasks`; the reference is the policy as it enters, unless given.

    Returns the last iteration's log line and {"tokens", "seconds", "first_reward"}. Raises FloatingPointError with the iteration
    when a reward or a loss is not finite; the weights are then those of the last good iteration.
    """
    check(settings)
    rng = random.Random(seed_of(seed, stage, "prompts"))
    if reference is None:
        reference = copy.deepcopy(policy).eval().requires_grad_(False)
    critic = RewardModel(policy, seed_of(seed, stage, "critic")) if settings.estimator == "gae" else None
    if critic is not None and reward_model is not None:
        if reward_model.config != policy.config:
            raise ValueError(f"{stage}: the reward model has another shape than the policy, so no critic can begin as it")
        critic.load_state_dict(reward_model.state_dict())  # the critic begins as the reward model
    optimizers = Optimizers(policy, settings.lr)
    critic_optimizers = Optimizers(critic, settings.critic_lr) if critic is not None else None
    parts = {"policy": policy, "optimizers": optimizers} | ({"critic": critic, "critic_optimizers": critic_optimizers} if critic is not None else {})
    resume = Resume(log, settings.save_every, tokenizer, device, **parts)
    state = resume.load({"iteration": 0, "kl_coef": settings.kl_coef, "order": [], "rng": rng.getstate(), "lines": [], "tokens": 0},
                        stage=(stage, seed), weights=policy, reference=reference, reward_model=reward_model, settings=settings, tasks=tasks,
                        rehearsal=list(rehearsal))
    rng.setstate(state["rng"])
    kl_coef, order, lines, tokens, began = state["kl_coef"], state["order"], state["lines"], state["tokens"], time.perf_counter()
    bar = progress(range(settings.iterations), stage, "iteration")
    for iteration in bar:
        if iteration < state["iteration"]:
            continue
        count = min(settings.prompts, len(tasks))
        while len(order) < count:
            order += rng.sample(range(len(tasks)), len(tasks))
        batch, order = [tasks[k] for k in order[:count]], order[count:]
        good, scale = copy.deepcopy(policy.state_dict()), learning_rate_scale(iteration, settings.iterations, settings.warmup, 0.7)
        try:
            data = rollout(policy, reference, critic, reward_model, tokenizer, batch, settings, kl_coef, seed_of(seed, stage, iteration))
            update = learn(policy, critic, optimizers, critic_optimizers, data, settings, tokenizer, rehearsal, rng, scale, device)
        except FloatingPointError as error:
            policy.load_state_dict(good)
            raise FloatingPointError(f"{stage}: {error} at iteration {iteration}") from None
        tokens += sum(len(row[0]) for row in data.rows)
        lines.append({"iteration": iteration, "kl_coef": kl_coef, "lr_scale": scale, "tokens": tokens, **data.log, **update})
        if settings.kl_target:
            kl_coef = next_kl_coef(kl_coef, data.log["kl"], settings.kl_target, len(data.rows), settings.kl_horizon)
        bar.set_postfix_str(f"reward {data.log['reward']:.3f}, true {data.log['true_reward']:.3f}, kl {data.log['kl']:.2f}")
        if log is not None:
            write_csv(log, lines)
        resume.save(iteration + 1, {"iteration": iteration + 1, "kl_coef": kl_coef, "order": order, "rng": rng.getstate(), "lines": lines,
                                    "tokens": tokens})
    resume.done()
    policy.eval()
    return lines[-1] | {"tokens": tokens, "seconds": time.perf_counter() - began, "first_reward": lines[0]["reward"]}


def learn(policy, critic, optimizers, critic_optimizers, data: Rollouts, settings: Settings, tokenizer, rehearsal, rng, scale: float, device) -> dict:
    """Several passes of minibatches over one iteration's rollouts; means of what they measured."""
    sums, updates, first_log_ratio = {}, 0, None
    # ours: a row without an advantage costs no forward. Its tokens are not counted (DAPO samples other prompts in its place),
    # but a mean over responses is over all of them, as in GRPO, Dr. GRPO and GSPO
    live = [k for k in range(len(data.rows)) if data.mask[k].any() and (critic is not None or data.advantages[k].abs().max() > 0)]
    network, critic_network = parallel(policy), parallel(critic) if critic is not None else None
    policy.train()

    def cut(part: list[int], *tensors: Tensor) -> list[Tensor]:
        """These rows of (N, S) tensors, as wide as the longest of them."""
        width = max((len(data.rows[k][0]) for k in part), default=1)
        return [tensor[part, :width] for tensor in tensors]

    for _ in range(settings.epochs):
        rng.shuffle(live)
        size = max(1, math.ceil(len(live) / settings.minibatches))
        for i in range(0, len(live), size):
            batch, measured = live[i:i + size], dict.fromkeys(("loss", "clip_fraction", "approx_kl", "value_loss"), 0.0)
            tokens = int(data.mask[batch].sum())
            responses = len(data.rows) * len(batch) / len(live)  # with this minibatch's share of those without an advantage
            if rehearsal and settings.rehearsal_rows:
                rows = rng.sample(list(rehearsal), min(settings.rehearsal_rows, len(rehearsal)))
                rehearse(network, tokenizer, rows, settings.rehearsal_coef, device, settings.micro_rows)
            for part in micro_batches(batch, settings.micro_rows, network):
                ids, mask, old, advantages = cut(part, data.ids, data.mask, data.old_logprobs, data.advantages)
                with autocast(device):
                    logprobs = token_logprobs(network, ids, mask, settings.temperature)
                loss, clipped, approx_kl = policy_loss(
                    logprobs, torch.where(mask, old, 0.0), advantages, mask, settings.clip_low, settings.clip_high, settings.normalise,
                    settings.max_new, settings.ratio, tokens if settings.normalise == "token" else responses)
                loss.backward()
                if first_log_ratio is None and part:  # before any update: what must be 0 if old and new are computed alike
                    first_log_ratio = float(torch.where(mask, logprobs.detach() - old, 0.0).abs().max())
                here = int(mask.sum()) / tokens
                for name, value in (("loss", loss), ("clip_fraction", here * clipped), ("approx_kl", here * approx_kl)):
                    measured[name] += float(value.detach())
            # in a loop of its own, so that all ranks join the two models' gradients in the same order
            for part in micro_batches(batch, settings.micro_rows, critic_network) if critic is not None else ():
                ids, mask, old_values, returns = cut(part, data.ids, data.mask, data.old_values, data.returns)
                loss = value_loss(critic_values(critic_network, ids, data.squashed), old_values, returns, mask, settings.value_clip, tokens)
                loss.backward()
                measured["value_loss"] += float(loss.detach())
            measured = summed(measured)
            if not math.isfinite(measured["loss"]):
                raise FloatingPointError("the loss is not finite")
            measured["grad_norm"] = optimizers.step(scale)
            if critic is not None:
                critic_optimizers.step(scale)
            else:
                measured["value_loss"] = math.nan
            for name, value in measured.items():
                sums[name] = sums.get(name, 0.0) + value
            updates += 1
    policy.eval()
    result = {name: sums.get(name, float("nan")) / max(1, updates) for name in ("loss", "clip_fraction", "approx_kl", "value_loss", "grad_norm")}
    result["explained_variance"] = explained_variance(data.old_values, data.returns, data.mask) if critic is not None else float("nan")
    return result | {"first_log_ratio": first_log_ratio if first_log_ratio is not None else 0.0, "updates": updates}


# ---- multi-stage RL ----

DOMAINS = {"rl_stem": ("math", "stem"), "rl_code": ("code",), "rl_preference": ("chat",)}
STAGE_SETTINGS = {"rl_stem": Settings(), "rl_code": Settings(iterations=10, candidates=320),
          # the learned reward can be gamed, so the policy is tied to where it started
          "rl_preference": Settings(iterations=10, candidates=256, lr=3e-4, kl_coef=0.03)}
def ready_tasks(policy: GPT, tokenizer, stage: str, settings: Settings, seed: int, tasks: list | None = None) -> tuple[list, dict]:
    """Of `settings.candidates` prompts, the tiny world's or some of `tasks`: those that the entering checkpoint gets right strictly
    between 10% and 90% of 16 times, and the counts.

    Responses to chat have no right and wrong, so nothing is filtered there.
    """
    if tasks is None:
        tasks = world.draw_tasks(world.generator(seed, stage), DOMAINS[stage], settings.candidates)
    else:
        tasks = world.generator(seed, stage).sample(tasks, min(len(tasks), settings.candidates))
    if stage == "rl_preference":
        return tasks, {"prompts": len(tasks), "kept": len(tasks)}
    rates = pass_rates(policy, tokenizer, tasks, seed=seed_of(seed, stage, "filter"), max_new=settings.max_new)
    kept = [task for task, rate in zip(tasks, rates) if rate is not None and 0.1 < rate < 0.9]
    return kept, {"prompts": len(tasks), "kept": len(kept), "too_hard": sum(rate is not None and rate <= 0.1 for rate in rates),
                  "too_easy": sum(rate is not None and rate >= 0.9 for rate in rates), "not_checked": sum(rate is None for rate in rates)}


def rl_stage(stage: str, policy: GPT, tokenizer, settings: Settings, *, seed: int, reward_model: RewardModel | None = None,
             tasks: list | None = None, rehearsal: list[Row] = (), log: Path | None = None, device=torch.device("cpu")) -> dict:
    """One stage of multi-stage RL; a stage whose filter leaves no prompt says so and changes nothing."""
    began = time.perf_counter()
    tasks, counts = ready_tasks(policy, tokenizer, stage, settings, seed, tasks)
    if not tasks:
        print(f"{stage}: skipped, because none of {counts['prompts']} prompts has a pass rate between 10% and 90% "
              f"(too hard {counts['too_hard']}, too easy {counts['too_easy']}, not checked {counts['not_checked']})")
        return {"tokens": 0, "seconds": 0.0, "filter": counts, "skipped": True}
    filtered = time.perf_counter() - began
    measured = train(policy, tokenizer, tasks, settings, seed=seed, stage=stage, reward_model=reward_model, rehearsal=rehearsal, log=log, device=device)
    return measured | {"filter": counts, "filter_seconds": filtered}


def rl_stem(policy: GPT, tokenizer, settings: Settings = STAGE_SETTINGS["rl_stem"], **how) -> dict:
    """Math and STEM: the reward is exact arithmetic."""
    return rl_stage("rl_stem", policy, tokenizer, settings, **how)


def rl_code(policy: GPT, tokenizer, settings: Settings = STAGE_SETTINGS["rl_code"], **how) -> dict:
    """Code: the reward is hidden tests in the sandbox."""
    return rl_stage("rl_code", policy, tokenizer, settings, **how)


def rl_preference(policy: GPT, tokenizer, reward_model: RewardModel, settings: Settings = STAGE_SETTINGS["rl_preference"], **how) -> dict:
    """Human preference: the reward is the reward model's score, with a KL penalty to the policy that entered."""
    return rl_stage("rl_preference", policy, tokenizer, settings, reward_model=reward_model, **how)


# ---- alone ----

def show(policy, reference, critic, reward_model, tokenizer, tasks, settings) -> None:
    """The first response of one group as a table."""
    data = rollout(policy, reference, critic, reward_model, tokenizer, tasks[:1], settings, settings.kl_coef, 0)
    reward = token_rewards(data.scores, data.old_logprobs, data.reference_logprobs, data.mask, settings.kl_coef)
    truth = scored(tasks[:1], [tokenizer.read_reply([token for token, on in zip(*data.rows[0]) if on])])[0]
    print(f"{tasks[0].prompt}\nscore {float(data.scores[0]):.3f}, true reward {truth}, the group's scores "
          + ", ".join(f"{float(score):.2f}" if kept else "masked out" for score, kept in zip(data.scores, data.kept)))
    if settings.estimator == "gae" and reward_model is None:
        print("no critic has been trained for this: its values are those of a random head")
    pieces = tokenizer.pieces(data.rows[0][0])
    print(f"{'token':>14} {'logprob':>8} {'ref':>8} {'kl':>8} {'value':>8} {'reward':>8} {'advantage':>9}")
    if not data.mask[0].any():
        print("no token is in the loss: the response was cut off, or could not be checked")
    for t in range(data.ids.shape[1]):
        if data.mask[0, t]:
            old, ref = data.old_logprobs[0, t], data.reference_logprobs[0, t]
            numbers = [old, ref, old - ref, data.old_values[0, t], reward[0, t]]
            print(f"{pieces[t]!r:>14} " + " ".join(f"{float(x) + 0.0:8.3f}" for x in numbers) + f" {float(data.advantages[0, t]):9.3f}")


def main() -> None:
    parser = common_flags(__doc__, "runs/STAGE, runs/STAGE-smoke with --smoke")
    parser.add_argument("--init", default=None, help="the policy's checkpoint; default: a run's overall_sft, or SFT is done first")
    parser.add_argument("--stage", choices=list(STAGE_SETTINGS), default="rl_stem", help="which reward")
    parser.add_argument("--reward-model", default=None, help="checkpoint of python reward_model.py, for rl_preference; default: one is trained first")
    parser.add_argument("--estimator", choices=("group", "gae"), default=None, help="advantages; default: the stage's")
    for name, told in (("baseline", "what a group's scores are compared with: Dr. GRPO's mean, GRPO's z-score, RLOO's mean of the others"),
                       ("normalise", "what the loss is divided by: own tokens (DAPO), each response's own (GRPO), a constant (Dr. GRPO)"),
                       ("ratio", "of a token, or of a whole response: GSPO, which sets --normalise and its clip range too")):
        parser.add_argument(f"--{name}", choices=CHOICES[name], default=None, help=f"{told}; default: {getattr(Settings, name)}")
    parser.add_argument("--kl-coef", type=float, default=None, help="KL penalty; default: the stage's")
    parser.add_argument("--iterations", type=int, default=None, help="rounds of rollouts; default: the stage's")
    parser.add_argument("--lr", type=float, default=None, help="AdamW's learning rate; default: the stage's")
    parser.add_argument("--show", action="store_true", help="print one rollout as a table, and stop")
    parser.add_argument("--reference", default=None, help="with --show: the checkpoint that log-probabilities are compared with; default: the policy")
    parser.add_argument("--eval-n", type=int, default=128, help="held-out prompts a domain")
    command(parser, run, "stopped; the log of the finished iterations is kept, and so is a training that was finished")


def run(args) -> None:
    device = start(args)
    if args.data:
        raise ValueError("--data: RL needs a verifier or a reward model for its prompts, so it runs on the tiny world's")
    tokenizer = tokenizer_of(args.init)
    given = {name: getattr(args, name) for name in (*CHOICES, "kl_coef", "iterations", "lr") if getattr(args, name) is not None}
    given = (GSPO if args.ratio == "sequence" else {}) | given
    settings = sized(STAGE_SETTINGS[args.stage], args.stage, args.size, args.smoke, **given)
    check(settings)
    if args.baseline and settings.estimator == "gae":
        raise ValueError("--baseline: is of --estimator group; under gae the critic is the baseline")
    policy = starting_model(args, "student", tokenizer, device)
    out = out_folder(args.out or f"runs/{args.stage}{'-smoke' if args.smoke else ''}")
    reward_model = None
    if args.stage == "rl_preference":
        rm_settings = sized(rewards.Settings(), "reward_model", args.size, args.smoke)
        reward_model = load_reward_model(args.reward_model, tokenizer, device) if args.reward_model else once(
            out / "reward_model.pt", key_of(tokenizer, device, weights=policy, settings=(args.seed, rm_settings)), lambda: RewardModel(policy),
            tokenizer, "reward_model", lambda: rewards.reward_model(policy, tokenizer, rm_settings, seed=args.seed))[0]
    if args.show:
        critic = (reward_model or RewardModel(policy)) if settings.estimator == "gae" else None
        tasks = world.draw_tasks(world.generator(args.seed, "show"), DOMAINS[args.stage], 1)
        reference = load_checkpoint(args.reference, tokenizer, device)[0] if args.reference else policy
        return show(policy, reference, critic, reward_model, tokenizer, tasks, replace(settings, samples=8, max_new=64))
    eval_n = 4 if args.smoke else args.eval_n
    rehearsal = rehearsal_data(tokenizer, args.size, args.seed, policy.config.context)
    print(table_head())
    print(table_line("before", evaluate(policy, tokenizer, eval_n, seed=args.seed)), flush=True)
    try:
        policy, measured = once(out / f"{args.stage}.pt", key_of_run(args, tokenizer, device, weights=policy, reward=reward_model), lambda: policy,
                           tokenizer, args.stage,
                           lambda: (policy, rl_stage(args.stage, policy, tokenizer, settings, seed=args.seed, reward_model=reward_model,
                                                     rehearsal=rehearsal, log=out / f"{args.stage}.csv", device=device)),
                           settings=asdict(settings))
    except FloatingPointError as error:  # the policy holds the weights of the last good iteration
        save_checkpoint(out / f"{args.stage}.pt", policy, tokenizer, args.stage, settings=asdict(settings))
        raise FloatingPointError(f"{error}; the weights before it are in {out / (args.stage + '.pt')}") from None
    print(table_line("after", evaluate(policy, tokenizer, eval_n, seed=args.seed)))
    print("prompts: " + ", ".join(f"{name} {count}" for name, count in measured["filter"].items()))
    learned = "" if measured.get("skipped") else f"reward {measured['first_reward']:.3f} -> {measured['reward']:.3f}, {measured['seconds']:.0f} s; log {out / (args.stage + '.csv')}; "
    print(f"{learned}checkpoint {out / (args.stage + '.pt')}")


if __name__ == "__main__":
    main()
