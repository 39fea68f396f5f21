"""What lessons 1 to 4 measure: model, sft, dpo, reward_model. Their texts: lessons.py.

A lesson is a function of a desk; it trains every condition on every seed and notes what came out.
"""

import copy
import math
from dataclasses import replace

import torch

import dpo
import reward_model as rewards
import sft
from data import world
from data.files.comparisons import parse_ranking
from data.runtime import annotator
from data.runtime.devices import seed_of
from data.runtime.evaluation import evaluate
from data.runtime.rows import Row, before_reply, pad_batch
from model import GPT, SIZES
from tests.classroom.lessons_room import CHAT, CPU, Desk, chat_student, demonstrations, drawn
from tests.experiments.ties import calibration_error

# ---- lesson 1: model.py ----


def repeated_rows(count: int, *key) -> list[Row]:
    """Different tokens in random order, of which a stretch comes twice, 8 to 16 tokens long.

    The second is learned but for its first token: nothing says that a stretch begins again. What
    stands between differs in length, so that no fixed number of places back is right.
    """
    rng = world.generator("lesson 1", *key)
    rows = []
    for _ in range(count):
        tokens = rng.sample(range(32), 24)
        start = rng.randrange(9)
        stretch = tokens[start : start + rng.randint(8, 16)]
        learned = [False] * (len(tokens) + 1) + [True] * (len(stretch) - 1)
        rows.append((tokens + stretch, learned))
    return rows


@torch.no_grad()
def right_share(model: GPT, tokenizer, rows: list[Row]) -> float:
    """The share of supervised tokens that are the likeliest ones."""
    ids, mask = pad_batch(rows, tokenizer.pad_id, CPU)  # (N, S) each
    select, targets = sft.supervised_positions(ids, mask)
    return float((model(ids, select=select).argmax(1) == targets).float().mean())


