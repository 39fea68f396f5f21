"""What surrounds the rollouts of ppo.py: responses with the truth about them, what an iteration
logs, and which prompts can be learned from."""

import contextlib
import copy
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data import world
from data.files.checkpoints import Resume
from data.runtime.decoding import generate
from data.runtime.devices import autocast, in_parts, seed_of
from data.runtime.evaluation import pass_rates, sampled_rows, scored
from data.runtime.log import Log
from data.runtime.measures import explained_variance, mean_of
from data.runtime.rows import Passes, Row, tokens_of


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

    def score(self, robust_reward, settings, device) -> tuple[Tensor, Tensor]:
        """Fills in the scores; (scores, whether a response is kept), (N,) each.

        A score is 0 where the response is masked out. Raises FloatingPointError for one that is not
        finite.
        """
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
        for score in self.scores:
            check_finite(score, "a reward")
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

    def cut(self, micro: list[int], *names: str) -> list[Tensor]:
        """[ids, mask, the named (N, S) tensors] of these rows, as wide as the longest of them."""
        width = max((len(self.rows[k][0]) for k in micro), default=1)
        return [getattr(self, name)[micro, :width] for name in ("ids", "mask", *names)]


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


LOOKED_AT = 64  # responses of a rollout whose entropy, and without a penalty KL, is logged


def looked_at(count: int, device) -> Tensor:
    """At most LOOKED_AT of `count` rows, spread over the prompts, which lie one after the other."""
    return torch.linspace(0, count - 1, min(LOOKED_AT, count), device=device).long()


def reference_logprobs(read, old: Tensor, ids: Tensor, own: Tensor, kl_coef, size) -> Tensor:
    """The reference's log-probabilities of own tokens, (N, S); read(ids, own), `size` rows a time.

    Without a KL penalty they change nothing, so they are read of the rows that are logged alone.
    In the others `old` stands, which is a KL of 0.
    """
    rows = torch.arange(len(ids), device=ids.device) if kl_coef else looked_at(len(ids), ids.device)
    logprobs = old.clone()
    logprobs[rows] = in_parts(read, ids[rows], own[rows], size=size)
    return logprobs


def mean_entropy(model, ids: Tensor, own: Tensor, temperature: float, size: int) -> float:
    """Mean entropy of own tokens, in nats, over the responses that are looked at; `size`: rows of a
    forward."""
    some = looked_at(len(ids), ids.device)

    def entropy(ids: Tensor, own: Tensor) -> Tensor:
        return entropy_of(model, ids, own, temperature)

    with autocast(ids.device):
        entropies = in_parts(entropy, ids[some], own[some], size=size)  # (some, S)
    return float(entropies[own[some]].mean())


