"""The usual mistakes of each exercise, as functions, with the words that name them.

A mistake is handed the right function and then its arguments. Most of them give the right
function something wrong, so that nothing is written twice. What they return is compared with what
a student's function returned. Where the two agree the message says "This is what comes out when
...". Only the process that compares imports this file.
"""

from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F


def negative(value):
    """The first of what is returned with the other sign."""
    return (-value[0], *value[1:]) if isinstance(value, (tuple, list)) else -value


def wrong_sign(right, *inputs, **more):
    return negative(right(*inputs, **more))


def detached(right, *inputs, **more):
    with torch.no_grad():
        return right(*inputs, **more)


SIGN = ("the sign is wrong", wrong_sign)


# ---- sft ----


def unshifted(right, ids, mask):
    return mask, ids[mask]


def shifted_right(right, ids, mask):
    return F.pad(mask[:, :-1], (1, 0)), right(ids, mask)[1]


def first_is_target(right, ids, mask):
    return right(ids, mask)[0], ids[mask]


def mean_of_these(right, logits, targets, count):
    return right(logits, targets, len(targets))


def summed_only(right, logits, targets, count):
    return right(logits, targets, 1)


def mean_of_means(right, model, tokenizer, rows, device, micro_tokens):
    rows = sorted(rows, key=lambda row: len(row[0]))
    size = min(128, max(1, micro_tokens // len(rows[-1][0])))
    micros = [rows[i : i + size] for i in range(0, len(rows), size)]
    return sum(right(model, tokenizer, micro, device) for micro in micros) / len(micros)


def mean_of_rows(right, model, tokenizer, rows, device, micro_tokens):
    return sum(right(model, tokenizer, [row], device) for row in rows) / len(rows)


# ---- model ----


def reversed_rate(right, step, steps, warmup, constant):
    return 1 - right(step, steps, warmup, constant)


def no_warmup(right, step, steps, warmup, constant):
    return right(step, steps, 0, constant)


def turned_back(right, x, cos, sin):
    return right(x, cos, -sin)


def interleaved(right, x, cos, sin):
    halves = torch.cat([x[..., 0::2], x[..., 1::2]], -1)
    return right(halves, cos, sin).unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def same_sign(right, x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos + second * sin, second * cos + first * sin], -1)


def weights_backwards(right, row, weights):
    return right(row, weights.flip(0))


def without_itself(right, row, weights):
    return right(row, weights) - row[:, len(weights) :]


def own_position(right, model, ids, mask, temperature=1.0):
    log = (model(ids).float() / temperature).log_softmax(-1)
    return torch.where(mask, log.gather(2, ids[:, :, None])[:, :, 0], 0.0)


def no_temperature(right, model, ids, mask, temperature=1.0):
    return right(model, ids, mask)


def temperature_afterwards(right, model, ids, mask, temperature=1.0):
    return right(model, ids, mask) / temperature


def greedy(right, *inputs, **more):
    return right(*inputs, **more | {"temperature": 0.0})


def at_temperature_one(right, *inputs, **more):
    return right(*inputs, **more | {"temperature": more["temperature"] and 1.0})


# ---- dpo ----


def mean_logprob(right, model, tokenizer, rows, device):
    lengths = torch.tensor([sum(mask) for _, mask in rows])
    return right(model, tokenizer, rows, device) / lengths


def with_prompt(right, model, tokenizer, rows, device):
    every = [(ids, [k > 0 for k in range(len(ids))]) for ids, _ in rows]
    return right(model, tokenizer, every, device)


def without_end(right, model, tokenizer, rows, device):
    cut = [(ids[:-1], mask[:-1]) for ids, mask in rows]
    return right(model, tokenizer, cut, device)


def swapped_sides(right, **inputs):
    policy = inputs["policy_chosen_logps"], inputs["policy_rejected_logps"]
    reference = inputs["reference_chosen_logps"], inputs["reference_rejected_logps"]
    losses, first, second = right(**inputs | sides(policy[::-1], reference[::-1]))
    return losses, second, first


def loss_of_minus_h(right, **inputs):
    return swapped_sides(right, **inputs)[0], *right(**inputs)[1:]


def sides(policy, reference) -> dict:
    names = [
        f"{who}_{side}_logps" for who in ("policy", "reference") for side in ("chosen", "rejected")
    ]
    return dict(zip(names, (*policy, *reference)))


def no_reference(right, **inputs):
    zeros = torch.zeros_like(inputs["reference_chosen_logps"])
    return right(**inputs | {"reference_chosen_logps": zeros, "reference_rejected_logps": zeros})


def no_beta(right, **inputs):
    return right(**inputs)[0] * 0 + right(**inputs | {"beta": 1.0})[0], *right(**inputs)[1:]


def mean_over_pairs(right, **inputs):
    losses, *rewards = right(**inputs)
    return losses.mean(), *rewards


def rewards_without_beta(right, **inputs):
    losses, *rewards = right(**inputs)
    beta = inputs.get("beta", 0.1)
    return losses, *(reward / beta for reward in rewards)


# ---- a whole loop with one thing changed in its chapter ----


@contextmanager
def changed(right, **stand_ins):
    space = right.__globals__
    before = {name: space[name] for name in stand_ins}
    space.update(stand_ins)
    try:
        yield space
    finally:
        space.update(before)


def loop_with(**makers):
    """The right loop, in which names of its chapter stand for something else."""

    def mistaken(right, *inputs, **more):
        made = {name: maker(right.__globals__[name]) for name, maker in makers.items()}
        with changed(right, **made):
            return right(*inputs, **more)

    return mistaken


class Kept:
    """copy, whose deepcopy copies nothing, so that the reference learns too."""

    @staticmethod
    def deepcopy(model):
        return model


def moving_reference(right, *inputs, **more):
    """Every step compares with the policy as it is now."""

    def of_now(loss):
        def compared(chosen, rejected, *reference, **how):
            return loss(chosen, rejected, chosen.detach(), rejected.detach(), **how)

        return compared

    return loop_with(dpo_loss=of_now)(right, *inputs, **more)


def exchanged(loss):
    def swapped(chosen, rejected, ref_chosen, ref_rejected, **how):
        losses, *rewards = loss(rejected, chosen, ref_rejected, ref_chosen, **how)
        return losses, *rewards[::-1]

    return swapped


def constant_rate(scale):
    return lambda *inputs, **more: 1.0


def no_rehearsal(rehearse):
    return lambda *inputs, **more: None


def averaged(logprobs):
    def mean(model, tokenizer, rows, device):
        return mean_logprob(logprobs, model, tokenizer, rows, device)

    return mean


def wrong_way(divergence):
    def reverse(student, teacher, direction="forward", *more, **how):
        other = {"forward": "reverse", "reverse": "forward"}.get(direction, direction)
        return divergence(student, teacher, other, *more, **how)

    return reverse


def negated_loss(loss):
    def minus(*inputs, **more):
        value, *rest = loss(*inputs, **more)
        return -value, *rest

    return minus


def without_rehearsal_rows(right, student, teacher, tokenizer, pairs, rehearsal, *rest, **more):
    return right(student, teacher, tokenizer, pairs, [], *rest, **more)


def teacher_at_one(right, student, teacher, tokenizer, pairs, rehearsal, settings, **more):
    settings = replace(settings, teacher_temperature=1.0)
    return right(student, teacher, tokenizer, pairs, rehearsal, settings, **more)


SUPERVISED = {
    "sft.supervised_positions": [
        ("the mask is not shifted: the logits at t predict token t + 1", unshifted),
        ("the mask is shifted the wrong way", shifted_right),
        ("the first token is a target, which nothing predicts", first_is_target),
    ],
    "sft.masked_cross_entropy": [
        ("a mean over these rows stands for the sum by `count`", mean_of_these),
        ("the sum is not divided by `count`", summed_only),
        SIGN,
        ("no gradient is kept", detached),
    ],
    "sft.held_out_loss": [
        ("the micro-batches' means are averaged, whatever their size", mean_of_means),
        ("the rows' means are averaged, whatever their length", mean_of_rows),
    ],
    "model.learning_rate_scale": [
        ("the scale is upside down: it falls first and rises to the end", reversed_rate),
        ("there is no warm-up", no_warmup),
    ],
    "model.rotate": [
        ("the pairs turn backwards: the sign of the sine is wrong", turned_back),
        ("neighbours are paired; here a number's partner is half a head further on", interleaved),
        ("both sines have one sign, which is no rotation", same_sign),
    ],
    "model.smeared": [
        ("the weights are read backwards: the first is the previous token's", weights_backwards),
        ("the token itself is missing from the sum", without_itself),
    ],
    "model.token_logprobs": [
        ("the mask is not shifted: logits at a token's own position are read", own_position),
        ("the temperature is left out", no_temperature),
        (
            "log-probabilities are divided by the temperature, and not the logits",
            temperature_afterwards,
        ),
    ],
    "model.generate": [
        ("the likeliest token is taken, whatever the temperature", greedy),
        ("the temperature is left out", at_temperature_one),
    ],
    "dpo.sequence_logprobs": [
        ("a mean over the tokens stands for the sum", mean_logprob),
        ("the prompt is counted too", with_prompt),
        ("the end mark is not counted", without_end),
    ],
    "dpo.dpo_loss": [
        ("the sign is wrong: the loss is that of -h", loss_of_minus_h),
        ("chosen and rejected are exchanged", swapped_sides),
        SIGN,
        ("the reference is left out", no_reference),
        ("beta is left out of the loss", no_beta),
        ("beta is left out of the rewards", rewards_without_beta),
        ("a mean over the pairs is returned", mean_over_pairs),
    ],
    "dpo.train": [
        ("the reference is not frozen: it is the policy as it is now", moving_reference),
        ("chosen and rejected are exchanged", loop_with(dpo_loss=exchanged)),
        ("the sign of the loss is wrong", loop_with(dpo_loss=negated_loss)),
        ("a response counts by the mean of its tokens", loop_with(sequence_logprobs=averaged)),
        ("the learning rate has no schedule", loop_with(learning_rate_scale=constant_rate)),
        ("the rehearsal rows are left out", loop_with(rehearse=no_rehearsal)),
    ],
    "distill.train": [
        ("the KL runs the other way, S to T", loop_with(token_divergence=wrong_way)),
        ("the rehearsal rows are left out", without_rehearsal_rows),
        ("the teacher's temperature is left out", teacher_at_one),
        ("the learning rate has no schedule", loop_with(learning_rate_scale=constant_rate)),
    ],
    "ppo.learn": [
        ("the sign of the policy's loss is wrong", loop_with(policy_loss=negated_loss)),
        ("the rehearsal rows are left out", loop_with(rehearse=no_rehearsal)),
    ],
}


def all_mistakes() -> dict:
    from tests.classroom.mistakes_rl import FROM_RANKINGS_TO_RL

    return SUPERVISED | FROM_RANKINGS_TO_RL
