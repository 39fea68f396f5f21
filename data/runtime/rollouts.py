"""What surrounds the rollouts of ppo.py: responses with the truth about them, what an iteration
logs, and which prompts can be learned from."""

import contextlib
import copy
import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data import world
from data.runtime.decoding import generate
from data.runtime.devices import autocast, in_parts, seed_of
from data.runtime.evaluation import pass_rates, sampled_rows, scored
from data.runtime.measures import explained_variance, mean_of
from data.runtime.rows import Row


@dataclass
class Responses:
    """N = prompts * samples responses, prompt-major; an entry of each list is of one response."""

    tasks: list
    rows: list[Row]
    replies: list
    truth: list[float | None]  # what the world knows, 0 to 1; None where it cannot tell
    truncated: list[bool]  # by the length limit
    logprobs: Tensor  # of all own tokens, row after row, under which they were sampled
    learned: list[float | None]  # the reward model's scores
    scores: list[float | None] = ()  # the robust reward; None masks a response out of the loss

    def score(self, robust_reward, settings) -> None:
        """Fills in the scores. Raises FloatingPointError for one that is not finite."""
        self.scores = []
        for k, task in enumerate(self.tasks):
            score = robust_reward(
                task.domain,
                verified=self.truth[k],
                learned=self.learned[k],
                complete=self.replies[k].complete,
                truncated=self.truncated[k],
                tokens=own_tokens(self.rows[k]),
                longest=settings.max_new,
                mask_truncated=settings.mask_truncated,
            )
            self.scores.append(score)
        if any(score is not None and not math.isfinite(score) for score in self.scores):
            raise FloatingPointError("a reward is not finite")

    def scores_and_kept(self, device) -> tuple[Tensor, Tensor]:
        """(scores, whether a response is kept), (N,) each; a score is 0 where it is masked out."""
        scores = [0.0 if score is None else score for score in self.scores]
        kept = [score is not None for score in self.scores]
        return torch.tensor(scores, device=device), torch.tensor(kept, device=device)


@dataclass
class Rollouts:
    """All that the update needs of N = prompts * samples responses, prompt-major.

    The tensors (N, S) hold one number a token, at the token's own position.
    """

    rows: list[Row]
    ids: Tensor  # (N, S), padded on the right
    mask: Tensor  # (N, S), True for own tokens of the responses that are kept
    old_logprobs: Tensor  # (N, S)
    reference_logprobs: Tensor  # (N, S)
    old_values: Tensor  # (N, S), V before the token was drawn
    scores: Tensor  # (N,), the robust reward; 0 where masked out
    kept: Tensor  # (N,), False where the response is masked out
    advantages: Tensor | None = None  # (N, S)
    returns: Tensor | None = None  # (N, S)
    squashed: bool = False  # whether the values are in the units of a squashed score
    log: dict | None = None

    def live(self, has_critic: bool) -> list[int]:
        """The rows that teach something: of a group baseline those with an advantage.

        The others cost no forward (ours; DAPO samples other prompts in their place).
        """
        rows = [k for k in range(len(self.rows)) if self.mask[k].any()]
        return [k for k in rows if has_critic or self.advantages[k].abs().max() > 0]

    def cut(self, micro: list[int], *tensors: Tensor) -> list[Tensor]:
        """These rows of (N, S) tensors, as wide as the longest of them."""
        width = max((len(self.rows[k][0]) for k in micro), default=1)
        return [tensor[micro, :width] for tensor in tensors]


def own_tokens(row: Row) -> list[int]:
    return [token for token, on in zip(*row) if on]


