"""Direct preference optimization: learn from pairs of responses, without a reward model.

    pairs (prompt, chosen, rejected) -> log pi and log ref of both -> loss -> update of the policy

    h      = [log pi(y_w|x) - log ref(y_w|x)] - [log pi(y_l|x) - log ref(y_l|x)]
    L_DPO  = -log sigmoid(beta h)                         (Rafailov et al., 2305.18290, eq. 7)

x is the prompt, y_w the chosen and y_l the rejected response. pi is the policy that is trained, ref
the frozen model that it started from. beta (log pi - log ref) is a response's implicit reward.

Details that matter:

1. log pi(y|x) is the SUM over the response's tokens, end mark included (eq. 7): the mean (item 4)
   is no response's log-probability. Not compared.
2. The gradient is -beta sigmoid(-beta h) [d log pi(y_w) - d log pi(y_l)] (2305.18290, section 4):
   its weight, 1/2 at first, falls as beta h rises. `--show` prints it: 0.43 at 0.3.
3. With three times the learning rate AND without rehearsal (SFT rows in every batch; ours, and off
   in this command) self_reward.py lost correct answers and gained nothing (tests/experiments).
4. Variants in `dpo_loss`, off by default and not measured: label smoothing (cDPO), IPO,
   length-normalised DPO, a likelihood term on the chosen response (iterative RPO).

Left out: losses without a reference (SimPO, ORPO), corrections for flipped labels (robust DPO), and
dropout, with which policy and reference would differ before the first step.

    python dpo.py                 DPO of the tiny SFT model, on pairs of its own responses
    python dpo.py --data FILE     on your own pairs (formats: data/files/formats.py)
    python dpo.py --show          the loss of one made-up pair, number by number

Watch (columns of dpo.csv):
    loss             starts at ln 2 = 0.693 (ipo: 25), where pi and ref are equal, and falls
    margin           beta h, the difference of the implicit rewards; starts at 0 and rises
    accuracy         share of margins above 0; step 0 has none
    chosen_logprob   can FALL, only less than `rejected_logprob`: the loss sees nothing but the
                     difference (likelihood displacement)
    kl, length       nats (below 5) and tokens a sampled response, every 20 steps
"""

import copy
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data import world
from data.runtime.alone import Alone
from data.runtime.command import STOPPED, chapter_flags, command
from data.runtime.decoding import generate
from data.runtime.devices import autocast, micro_batches, parallel, seed_of, summed
from data.runtime.evaluation import sampled_rows
from data.runtime.log import Log
from data.runtime.pairs import Pair, file_pairs, tenth_held_out
from data.runtime.room import fitting, forwards
from data.runtime.rows import Passes, Row, pad_batch, supervised_count, tokens_of
from data.runtime.told import dpo_result, dpo_summary, held_out_pairs
from data.world import chat as world_chat
from model import GPT, Optimizers, learning_rate_scale, token_logprobs
from sft import rehearse, starting_model


@dataclass(frozen=True)
class Settings:
    steps: int = 40
    rows: int = 32  # in pairs
    lr: float = 1e-4  # AdamW on all weights, a fiftieth of SFT's
    beta: float = 0.1  # how dear it is to leave the reference; the paper's value
    kind: str = "sigmoid"  # or "ipo"
    label_smoothing: float = 0.0  # cDPO: the share of labels that are thought to be flipped
    length_normalised: bool = False
    nll_coef: float = 0.0  # RPO: keeps the chosen log-probability from falling
    rehearsal_rows: int = 16  # SFT rows a batch, if given: their gradient is added (ours)
    rehearsal_coef: float = 1.0
    warmup: int = 5
    micro_pairs: int = 64  # pairs of one forward; a larger batch is accumulated
    probe_every: int = 20  # steps between samples of the policy for `kl` and `length`


# ---- the loss ----


