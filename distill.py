"""Dual-level preference distillation (DPD): by whole responses (L_DPO) and by tokens (the KLs).

    query -> sample_positive (the teacher), sample_negative (the frozen SFT student)
          -> preference_filter, "ensure positive >> negative" -> preference_data
          -> student logits and teacher logits on both -> joint_loss -> update of the student

    L_DPO = -log sigmoid(score(y+) - score(y-)),  score(y) = beta [log pi_S(y|x) - log pi_ref(y|x)]
    L_pos = mean_t KL(pi_T || pi_S) over the tokens of y+;  L_neg the same over those of y-
    L     = a_dpo L_DPO + a_pos L_pos + a_neg L_neg  [+ mean_t KL(pi_T || pi_S) on rehearsal rows]

x is the query, y+ the teacher's response, y- the student's; pi_S the student, pi_T the teacher,
pi_ref the student as it entered. Figure and terms are those of the Nanbeige4-3B report (2512.06266,
section 3.3), which has no equation: 1 to 5 are OUR reconstruction. Numbers are points against this
default, mean of math, code, STEM, agent, greedy or sampled (tests/experiments; * older world).

Details that matter:

1. The KL is forward; its slope in the student's logits, p_S - p_T, lowers what S is too sure of and
   raises the rest. Reverse KL: greedy -0.3, sampled +5.5 (three seeds).*
2. a_dpo, a_pos, a_neg are 0.1, 1, 0.3. All at 1: -3.9, sampled -5.4. L_neg gains 1.6 but costs 3
   sampled: tokens after a negative's first mistake teach doubt.
3. pi_T is softmax(teacher logits / 0.5), to sample y+ and in every KL: its choice, not its doubt.
   At temperature 1 distilling took 4 to 7 sampled points from the student.*
4. Rehearsal: KL on teacher samples, paired or not, without those found wrong; some are of judging.
   16 pairs and none, for 8 and 8: -2.6, and the score in judging falls from 77 to 20.
5. A KL is a mean over the batch's tokens; a score sums a response's. Pairs: teacher right, student
   wrong, in chat liked better by `margin`. Not measured. beta is 0.1; 0.5 was tried.*
6. Gains, all with rehearsal: SFT on y+ 19.3, L_pos 20.0, L 20.8 (+0.8 +-1.6), L_DPO at 1 3.7.

Left out: teachers with another vocabulary (refused), logits kept on disk, on-policy negatives.

    python distill.py           distils the tiny teacher into the tiny student
    python distill.py --show    the joint loss of one made-up pair, number by number

Watch (columns of distill.csv): `kl_positive`, `kl_negative` and `kl_rehearsal` fall; `dpo` starts
at ln 2 = 0.693 and falls. `margin` can grow while `positive_logprob` and `negative_logprob` fall.
"""

import copy
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.runtime import queries as asking
from data.runtime.alone import Alone
from data.runtime.command import STOPPED, chapter_flags, command
from data.runtime.devices import autocast, parallel, seed_of, summed
from data.runtime.log import Log
from data.runtime.queries import queries
from data.runtime.rows import Passes, Row, pad_batch, supervised_count, tokens_of
from data.runtime.told import distill_joint, distill_side, distill_step, distill_summary
from dpo import Pair, dpo_loss, logprobs_of, reference_logprobs
from model import GPT, Optimizers, learning_rate_scale
from sft import starting_model, supervised_positions

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    steps: int = 700
    rows: int = 8  # pairs a batch: 16 rows
    rehearsal_rows: int = 8  # teacher samples a batch; on them KL(T||S) alone, weight 1
    muon_lr: float | None = 0.006  # block matrices; at SFT's 0.01 what it knew is overwritten
    adam_lr: float = 0.003  # the rest
    beta: float = 0.1
    dpo_coef: float = 0.1  # a_dpo; with all three at 1 the gain is 3.9 points smaller
    pos_coef: float = 1.0  # a_pos
    neg_coef: float = 0.3  # a_neg; at 1: sampled 62.0 in place of 68.8
    direction: str = "forward"  # KL(T||S); or "reverse" KL(S||T), or "jsd"
    temperature: float = 1.0  # divides both in the KL, after teacher_temperature; loss * its square
    queries: int = 6400  # twice the queries are worth more than twice the steps
    teacher_temperature: float = 0.5  # of its samples and of what is distilled
    student_temperature: float = 1.0  # a negative should be what the student really does
    negatives: int = 1  # samples a query; y- is the likeliest wrong one (more gained nothing)
    margin: float = 1.0  # chat alone: least gap in the annotator's points, of five
    max_new: int = 64  # tokens of a response
    warmup: int = 10
    micro_pairs: int = 64  # pairs of one forward; a larger batch is accumulated