def sample_responses(policy, tokenizer, tasks: list, settings, seed: int) -> Responses:
    """`settings.samples` responses to each task, with the truth about them; no scores yet."""
    prompts = [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(
        policy,
        tokenizer,
        prompts,
        n=settings.samples,
        max_new=settings.max_new,
        temperature=settings.temperature,
        seed=seed,
        run_tool=world.run_tool,
    )
    rows = sampled_rows(prompts, samples)
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    asked = [task for task in tasks for _ in range(settings.samples)]
    truth = scored(asked, replies)
    logprobs = samples.logprobs[samples.own]
    unknown = [None] * len(rows)
    return Responses(asked, rows, replies, truth, samples.truncated.tolist(), logprobs, unknown)


def minibatches(live: list[int], epochs: int, count: int, rng: random.Random):
    """The rows of each update: `epochs` shuffled passes of `count` minibatches each."""
    size = max(1, math.ceil(len(live) / count))
    for _ in range(epochs):
        rng.shuffle(live)
        for i in range(0, len(live), size):
            yield live[i : i + size]


# ---- the log ----


def entropy_of(model, ids: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Entropy of the distribution of each masked token, in nats, (N, S)."""
    logits = model(ids, select=F.pad(mask[:, 1:], (0, 1))).float() / temperature
    logprobs = logits.log_softmax(-1)  # (tokens, V)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return torch.zeros(ids.shape, device=ids.device).masked_scatter(mask, entropy)


def mean_entropy(model, ids: Tensor, own: Tensor, settings, most: int = 64) -> float:
    """Mean entropy of own tokens, in nats, over at most `most` of the responses.

    These are spread over the prompts, which lie one after the other.
    """
    some = torch.linspace(0, len(ids) - 1, min(most, len(ids)), device=ids.device).long()

    def entropy(ids: Tensor, own: Tensor) -> Tensor:
        return entropy_of(model, ids, own, settings.temperature)

    with autocast(ids.device):
        entropies = in_parts(entropy, ids[some], own[some], size=settings.micro_rows)  # (some, S)
    return float(entropies[own[some]].mean())


def rollout_log(
    data: Rollouts, responses: Responses, own: Tensor, entropy: float, samples: int
) -> dict:
    """What an iteration logs of its rollouts.

    `own` (N, S): all of the model's own tokens. `samples`: responses a prompt.
    """
    # the first three are means over the same responses, those that are kept
    these = data.kept.nonzero()[:, 0].tolist()
    columns = responses.scores, responses.truth, responses.learned
    reward, true_reward, rm_score = (mean_of([column[k] for k in these]) for column in columns)
    groups = data.scores.view(-1, samples)  # (B, G)
    kept = data.kept.view(-1, samples)
    best = torch.where(kept, groups, -torch.inf).amax(1)
    worst = torch.where(kept, groups, torch.inf).amin(1)
    old = data.old_logprobs
    sampled = torch.zeros_like(old).masked_scatter(own, responses.logprobs.to(old.device))
    return {
        "reward": reward,
        "true_reward": true_reward,
        "rm_score": rm_score,
        "kl": float((old - data.reference_logprobs).sum(1).mean()),
        "entropy": entropy,
        "length": float(own.sum(1).float().mean()),
        "truncated": sum(responses.truncated) / len(responses.rows),
        "dead_groups": float((best - worst < 1e-6).float().mean()),
        "sampling_gap": float((old - sampled).abs().max()),
    }


# ---- which prompts can be learned from ----


DOMAINS = {"rl_stem": ("math", "stem"), "rl_code": ("code",), "rl_preference": ("chat",)}


def ready_tasks(
    policy, tokenizer, stage: str, settings, seed: int, tasks: list | None = None
) -> tuple[list, dict]:
    """(the tasks that a stage trains on, how many there were and why some are left out).

    Of `settings.candidates` tasks, the tiny world's or some of `tasks`: those that the entering
    policy gets right strictly between 10% and 90% of 16 times. Responses to chat have no right and
    wrong, so nothing is filtered there.
    """
    rng = world.generator(seed, stage)
    if tasks is None:
        tasks = world.draw_tasks(rng, DOMAINS[stage], settings.candidates)
    else:
        tasks = rng.sample(tasks, min(len(tasks), settings.candidates))
    if stage == "rl_preference":
        return tasks, {"prompts": len(tasks), "kept": len(tasks)}
    drawn = seed_of(seed, stage, "filter")
    rates = pass_rates(policy, tokenizer, tasks, seed=drawn, max_new=settings.max_new)
    kept = [task for task, rate in zip(tasks, rates) if rate is not None and 0.1 < rate < 0.9]
    return kept, {
        "prompts": len(tasks),
        "kept": len(kept),
        "too_hard": sum(rate is not None and rate <= 0.1 for rate in rates),
        "too_easy": sum(rate is not None and rate >= 0.9 for rate in rates),
        "not_checked": sum(rate is None for rate in rates),
    }


# ---- of one iteration ----


def update_log(data: Rollouts, sums: dict, first_log_ratio: float | None, has_critic: bool) -> dict:
    """What an iteration logs of its updates: means of the `sums` over sums["updates"]."""
    updates = sums["updates"]
    names = ("loss", "clip_fraction", "approx_kl", "value_loss", "grad_norm")
    log = {name: sums[name] / updates if updates else math.nan for name in names}
    log["explained_variance"] = math.nan
    if has_critic:
        of_critic = data.old_values, data.returns, data.mask
        log["explained_variance"] = explained_variance(*of_critic)
    else:
        log["value_loss"] = math.nan
    return log | {"first_log_ratio": first_log_ratio or 0.0, "updates": updates}


@contextlib.contextmanager
def undone(policy, stage: str, iteration: int):
    """An iteration that ends with a number that is not finite leaves the policy as it entered."""
    good = copy.deepcopy(policy.state_dict())
    try:
        yield
    except FloatingPointError as error:
        policy.load_state_dict(good)
        raise FloatingPointError(f"{stage}: {error} at iteration {iteration}") from None
