"""Direct preference optimization: learn from pairs of responses without a reward model and without sampling.

    h      = [log pi(y_w|x) - log ref(y_w|x)] - [log pi(y_l|x) - log ref(y_l|x)]
    L_DPO  = -log sigmoid(beta h)                                                  (Rafailov et al., 2305.18290, eq. 7)

pi is the policy that is trained, ref the frozen model that it started from, y_w the chosen and y_l the rejected response.
log pi(y|x) is the sum over the response's tokens, end mark included: with the mean instead, a long response would count
as much as a short one and beta would mean something else. beta (log pi - log ref) is the implicit reward. Variants in the
same few lines: label smoothing (cDPO), IPO, length-normalised DPO, and an added likelihood term on the chosen response
(RPO).

Left out: losses without a reference (SimPO, ORPO), unbiased corrections for flipped labels (robust DPO), dropout.

    python dpo.py                     DPO of the tiny SFT model on pairs that the simulated annotator made, evaluated before and after
    python dpo.py --data FILE         on your own pairs (formats: data/files/formats.py)

Watch: `loss` starts at ln 2 = 0.693, where policy and reference are equal. `margin` and `accuracy` rise. `chosen_logprob`
often FALLS, only less than `rejected_logprob`: the loss sees nothing but their difference (likelihood displacement).
`kl` and `length` are measured on what the policy itself now writes: when they run away, the steps are too large.
"""

import copy
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data import world
from data.files import formats
from data.files.checkpoints import key_of_run, once, tokenizer_of
from data.files.writing import write_csv
from data.runtime.command import command, common_flags, out_folder
from data.runtime.decoding import generate
from data.runtime.devices import autocast, micro_batches, parallel, progress, seed_of, start, summed
from data.runtime.evaluation import evaluate, sampled_rows, table_head, table_line
from data.runtime.rows import Row, check_prompts, pad_rows, ranking_rows, split, supervised_count
from data.runtime.sizes import sized
from data.world import chat as world_chat
from model import GPT, Optimizers, learning_rate_scale, token_logprobs
from sft import rehearse, starting_model

Pair = tuple[Row, Row]  # chosen and rejected: the same prompt and two responses, each as ids and the mask of response tokens


@dataclass(frozen=True)
class Settings:
    steps: int = 40
    rows: int = 32  # pairs a batch
    lr: float = 1e-4  # AdamW; three times as much forgets what the pairs do not show
    beta: float = 0.1  # how dear it is to leave the reference; the paper's value
    kind: str = "sigmoid"  # or "ipo"
    label_smoothing: float = 0.0  # cDPO: the share of labels that are thought to be flipped
    length_normalised: bool = False
    nll_coef: float = 0.0  # RPO: keeps the chosen log-probability from falling
    rehearsal_rows: int = 16  # rows of SFT data in every batch, where such rows are given (ours)
    rehearsal_coef: float = 1.0
    warmup: int = 5
    micro_pairs: int = 64  # pairs of one forward; a larger batch is accumulated
    probe_every: int = 20  # steps between samples of the policy for `kl` and `length`


# ---- the loss ----

def sequence_logprobs(model, tokenizer, rows: list[Row], device) -> Tensor:
    """log pi(response | prompt), (N,): the sum over the masked tokens of each row."""
    ids = pad_rows([row[0] for row in rows], tokenizer.pad_id, device=device)  # (N, S)
    mask = pad_rows([row[1] for row in rows], False, device=device)  # (N, S)
    with autocast(device):
        return token_logprobs(model, ids, mask).sum(1)


