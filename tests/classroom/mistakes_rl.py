"""The usual mistakes in reward_model, ppo, distill and self_reward; see mistakes.py."""

import torch

from tests.classroom.mistakes import SIGN, detached, wrong_sign

# ---- reward_model ----


def share_only(right, tokens, n=3):
    return 1 + right(tokens, n)


def single_tokens(right, tokens, n=3):
    return right(tokens, 1)


def overlong_from_the_limit(right, length, longest, margin):
    return right(length - margin, longest, margin)


def at_the_last_column(right, model, tokenizer, rows):
    width = max(len(ids) for ids, _ in rows)
    padded = [(ids + [tokenizer.pad_id] * (width - len(ids)), [True] * width) for ids, _ in rows]
    return right(model, tokenizer, padded)


def at_the_last_token(right, model, tokenizer, rows):
    return right(model, tokenizer, [(ids, [True] * len(ids)) for ids, _ in rows])


def sum_over_pairs(right, scores, levels, ties="drop", width=None, count=None):
    total = 0
    for row in range(len(scores)):
        one = right(scores[row : row + 1], levels[row : row + 1], ties, width, 1)
        there = levels[row][levels[row] >= 0]
        i, j = torch.triu_indices(len(there), len(there), 1)
        total = total + one * int(((there[i] != there[j]) | (ties != "drop")).sum())
    return total / max(1, len(scores) if count is None else count)


def worse_first(right, scores, levels, *rest, **more):
    top = levels.amax(1, keepdim=True)
    return right(scores, torch.where(levels < 0, levels, top - levels), *rest, **more)


def ties_as_wins(right, scores, levels, ties="drop", width=None, count=None):
    order = levels * 10 + torch.arange(levels.shape[1])
    return right(scores, torch.where(levels < 0, levels, order), "drop", width, count)


def unsquashed(right, **inputs):
    reward = right(**inputs)
    return reward if inputs["learned"] is None or reward is None else inputs["learned"]


def punished_when_cut(right, **inputs):
    return right(**inputs | {"mask_truncated": False})


def unchecked_is_wrong(right, **inputs):
    reward = right(**inputs)
    return 0.0 if reward is None and not inputs["truncated"] else reward


# ---- ppo ----


def inverted_ratio(right, logprobs, reference_logprobs):
    return right(reference_logprobs, logprobs)


def whole_square(right, logprobs, reference_logprobs):
    k1, k2, k3 = right(logprobs, reference_logprobs)
    return k1, 2 * k2, k3


def k3_inverted(right, logprobs, reference_logprobs):
    k1, k2, _ = right(logprobs, reference_logprobs)
    return k1, k2, right(reference_logprobs, logprobs)[2]


def plus_kl(right, scores, logprobs, reference_logprobs, mask, kl_coef):
    return right(scores, logprobs, reference_logprobs, mask, -kl_coef)


def no_kl(right, scores, logprobs, reference_logprobs, mask, kl_coef):
    return right(scores, logprobs, reference_logprobs, mask, 0.0)


def score_everywhere(right, scores, logprobs, reference_logprobs, mask, kl_coef):
    penalty = right(torch.zeros_like(scores), logprobs, reference_logprobs, mask, kl_coef)
    return penalty + torch.where(mask, scores[:, None], 0.0)


def score_at_the_end(right, scores, logprobs, reference_logprobs, mask, kl_coef):
    penalty = right(torch.zeros_like(scores), logprobs, reference_logprobs, mask, kl_coef)
    last = torch.zeros_like(mask)
    last[:, -1] = True
    return penalty + torch.where(last, scores[:, None], 0.0)


def unclipped_error(right, kl_coef, kl, target, episodes, horizon):
    return kl_coef * (1 + (kl / target - 1) * episodes / horizon)


def other_direction(right, kl_coef, kl, target, episodes, horizon):
    return 2 * kl_coef - right(kl_coef, kl, target, episodes, horizon)


def over_tool_tokens(right, reward, values, mask, gamma, gae_lambda):
    advantages, returns = right(reward, values, torch.ones_like(mask), gamma, gae_lambda)
    return torch.where(mask, advantages, 0.0), torch.where(mask, returns, 0.0)


