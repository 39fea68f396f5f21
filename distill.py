"""Dual-level preference distillation (DPD): a large teacher corrects a small student, by responses and by single tokens.

    query -> sample_positive (the teacher) and sample_negative (the frozen SFT student)
          -> preference_filter: "ensure positive >> negative" -> training data
          -> student logits and teacher logits on both responses -> joint_loss -> update of the student

    L_DPO = -log sigmoid(positive score - negative score),  score(y) = beta [log pi_S(y|x) - log pi_ref(y|x)]
    L_pos = mean_t KL(pi_T || pi_S) over the tokens of the positive
    L_neg = mean_t KL(pi_T || pi_S) over the tokens of the negative
    L     = a_dpo L_DPO + a_pos L_pos + a_neg L_neg  [+ L_pos on rehearsal rows]

The figure and the three terms are those of the Nanbeige4-3B report (2512.06266, section 3.3). It publishes no equation, so
these are OUR reconstruction: the KL's direction (forward: d KL(T||S)/d z = p_S - p_T lowers what the student is too sure of
and raises what it under-rates, which is what the text describes), its mean over tokens, the weights, beta 0.1, the frozen
SFT student as reference, the temperatures (pi_T is the teacher at temperature 0.5, both to sample from and to distil: what it
means, not its slips), the filter's rules, and rehearsal: teacher samples in every batch that went through no pair filter,
though a verifier found them right where there is one. The filter keeps only what the student gets
wrong, and a student that sees nothing else forgets what it could do.

Left out: teachers with another vocabulary (refused), logits kept on disk (they are computed a micro-batch at a time).

    python distill.py                 distils the tiny teacher into the tiny student, evaluated before and after

Watch: `kl_positive` and `kl_negative` fall; `positive_logprob` and `negative_logprob` are logged apart, because the margin
also grows when both fall; `dpo` starts at ln 2 = 0.693. The counts say how many queries the filter dropped, and why.
"""

import copy
import itertools
import math
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data import world
from data.files import formats, writing
from data.files.checkpoints import digest, given_teacher, key_of_run, once, tokenizer_of
from data.files.writing import write_csv
from data.runtime.command import command, common_flags, out_folder
from data.runtime.decoding import generate
from data.runtime.devices import autocast, micro_batches, parallel, progress, seed_of, start, summed
from data.runtime.evaluation import evaluate, sampled_rows, scored, table_head, table_line
from data.runtime.rows import Row, pad_rows
from data.runtime.sizes import sized
from data.world import chat as world_chat
from data.world import judge as world_judge
from dpo import Pair, dpo_loss, reference_logprobs, sequence_logprobs
from model import GPT, Optimizers, learning_rate_scale
from sft import starting_model, supervised_positions


@dataclass(frozen=True)
class Settings:
    steps: int = 700
    rows: int = 8  # pairs a batch
    rehearsal_rows: int = 8  # teacher samples a batch, not wrong where a verifier can tell; on them KL(T||S) alone, weight 1
    muon_lr: float | None = 0.006  # block matrices; at SFT's 0.01 what the student knew is overwritten
    adam_lr: float = 0.003  # the rest
    beta: float = 0.1
    dpo_coef: float = 0.1  # a_dpo; at 1 it goes on pushing the negative down long after the student has left it, and what it knew goes too
    pos_coef: float = 1.0  # a_pos
    neg_coef: float = 0.3  # a_neg; with 1 samples lose 6 to 9 points: what follows a first mistake keeps the student unsure
    direction: str = "forward"  # KL(T||S); or "reverse" KL(S||T), or "jsd"
    temperature: float = 1.0  # of both distributions inside the KL; the loss is multiplied by its square
    queries: int = 6400  # the student is short of data, so twice the queries are worth more than more steps on fewer
    teacher_temperature: float = 0.5  # of its samples and of the distribution that is distilled: what it means, not its slips
    student_temperature: float = 1.0  # a negative should be what the student really does
    negatives: int = 1  # student samples a query; of several the likeliest wrong one is taken, a near miss, which gained nothing here
    margin: float = 1.0  # points of the annotator's liking (0 to 5) between positive and negative, where no verifier decides
    max_new: int = 64  # tokens of a response
    warmup: int = 10
    micro_pairs: int = 64  # pairs of one forward; a larger batch is accumulated


# ---- the losses ----

