"""Reinforcement learning: a complete PPO, the group baseline beside it, and multi-stage RL.

    prompts -> rollout (sample, score, advantages) -> updates of policy and critic -> next rollout

    r_t  = -kl_coef (log pi_old - log pi_ref)_t + [t last] score      reward of one token
    A_t  = delta_t + gamma lambda A_{t+1}                             GAE (1506.02438, eq. 16)
           delta_t = r_t + gamma V_{t+1} - V_t
    L_pi = mean max(-A rho, -A clip(rho, 1 - e_low, 1 + e_high))      PPO (1707.06347, eq. 7)
    L_v  = mean max((V - R)^2, (clip(V, V_old - e, V_old + e) - R)^2) / 2

pi is the policy that learns, pi_old the one that sampled, pi_ref the one the stage began with; rho
is pi / pi_old. V is the critic's guess of the rewards to come, R = A + V_old what it learns; L_pi
takes A whitened. e, e_low and e_high are clip ranges; means are over own tokens, those that a model
drew itself. A group baseline has no critic: A is the score - kl_coef sum_t (log pi_old - log
pi_ref)_t of a response, less the mean of that over the kept ones of its prompt (cf. 2402.03300).

Details that matter ([1]: measured on the first version of the project only):

1. Old and new log-probs are of the same kind of forward: rho is 1 at first (`first_log_ratio`).
2. The KL is in the reward: as a loss, k1 has an expected gradient of 0. With kl_coef 0 the truth
   about chat goes from 3.04 of 5 to 3.61 (30 iterations), then 3.42 (60); with 0.1 to 3.71.
3. In rl_preference the critic begins as the reward model (2203.02155), tanh(V / 2). Not measured.
4. In chat GAE minus group is +0.7 +-6.6 points greedy and -0.3 +-8.0 sampled (three seeds), and a
   stage with GAE takes half as long again. So the group is the default.
5. Scores are centred (Dr. GRPO, 2503.20783): a z-score makes .501, .5, .5, .499 into 1.4, 0, 0 and
   -1.4. Yet it had 2.0 points more than centring in rl_code, on one seed, within the noise [1].
6. The upper clip is wider, for rare tokens to grow; the loss is a mean over own tokens (A not 0);
   what the length limit cut off is not in it (DAPO, 2503.14476; "A not 0" is ours). Not measured.
7. Prompts (not chat's) are right in 2 to 14 of 16 samples. 48 iterations gained 5 points in math
   and STEM with epochs=1 and some 600 prompts, 2 with epochs=2 and 300 (two development seeds).
8. Every update adds rehearsal_coef times the SFT loss on earlier rows (ptx, 2203.02155). Without
   it rl_stem ends 7.0 +-1.2 points lower in math greedy, 6.4 +-1.3 in agent sampled [1].

Left out: whitening of scores, weight averaging, asynchronous rollouts, a KL term in the loss.

    python ppo.py                   rl_stem on the tiny SFT model; also --stage rl_preference
    python ppo.py --ratio sequence  GSPO; near GRPO: --baseline zscore --normalise sequence
    python ppo.py --show            the losses of two made-up responses, number by number
    python ppo.py --show-rollout    a real rollout, token by token

Watch: `reward` rises, and `true_reward` with it, or the reward is being gamed; `kl` (nats a
response) stays below 5, `clip_fraction` below 0.2, `truncated` below 0.5, `dead_groups` (scored all
alike) below 0.9; `entropy` falls, not to 0. `loss` is near 0 where rho is 1, learning or not.
"""

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

import reward_model as rewards
from data.runtime import rl_alone, rl_settings, rollouts, room
from data.runtime.alone import Alone
from data.runtime.command import chapter_flags, command
from data.runtime.devices import autocast, in_parts, micro_batches, parallel, seed_of, summed
from data.runtime.measures import masked_mean, whiten
from data.runtime.rollouts import Rollouts, ready_tasks
from data.runtime.rows import Row, pad_batch
from model import GPT, Optimizers, learning_rate_scale, load_checkpoint, token_logprobs
from reward_model import RewardModel, predicted_reward, robust_reward
from sft import rehearsal_data, rehearse, starting_model