def copying(desk: Desk, steps: int = 500, held_out: int = 256) -> None:
    """One layer and two, with smear and without, on rows in which a stretch comes twice."""
    tokenizer = desk.tokenizer
    desk.expected = 4 * len(desk.seeds)
    for seed in desk.seeds:
        rows = repeated_rows(8 * steps, seed)
        fresh = repeated_rows(held_out, seed, "held out")
        for layers, smear in ((1, 0), (1, 3), (2, 0), (2, 3)):
            config = replace(SIZES["tiny"]["student"], layers=layers, smear=smear)
            model = GPT(replace(config, vocab_size=tokenizer.vocab_size)).init_weights(seed)
            settings = sft.Settings(steps, rows=8, held_out_every=max(1, steps // 2))
            how = {"seed": seed, "stage": "lesson_1", "held_out": fresh}
            looks = sft.train(model, tokenizer, rows, settings, **how)["held_out_losses"]
            name = f"{layers} layer{'s' if layers > 1 else ''}, smear {smear}"
            right = 100 * right_share(model, tokenizer, fresh)
            desk.note(seed, name, early=looks[0], loss=looks[-1], right=right)


# ---- lesson 2: sft.py ----


def prompt_mask(desk: Desk, steps: int = 250, count: int = 1500, prompts: int = 200) -> None:
    """The same batches of chat, with the prompt's tokens in the loss and without."""
    tokenizer = desk.tokenizer
    desk.expected = 2 * len(desk.seeds)
    for seed in desk.seeds:
        masked = demonstrations(tokenizer, drawn(CHAT, count, seed), seed)
        whole = [(ids, [True] * len(ids)) for ids, _ in masked]
        unseen = demonstrations(tokenizer, drawn(CHAT, prompts, seed, "test"), seed)
        for name, rows in (("prompt masked", masked), ("prompt in the loss", whole)):
            config = replace(SIZES["tiny"]["student"], vocab_size=tokenizer.vocab_size)
            model = GPT(config).init_weights(seed)
            how = {"seed": seed, "stage": "lesson_2"}
            sft.train_in_passes(model, tokenizer, rows, sft.Settings(steps), **how)
            loss = sft.held_out_loss(model, tokenizer, unseen, CPU)  # of responses, in both
            scores = evaluate(model, tokenizer, prompts, seed=seed, domains=("chat",))["chat"]
            correct, chat = 100 * scores["greedy_correct"], 100 * scores["greedy"]
            desk.note(seed, name, loss=loss, correct=correct, chat=chat)


# ---- lesson 3: dpo.py ----


def displacement(
    desk: Desk, steps: int = 40, prompts: int = 240, held_out: int = 80, **small
) -> None:
    """DPO of a chat student: gently, far, and far with a likelihood term on the chosen response."""
    tokenizer = desk.tokenizer
    settings = dpo.Settings(steps=steps, rows=16)
    far = replace(settings, lr=10 * settings.lr)
    conditions = {"start": None, "DPO": settings, "DPO, 10 times the rate": far}
    conditions["the same, nll_coef 1"] = replace(far, nll_coef=1.0)
    desk.expected = len(conditions) * len(desk.seeds)
    for seed in desk.seeds:
        start = chat_student(desk, seed, **small)
        pairs = dpo.annotated_pairs(start, tokenizer, seed=seed, prompts=prompts)
        other = dpo.annotated_pairs(start, tokenizer, seed=seed + 1000, prompts=held_out)
        learned = {before_reply(chosen) for chosen, _ in pairs}  # the prompts
        other = [pair for pair in other if before_reply(pair[0]) not in learned]
        before = dpo.reference_logprobs(start, tokenizer, other, CPU)  # two of (pairs,)
        for name, settings in conditions.items():
            model = copy.deepcopy(start)
            if settings is not None:
                told = f"lr{settings.lr:g}.nll{settings.nll_coef:g}"
                how = {"seed": seed, "log": desk.out / f"lesson3.seed{seed}.{told}.csv"}
                dpo.train(model, tokenizer, pairs, settings, **how)
            after = dpo.reference_logprobs(model, tokenizer, other, CPU)
            chosen, rejected = (now - then for now, then in zip(after, before))  # (pairs,) each
            scores = evaluate(model, tokenizer, 200, seed=seed, domains=("chat",))["chat"]
            numbers = {"chosen": float(chosen.mean()), "rejected": float(rejected.mean())}
            numbers["fell"] = 100 * float((chosen < 0).float().mean())
            numbers["chat"] = 100 * scores["sampled"]
            desk.note(seed, name, **numbers)


# ---- lesson 4: reward_model.py ----


def outcomes(scores: list, levels: list, width: float) -> tuple[float, float, float]:
    """How often a held-out response beats another: (predicted, observed, mean distance by bins).

    Of all pairs, ties too, each seen from both sides. Predicted is sigmoid(d - width): under Rao
    and Kupper P(i > j), and with width 0 what "drop" takes for it. Ten bins.
    """
    pairs = []  # (predicted, won outright)
    for score, level in zip(scores, levels):
        for i in range(len(score)):
            for j in range(len(score)):
                if i != j:
                    p = 1 / (1 + math.exp(width - (score[i] - score[j])))
                    pairs.append((p, float(level[i] < level[j])))
    error = 0.0
    for b in range(10):
        some = [(p, win) for p, win in pairs if min(9, int(10 * p)) == b]
        error += abs(sum(p - win for p, win in some))
    count = len(pairs)
    predicted, observed = (sum(values) / count for values in zip(*pairs))
    return predicted, observed, error / count


def ties(desk: Desk, prompts: int = 320, held_out: int = 200, **small) -> None:
    """The same rankings with ties dropped, and with a probability of their own."""
    tokenizer = desk.tokenizer
    desk.expected = 2 * len(desk.seeds)
    for seed in desk.seeds:
        policy = chat_student(desk, seed, **small)
        how = {"outputs": 4, "seed": seed}
        rankings = annotator.annotated_rankings(policy, tokenizer, prompts=prompts, **how)
        unseen = annotator.annotated_rankings(
            policy, tokenizer, prompts=held_out, part="test", **how
        )
        levels = [parse_ranking(one["ranking"], 4) for one in unseen]
        for rule in ("drop", "rao_kupper"):
            model = rewards.RewardModel(policy, seed_of(seed, "lesson 4"))
            settings = replace(rewards.Settings(), ties=rule)
            rewards.train(model, tokenizer, rankings, settings, seed=seed)
            score = rewards.predicted_reward
            told = annotator.report(model, tokenizer, unseen, score, rule)
            scores = [score(model, tokenizer, one["rows"]).tolist() for one in unseen]
            width = told["tie_width"] if rule == "rao_kupper" else 0.0
            predicted, observed, error = outcomes(scores, levels, width)
            numbers = {"accuracy": 100 * told["accuracy"], "true": 100 * told["true_accuracy"]}
            numbers["strict"] = 100 * calibration_error(told["calibration"])
            numbers |= {"all": 100 * error, "tie": 100 * (1 - 2 * predicted)}
            desk.note(seed, rule, **numbers, observed=100 * (1 - 2 * observed))
