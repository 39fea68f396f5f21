"""What two models say to the queries of distillation, how good it is, and what is kept of it.

The models come as arguments. A score says how good a response is: 1 or 0 by a verifier, for chat
how much the simulated annotator likes it, 0 to 5. It is None where nothing could be found out.
"""

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data import world
from data.files import formats, writing
from data.files.checkpoints import digest, given_teacher
from data.runtime.decoding import generate
from data.runtime.devices import micro_batches, seed_of
from data.runtime.evaluation import sampled_rows, scored
from data.runtime.rows import Row
from data.world import chat as world_chat
from data.world import judge as world_judge


class Query(NamedTuple):
    """One query: the teacher's positive, and the student's negatives, none where it was not asked.

    `likelihoods`: the student's mean log-probability of a token of each negative; 0 where there is
    one negative alone.
    """

    task: object
    positive: Row
    positive_score: float | None
    negatives: list[Row]
    negative_scores: list[float | None]
    likelihoods: list[float]


def check_vocabulary(student, teacher) -> None:
    """Raises ValueError for models with two vocabularies: their logits cannot be compared."""
    small, large = student.config.vocab_size, teacher.config.vocab_size
    if small != large:
        raise ValueError(
            f"the teacher has a vocabulary of {large} tokens and the student of {small}; "
            "token-level distillation needs the same tokenizer"
        )


def check(stage: str, student, teacher, pairs: list) -> None:
    """Raises ValueError where there is nothing to learn: two vocabularies, or no pair."""
    check_vocabulary(student, teacher)
    if not pairs:
        raise ValueError(
            f"{stage}: the preference filter left no pair; give more queries, "
            "or a teacher that is better than the student"
        )


# ---- asking ----


def queries(seed: int, count: int, tasks: list | None = None) -> list:
    """Prompts without demonstrations: of the tiny world, every domain that can be checked in equal
    parts, or `count` of the tasks of somebody's own files, all of them where they are fewer."""
    if tasks is None:
        domains = ("math", "code", "stem", "agent", "chat")
        return world.draw_tasks(world.generator(seed, "distill"), domains, count)
    return random.Random(seed_of(seed, "queries")).sample(tasks, min(len(tasks), count))


def answers(
    model, tokenizer, tasks: list, *, n: int = 1, **how
) -> tuple[list[Row], list[float | None]]:
    """(n responses to each task, prompt-major, the truth about each of them, 0 to 1).

    `how`: what decides the samples, for `generate`.
    """
    if not tasks:
        return [], []
    prompts = [tokenizer.prompt(task.messages) for task in tasks]
    samples = generate(model, tokenizer, prompts, n=n, run_tool=world.run_tool, **how)
    replies = [tokenizer.read_reply(ids) for ids in samples.lists()]
    asked = [task for task in tasks for _ in range(n)]
    return sampled_rows(prompts, samples), scored(asked, replies)


def liked(task, rows: list[Row], truths: list, rng: random.Random, end_id: int) -> list:
    """The scores of responses to a task: the truth, or for chat the annotator's liking."""
    if task.domain != "chat":
        return truths
    ended = [ids[-1] == end_id for ids, _ in rows]
    return [world_chat.annotate(5 * truth, rng, end) for truth, end in zip(truths, ended)]


def worth_asking(tasks: list, truths: list[float | None]) -> list[int]:
    """The tasks that the student is asked: nothing can stand against a wrong positive."""
    return [i for i, task in enumerate(tasks) if task.domain == "chat" or truths[i] == 1]


def row_means(logprobs, rows: list[Row]) -> Tensor:
    """Mean log-probability of a response token, (N,); logprobs(rows) are the sums, (N,)."""
    sums = logprobs(rows)
    return sums / torch.tensor([max(1, sum(mask)) for _, mask in rows], device=sums.device)


def both_sides(
    tokenizer, tasks: list, asked: list[int], said: tuple[tuple, tuple], seed: int, logprobs
) -> list[Query]:
    """The tasks with what the teacher and the student say to each.

    `said`: (rows, truths) of the teacher, and of the student for the tasks in `asked` alone, as
    many for each. logprobs(rows): the student's log-probabilities of responses.
    """
    positive, negative = said
    rng = world.generator(seed, "distill annotator")
    n = len(negative[0]) // max(1, len(asked))
    places = {i: slice(k * n, (k + 1) * n) for k, i in enumerate(asked)}
    likely = row_means(logprobs, negative[0]).tolist() if n > 1 else [0.0] * len(negative[0])
    found = []
    for i, task in enumerate(tasks):
        place = places.get(i, slice(0, 0))
        rows = [positive[0][i], *negative[0][place]]
        truths = [positive[1][i], *negative[1][place]]
        score, *scores = liked(task, rows, truths, rng, tokenizer.end_id)
        found.append(Query(task, rows[0], score, rows[1:], scores, likely[place]))
    return found