def token_divergence(student_logits: Tensor, teacher_logits: Tensor, direction: str = "forward", temperature: float = 1.0,
                     jsd_beta: float = 0.5) -> Tensor:
    """Divergence of the student from the teacher over the full vocabulary, in nats, (M,) for logits (M, V).

    "forward" KL(T||S), "reverse" KL(S||T), "jsd" b KL(T||M) + (1-b) KL(S||M) with M = bT + (1-b)S (GKD, 2306.13649, eq. 1),
    times temperature^2, which keeps the gradient's size (Hinton et al., 1503.02531). Raises ValueError for another direction.
    """
    student, teacher = (F.log_softmax(logits.float() / temperature, dim=-1) for logits in (student_logits, teacher_logits))

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (p.exp() * (p - q)).sum(-1)

    if direction == "forward":
        divergence = kl(teacher, student)
    elif direction == "reverse":
        divergence = kl(student, teacher)
    elif direction == "jsd":
        # log M from the two logs, so that a probability of 0 stays finite
        b = torch.tensor(jsd_beta, dtype=student.dtype, device=student.device)
        mixture = torch.logaddexp(teacher + b.log(), student + (1 - b).log())
        divergence = b * kl(teacher, mixture) + (1 - b) * kl(student, mixture)
    else:
        raise ValueError(f"direction is {direction!r}; there is forward, reverse and jsd")
    return divergence * temperature ** 2


class Side(NamedTuple):
    """One side of a batch of P pairs: the M response tokens of all its rows, laid end to end.

    student_logits, teacher_logits (M, V); tokens (M,); pair (M,), the pair that each token belongs to; reference_logps (P,).
    """

    student_logits: Tensor
    teacher_logits: Tensor
    tokens: Tensor
    pair: Tensor
    reference_logps: Tensor

    def student_logps(self) -> Tensor:
        """log pi_S(y|x), (P,): sums over the response's tokens."""
        picked = self.student_logits.float().log_softmax(-1).gather(1, self.tokens[:, None])[:, 0]
        return torch.zeros_like(self.reference_logps, dtype=picked.dtype).index_add(0, self.pair, picked)


class Joint(NamedTuple):
    """Scalars `loss`, `dpo`, `positive_kl`, `negative_kl`, and by pair (P,) the two scores beta [log pi_S - log pi_ref]."""

    loss: Tensor
    dpo: Tensor
    positive_kl: Tensor
    negative_kl: Tensor
    positive_score: Tensor
    negative_score: Tensor


def joint_loss(positive: Side, negative: Side, *, beta: float = 0.1, dpo_coef: float = 1.0, pos_coef: float = 1.0, neg_coef: float = 1.0,
               direction: str = "forward", temperature: float = 1.0, pairs: int | None = None, positive_tokens: int | None = None,
               negative_tokens: int | None = None) -> Joint:
    """L_DPO + L_pos + L_neg of a batch of pairs (our reconstruction of 2512.06266, section 3.3).

    `pairs`, `positive_tokens` and `negative_tokens` are the counts of the whole optimizer batch when this is only a part of
    it: the parts' losses then add up to the batch's.
    """
    losses, positive_score, negative_score = dpo_loss(positive.student_logps(), negative.student_logps(), positive.reference_logps,
                                                      negative.reference_logps, beta=beta)
    dpo = losses.sum() / (pairs or len(losses))
    positive_kl, negative_kl = (
        token_divergence(side.student_logits, side.teacher_logits, direction, temperature).sum() / (count or len(side.tokens))
        for side, count in ((positive, positive_tokens), (negative, negative_tokens)))
    loss = dpo_coef * dpo + pos_coef * positive_kl + neg_coef * negative_kl
    return Joint(loss, dpo.detach(), positive_kl.detach(), negative_kl.detach(), positive_score, negative_score)


# ---- the training data ----

def queries(seed: int, count: int) -> list[world.Task]:
    """Prompts without demonstrations, every domain that can be checked in equal parts."""
    return world.draw_tasks(world.generator(seed, "distill"), ("math", "code", "stem", "agent", "chat"), count)


def sample_positive(teacher: GPT, tokenizer, tasks: list, temperature: float, seed: int, max_new: int = 64) -> tuple[list[Row], list[float | None]]:
    """One response of the teacher to each task, and its score: 1 or 0 by the verifier, the truth divided by 5 for chat."""
    return sample(teacher, tokenizer, tasks, 1, temperature, max_new, seed_of(seed, "positive"))


def sample_negative(student: GPT, tokenizer, tasks: list, temperature: float, n: int, seed: int,
                    max_new: int = 64) -> tuple[list[Row], list[float | None]]:
    """n responses of the frozen SFT student to each task, prompt-major, and their scores."""
    return sample(student, tokenizer, tasks, n, temperature, max_new, seed_of(seed, "negative"))