# ---- the losses ----


def token_divergence(
    student: Tensor, teacher: Tensor, direction="forward", temperature=1.0, jsd_beta=0.5
) -> Tensor:
    """Divergence of the student from the teacher in nats, (M,), for their logits (M, V).

    "forward" KL(T||S), "reverse" KL(S||T), "jsd" b KL(T||M) + (1-b) KL(S||M) with M = bT + (1-b)S
    (GKD, 2306.13649, eq. 1). Times temperature^2, which keeps the gradient's size (Hinton et al.,
    1503.02531). Raises ValueError for another direction."""

    def kl(p: Tensor, q: Tensor) -> Tensor:  # KL(p || q), (M,), of log-probabilities (M, V)
        return (p.exp() * (p - q)).sum(-1)

    student = F.log_softmax(student.float() / temperature, dim=-1)  # (M, V), logs from here on
    teacher = F.log_softmax(teacher.float() / temperature, dim=-1)  # (M, V)
    if direction == "forward":
        divergence = kl(teacher, student)
    elif direction == "reverse":
        divergence = kl(student, teacher)
    elif direction == "jsd":
        b = torch.tensor(jsd_beta, dtype=student.dtype, device=student.device)
        mixture = torch.logaddexp(teacher + b.log(), student + (1 - b).log())  # finite at p = 0
        divergence = b * kl(teacher, mixture) + (1 - b) * kl(student, mixture)
    else:
        raise ValueError(f"direction is {direction!r}; there is forward, reverse and jsd")
    return divergence * temperature**2


class Side(NamedTuple):
    """The positives, or the negatives, of P pairs: their M response tokens laid end to end."""

    student_logits: Tensor  # (M, V)
    teacher_logits: Tensor  # (M, V), already divided by teacher_temperature
    tokens: Tensor  # (M,)
    pair: Tensor  # (M,), the pair that each token belongs to
    reference_logps: Tensor  # (P,), log pi_ref(y|x)

    def student_logps(self) -> Tensor:
        """log pi_S(y|x), (P,): sums over the response's tokens."""
        picked = self.student_logits.float().log_softmax(-1).gather(1, self.tokens[:, None])[:, 0]
        zeros = torch.zeros_like(self.reference_logps, dtype=picked.dtype)
        return zeros.index_add(0, self.pair, picked)


class Joint(NamedTuple):
    loss: Tensor  # the only one that carries a gradient
    dpo: Tensor
    positive_kl: Tensor
    negative_kl: Tensor
    positive_score: Tensor  # (P,), score(y+), without gradient
    negative_score: Tensor


def joint_loss(positive: Side, negative: Side, settings: Settings, counts=None) -> Joint:
    """L of a batch of pairs (our reconstruction of 2512.06266, section 3.3).

    `counts`: pairs, positives' tokens and negatives' tokens of the whole optimizer batch, where
    this is a micro-batch of it. The losses of all micro-batches then add up to the batch's."""
    references = positive.reference_logps, negative.reference_logps  # (P,) each
    logps = positive.student_logps(), negative.student_logps()
    n_pairs, *n_tokens = counts or (len(references[0]), len(positive.tokens), len(negative.tokens))
    losses, *scores = dpo_loss(*logps, *references, beta=settings.beta)  # (P,) each
    dpo = losses.sum() / n_pairs
    kls = []
    for side, count in zip((positive, negative), n_tokens):
        divergence = token_divergence(*side[:2], settings.direction, settings.temperature)  # (M,)
        kls.append(divergence.sum() / count)
    loss = settings.dpo_coef * dpo + settings.pos_coef * kls[0] + settings.neg_coef * kls[1]
    return Joint(loss, dpo.detach(), kls[0].detach(), kls[1].detach(), *scores)


# ---- the training data ----


def sample_positive(teacher: GPT, tokenizer, tasks: list, settings: Settings, seed: int) -> tuple:
    """(rows, truths): a response of the teacher to each task. A truth is 1 or 0 by the verifier,
    for chat the rubric's score divided by 5, and None where nothing checks it."""
    how = {"temperature": settings.teacher_temperature, "max_new": settings.max_new}
    return asking.answers(teacher, tokenizer, tasks, seed=seed_of(seed, "positive"), **how)