@dataclass(frozen=True)
class Settings:
    iterations: int = 24
    prompts: int = 32  # an iteration
    samples: int = 8  # responses a prompt
    epochs: int = 1  # passes over the responses of an iteration; fresh prompts are worth more
    minibatches: int = 4  # updates a pass
    lr: float = 6e-4  # AdamW (Muon: 4 points less in code); 1e-3 gains more but forgets elsewhere
    critic_lr: float = 1e-3  # the critic has its own trunk and optimizer, so no value_coef
    temperature: float = 1.0  # of sampling, and so of old, new and reference log-probabilities
    max_new: int = 64
    estimator: str = "group"  # or "gae", with a critic
    baseline: str = "centre"  # group: "zscore" (GRPO), "centre" (Dr. GRPO), "leave_one_out"
    clip_low: float = 0.2
    clip_high: float = 0.28  # DAPO: room for rare tokens to grow
    normalise: str = "token"  # over all own tokens (DAPO); or "sequence", "constant"
    ratio: str = "token"  # or "sequence", GSPO: with its own normalise and clips (rl_settings.py)
    value_clip: float = 0.2
    gamma: float = 1.0
    gae_lambda: float = 0.95
    kl_coef: float = 0.0  # 0 with a verifier, not a learned score; `kl` is then of 64 responses
    kl_target: float | None = None  # nats a response: adapts a kl_coef above 0 (1909.08593)
    kl_horizon: int = 10000  # episodes
    micro_rows: int = 128  # responses of one forward; a larger minibatch is accumulated
    rehearsal_rows: int = 16  # earlier rows in every update, which keep the other skills
    rehearsal_coef: float = 0.5
    candidates: int = 512  # prompts before the filter; fewer than 100 after it are memorised
    warmup: int = 2
    save_every: int = 0  # iterations between saves in the middle of a stage; 0: none
    mask_truncated: bool = True  # False: what the limit cut off is scored -1, as without end mark


# ---- the loss: tensors (N, S), one number a token, at the token's own position ----