def one_step(right, reward, values, mask, gamma, gae_lambda):
    return right(reward, values, mask, gamma, 0.0)


def lambda_left_out(right, reward, values, mask, gamma, gae_lambda):
    return right(reward, values, mask, gamma, 1.0)


def discount_left_out(right, reward, values, mask, gamma, gae_lambda):
    return right(reward, values, mask, 1.0, gae_lambda)


def returns_without_values(right, *inputs, **more):
    advantages, _ = right(*inputs, **more)
    return advantages, advantages


def not_centred(right, scores, kept, baseline="centre"):
    return torch.where(kept, scores, 0.0)


def over_the_batch(right, scores, kept, baseline="centre"):
    return right(scores.view(1, -1), kept.view(1, -1), baseline).view_as(scores)


def sample_deviation(right, scores, kept, baseline="centre"):
    found = right(scores, kept, baseline)
    count = kept.sum(1, keepdim=True)
    shrink = ((count - 1).clamp(min=1) / count.clamp(min=1)).sqrt()
    return found * shrink if baseline == "zscore" else found


def masked_counts_as_zero(right, scores, kept, baseline="centre"):
    found = right(torch.where(kept, scores, 0.0), torch.ones_like(kept), baseline)
    return torch.where(kept, found, 0.0)


def no_clip(right, *inputs, **more):
    return right(*inputs, **more | {"clip_low": 1e9, "clip_high": 1e9})


def least_of_both(right, **inputs):
    flipped = inputs | {"advantages": -inputs["advantages"]}
    loss, *rest = right(**flipped)
    return -loss, *right(**inputs)[1:]


def ratio_upside_down(right, **inputs):
    old, new = inputs["old_logprobs"], inputs["logprobs"]
    return right(**inputs | {"old_logprobs": new, "logprobs": old})


def mean_over_all(right, **inputs):
    mask = inputs["mask"]
    return right(**inputs | {"count": mask.numel()})


def no_half(right, **inputs):
    return 2 * right(**inputs)


def no_value_clip(right, **inputs):
    return right(**inputs | {"clip": 1e9})


# ---- distill ----


def student_to_teacher(right, student, teacher, direction="forward", *rest, **more):
    other = {"forward": "reverse", "reverse": "forward"}.get(direction, direction)
    return right(student, teacher, other, *rest, **more)


def without_square(right, student, teacher, *rest, **more):
    return right(student, teacher, *rest, **more) / more.get("temperature", 1.0) ** 2


def summed_over_tokens(right, positive, negative, settings, counts=None):
    pairs = len(positive.reference_logps) if counts is None else counts[0]
    return right(positive, negative, settings, (pairs, 1, 1))


def by_these_alone(right, positive, negative, settings, counts=None):
    return right(positive, negative, settings)


def sides_exchanged(right, positive, negative, settings, counts=None):
    return right(negative, positive, settings, counts)


def weights_forgotten(right, positive, negative, settings, counts=None):
    every = dict(vars(settings), dpo_coef=1.0, pos_coef=1.0, neg_coef=1.0)
    return right(positive, negative, type(settings)(**every), counts)


def any_better(right, domain, positive, negatives, margin):
    return right(domain, positive, negatives, 1e-9)


def margin_excluded(right, domain, positive, negatives, margin):
    return right(domain, positive, negatives, margin + 1e-9)


def wrong_positive_stays(right, domain, positive, negatives, margin):
    fine = positive if domain == "chat" or positive is None else 1
    return right(domain, fine, negatives, margin)


# ---- self_reward ----


def unreadable_is_zero(right, verdicts):
    readable = [right([verdict]) for verdict in verdicts]
    return sum(one or 0.0 for one in readable) / max(1, len(verdicts))


def unknown_is_zero(right, rewards, lengths, rho=0.0):
    return right([one or 0.0 for one in rewards], lengths, rho)


def exchanged_pair(right, rewards, lengths, rho=0.0):
    found = right(rewards, lengths, rho)
    return found and found[::-1]


def without_window(right, rewards, lengths, rho=0.0):
    return right(rewards, lengths, 0.0)


def long_chosen(right, rewards, lengths, rho=0.0):
    return right(rewards, [-one for one in lengths], rho)