def sample_negative(student: GPT, tokenizer, tasks: list, settings: Settings, seed: int) -> tuple:
    """The same of the student before training, `settings.negatives` a task, side by side."""
    how = {"temperature": settings.student_temperature, "max_new": settings.max_new}
    how |= {"n": settings.negatives, "seed": seed_of(seed, "negative")}
    return asking.answers(student, tokenizer, tasks, **how)


def preference_filter(domain: str, positive, negatives: list, margin: float) -> list[int] | str:
    """Ensure positive >> negative: which negatives may stand against it, or why there is none.

    Scores, not truths: with a verifier 1 (right) against 0 (wrong); for chat the simulated
    annotator's noisy points of five, `margin` or more apart. None: nothing could check it."""
    if positive is None or None in negatives:
        return "not checked"
    if domain == "chat":
        allowed = [k for k, liking in enumerate(negatives) if positive - liking >= margin]
        return allowed or "margin too small"
    if positive != 1:
        return "positive wrong"
    return [k for k, right in enumerate(negatives) if right == 0] or "negative right"


def preference_data(teacher, student, tokenizer, settings, *, seed, device=CPU, tasks=None):
    """(pairs, rehearsal rows with their domain, records of the pairs, how many queries were kept or
    dropped and why). `tasks`: queries that a verifier can check, in place of the tiny world's."""
    asked = queries(seed, settings.queries, tasks)
    positive = sample_positive(teacher, tokenizer, asked, settings, seed)
    right = asking.worth_asking(asked, positive[1])  # indices: y+ is right, or it is chat
    negative = sample_negative(student, tokenizer, [asked[i] for i in right], settings, seed)
    logprobs = partial(logprobs_of, student, tokenizer, device=device, size=128)
    found = asking.both_sides(tokenizer, asked, right, (positive, negative), seed, logprobs)
    pairs, records, counts = asking.pairs_of(tokenizer, found, settings.margin, preference_filter)
    rehearsal = asking.rehearsed(tokenizer, found)
    if tasks is None:
        rehearsal += asking.other_skills(teacher, tokenizer, settings, seed)
    return pairs, rehearsal, records, counts


# ---- the loop ----


def both_logits(student, teacher, tokenizer, rows, teacher_temperature: float, device) -> tuple:
    """(student logits (M, V), teacher logits (M, V), tokens (M,), row (M,)): the M tokens that a
    model wrote itself, no tool's, and the logits one position before each."""
    ids, mask = pad_batch(rows, tokenizer.pad_id, device)  # (N, S) each
    select, tokens = supervised_positions(ids, mask)  # (N, S), (M,)
    with autocast(device):
        student_logits = student(ids, select=select)  # (M, V)
        with torch.no_grad():
            teacher_logits = teacher(ids, select=select).float() / teacher_temperature  # (M, V)
    return student_logits, teacher_logits, tokens, select.nonzero()[:, 0]


def train(
    student: GPT,
    teacher: GPT,
    tokenizer,
    pairs: list[Pair],
    rehearsal: list[Row],
    settings: Settings,
    *,
    seed: int,
    stage: str = "distill",
    device=CPU,
    log=None,
) -> dict:
    """`settings.steps` updates of the student; a frozen copy of it as it enters is the reference.
    Returns the means of the last 20 log lines, and {"tokens", "seconds"}. Raises
    ValueError (two vocabularies, no pair) and FloatingPointError (the loss is not finite)."""
    asking.check(stage, student, teacher, pairs)
    rng = random.Random(seed_of(seed, stage, "batches"))
    teacher.eval().requires_grad_(False)
    reference = copy.deepcopy(student).eval().requires_grad_(False)
    logps = reference_logprobs(reference, tokenizer, pairs, device, settings.micro_pairs)
    references = torch.stack(logps)  # (2, pairs)
    network = parallel(student)
    optimizers = Optimizers(student, settings.adam_lr, settings.muon_lr)
    passes = Passes(len(pairs), rng)
    spare = Passes(len(rehearsal), rng)
    history = Log(stage, log)
    tokens = 0
    student.train()
    for step in history.steps(settings.steps):
        batch = passes.take(settings.rows)
        rehearsed = [rehearsal[k] for k in spare.take(settings.rehearsal_rows)] if rehearsal else []
        positives, negatives = zip(*[pairs[k] for k in batch])
        counts = len(batch), supervised_count(positives), supervised_count(negatives)
        tokens += tokens_of([*positives, *negatives, *rehearsed])
        sums = {}
        for micro, others in asking.micros(batch, rehearsed, settings.micro_pairs, network):
            rows = [pairs[k][0] for k in micro] + [pairs[k][1] for k in micro] + others
            how = rows, settings.teacher_temperature, device
            logits = both_logits(network, teacher, tokenizer, *how)
            ref = references[:, micro]  # (2, pairs of the micro-batch)
            positive, negative, rest = asking.cut(logits, ref)
            joint = joint_loss(Side(*positive), Side(*negative), settings, counts)
            divergence = token_divergence(*rest, settings.direction, settings.temperature)  # (M,)
            kl_rehearsal = divergence.sum() / max(1, supervised_count(rehearsed))
            (joint.loss + kl_rehearsal).backward()
            asking.add_terms(sums, joint, kl_rehearsal, ref, settings.beta, len(batch))
        sums = summed(sums)
        history.check(sums["loss"], step)
        scale = learning_rate_scale(step, settings.steps, settings.warmup, constant=0.4)
        norm = optimizers.step(scale)
        line = {"step": step, "grad_norm": norm, "lr_scale": scale, "tokens": tokens} | sums
        history.line(line, distill_step(sums) if step % 10 == 0 else "")
    student.eval()
    history.write()
    means = {name: history.mean(name, 20) for name in ("grad_norm", *sums)}
    return means | {"tokens": tokens, "seconds": history.seconds()}