def sequence_logprobs(model, tokenizer, rows: list[Row], device) -> Tensor:
    """log pi(response | prompt), (N,): the sum over the masked tokens of each row."""
    ids, mask = pad_batch(rows, tokenizer.pad_id, device)  # (N, S) each
    with autocast(device):
        return token_logprobs(model, ids, mask).sum(1)


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    kind: str = "sigmoid",
    label_smoothing: float = 0.0,
    chosen_lengths: Tensor | None = None,
    rejected_lengths: Tensor | None = None,
    length_normalised: bool = False,
    nll_coef: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(losses, chosen_rewards, rejected_rewards), each (N,), of four (N,) summed log-probabilities.

    "sigmoid" with label_smoothing e: -(1-e) log sigmoid(beta h) - e log sigmoid(-beta h)
    (2305.18290, eq. 7; cDPO). "ipo": (h - 1/(2 beta))^2 (2310.12036, eq. 17).
    length_normalised divides each side's log-ratio by its response's length in tokens (Tulu 3,
    2411.15124). nll_coef adds -nll_coef log pi(y_w) / |y_w| (iterative RPO, 2404.19733, eq. 1).
    The rewards carry no gradient. Raises ValueError for arguments that do not fit together.
    """
    chosen_ratio = policy_chosen_logps - reference_chosen_logps  # (N,)
    rejected_ratio = policy_rejected_logps - reference_rejected_logps  # (N,)
    if (length_normalised or nll_coef) and (chosen_lengths is None or rejected_lengths is None):
        raise ValueError("length_normalised and nll_coef need the responses' lengths")
    if length_normalised:
        chosen_ratio = chosen_ratio / chosen_lengths
        rejected_ratio = rejected_ratio / rejected_lengths
    h = chosen_ratio - rejected_ratio  # (N,)
    if kind == "sigmoid":
        right = -(1 - label_smoothing) * F.logsigmoid(beta * h)
        losses = right - label_smoothing * F.logsigmoid(-beta * h)
    elif kind == "ipo":
        if label_smoothing or beta <= 0:
            raise ValueError("ipo has no label smoothing and needs a beta above 0")
        losses = (h - 1 / (2 * beta)) ** 2
    else:
        raise ValueError(f"kind is {kind!r}; there is sigmoid and ipo")
    if nll_coef:
        losses = losses - nll_coef * policy_chosen_logps / chosen_lengths
    return losses, (beta * chosen_ratio).detach(), (beta * rejected_ratio).detach()


# ---- the loop ----


@torch.no_grad()
def logprobs_of(model, tokenizer, rows: list[Row], device, size: int) -> Tensor:
    """`sequence_logprobs` (N,) of many rows, `size` of them a forward."""
    micros = forwards(model, rows, size)
    return torch.cat([sequence_logprobs(model, tokenizer, micro, device) for micro in micros])


def reference_logprobs(model, tokenizer, pairs, device, size: int = 64) -> tuple[Tensor, Tensor]:
    """(chosen, rejected), (P,) each: log pi of any model's pairs, `size` pairs a forward."""
    rows = [side for pair in pairs for side in pair]
    both = logprobs_of(model, tokenizer, rows, device, 2 * size).view(-1, 2)  # (P, 2)
    return both[:, 0], both[:, 1]


def probe(
    model: GPT, reference: GPT, tokenizer, prompts: list[list[int]], seed: int, size: int = 64
) -> dict:
    """KL to the reference (nats) and length (tokens), a response of what the policy now writes.

    The KL is the mean over its own samples of log pi(y) - log ref(y), which can fall below 0 by
    chance. `size`: rows of a forward.
    """
    device = next(model.parameters()).device
    rows = sampled_rows(prompts, generate(model, tokenizer, prompts, seed=seed))
    logps = logprobs_of(model, tokenizer, rows, device, size)  # (N,)
    kl = logps - logprobs_of(reference, tokenizer, rows, device, size)  # (N,)
    return {"kl": float(kl.mean()), "length": supervised_count(rows) / len(rows)}