def kl_estimates(logprobs: Tensor, reference_logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(k1, k2, k3) of KL(pi||ref) a token, for tokens drawn from pi; k1 and k3 are unbiased
    (Schulman, Approximating KL Divergence, 2020)."""
    k1 = logprobs - reference_logprobs
    return k1, k1**2 / 2, torch.expm1(-k1) + k1


def token_rewards(scores, logprobs, reference_logprobs, mask: Tensor, kl_coef: float) -> Tensor:
    """-kl_coef k1 at every own token, plus the response's score (N,) at the last one; (N, S)."""
    reward = torch.where(mask, -kl_coef * (logprobs - reference_logprobs), 0.0)
    last = mask.shape[1] - 1 - mask.flip(1).float().argmax(1)  # (N,)
    return reward.scatter_add(1, last[:, None], torch.where(mask.any(1), scores, 0.0)[:, None])


def gae(reward: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> tuple:
    """(advantages, returns). values[:, t] is V before token t is drawn; V is 0 after the last one.
    Tokens outside the mask are stepped over, so what a tool inserted takes no part."""
    advantages = torch.zeros_like(reward)
    next_value = torch.zeros_like(reward[:, 0])  # (N,)
    ahead = torch.zeros_like(reward[:, 0])  # (N,), the advantage of the next own token
    for t in reversed(range(reward.shape[1])):
        delta = reward[:, t] + gamma * next_value - values[:, t]
        ahead = torch.where(mask[:, t], delta + gamma * gae_lambda * ahead, ahead)
        advantages[:, t] = torch.where(mask[:, t], ahead, 0.0)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
    return advantages, torch.where(mask, advantages + values, 0.0)


def group_advantages(scores: Tensor, kept: Tensor, baseline: str = "centre") -> Tensor:
    """Advantages (B, G) of the scores r of G samples to each of B prompts: "centre" r - mean (Dr.
    GRPO), "zscore" that / std (GRPO), "leave_one_out" r - mean of the others (2402.14740).
    Not kept (B, G): gets 0, no part of the mean (ours); a group with fewer than two left gets 0."""
    count = kept.sum(1, keepdim=True)  # (B, 1)
    mean = torch.where(kept, scores, 0.0).sum(1, keepdim=True) / count.clamp(min=1)  # (B, 1)
    centred = torch.where(kept, scores - mean, 0.0)  # (B, G)
    if baseline == "zscore":
        std = (centred**2).sum(1, keepdim=True).div(count.clamp(min=1)).sqrt()  # (B, 1)
        centred = torch.where(std > 1e-6, centred / std.clamp(min=1e-6), 0.0)
    elif baseline == "leave_one_out":
        centred = centred * count / (count - 1).clamp(min=1)
    elif baseline != "centre":
        raise ValueError(f"baseline is {baseline!r}; there is zscore, centre and leave_one_out")
    return torch.where(count >= 2, centred, 0.0)


def next_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """Controller (1909.08593, section 2.2); kl: mean over responses of the SUM over tokens."""
    return kl_coef * (1 + max(-0.2, min(0.2, kl / target - 1)) * episodes / horizon)


def policy_loss(logprobs, old_logprobs, advantages, mask, *, count=None, **form) -> tuple:
    """(loss, clip fraction, approx_kl): the clipped surrogate (1707.06347, eq. 7).

    `form`: clip_low, clip_high. normalise: "token" divides by own tokens (DAPO), "sequence" takes a
    mean within a response first (GRPO), "constant" divides by N * longest (Dr. GRPO). ratio:
    "token", or "sequence", the geometric mean over a response (GSPO, 2507.18071, eq. 5 and 7).
    `count`: of the whole minibatch, the own tokens ("token") or the responses (the other two).
    """
    clip_low, clip_high, normalise, ratio, longest = rl_settings.form_of(**form)
    lengths = mask.sum(1, keepdim=True).clamp(min=1)  # (N, 1)
    advantages = torch.where(mask, advantages, 0.0)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    approx_kl = masked_mean(log_ratio.detach() ** 2, mask) / 2
    if ratio == "sequence":
        log_ratio = (log_ratio.sum(1, keepdim=True) / lengths).expand_as(log_ratio)
    rho = log_ratio.exp()
    losses = torch.maximum(-advantages * rho, -advantages * rho.clamp(1 - clip_low, 1 + clip_high))
    losses = torch.where(mask, losses, 0.0)
    outside = (rho < 1 - clip_low) & (advantages < 0) | (rho > 1 + clip_high) & (advantages > 0)
    clipped = masked_mean(outside.float(), mask)
    if normalise == "sequence":
        loss = (losses.sum(1, keepdim=True) / lengths).sum() / (count or len(losses))
    elif normalise == "constant":
        loss = losses.sum() / ((count or len(losses)) * longest)
    else:
        loss = losses.sum() / (count or mask.sum().clamp(min=1))
    return loss, clipped, approx_kl


def value_loss(values, old_values, returns, mask: Tensor, *, clip=0.2, count=None) -> Tensor:
    """Half the mean of the worse of the squared errors of V and of V clipped around its old value
    (ppo2 of OpenAI baselines). `count`: own tokens of the whole minibatch."""
    # a nan outside the mask would spoil the gradient
    values, old_values, returns = (torch.where(mask, x, 0.0) for x in (values, old_values, returns))
    near = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    worse = torch.where(mask, torch.maximum((values - returns) ** 2, (near - returns) ** 2), 0.0)
    return worse.sum() / (count or mask.sum().clamp(min=1)) / 2


# ---- the loop: rollouts, and the updates on them ----


def critic_values(critic: RewardModel, ids: Tensor, squashed: bool) -> Tensor:
    """(N, S): at t the critic's output at t - 1, before token t is drawn; squashed: tanh(V / 2)."""
    values = critic(ids)[:, :-1]
    return pad(torch.tanh(values / 2) if squashed else values, (1, 0))


def rollout(
    policy, reference, critic, reward_model, tokenizer, tasks, *, settings, kl_coef, seed
) -> Rollouts:
    """Sample, score, and compute all that the update needs, without gradients."""
    device = next(policy.parameters()).device
    squashed = reward_model is not None
    responses = rollouts.sample_responses(policy, tokenizer, tasks, settings, seed)
    size = room.fitting(policy, responses.rows, settings.micro_rows)
    if reward_model is not None:
        responses.learned = predicted_reward(reward_model, tokenizer, responses.rows).tolist()
    scores, kept = responses.score(robust_reward, settings, device)  # (N,) each
    ids, own = pad_batch(responses.rows, tokenizer.pad_id, device)  # (N, S) each
    read = partial(token_logprobs, temperature=settings.temperature)
    with autocast(device):
        old = in_parts(partial(read, policy), ids, own, size=size)  # (N, S)
        ref = rollouts.reference_logprobs(partial(read, reference), old, ids, own, kl_coef, size)
        values = torch.zeros_like(old)
        if critic is not None:
            value = partial(critic_values, critic, squashed=squashed)
            values = in_parts(value, ids, size=size)  # (N, S)
    mask = own & kept[:, None]
    data = Rollouts(responses.rows, ids, mask, old, ref, values, scores, kept, squashed=squashed)
    data.advantages, data.returns = advantages_of(data, settings, kl_coef)
    entropy = rollouts.mean_entropy(policy, ids, own, settings.temperature, size)
    data.log = rollouts.rollout_log(data, responses, own, entropy, settings, kl_coef)
    return data


def advantages_of(data: Rollouts, settings: Settings, kl_coef: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns), (N, S) each; a group baseline has no returns."""
    old, ref, mask = data.old_logprobs, data.reference_logprobs, data.mask
    if settings.estimator == "gae":
        reward = token_rewards(data.scores, old, ref, mask, kl_coef)
        discounts = settings.gamma, settings.gae_lambda
        advantages, returns = gae(reward, data.old_values, mask, *discounts)
        return whiten(advantages, mask), returns
    k1 = torch.where(mask, kl_estimates(old, ref)[0], 0.0).sum(1)  # (N,)
    scores = (data.scores - kl_coef * k1).view(-1, settings.samples)  # (B, G)
    advantages = group_advantages(scores, data.kept.view_as(scores), settings.baseline)
    advantages = advantages.reshape(-1, 1) * mask
    return advantages, torch.zeros_like(advantages)


def train(
    policy: GPT,
    tokenizer,
    tasks: list,
    settings: Settings,
    *,
    seed: int,
    stage: str,
    reward_model: RewardModel | None = None,
    reference: GPT | None = None,
    rehearsal: list[Row] = (),
    log=None,
    device=torch.device("cpu"),
) -> dict:
    """`settings.iterations` rollouts and their updates; (the last log line, totals) in one dict.

    The reference is the policy as it enters, unless given. FloatingPointError: a reward or loss is
    not finite; the weights are then those of the last good iteration."""
    rl_settings.check(settings)
    reference = reference or rollouts.frozen(policy)
    critic = None
    optimizers = {"policy": Optimizers(policy, settings.lr)}
    if settings.estimator == "gae":
        critic = RewardModel(policy, seed_of(seed, stage, "critic"))
        rl_settings.begin_as(critic, reward_model, policy, stage)
        optimizers["critic"] = Optimizers(critic, settings.critic_lr)
    models = policy, reference, critic, reward_model, tokenizer
    rounds = rollouts.Rounds(stage, seed, tasks, settings, log)
    rounds.go_on(models, optimizers, list(rehearsal), device)  # from the middle, if it was killed
    for iteration, batch in rounds:
        scale = learning_rate_scale(iteration, settings.iterations, settings.warmup, constant=0.7)
        drawn = {"kl_coef": rounds.kl_coef, "seed": seed_of(seed, stage, iteration)}
        how = {"tokenizer": tokenizer, "rehearsal": rehearsal, "rng": rounds.rng, "scale": scale}
        with rounds.undone(policy, iteration):  # where a number is not finite
            data = rollout(*models, batch, settings=settings, **drawn)
            update = learn(policy, critic, optimizers, data, settings, **how)
        rounds.log(iteration, scale, data, update)
        if settings.kl_target:
            rounds.adapt(next_kl_coef, data)
    policy.eval()
    return rounds.measured()


def learn(policy, critic, optimizers, data, settings, *, tokenizer, rehearsal, rng, scale) -> dict:
    """`epochs` passes of minibatches over an iteration's rollouts; means of what they measured."""
    device = data.ids.device
    size = room.fitting(policy, data.rows, settings.micro_rows)
    network = parallel(policy)
    critic_network = parallel(critic) if critic is not None else None
    live = data.live(critic is not None)
    sums = Counter()
    first_log_ratio = None
    policy.train()
    for batch in rollouts.minibatches(live, settings.epochs, settings.minibatches, rng):
        tokens = int(data.mask[batch].sum())
        # rows without an advantage are not in `live`, but a mean over responses counts them (GRPO)
        responses = len(data.rows) * len(batch) / len(live)
        form = rl_settings.loss_form(settings, tokens, responses)
        if rehearsal and settings.rehearsal_rows:
            rows = rng.sample(list(rehearsal), min(settings.rehearsal_rows, len(rehearsal)))
            rehearse(network, tokenizer, rows, settings.rehearsal_coef, device, size)
        measured = Counter(loss=0.0, clip_fraction=0.0, approx_kl=0.0, value_loss=0.0)
        for micro in micro_batches(batch, size, network):
            ids, mask, old, advantages = data.cut(micro, "old_logprobs", "advantages")  # (n, S)
            old = torch.where(mask, old, 0.0)
            with autocast(device):
                logprobs = token_logprobs(network, ids, mask, settings.temperature)  # (n, S)
            loss, clipped, approx_kl = policy_loss(logprobs, old, advantages, mask, **form)
            loss.backward()
            if first_log_ratio is None and micro:  # before any update
                first_log_ratio = float((logprobs.detach() - old).abs().max())
            share = int(mask.sum()) / tokens
            now = {"loss": loss, "clip_fraction": share * clipped, "approx_kl": share * approx_kl}
            measured.update({name: float(value.detach()) for name, value in now.items()})  # adds
        # apart from the first loop, so that all ranks join both models' gradients in one order
        for micro in micro_batches(batch, size, critic_network) if critic is not None else ():
            ids, mask, old, returns = data.cut(micro, "old_values", "returns")  # (n, S) each
            values = critic_values(critic_network, ids, data.squashed)  # (n, S)
            loss = value_loss(values, old, returns, mask, clip=settings.value_clip, count=tokens)
            loss.backward()
            measured.update(value_loss=float(loss.detach()))
        measured = summed(measured)
        rollouts.check_finite(measured["loss"], "the loss")
        norms = {name: one.step(scale) for name, one in optimizers.items()}
        sums.update(measured, grad_norm=norms["policy"], updates=1)
    policy.eval()
    return rollouts.update_log(data, sums, first_log_ratio, critic is not None)


# ---- multi-stage RL ----

STAGE_SETTINGS = {"rl_stem": Settings(iterations=48, candidates=1024)}
STAGE_SETTINGS["rl_code"] = Settings(candidates=1280)  # most are always or never right
# the learned reward can be gamed, so the policy is tied to where it started
STAGE_SETTINGS["rl_preference"] = Settings(candidates=768, lr=3e-4, kl_coef=0.03)


def rl_stage(stage: str, policy: GPT, tokenizer, settings, *, seed: int, tasks=None, **how) -> dict:
    """One stage; where the filter leaves no prompt it says so and changes nothing."""
    began = time.perf_counter()
    tasks, counts = ready_tasks(policy, tokenizer, stage, settings, seed, tasks)
    if not tasks:
        print(rl_alone.skipped(stage, counts))
        return {"tokens": 0, "seconds": 0.0, "filter": counts, "skipped": True}
    filtered = {"filter": counts, "filter_seconds": time.perf_counter() - began}
    return train(policy, tokenizer, tasks, settings, seed=seed, stage=stage, **how) | filtered


def rl_stem(policy, tokenizer, settings=STAGE_SETTINGS["rl_stem"], **how) -> dict:
    """Math and STEM: the reward is the verifier's 0 or 1, and some shaping (robust_reward)."""
    return rl_stage("rl_stem", policy, tokenizer, settings, **how)


def rl_code(policy, tokenizer, settings=STAGE_SETTINGS["rl_code"], **how) -> dict:
    """Code: the reward is hidden tests in the sandbox, and some shaping."""
    return rl_stage("rl_code", policy, tokenizer, settings, **how)


def rl_preference(policy, tokenizer, reward_model, settings=None, **how) -> dict:
    """Human preference: the reward model's score, with a KL penalty to the policy that entered."""
    settings = settings or STAGE_SETTINGS["rl_preference"]
    return rl_stage("rl_preference", policy, tokenizer, settings, reward_model=reward_model, **how)


# ---- alone ----


def show() -> None:
    """The losses of two made-up responses to one prompt, number by number."""
    rl_alone.show_losses(Settings, group_advantages, policy_loss, token_rewards, gae)


def main() -> None:
    parser = chapter_flags(__doc__, "STAGE", rl_alone.INIT)
    for name, how in rl_alone.flags(list(STAGE_SETTINGS), Settings).items():
        parser.add_argument(name, **how)
    command(parser, run, rl_alone.STOPPED)


def run(args) -> None:
    if args.show:
        return show()
    alone = Alone(args, args.stage)
    settings = rl_alone.settings_of(alone, STAGE_SETTINGS)
    policy = starting_model(args, "student", alone.tokenizer, alone.device)
    path = alone.folder() / f"{args.stage}.pt"
    reward_model = rl_alone.stage_reward_model(alone, policy, path.parent, rewards)
    if args.show_rollout:
        how = {"rollout": rollout, "reward": token_rewards, "critic": RewardModel}
        return rl_alone.show_rollout(alone, policy, reward_model, settings, load_checkpoint, **how)
    rehearsal = rehearsal_data(alone.tokenizer, args.size, args.seed, policy.config.context)
    training = partial(rl_stage, args.stage, policy, alone.tokenizer, settings, rehearsal=rehearsal)
    rl_alone.trained(alone, policy, settings, training, path, reward_model)


if __name__ == "__main__":
    main()