def sample(model, tokenizer, tasks, n, temperature, max_new, seed) -> tuple[list[Row], list[float | None]]:
    prompts = [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(model, tokenizer, prompts, n=n, max_new=max_new, temperature=temperature, seed=seed, run_tool=world.run_tool)
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    return sampled_rows(prompts, samples), scored([task for task in tasks for _ in range(n)], replies)


def preference_filter(domain: str, positive: float | None, negatives: list[float | None], margin: float) -> list[int] | str:
    """Ensure positive >> negative: the negatives that may stand against the positive, or the reason why there is none.

    `positive` and `negatives` say how good the responses are. With a verifier (all domains but chat) that is 1 or 0: the positive
    must be right and a negative wrong. For chat it is the annotator's liking, 0 to 5, and must lie `margin` or more apart.
    None could not be found (code execution is off).
    """
    if positive is None or None in negatives:
        return "not checked"
    if domain == "chat":
        return [k for k, liking in enumerate(negatives) if positive - liking >= margin] or "margin too small"
    if positive != 1:
        return "positive wrong"
    return [k for k, right in enumerate(negatives) if right == 0] or "negative right"


def preference_data(teacher: GPT, student: GPT, tokenizer, settings: Settings, *, seed: int, device, tasks: list | None = None
                    ) -> tuple[list[Pair], list[tuple[str, Row]], list[dict], Counter]:
    """(pairs, rehearsal rows with their domain, records for the JSONL, how many queries were kept or dropped for which reason). `tasks`
    are queries that a verifier can check, in place of the tiny world's."""
    world_only = tasks is None
    if world_only:
        tasks = queries(seed, settings.queries)
    else:
        tasks = random.Random(seed_of(seed, "queries")).sample(tasks, min(len(tasks), settings.queries))
    rng = world.generator(seed, "distill annotator")
    positives, positive_truth = sample_positive(teacher, tokenizer, tasks, settings.teacher_temperature, seed, settings.max_new)
    # nothing can stand against a wrong positive, so the student is not asked there
    asked = [i for i, task in enumerate(tasks) if task.domain == "chat" or positive_truth[i] == 1]
    if not asked:
        return [], [], [], Counter(f"{task.domain}: {'not checked' if truth is None else 'positive wrong'}" for task, truth in zip(tasks, positive_truth))
    negatives, negative_truth = sample_negative(student, tokenizer, [tasks[i] for i in asked], settings.student_temperature, settings.negatives, seed,
                                                settings.max_new)
    likelihood = row_means(student, tokenizer, negatives, device).tolist() if settings.negatives > 1 else [0.0] * len(negatives)
    n = settings.negatives
    groups = {i: range(k * n, (k + 1) * n) for k, i in enumerate(asked)}  # query -> its rows in negatives
    pairs, records, rehearsal, counts = [], [], [], Counter()
    for i, task in enumerate(tasks):
        group = groups.get(i, ())
        positive, negatives_here = positive_truth[i], [negative_truth[k] for k in group]
        if task.domain == "chat":
            rows = [positives[i], *(negatives[k] for k in group)]
            positive, *negatives_here = (world_chat.annotate(5 * truth, rng, row[0][-1] == tokenizer.end_id)
                                         for row, truth in zip(rows, (positive, *negatives_here)))
        allowed = preference_filter(task.domain, positive, negatives_here, settings.margin)
        if not isinstance(allowed, str):
            allowed = [k for k in allowed if negatives[group[k]] != positives[i]] or "identical"
        counts[f"{task.domain}: {allowed if isinstance(allowed, str) else 'kept'}"] += 1
        if i in groups and positives[i][0][-1] == tokenizer.end_id:
            rehearsal.append((task.domain, positives[i]))
        if isinstance(allowed, str):
            continue
        near = max(allowed, key=lambda k: likelihood[group[k]])  # the mistake that the student is most sure of
        pairs.append((positives[i], negatives[group[near]]))
        texts = [tokenizer.shown(row[0][row[1].index(True):]) for row in pairs[-1]]
        records.append({"domain": task.domain, "prompt": task.prompt, "positive": texts[0], "negative": texts[1],
                        "positive_score": positive, "negative_score": negatives_here[near]})
    if world_only:
        rehearsal += [("other", row) for row in other_skills(teacher, tokenizer, settings, seed)]
    return pairs, rehearsal, records, counts


def row_means(model, tokenizer, rows: list[Row], device) -> Tensor:
    """Mean log-probability of a response token, (N,)."""
    with torch.no_grad():
        sums = torch.cat([sequence_logprobs(model, tokenizer, rows[i:i + 128], device) for i in range(0, len(rows), 128)])
    return sums / torch.tensor([max(1, sum(mask)) for _, mask in rows], device=sums.device)


def kept_rehearsal(path: Path, chat: bool, student: str | None = None) -> list[Row]:
    """The teacher's samples that `distill` kept: what the student learned last, and what a later stage would forget first.

    Preference learning leaves the teacher's chat behind, so there they are taken without `chat`. `student`: the digest of the weights
    that distill ended with. Raises ValueError without the file, or where it was kept for another student.
    """
    remedy = "put it back, or delete distill.student.pt beside it and give --force"
    if not path.exists():
        raise ValueError(f"{path}: is missing, and this stage rehearses it; {remedy}")
    records = formats.read_jsonl(path)
    if student is not None and [record.get("student") for record in records[:1]] != [student]:
        raise ValueError(f"{path}: was kept by another run of distill than the one that this run goes on from; {remedy}")
    return [(record["ids"], [bool(on) for on in record["own"]]) for record in records[1:] if chat or record["domain"] != "chat"]


def other_skills(teacher, tokenizer, settings: Settings, seed: int) -> list[Row]:
    """Teacher samples of judging and asking, for rehearsal alone: no verifier says which of them are good."""
    rng = world.generator(seed, "distill other skills")
    messages = [world_judge.judge_demonstration(rng)["messages"][:1] for _ in range(settings.queries // 5)]
    messages += [world_judge.new_prompt_demonstration(rng)["messages"][:1] for _ in range(settings.queries // 20)]
    prompts = [tokenizer.prompt(turns) for turns in messages]
    samples = generate(teacher, tokenizer, prompts, seed=seed_of(seed, "other skills"), temperature=settings.teacher_temperature)
    return [row for row in sampled_rows(prompts, samples) if row[0][-1] == tokenizer.end_id]


# ---- the loop ----

def check_vocabulary(student: GPT, teacher: GPT) -> None:
    if student.config.vocab_size != teacher.config.vocab_size:
        raise ValueError(f"the teacher has a vocabulary of {teacher.config.vocab_size} tokens and the student of {student.config.vocab_size}; "
                         "token-level distillation needs the same tokenizer")


def both_logits(student: GPT, teacher: GPT, tokenizer, rows: list[Row], teacher_temperature: float, device) -> tuple[Tensor, ...]:
    """(student logits (M, V), teacher logits (M, V), tokens (M,), row (M,)) at the M response tokens of rows, row by row."""
    ids = pad_rows([row[0] for row in rows], tokenizer.pad_id, device=device)  # (N, S)
    mask = pad_rows([row[1] for row in rows], False, device=device)  # (N, S)
    select, tokens = supervised_positions(ids, mask)
    with autocast(device):
        student_logits = student(ids, select=select)
        with torch.no_grad():
            teacher_logits = teacher(ids, select=select).float() / teacher_temperature
    return student_logits, teacher_logits, tokens, select.nonzero()[:, 0]


def sides_of(logits: tuple[Tensor, ...], pairs: int, reference_positive: Tensor, reference_negative: Tensor) -> tuple[Side, Side, slice]:
    """The positives' and the negatives' part of `both_logits` of rows = positives, negatives, others; and where the others lie."""
    row = logits[3]
    first, second = (int((row < limit).sum()) for limit in (pairs, 2 * pairs))
    positive = Side(*(x[:first] for x in logits), reference_positive)
    negative = Side(*(x[first:second] for x in logits[:3]), row[first:second] - pairs, reference_negative)
    return positive, negative, slice(second, None)


def train(student: GPT, teacher: GPT, tokenizer, pairs: list[Pair], rehearsal: list[Row], settings: Settings, *, seed: int,
          stage: str = "distill", device=torch.device("cpu"), log: Path | None = None) -> dict:
    """`settings.steps` updates of the student; as it enters it is the reference, frozen like the teacher.

    Returns the means of the last 20 log lines, and {"tokens", "seconds"}. Raises ValueError for a teacher with another
    vocabulary or without pairs, and FloatingPointError when the loss is not finite.
    """
    check_vocabulary(student, teacher)
    if not pairs:
        raise ValueError(f"{stage}: the preference filter left no pair; give more queries, or a teacher that is better than the student")
    rng = random.Random(seed_of(seed, stage, "batches"))
    teacher.eval().requires_grad_(False)
    reference = copy.deepcopy(student).eval().requires_grad_(False)
    reference_positive, reference_negative = reference_logprobs(reference, tokenizer, pairs, device, settings.micro_pairs)
    network, optimizers = parallel(student), Optimizers(student, settings.adam_lr, settings.muon_lr)
    order, spare, lines, tokens, began = [], [], [], 0, time.perf_counter()
    student.train()
    bar = progress(range(settings.steps), stage)
    for step in bar:
        while len(order) < settings.rows:
            order += rng.sample(range(len(pairs)), len(pairs))
        batch, order = order[:settings.rows], order[settings.rows:]
        positive_count, negative_count = (sum(sum(pairs[k][side][1]) for k in batch) for side in (0, 1))
        spared = []
        if rehearsal:
            while len(spare) < settings.rehearsal_rows:
                spare += rng.sample(rehearsal, len(rehearsal))
            spared, spare = spare[:settings.rehearsal_rows], spare[settings.rehearsal_rows:]
        spared_count = sum(sum(mask) for _, mask in spared)
        sums = dict.fromkeys(("loss", "dpo", "kl_positive", "kl_negative", "kl_rehearsal", "margin", "accuracy", "positive_logprob",
                              "negative_logprob"), 0.0)
        for both in micro_batches(list(itertools.zip_longest(batch, spared)), settings.micro_pairs, network):
            part, others = [k for k, _ in both if k is not None], [row for _, row in both if row is not None]
            # positives, negatives and rehearsal in one forward of each model
            logits = both_logits(network, teacher, tokenizer, [pairs[k][0] for k in part] + [pairs[k][1] for k in part] + others,
                                 settings.teacher_temperature, device)
            positive, negative, rest = sides_of(logits, len(part), reference_positive[part], reference_negative[part])
            joint = joint_loss(positive, negative, beta=settings.beta, dpo_coef=settings.dpo_coef, pos_coef=settings.pos_coef,
                               neg_coef=settings.neg_coef, direction=settings.direction, temperature=settings.temperature,
                               pairs=len(batch), positive_tokens=positive_count, negative_tokens=negative_count)
            rehearsed = token_divergence(logits[0][rest], logits[1][rest], settings.direction, settings.temperature).sum() / max(1, spared_count)
            (joint.loss + rehearsed).backward()
            margins = joint.positive_score - joint.negative_score
            for name, value in (("loss", joint.loss.detach()), ("dpo", joint.dpo), ("kl_positive", joint.positive_kl),
                                ("kl_negative", joint.negative_kl), ("kl_rehearsal", rehearsed.detach()),
                                ("margin", margins.sum() / len(batch)), ("accuracy", (margins > 0).sum() / len(batch)),
                                ("positive_logprob", (joint.positive_score / settings.beta + reference_positive[part]).sum() / len(batch)),
                                ("negative_logprob", (joint.negative_score / settings.beta + reference_negative[part]).sum() / len(batch))):
                sums[name] += float(value)
        tokens += sum(len(row[0]) for k in batch for row in pairs[k]) + sum(len(row[0]) for row in spared)
        sums = summed(sums)
        if not math.isfinite(sums["loss"]):
            raise FloatingPointError(f"{stage}: the loss is {sums['loss']} at step {step}")
        scale = learning_rate_scale(step, settings.steps, settings.warmup, 0.4)
        norm = optimizers.step(scale)
        lines.append({"step": step, "grad_norm": norm, "lr_scale": scale, "tokens": tokens, **sums})
        if step % 10 == 0:
            bar.set_postfix_str(f"loss {sums['loss']:.3f}, dpo {sums['dpo']:.3f}, kl {sums['kl_positive']:.3f} {sums['kl_negative']:.3f}")
    student.eval()
    if log is not None:
        write_csv(log, lines)
    recent = lines[-20:]
    return {name: sum(line[name] for line in recent) / len(recent) for name in lines[-1] if name not in ("step", "tokens", "lr_scale")} | {
        "tokens": tokens, "seconds": time.perf_counter() - began}


def distill(student: GPT, teacher: GPT, tokenizer, settings: Settings, *, seed: int, device=torch.device("cpu"), tasks: list | None = None,
            data: Path | None = None, kept: Path | None = None, log: Path | None = None) -> dict:
    """Stage 3: samples, filter, update. The pairs are kept in the JSONL `data`, the teacher's samples in `kept` for the rehearsal of
    later stages (`kept_rehearsal`); returns what `train` does and the counts."""
    began = time.perf_counter()
    check_vocabulary(student, teacher)  # before anything is sampled
    pairs, rehearsal, records, counts = preference_data(teacher, student, tokenizer, settings, seed=seed, device=device, tasks=tasks)
    if data is not None:
        writing.write_jsonl(data, records)
    rows = [row for _, row in rehearsal]
    measured = train(student, teacher, tokenizer, pairs, rows, settings, seed=seed, device=device, log=log)
    if kept is not None:
        records = [{"domain": domain, "ids": ids, "own": [int(on) for on in mask]} for domain, (ids, mask) in rehearsal]
        writing.write_jsonl(kept, [{"student": digest(student)}, *records])
    return measured | {"pairs": len(pairs), "queries": sum(counts.values()), "rehearsal": len(rehearsal),
                       "sampling_seconds": time.perf_counter() - began - measured["seconds"], "filter": dict(sorted(counts.items()))}


# ---- alone ----

def main() -> None:
    parser = common_flags(__doc__, "runs/distill, runs/distill-smoke with --smoke")
    parser.add_argument("--init", default=None, help="the student's checkpoint; default: a run's overall_sft, or SFT is done first")
    parser.add_argument("--teacher", default=None,
                        help="the teacher's checkpoint, or `train`; default: at size tiny data/teacher.tiny.pt, at other sizes train")
    parser.add_argument("--steps", type=int, default=None, help=f"updates; default: {Settings.steps} at size tiny")
    parser.add_argument("--direction", choices=("forward", "reverse", "jsd"), default=Settings.direction, help="of the token-level KL")
    parser.add_argument("--dpo-coef", type=float, default=Settings.dpo_coef, help="weight of L_DPO")
    parser.add_argument("--pos-coef", type=float, default=Settings.pos_coef, help="weight of L_pos")
    parser.add_argument("--neg-coef", type=float, default=Settings.neg_coef, help="weight of L_neg")
    parser.add_argument("--rehearsal-rows", type=int, default=None,
                        help=f"teacher samples a batch that need no pair, 0 shows the forgetting; default: {Settings.rehearsal_rows} at size tiny")
    parser.add_argument("--eval-n", type=int, default=128, help="held-out prompts a domain")
    command(parser, run, "stopped; a training that was finished is kept, and the same command goes on after it")


def run(args) -> None:
    device = start(args)
    if args.data:
        raise ValueError("--data: distillation needs a verifier for its filter, so it runs on the tiny world's queries")
    tokenizer = tokenizer_of(args.init)
    student = starting_model(args, "student", tokenizer, device)
    path = args.teacher or given_teacher(args.size, tokenizer)
    teacher = starting_model(args, "teacher", tokenizer, device, None if path == "train" else path)
    given = {name: getattr(args, name) for name in ("steps", "rehearsal_rows") if getattr(args, name) is not None}
    settings = Settings(direction=args.direction, dpo_coef=args.dpo_coef, pos_coef=args.pos_coef, neg_coef=args.neg_coef)
    settings = sized(settings, "distill", args.size, args.smoke, **given)
    eval_n = 4 if args.smoke else args.eval_n
    out = out_folder(args.out or f"runs/distill{'-smoke' if args.smoke else ''}")
    print(table_head())
    print(table_line("teacher", evaluate(teacher, tokenizer, eval_n, seed=args.seed)), flush=True)
    print(table_line("student before", evaluate(student, tokenizer, eval_n, seed=args.seed)), flush=True)
    student, measured = once(out / "distill.pt", key_of_run(args, tokenizer, device, weights=student, teacher_weights=teacher), lambda: student,
                        tokenizer, "distill",
                        lambda: (student, distill(student, teacher, tokenizer, settings, seed=args.seed, device=device,
                                                  data=out / "distill_pairs.jsonl", log=out / "distill.csv")), settings=asdict(settings))
    print(table_line("student after", evaluate(student, tokenizer, eval_n, seed=args.seed)))
    print(f"{measured['pairs']} pairs of {measured['queries']} queries: " + ", ".join(f"{reason} {count}" for reason, count in measured["filter"].items()))
    print(f"{measured['sampling_seconds']:.0f} s of sampling, {measured['seconds']:.0f} s of training; checkpoint {out / 'distill.pt'}, "
          f"pairs {out / 'distill_pairs.jsonl'}, log {out / 'distill.csv'}")


if __name__ == "__main__":
    main()