def train(
    model: GPT,
    tokenizer,
    pairs: list[Pair],
    settings: Settings,
    *,
    seed: int,
    stage: str = "dpo",
    device=torch.device("cpu"),
    rehearsal: list[Row] = (),
    log: Path | None = None,
) -> dict:
    """`settings.steps` updates on the pairs, in whole shuffled passes.

    The model as it enters is the reference. Returns the last step's log line and {"tokens",
    "seconds"}. Raises ValueError without pairs, and FloatingPointError when the loss is not finite:
    the weights are then those of the step before.
    """
    if not pairs:
        raise ValueError(f"{stage}: there is no pair to train on")
    rng = random.Random(seed_of(seed, stage, "batches"))
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    size = settings.micro_pairs
    ref_chosen, ref_rejected = reference_logprobs(reference, tokenizer, pairs, device, size)  # (P,)
    prompts = [ids[: mask.index(True)] for (ids, mask), _ in pairs[:64]]  # of the probe
    network = parallel(model)
    optimizers = Optimizers(model, settings.lr)
    passes = Passes(len(pairs), rng)
    history = Log(stage, log)
    tokens = 0
    model.train()
    for step in history.steps(settings.steps):
        batch = passes.take(settings.rows)
        both = [side for k in batch for side in pairs[k]]
        tokens += tokens_of(both)
        if rehearsal and settings.rehearsal_rows:
            rows = rng.sample(list(rehearsal), min(settings.rehearsal_rows, len(rehearsal)))
            rehearse(network, tokenizer, rows, settings.rehearsal_coef, device, 2 * size)
            tokens += tokens_of(rows)
        sums = defaultdict(float)
        for micro in micro_batches(batch, fitting(model, both, size, each=2), network):
            rows = [side for k in micro for side in pairs[k]]
            logps = sequence_logprobs(network, tokenizer, rows, device).view(-1, 2)  # (pairs, 2)
            lengths = torch.tensor([sum(mask) for _, mask in rows], device=device).view(-1, 2)
            losses, chosen_rewards, rejected_rewards = dpo_loss(
                logps[:, 0],
                logps[:, 1],
                ref_chosen[micro],
                ref_rejected[micro],
                beta=settings.beta,
                kind=settings.kind,
                label_smoothing=settings.label_smoothing,
                chosen_lengths=lengths[:, 0],
                rejected_lengths=lengths[:, 1],
                length_normalised=settings.length_normalised,
                nll_coef=settings.nll_coef,
            )
            loss = losses.sum() / len(batch)
            loss.backward()
            sums["loss"] += float(loss.detach())
            margins = chosen_rewards - rejected_rewards
            measured = {"margin": margins, "accuracy": margins > 0}
            measured |= {"chosen_logprob": logps[:, 0], "rejected_logprob": logps[:, 1]}
            for name, values in measured.items():
                sums[name] += float(values.detach().float().sum()) / len(batch)
        sums = summed(sums)
        loss = sums.pop("loss")
        history.check(loss, step)
        scale = learning_rate_scale(step, settings.steps, settings.warmup)
        norm = optimizers.step(scale)
        line = {"step": step, "loss": loss, "grad_norm": norm, "lr_scale": scale, "tokens": tokens}
        line |= sums
        if step % settings.probe_every == settings.probe_every - 1 or step == settings.steps - 1:
            probe_seed = seed_of(seed, stage, "probe")
            line |= probe(model, reference, tokenizer, prompts, probe_seed, 2 * size)
            model.train()
        told = f"loss {loss:.3f}, margin {sums['margin']:.3f}, accuracy {sums['accuracy']:.2f}"
        history.line(line, told)
    model.eval()
    history.write()
    return history.lines[-1] | {"tokens": tokens, "seconds": history.seconds()}


# ---- pairs ----