def rollout_log(data, responses: Responses, own: Tensor, entropy, settings, kl_coef) -> dict:
    """What an iteration logs of its rollouts. `own` (N, S): all of the model's own tokens."""
    # the first three are means over the same responses, those that are kept
    these = data.kept.nonzero()[:, 0].tolist()
    columns = responses.scores, responses.truth, responses.learned
    reward, true_reward, rm_score = (mean_of([column[k] for k in these]) for column in columns)
    groups = data.scores.view(-1, settings.samples)  # (B, G)
    kept = data.kept.view(-1, settings.samples)
    best = torch.where(kept, groups, -torch.inf).amax(1)
    worst = torch.where(kept, groups, torch.inf).amin(1)
    old = data.old_logprobs
    compared = len(old) if kl_coef else len(looked_at(len(old), old.device))
    sampled = torch.zeros_like(old).masked_scatter(own, responses.logprobs.to(old.device))
    return {
        "reward": reward,
        "true_reward": true_reward,
        "rm_score": rm_score,
        "kl": float((old - data.reference_logprobs).sum() / compared),
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


def frozen(policy):
    """A copy that stays as the policy is now."""
    return copy.deepcopy(policy).eval().requires_grad_(False)


def check_finite(number: float | None, name: str) -> None:
    """Raises FloatingPointError for nan and infinity; None is no number and may be."""
    if number is not None and not math.isfinite(number):
        raise FloatingPointError(f"{name} is not finite")


class Rounds:
    """The rounds of an RL stage: which prompts come, what is logged, where a killed stage goes on.

    rounds = Rounds(stage, seed, tasks, settings, log)
    rounds.go_on(models, optimizers, rehearsal, device)
    for iteration, batch in rounds:
        ...  # rollout, updates
        rounds.log(iteration, scale, data, update)

    `kl_coef` is that of the next rollout, `rng` draws prompts and rehearsal.
    """

    def __init__(self, stage: str, seed: int, tasks: list, settings, log: Path | None):
        self.stage = stage
        self.seed = seed
        self.tasks = tasks
        self.settings = settings
        self.path = log
        self.rng = random.Random(seed_of(seed, stage, "prompts"))
        self.kl_coef = settings.kl_coef
        self.tokens = 0

    def go_on(self, models: tuple, optimizers: dict, rehearsal: list[Row], device) -> None:
        """Takes up what was saved of this training in its middle.

        `models`: (policy, reference, critic, reward model, tokenizer). `optimizers`: {"policy", and
        with a critic "critic"}.
        """
        policy, reference, critic, reward_model, tokenizer = models
        learners = {"policy": policy} if critic is None else {"policy": policy, "critic": critic}
        learners |= {f"{name}_optimizers": one for name, one in optimizers.items()}
        self.resume = Resume(self.path, self.settings.save_every, tokenizer, device, **learners)
        state = self.resume.load(
            self.state() | {"order": [], "lines": []},
            stage=(self.stage, self.seed),
            weights=policy,
            reference=reference,
            reward_model=reward_model,
            settings=self.settings,
            tasks=self.tasks,
            rehearsal=rehearsal,
        )
        self.kl_coef = state["kl_coef"]
        self.tokens = state["tokens"]
        self.rng.setstate(state["rng"])
        self.passes = Passes(len(self.tasks), self.rng, state["order"])
        self.history = Log(self.stage, self.path, state["lines"])

    def adapt(self, next_kl_coef, data: Rollouts) -> None:
        """The KL coefficient of the next rollout, by the KL of this one."""
        goal = self.settings.kl_target, len(data.rows), self.settings.kl_horizon
        self.kl_coef = next_kl_coef(self.kl_coef, data.log["kl"], *goal)

    def state(self) -> dict:
        return {"kl_coef": self.kl_coef, "tokens": self.tokens, "rng": self.rng.getstate()}

    def __iter__(self):
        """(iteration, the prompts of its rollout); saved when the next one is asked for."""
        count = min(self.settings.prompts, len(self.tasks))
        for iteration in self.history.steps(self.settings.iterations, "iteration"):
            yield iteration, [self.tasks[k] for k in self.passes.take(count)]
            lists = {"order": self.passes.order, "lines": self.history.lines}
            self.resume.save(iteration + 1, self.state() | lists)
        self.resume.done()

    def log(self, iteration: int, scale: float, data: Rollouts, update: dict) -> None:
        """A line of the CSV, which is written each time."""
        self.tokens += tokens_of(data.rows)
        line = {"iteration": iteration, "kl_coef": self.kl_coef, "lr_scale": scale}
        line |= {"tokens": self.tokens} | data.log | update
        told = "reward {reward:.3f}, true {true_reward:.3f}, kl {kl:.2f}".format(**line)
        self.history.line(line, told)
        self.history.write()

    def measured(self) -> dict:
        """The last line, and what is of all of them."""
        lines = self.history.lines
        totals = {"tokens": self.tokens, "seconds": self.history.seconds()}
        return lines[-1] | totals | {"first_reward": lines[0]["reward"]}

    @contextlib.contextmanager
    def undone(self, policy, iteration: int):
        """What ends with a number that is not finite leaves the policy as it entered."""
        good = copy.deepcopy(policy.state_dict())
        try:
            yield
        except FloatingPointError as error:
            policy.load_state_dict(good)
            raise FloatingPointError(f"{self.stage}: {error} at iteration {iteration}") from None