def distill(
    student, teacher, tokenizer, settings, *, tasks=None, data=None, kept=None, log=None, **how
) -> dict:
    """Stage 3: samples, filter, update. The JSONL `data` keeps the pairs, `kept` the teacher's
    samples for later stages. Returns what `train` does and the counts. `how`: seed, device."""
    began = time.perf_counter()
    asking.check_vocabulary(student, teacher)  # before anything is sampled
    made = preference_data(teacher, student, tokenizer, settings, tasks=tasks, **how)
    pairs, rehearsal, records, counts = made
    asking.keep_pairs(data, records)
    rows = [row for _, row in rehearsal]
    measured = train(student, teacher, tokenizer, pairs, rows, settings, log=log, **how)
    asking.keep_rehearsal(kept, student, rehearsal)
    sampling = time.perf_counter() - began - measured["seconds"]
    return measured | asking.counted(pairs, rehearsal, counts, sampling)


# ---- alone ----


def show() -> None:
    """The joint loss of one made-up pair over a vocabulary of four words, term by term."""
    words = ["yes", "no", "hm", "<end>"]
    first = [[1.0, 1.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]]  # logits of student and teacher
    yes = [[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 3.0]]  # the same after "yes"
    no = [[0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 1.0, 1.0]]
    sides = []
    for name, said, then, reference in (("positive", 0, yes, -1.6), ("negative", 1, no, -1.2)):
        logits = torch.tensor([first, then])  # (2 tokens, 2 models, 4 words)
        tokens, pair = torch.tensor([said, 3]), torch.tensor([0, 0])
        side = Side(logits[:, 0], logits[:, 1], tokens, pair, torch.tensor([reference]))
        print(distill_side(name, words, side, token_divergence(*side[:2])))
        sides.append(side)
    print(distill_joint(joint_loss(*sides, Settings()), Settings()))


def main() -> None:
    parser = chapter_flags(__doc__, "distill")
    asking.flags(parser, Settings)
    command(parser, run, STOPPED)


def run(args) -> None:
    if args.show:
        return show()
    alone = Alone(args, "distill")
    asking.refuse_files(args)
    student = starting_model(args, "student", alone.tokenizer, alone.device)
    theirs = asking.teacher_path(args, alone.tokenizer)
    teacher = starting_model(args, "teacher", alone.tokenizer, alone.device, theirs)
    settings = alone.settings(Settings(), *asking.FLAGS)
    out = alone.folder()
    alone.scores("teacher", teacher)
    alone.scores("student before", student)

    def training() -> tuple[GPT, dict]:
        how = {"seed": args.seed, "device": alone.device}
        how |= {"data": out / "distill_pairs.jsonl", "log": out / "distill.csv"}
        return student, distill(student, teacher, alone.tokenizer, settings, **how)

    path = out / "distill.pt"
    _, measured = alone.once(path, student, settings, training, teacher_weights=teacher)
    alone.scores("student after", student)
    print(distill_summary(measured, out))


if __name__ == "__main__":
    main()