def annotated_pairs(model: GPT, tokenizer, *, seed: int, prompts: int, n: int = 4) -> list[Pair]:
    """n responses of the model to each of `prompts` chat prompts, liked by the simulated annotator.

    What it likes most is chosen, what it likes least rejected. A tie of the two is left out.
    """
    rng = world.generator(seed, "dpo")
    tasks = world.draw_tasks(rng, ("chat",), prompts)
    ids = [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(model, tokenizer, ids, n=n, seed=seed_of(seed, "dpo", "responses"))
    rows = sampled_rows(ids, samples)
    replies = [tokenizer.read_reply(tokens) for tokens in samples.lists()]
    scores = world.score_replies([task for task in tasks for _ in range(n)], replies)
    ended = [tokens[-1] == tokenizer.end_id for tokens, _ in rows]
    liked = [world_chat.annotate(5 * score, rng, end) for score, end in zip(scores, ended)]
    pairs = []
    for i in range(0, len(rows), n):
        worst, *_, best = sorted(range(i, i + n), key=lambda k: liked[k])
        tie = liked[best] - liked[worst] < world_chat.TIE_THRESHOLD
        if not tie and rows[best] != rows[worst]:
            pairs.append((rows[best], rows[worst]))
    return pairs


# ---- alone ----


def show() -> None:
    """The loss of one made-up pair, number by number."""
    beta = Settings.beta
    policy = [[-1.0, -0.5], [-2.0, -1.0, -1.0]]  # log pi of each token: of the chosen, the rejected
    reference = [[-2.0, -1.5], [-1.5, -1.0, -0.5]]
    logps = torch.tensor([sum(tokens) for tokens in policy], requires_grad=True)  # (2,)
    ref_logps = torch.tensor([sum(tokens) for tokens in reference])  # (2,)
    loss, chosen_reward, rejected_reward = dpo_loss(*logps[:, None], *ref_logps[:, None], beta=beta)
    loss.sum().backward()
    chosen, rejected = (logps - ref_logps).tolist()
    h = chosen - rejected
    weight = torch.sigmoid(torch.tensor(-beta * h))
    for name, k in (("chosen", 0), ("rejected", 1)):
        print(f"{name:8} log pi  of its tokens {policy[k]}, sum {logps[k].item():.3f}")
        print(f"{'':8} log ref of its tokens {reference[k]}, sum {ref_logps[k].item():.3f}")
    print(f"log-ratios log pi - log ref: chosen {chosen:.3f}, rejected {rejected:.3f}")
    print(f"rewards, {beta} times these: {chosen_reward.item():.3f}, {rejected_reward.item():.3f}")
    print(f"h = {chosen:.3f} - ({rejected:.3f}) = {h:.3f}, beta h = {beta * h:.3f}")
    print(f"loss = -log sigmoid(beta h) = {loss.item():.4f}")
    print(f"the gradient's weight, sigmoid(-beta h) = {weight.item():.4f}")
    slopes = logps.grad.tolist()
    print(f"d loss / d log pi, -+ beta times the weight: {slopes[0]:.5f}, {slopes[1]:.5f}")


def main() -> None:
    parser = chapter_flags(__doc__, "dpo")
    told = f"updates; default: {Settings.steps} at size tiny"
    parser.add_argument("--steps", type=int, default=None, help=told)
    told = f"AdamW's learning rate; default: {Settings.lr} at size tiny"
    parser.add_argument("--lr", type=float, default=None, help=told)
    told = "strength of the reference"
    parser.add_argument("--beta", type=float, default=Settings.beta, help=told)
    told = "form of the loss"
    parser.add_argument("--kind", choices=("sigmoid", "ipo"), default=Settings.kind, help=told)
    told = "likelihood term on the chosen response (RPO)"
    parser.add_argument("--nll-coef", type=float, default=Settings.nll_coef, help=told)
    command(parser, run, STOPPED)


def run(args) -> None:
    if args.show:
        return show()
    alone = Alone(args, "dpo")
    tokenizer, device = alone.tokenizer, alone.device
    settings = alone.settings(Settings(), "steps", "lr", "beta", "kind", "nll_coef")
    records, dropped = alone.records("preference")
    model = starting_model(args, "student", tokenizer, device)
    out = alone.folder()
    if records is not None:
        pairs, held_out = file_pairs(alone, records, dropped, model.config.context)
    else:
        made = annotated_pairs(model, tokenizer, seed=args.seed, prompts=32 if args.smoke else 320)
        pairs, held_out = tenth_held_out(made)
        alone.scores("before", model)
    print(f"{len(pairs)} pairs to train on, {len(held_out)} held out")
    before = reference_logprobs(model, tokenizer, held_out, device, settings.micro_pairs)

    def training() -> tuple[GPT, dict]:
        how = {"seed": args.seed, "device": device, "log": out / "dpo.csv"}
        return model, train(model, tokenizer, pairs, settings, **how)

    model, measured = alone.once(out / "dpo.pt", model, settings, training)
    after = reference_logprobs(model, tokenizer, held_out, device, settings.micro_pairs)
    if records is None:
        alone.scores("after", model)
    losses, chosen, rejected = dpo_loss(*after, *before, beta=settings.beta, kind=settings.kind)
    result = held_out_pairs(losses, chosen - rejected, before, after)
    alone.ends(f"{dpo_result(result)}\n{dpo_summary(measured, out)}", held_out=result, **measured)


if __name__ == "__main__":
    main()