def dpo_loss(policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, reference_chosen_logps: Tensor, reference_rejected_logps: Tensor, *,
             beta: float = 0.1, kind: str = "sigmoid", label_smoothing: float = 0.0, chosen_lengths: Tensor | None = None,
             rejected_lengths: Tensor | None = None, length_normalised: bool = False, nll_coef: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """(losses, chosen_rewards, rejected_rewards), each (N,), of four (N,) summed log-probabilities.

    "sigmoid" with label_smoothing e: -(1-e) log sigmoid(beta h) - e log sigmoid(-beta h) (2305.18290, eq. 7; cDPO).
    "ipo": (h - 1/(2 beta))^2 (2310.12036, eq. 17). length_normalised divides each side's log-ratio by its response's length
    in tokens (Tulu 3, 2411.15124); nll_coef adds -nll_coef log pi(y_w) / |y_w| (iterative RPO, 2404.19733, eq. 1).
    The rewards carry no gradient. Raises ValueError for an unknown kind, or lengths that are missing where they are needed.
    """
    chosen_ratio, rejected_ratio = policy_chosen_logps - reference_chosen_logps, policy_rejected_logps - reference_rejected_logps
    if (length_normalised or nll_coef) and (chosen_lengths is None or rejected_lengths is None):
        raise ValueError("length_normalised and nll_coef need the responses' lengths")
    if length_normalised:
        chosen_ratio, rejected_ratio = chosen_ratio / chosen_lengths, rejected_ratio / rejected_lengths
    h = chosen_ratio - rejected_ratio
    if kind == "sigmoid":
        losses = -(1 - label_smoothing) * F.logsigmoid(beta * h) - label_smoothing * F.logsigmoid(-beta * h)
    elif kind == "ipo":
        if label_smoothing or beta == 0:
            raise ValueError("ipo has no label smoothing and needs a beta above 0")
        losses = (h - 1 / (2 * beta)) ** 2
    else:
        raise ValueError(f"kind is {kind!r}; there is sigmoid and ipo")
    if nll_coef:
        losses = losses - nll_coef * policy_chosen_logps / chosen_lengths
    return losses, (beta * chosen_ratio).detach(), (beta * rejected_ratio).detach()


# ---- the loop ----

@torch.no_grad()
def reference_logprobs(model, tokenizer, pairs: list[Pair], device, size: int = 64) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities (P,) of the chosen and of the rejected responses, computed once before training."""
    parts = [sequence_logprobs(model, tokenizer, [side for pair in pairs[i:i + size] for side in pair], device) for i in range(0, len(pairs), size)]
    both = torch.cat(parts).view(-1, 2)
    return both[:, 0], both[:, 1]


@torch.no_grad()
def probe(model: GPT, reference: GPT, tokenizer, prompts: list[list[int]], seed: int, device, size: int = 64) -> dict:
    """KL to the reference a response (nats) and the length (tokens) of what the policy now writes.

    The KL is the mean over its own samples of log pi(y) - log ref(y): unbiased, and below 0 now and then by chance. `size`: rows of a
    forward.
    """
    rows = sampled_rows(prompts, generate(model, tokenizer, prompts, seed=seed))
    parts = [rows[i:i + size] for i in range(0, len(rows), size)]
    kl = torch.cat([sequence_logprobs(model, tokenizer, part, device) - sequence_logprobs(reference, tokenizer, part, device)
                    for part in parts])
    return {"kl": float(kl.mean()), "length": sum(map(supervised_count, [[row] for row in rows])) / len(rows)}


def train(model: GPT, tokenizer, pairs: list[Pair], settings: Settings, *, seed: int, stage: str = "dpo", device=torch.device("cpu"),
          rehearsal: list[Row] = (), log: Path | None = None) -> dict:
    """`settings.steps` updates on the pairs, in whole shuffled passes; the model as it enters is the reference.

    Returns the last step's log line and {"tokens", "seconds"}. Raises ValueError without pairs, and FloatingPointError when
    the loss is not finite: the weights are then those of the step before.
    """
    if not pairs:
        raise ValueError(f"{stage}: there is no pair to train on")
    rng = random.Random(seed_of(seed, stage, "batches"))
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    reference_chosen, reference_rejected = reference_logprobs(reference, tokenizer, pairs, device, settings.micro_pairs)
    prompts = [chosen[0][:chosen[1].index(True)] for chosen, _ in pairs[:64]]
    network, optimizers = parallel(model), Optimizers(model, settings.lr)
    order, lines, tokens, began = [], [], 0, time.perf_counter()
    model.train()
    bar = progress(range(settings.steps), stage)
    for step in bar:
        while len(order) < settings.rows:
            order += rng.sample(range(len(pairs)), len(pairs))
        batch, order = order[:settings.rows], order[settings.rows:]
        total, sums = 0.0, dict.fromkeys(("margin", "accuracy", "chosen_logprob", "rejected_logprob"), 0.0)
        if rehearsal and settings.rehearsal_rows:
            rows = rng.sample(list(rehearsal), min(settings.rehearsal_rows, len(rehearsal)))
            rehearse(network, tokenizer, rows, settings.rehearsal_coef, device, 2 * settings.micro_pairs)
            tokens += sum(len(row[0]) for row in rows)
        for part in micro_batches(batch, settings.micro_pairs, network):
            rows = [side for k in part for side in pairs[k]]
            logps = sequence_logprobs(network, tokenizer, rows, device).view(-1, 2)  # (pairs, chosen and rejected)
            lengths = torch.tensor([sum(mask) for _, mask in rows], device=device).view(-1, 2)
            losses, chosen_rewards, rejected_rewards = dpo_loss(
                logps[:, 0], logps[:, 1], reference_chosen[part], reference_rejected[part], beta=settings.beta, kind=settings.kind,
                label_smoothing=settings.label_smoothing, chosen_lengths=lengths[:, 0], rejected_lengths=lengths[:, 1],
                length_normalised=settings.length_normalised, nll_coef=settings.nll_coef)
            loss = losses.sum() / len(batch)
            loss.backward()
            total += float(loss.detach())
            margins = chosen_rewards - rejected_rewards
            for name, values in (("margin", margins), ("accuracy", margins > 0), ("chosen_logprob", logps[:, 0]), ("rejected_logprob", logps[:, 1])):
                sums[name] += float(values.detach().float().sum()) / len(batch)
        tokens += sum(len(side[0]) for k in batch for side in pairs[k])
        total, *means = summed({"loss": total, **sums}).values()
        sums = dict(zip(sums, means))
        if not math.isfinite(total):
            raise FloatingPointError(f"{stage}: the loss is {total} at step {step}")
        scale = learning_rate_scale(step, settings.steps, settings.warmup)
        norm = optimizers.step(scale)
        line = {"step": step, "loss": total, "grad_norm": norm, "lr_scale": scale, "tokens": tokens, **sums}
        if step % settings.probe_every == settings.probe_every - 1 or step == settings.steps - 1:
            line |= probe(model, reference, tokenizer, prompts, seed_of(seed, stage, "probe"), device, 2 * settings.micro_pairs)
            model.train()
        lines.append(line)
        bar.set_postfix_str(f"loss {total:.3f}, margin {sums['margin']:.3f}, accuracy {sums['accuracy']:.2f}")
    model.eval()
    if log is not None:
        write_csv(log, lines)
    return lines[-1] | {"tokens": tokens, "seconds": time.perf_counter() - began}


# ---- pairs ----

def annotated_pairs(model: GPT, tokenizer, *, seed: int, prompts: int, n: int = 4) -> list[Pair]:
    """n responses of the model to each of `prompts` chat prompts; the one that the simulated annotator likes most against
    the one that it likes least. A pair that the annotator calls a tie is left out."""
    rng = world.generator(seed, "dpo")
    tasks = world.draw_tasks(rng, ("chat",), prompts)
    ids = [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(model, tokenizer, ids, n=n, seed=seed_of(seed, "dpo", "responses"))
    rows, pairs = sampled_rows(ids, samples), []
    scores = world.score_replies([task for task in tasks for _ in range(n)], [tokenizer.read_reply(tokens) for tokens in samples.lists()])
    liked = [world_chat.annotate(5 * score, rng, row[0][-1] == tokenizer.end_id) for score, row in zip(scores, rows)]
    for i in range(0, len(rows), n):
        group = sorted(range(i, i + n), key=lambda k: liked[k])
        if liked[group[-1]] - liked[group[0]] >= world_chat.TIE_THRESHOLD and rows[group[-1]] != rows[group[0]]:
            pairs.append((rows[group[-1]], rows[group[0]]))
    return pairs


# ---- alone ----

def main() -> None:
    parser = common_flags(__doc__, "runs/dpo, runs/dpo-smoke with --smoke")
    parser.add_argument("--init", default=None, help="checkpoint to start from; default: a run's overall_sft, or SFT is done first")
    parser.add_argument("--steps", type=int, default=None, help=f"updates; default: {Settings.steps} at size tiny")
    parser.add_argument("--lr", type=float, default=None, help=f"AdamW's learning rate; default: {Settings.lr} at size tiny")
    parser.add_argument("--beta", type=float, default=Settings.beta, help="strength of the reference")
    parser.add_argument("--kind", choices=("sigmoid", "ipo"), default=Settings.kind, help="form of the loss")
    parser.add_argument("--nll-coef", type=float, default=Settings.nll_coef, help="likelihood term on the chosen response (RPO)")
    parser.add_argument("--eval-n", type=int, default=128, help="held-out prompts a domain")
    command(parser, run, "stopped; a training that was finished is kept, and the same command goes on after it")


def run(args) -> None:
    device = start(args)
    tokenizer = tokenizer_of(args.init)
    records, dropped, notes = None, {}, []
    if args.data:
        records, dropped, notes = formats.read_records(args.data, "preference")
    print("".join(f"{note}\n" for note in notes), end="")
    model = starting_model(args, "student", tokenizer, device)
    out = out_folder(args.out or f"runs/dpo{'-smoke' if args.smoke else ''}")
    given = {name: getattr(args, name) for name in ("steps", "lr") if getattr(args, name) is not None}
    settings = Settings(beta=args.beta, kind=args.kind, nll_coef=args.nll_coef)
    settings = sized(settings, "dpo", args.size, args.smoke, **given)
    eval_n = 4 if args.smoke else args.eval_n
    if records is not None:
        rankings = map(formats.as_ranking, records)
        kept, left_out = ranking_rows(tokenizer, rankings, model.config.context)
        if dropped := dropped | left_out:
            print(formats.dropped_line(dropped))
        if not kept:
            raise ValueError(f"{args.data}: no pair is left to train on{formats.because(dropped)}; "
                             "give more data")
        openings = [formats.opening(record["prompt"]) for record, _ in kept]
        check_prompts(args.data, openings, dropped)
        pairs, held_out = split(args.data, [tuple(rows) for _, rows in kept], openings, 10)
    else:
        made = annotated_pairs(model, tokenizer, seed=args.seed, prompts=32 if args.smoke else 320)
        if len(made) < 2:
            raise ValueError("the model's own responses make fewer than two pairs: it says the same or breaks off everywhere")
        held_out, pairs = made[:len(made) // 10 + 1], made[len(made) // 10 + 1:]
        print(table_head())
        print(table_line("before", evaluate(model, tokenizer, eval_n, seed=args.seed)), flush=True)
    print(f"{len(pairs)} pairs to train on, {len(held_out)} held out")
    before = reference_logprobs(model, tokenizer, held_out, device, settings.micro_pairs)
    model, measured = once(out / "dpo.pt", key_of_run(args, tokenizer, device, weights=model), lambda: model, tokenizer, "dpo",
                      lambda: (model, train(model, tokenizer, pairs, settings, seed=args.seed, device=device, log=out / "dpo.csv")),
                      settings=asdict(settings))
    after = reference_logprobs(model, tokenizer, held_out, device, settings.micro_pairs)
    if records is None:
        print(table_line("after", evaluate(model, tokenizer, eval_n, seed=args.seed)))
    losses, chosen, rejected = dpo_loss(*after, *before, beta=settings.beta, kind=settings.kind)
    print(f"held-out pairs: loss {float(losses.mean()):.3f}, accuracy {float((chosen > rejected).float().mean()):.2f}, margin "
          f"{float((chosen - rejected).mean()):.3f}; log-probability chosen {float(before[0].mean()):.1f} -> {float(after[0].mean()):.1f}, "
          f"rejected {float(before[1].mean()):.1f} -> {float(after[1].mean()):.1f}")
    print(f"loss {measured['loss']:.3f}, KL {measured['kl']:.2f} nats a response, {measured['seconds']:.0f} s; checkpoint {out / 'dpo.pt'}, log {out / 'dpo.csv'}")


if __name__ == "__main__":
    main()