FROM_RANKINGS_TO_RL = {
    "reward_model.repetition_penalty": [
        ("the share of repeated n-grams is counted from the other end", share_only),
        ("single tokens are counted, and not n-grams", single_tokens),
        SIGN,
    ],
    "reward_model.overlong_penalty": [
        (
            "the penalty begins at the limit; it begins `margin` tokens before",
            overlong_from_the_limit,
        ),
        SIGN,
    ],
    "reward_model.score_rows": [
        (
            "the score is read at the last column, which is padding in short rows",
            at_the_last_column,
        ),
        ("the score is read at the last token of the row, own or not", at_the_last_token),
    ],
    "reward_model.ranking_loss": [
        ("the sign is wrong: the worse output is to score higher", worse_first),
        SIGN,
        ("a tie counts as a win", ties_as_wins),
        ("a prompt's pairs are summed, so that prompts with more pairs weigh more", sum_over_pairs),
    ],
    "reward_model.robust_reward": [
        ("what nobody could check counts as wrong; it is to be masked out", unchecked_is_wrong),
        ("what was cut off is punished; it is to be masked out", punished_when_cut),
        ("the learned score is not squashed", unsquashed),
    ],
    "ppo.kl_estimates": [
        ("the sign is wrong: the ratio is ref / pi, which would reward drift", inverted_ratio),
        ("k3 has the ratio the other way round", k3_inverted),
        ("the half of k2 is missing", whole_square),
    ],
    "ppo.token_rewards": [
        ("the sign of the KL is wrong, which pays for drift", plus_kl),
        ("the score is given to every token", score_everywhere),
        ("the score stands in the last column, which is padding", score_at_the_end),
        ("the KL is left out", no_kl),
    ],
    "ppo.next_kl_coef": [
        ("the sign is wrong: too large a KL must raise the coefficient", other_direction),
        ("the error is not clipped to 0.2", unclipped_error),
    ],
    "ppo.gae": [
        ("a tool's tokens and the padding take part", over_tool_tokens),
        ("lambda is taken as 0: only one step is looked ahead", one_step),
        ("lambda is left out", lambda_left_out),
        ("the discount is left out", discount_left_out),
        ("the returns lack the values: R = A + V", returns_without_values),
    ],
    "ppo.group_advantages": [
        ("nothing is subtracted: the scores are not centred", not_centred),
        ("the mean is that of the whole batch, and not of the group", over_the_batch),
        ("the deviation is that of a sample, with G - 1", sample_deviation),
        ("a sample that is masked out counts as 0", masked_counts_as_zero),
        SIGN,
    ],
    "ppo.policy_loss": [
        ("the sign is wrong: what is to grow is pushed down", wrong_sign),
        ("the smaller of the two losses is taken, which is the bound the wrong way", least_of_both),
        ("nothing is clipped", no_clip),
        ("the ratio is upside down, old / new", ratio_upside_down),
        ("the mean runs over padding too", mean_over_all),
        ("no gradient is kept", detached),
    ],
    "ppo.value_loss": [
        ("the half is missing", no_half),
        ("nothing is clipped", no_value_clip),
        ("the mean runs over padding too", mean_over_all),
    ],
    "distill.token_divergence": [
        ("the KL runs the other way: S to T for T to S", student_to_teacher),
        ("temperature^2 is left out", without_square),
        SIGN,
    ],
    "distill.preference_filter": [
        ("a positive that is wrong is let through", wrong_positive_stays),
        ("the margin is left out", any_better),
        ("exactly the margin apart is refused", margin_excluded),
    ],
    "distill.joint_loss": [
        ("the weights of the three terms are left out", weights_forgotten),
        ("positives and negatives are exchanged", sides_exchanged),
        ("a sum over tokens stands for the mean", summed_over_tokens),
        ("it is divided by this part's counts, and not by the whole batch's", by_these_alone),
    ],
    "self_reward.mean_score": [
        ("a verdict that cannot be read counts as 0; it is to be left out", unreadable_is_zero),
    ],
    "self_reward.select": [
        ("a reward that is not known counts as 0", unknown_is_zero),
        ("chosen and rejected are exchanged", exchanged_pair),
        ("the windows of rho are left out", without_window),
        ("of the good the longest is taken, and of the bad the shortest", long_chosen),
    ],
}