# ---- pairs ----


def pairs_of(tokenizer, found: list[Query], margin: float, preference_filter) -> tuple:
    """(pairs, their records, how many queries were kept or dropped and why)."""
    pairs = []
    records = []
    counts = Counter()
    for query in found:
        allowed = against(query, margin, preference_filter)
        why = allowed if isinstance(allowed, str) else "kept"
        counts[f"{query.task.domain}: {why}"] += 1
        if why == "kept":
            # the mistake that the student is most sure of
            near = max(allowed, key=lambda k: query.likelihoods[k])
            pairs.append((query.positive, query.negatives[near]))
            records.append(record_of(tokenizer, query, near))
    return pairs, records, counts


def against(query: Query, margin: float, preference_filter) -> list[int] | str:
    """The negatives that stand against the positive, or why there is none: the filter's answer, but
    no negative may repeat the positive."""
    scores = query.positive_score, query.negative_scores
    allowed = preference_filter(query.task.domain, *scores, margin)
    if isinstance(allowed, str):
        return allowed
    return [k for k in allowed if query.negatives[k] != query.positive] or "identical"


def record_of(tokenizer, query: Query, k: int) -> dict:
    """A pair as it is read by people: the positive against negative k."""
    texts = []
    for ids, mask in (query.positive, query.negatives[k]):
        texts.append(tokenizer.shown(ids[mask.index(True) :]))
    return {
        "domain": query.task.domain,
        "prompt": query.task.prompt,
        "positive": texts[0],
        "negative": texts[1],
        "positive_score": query.positive_score,
        "negative_score": query.negative_scores[k],
    }


def keep_pairs(path: Path | None, records: list[dict]) -> None:
    if path is not None:
        writing.write_jsonl(path, records)


# ---- rehearsal ----


def rehearsed(tokenizer, found: list[Query]) -> list[tuple[str, Row]]:
    """(domain, row) of the teacher's finished responses, but those that a verifier finds wrong."""
    return [
        (query.task.domain, query.positive)
        for query in found
        if query.negatives and query.positive[0][-1] == tokenizer.end_id
    ]


def other_skills(teacher, tokenizer, settings, seed: int) -> list[tuple[str, Row]]:
    """("other", row) of teacher samples of judging and asking, for rehearsal alone: nothing says
    which of them are good. `settings`: distill.Settings.
    """
    rng = world.generator(seed, "distill other skills")
    judging = settings.queries // 5
    asking = settings.queries // 20
    asked = [world_judge.judge_demonstration(rng) for _ in range(judging)]
    asked += [world_judge.new_prompt_demonstration(rng) for _ in range(asking)]
    prompts = [tokenizer.prompt(one["messages"][:1]) for one in asked]
    how = {"seed": seed_of(seed, "other skills"), "temperature": settings.teacher_temperature}
    rows = sampled_rows(prompts, generate(teacher, tokenizer, prompts, **how))
    return [("other", row) for row in rows if row[0][-1] == tokenizer.end_id]


def keep_rehearsal(path: Path | None, student, rehearsal: list[tuple[str, Row]]) -> None:
    """The teacher's samples as JSONL, for later stages of the student that learned from them."""
    if path is None:
        return
    records = [{"student": digest(student)}]
    for domain, (ids, mask) in rehearsal:
        records.append({"domain": domain, "ids": ids, "own": [int(on) for on in mask]})
    writing.write_jsonl(path, records)


def kept_rehearsal(path: Path, chat: bool, student: str | None = None) -> list[Row]:
    """The teacher's samples that `distill` kept: what the student learned last, and what a later
    stage would forget first.

    Preference learning leaves the teacher's chat behind, so there they are taken without `chat`.
    `student`: the digest of the weights that distill ended with. Raises ValueError without the
    file, or where it was kept for another student.
    """
    remedy = "put it back, or delete distill.student.pt beside it and give --force"
    if not path.exists():
        raise ValueError(f"{path}: is missing, and this stage rehearses it; {remedy}")
    records = formats.read_jsonl(path)
    whose = [record.get("student") for record in records[:1]]
    if student is not None and whose != [student]:
        raise ValueError(
            f"{path}: was kept by another run of distill than the one that this run goes on from; "
            f"{remedy}"
        )
    rows = []
    for record in records[1:]:
        if chat or record["domain"] != "chat":
            rows.append((record["ids"], [bool(on) for on in record["own"]]))
    return rows


# ---- a step ----


def micros(batch: list[int], rows: list[Row], size: int, network):
    """(indices of pairs, rehearsal rows) of each micro-batch: this rank's share, in equal parts."""
    for micro in micro_batches(list(itertools.zip_longest(batch, rows)), size, network):
        yield [k for k, _ in micro if k is not None], [row for _, row in micro if row is not None]


def add_terms(sums: dict, joint, kl_rehearsal: Tensor, references: Tensor, beta, pairs) -> None:
    """Adds a micro-batch to the columns of the log; `pairs` are those of the whole batch.

    `joint`: distill.Joint; `references`: log pi_ref of its positives and negatives, (2, P).
    """
    margins = joint.positive_score - joint.negative_score  # (P,)
    by_pair = {
        "margin": margins,
        "accuracy": margins > 0,
        "positive_logprob": joint.positive_score / beta + references[0],
        "negative_logprob": joint.negative_score / beta + references[1],
    }
    terms = {
        "loss": joint.loss,
        "dpo": joint.dpo,
        "kl_positive": joint.positive_kl,
        "kl_negative": joint.negative_kl,
        "kl_rehearsal": kl_rehearsal,
    }
    terms |= {name: values.sum() / pairs for name, values in by_pair.items()}
    for name, value in terms.items():
        sums[name] = sums.get(name, 0.0) + float(value.detach())


def cut(logits: tuple[Tensor, ...], references: Tensor) -> tuple[tuple, tuple, tuple]:
    """(fields of the positives' distill.Side, of the negatives', the others' two logits).

    logits: what `distill.both_logits` returns for P positives, P negatives and others; references:
    log pi_ref (2, P).
    """
    pairs = references.shape[1]
    *tensors, row = logits
    first = int((row < pairs).sum())
    second = int((row < 2 * pairs).sum())
    positive = [x[:first] for x in tensors]
    negative = [x[first:second] for x in tensors]
    rest = [x[second:] for x in tensors[:2]]
    pair = row[first:second] - pairs
    return (*positive, row[:first], references[0]), (*negative, pair, references[1]), rest


# ---- the stage and its command ----

FLAGS = ("steps", "rehearsal_rows", "direction", "dpo_coef", "pos_coef", "neg_coef")


def counted(pairs: list, rehearsal: list, counts: dict, sampling: float) -> dict:
    """What the stage tells beside the training; `sampling`: seconds."""
    return {
        "pairs": len(pairs),
        "queries": sum(counts.values()),
        "rehearsal": len(rehearsal),
        "sampling_seconds": sampling,
        "filter": dict(sorted(counts.items())),
    }


def flags(parser, settings) -> None:
    """The flags of distill.py beside those of every chapter; `settings`: its Settings."""
    told = "the teacher's checkpoint, or `train`; "
    told += "default: at size tiny data/teacher.tiny.pt, at other sizes train"
    parser.add_argument("--teacher", default=None, help=told)
    told = f"updates; default: {settings.steps} at size tiny"
    parser.add_argument("--steps", type=int, default=None, help=told)
    kinds = ("forward", "reverse", "jsd")
    told = "of the token-level KL"
    parser.add_argument("--direction", choices=kinds, default=settings.direction, help=told)
    told = "weight of L_DPO"
    parser.add_argument("--dpo-coef", type=float, default=settings.dpo_coef, help=told)
    told = "weight of L_pos"
    parser.add_argument("--pos-coef", type=float, default=settings.pos_coef, help=told)
    told = "weight of L_neg"
    parser.add_argument("--neg-coef", type=float, default=settings.neg_coef, help=told)
    told = "teacher samples a batch that need no pair, 0 shows the forgetting; "
    told += f"default: {settings.rehearsal_rows} at size tiny"
    parser.add_argument("--rehearsal-rows", type=int, default=None, help=told)


def teacher_path(args, tokenizer) -> str | Path | None:
    """Where the teacher lies; None: one is trained, or that of a run is taken."""
    path = args.teacher or given_teacher(args.size, tokenizer)
    return None if path == "train" else path


def refuse_files(args) -> None:
    """Raises ValueError for --data."""
    if args.data:
        told = (
            "distillation needs a verifier for its filter, so it runs on the tiny world's queries"
        )
        raise ValueError(f"--data: {told}")
