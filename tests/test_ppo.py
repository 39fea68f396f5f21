"""ppo.py: rewards of tokens, advantages, losses,
two rollouts by hand, the loop, and the stages of multi-stage RL."""

import copy
import csv
import math
import random
import re
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import ppo
import reward_model as rewards
from data import world
from data.files.checkpoints import save_checkpoint
from data.runtime import alone, rl_settings, rollouts
from data.runtime.measures import explained_variance, masked_mean, whiten
from data.runtime.rl_settings import CHOICES, GSPO
from data.runtime.rollouts import Rollouts, entropy_of
from data.runtime.rows import supervised_count
from model import GPT, Config, Optimizers, token_logprobs
from ppo import (
    STAGE_SETTINGS,
    Settings,
    critic_values,
    gae,
    group_advantages,
    kl_estimates,
    learn,
    next_kl_coef,
    policy_loss,
    ready_tasks,
    rl_stem,
    rollout,
    token_rewards,
    train,
    value_loss,
)
from reward_model import RewardModel, predicted_reward
from sft import batch_loss

CPU = torch.device("cpu")
PI, REF = (0.6, 0.3, 0.1), (0.3, 0.5, 0.2)
GROUP = Settings(
    iterations=2,
    prompts=3,
    samples=4,
    epochs=1,
    minibatches=1,
    max_new=12,
    rehearsal_rows=0,
    warmup=0,
)
GAE = replace(GROUP, estimator="gae")


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def near(*values):
    return pytest.approx(list(values), abs=1e-5)


def all_true(x):
    return torch.ones(x.shape, dtype=torch.bool)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(before, after):
    return all(torch.equal(value, after[name]) for name, value in before.items())


# ---- rewards of tokens and GAE ----

# section 3's response of three tokens
K1, SCORE, VALUES = f64([0.4, -0.2, 0.2]), f64(1.0), f64([0.5, 0.6, 0.8])


REWARD = f64([-0.02, 0.01, 0.99])  # its token rewards at kl_coef .05


def section_three(gamma=1.0, gae_lambda=0.95):
    """(token rewards, advantages, returns) of section 3's response, as lists."""
    advantages, returns = gae(REWARD, VALUES, all_true(K1), gamma, gae_lambda)
    return REWARD[0].tolist(), advantages[0].tolist(), returns[0].tolist()


def test_token_rewards_are_minus_kl_with_the_score_at_the_last_token():
    assert token_rewards(SCORE, K1 - 2, torch.full_like(K1, -2), all_true(K1), 0.05)[
        0
    ].tolist() == near(*REWARD[0].tolist())


def test_gae_vector():
    _, advantages, returns = section_three()
    assert advantages == near(0.450975, 0.3905, 0.19) and returns == near(0.950975, 0.9905, 0.99)


def test_gae_with_lambda_one_is_the_return_minus_the_value():
    """The rewards still to come are (.98, 1, .99): the score reaches the first token in full."""
    _, advantages, returns = section_three(gae_lambda=1.0)
    assert advantages == near(0.48, 0.40, 0.19) and returns == near(0.98, 1.00, 0.99)


def test_gae_with_lambda_zero_is_the_one_step_error():
    assert section_three(gae_lambda=0.0)[1] == near(0.08, 0.21, 0.19)


def test_gae_with_a_discount():
    assert section_three(gamma=0.99)[1] == near(0.432044, 0.380695, 0.19)


def test_whitened_gae_vector():
    advantages = f64(section_three()[1])
    assert whiten(advantages, all_true(advantages))[0].tolist() == near(
        0.960663, 0.418469, -1.379133
    )


def test_the_reward_reaches_the_first_of_many_tokens():
    """Twenty tokens, a reward only at the last, no critic:
    with lambda 1 every token gets it, with .95 the first .95^19 of it."""
    values = torch.zeros(1, 20, dtype=torch.float64)
    reward = token_rewards(SCORE, values, values, all_true(values), 0.05)
    assert (gae(reward, values, all_true(values), 1.0, 1.0)[0] == 1).all()
    assert gae(reward, values, all_true(values), 1.0, 0.95)[0][0, 0].item() == pytest.approx(
        0.95**19
    )


@pytest.mark.parametrize("gamma, gae_lambda", [(1.0, 0.95), (0.9, 0.5), (1.0, 0.0)])
def test_tool_tokens_pads_and_prompts_are_stepped_over(gamma, gae_lambda):
    """Section 3's three tokens with a prompt before,
    a tool's result between and pads behind: the same three advantages."""
    nan = math.nan
    spread = f64([nan, nan, 0.4, nan, nan, -0.2, 0.2, nan])
    values = f64([7.0, nan, 0.5, 9.0, nan, 0.6, 0.8, nan])
    mask = torch.tensor([[False, False, True, False, False, True, True, False]])
    reward = token_rewards(SCORE, spread, torch.zeros_like(spread), mask, 0.05)
    advantages, returns = gae(reward, values, mask, gamma, gae_lambda)
    bare, expected, expected_returns = section_three(gamma, gae_lambda)
    assert (
        reward[mask].tolist() == near(*bare)
        and advantages[mask].tolist() == near(*expected)
        and returns[mask].tolist() == near(*expected_returns)
    )
    assert (
        (reward[~mask] == 0).all()
        and (advantages[~mask] == 0).all()
        and (returns[~mask] == 0).all()
    )


def test_each_rows_score_lands_on_its_own_last_token_and_a_masked_row_gets_none():
    mask = torch.tensor([[True, True, False, False], [False, True, True, True], [False] * 4])
    zeros = torch.zeros(3, 4, dtype=torch.float64)
    reward = token_rewards(f64(1.0, 2.0, math.nan), zeros, zeros, mask, 0.05)
    assert reward.tolist() == [[0, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]]


# ---- whitening ----


def test_whitening_that_keeps_the_mean_vector():
    x = f64([1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0])
    assert whiten(x, all_true(x), keep_mean=True)[0].tolist() == near(0.050807, 0.438105, 0.825403)


@pytest.mark.parametrize("outside", [99.0, math.nan, math.inf])
def test_whitening_ignores_what_is_masked(outside):
    x = f64([1.0, 2.0, 3.0, outside])
    assert whiten(x, torch.tensor([[True, True, True, False]]))[0].tolist() == near(
        -1.224745, 0, 1.224745, 0
    )


def test_a_masked_mean_over_nothing_is_zero():
    assert masked_mean(f64(math.nan, 1.0), torch.tensor([False, False])) == 0
    assert masked_mean(f64(math.nan, 3.0), torch.tensor([False, True])) == 3


# ---- KL ----


@pytest.mark.parametrize(
    "pi, ref, expected",
    [(0.5, 0.4, (0.223144, 0.024897, 0.023144)), (0.4, 0.5, (-0.223144, 0.024897, 0.026856))],
)
def test_kl_estimators_of_one_token(pi, ref, expected):
    assert [k.item() for k in kl_estimates(f64(pi).log(), f64(ref).log())] == near(*expected)


def test_kl_estimators_have_the_categorical_expectations():
    """KL(pi||ref) = .6 log 2 + .3 log .6 + .1 log .5 = .193326."""
    pi, ref = f64(*PI), f64(*REF)
    assert [(pi * k).sum().item() for k in kl_estimates(pi.log(), ref.log())] == near(
        0.193326, 0.207300, 0.193326
    )


def test_an_inverted_ratio_would_reward_drift():
    pi, ref = f64(*PI), f64(*REF)
    k1, _, k3 = ((pi * k).sum().item() for k in kl_estimates(ref.log(), pi.log()))
    assert (k1, k3) == pytest.approx((-0.193326, 0.236674), abs=1e-5)


def test_k1_as_a_reward_punishes_a_policy_that_drifted():
    """In expectation a token of section 3's policy costs .05 * .193326."""
    pi, ref = f64(*PI), f64(*REF)
    reward = token_rewards(
        f64(0.0, 0.0, 0.0),
        pi.log()[:, None],
        ref.log()[:, None],
        torch.ones(3, 1, dtype=torch.bool),
        0.05,
    )[:, 0]
    assert (pi * reward).sum().item() == pytest.approx(-0.05 * 0.193326, abs=1e-6)


@pytest.mark.parametrize(
    "which, expected",
    [(0, (0.0, 0.0, 0.0)), (1, (0.299893, -0.211245, -0.088647)), (2, (0.3, -0.2, -0.1))],
)
def test_as_a_loss_k1_has_no_gradient_k2_the_true_one_and_k3_that_of_the_reverse_kl(
    which, expected
):
    """The exact expectation over tokens of pi:
    pi(x) weighs each token's loss and is itself no part of the graph."""
    logits = f64(*PI).log().requires_grad_()
    logprobs = logits.log_softmax(0)
    (logprobs.detach().exp() * kl_estimates(logprobs, f64(*REF).log())[which]).sum().backward()
    assert logits.grad.tolist() == near(*expected)


def test_the_true_gradient_of_kl_is_the_one_that_k2_has():
    logits = f64(*PI).log().requires_grad_()
    logprobs = logits.log_softmax(0)
    (logprobs.exp() * (logprobs - f64(*REF).log())).sum().backward()
    assert logits.grad.tolist() == near(0.299893, -0.211245, -0.088647)


@pytest.mark.parametrize(
    "kl, expected", [(9, 0.151536), (6.3, 0.150384), (6, 0.15), (5.4, 0.149232), (0, 0.148464)]
)
def test_adaptive_controller_table(kl, expected):
    assert next_kl_coef(0.15, kl, target=6, episodes=512, horizon=10000) == pytest.approx(
        expected, abs=1e-9
    )


# ---- the policy's loss ----

CLIP_TABLE = [
    (1, 0.7, -0.7, -0.7),
    (1, 1.15, -1.15, -1.15),
    (1, 1.3, -1.2, 0),
    (-1, 0.7, 0.8, 0),
    (-1, 1.3, 1.3, 1.3),
]


@pytest.mark.parametrize("advantage, rho, loss, slope", CLIP_TABLE)
def test_clipped_loss_and_gradient_table(advantage, rho, loss, slope):
    logprobs = f64([math.log(rho)]).requires_grad_()
    found, clipped, _ = policy_loss(
        logprobs,
        f64([0.0]),
        f64([float(advantage)]),
        all_true(logprobs),
        clip_low=0.2,
        clip_high=0.2,
    )
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-5)
    assert logprobs.grad.item() == pytest.approx(slope, abs=1e-5)
    # exactly the tokens without gradient are counted as clipped
    assert clipped.item() == (slope == 0)


def test_a_wider_upper_clip_lets_a_rare_token_grow_further():
    logprobs = f64([math.log(1.25)]).requires_grad_()
    for high, expected in ((0.2, 0.0), (0.28, -1.25)):
        logprobs.grad = None
        policy_loss(
            logprobs, f64([0.0]), f64([1.0]), all_true(logprobs), clip_low=0.2, clip_high=high
        )[0].backward()
        assert logprobs.grad.item() == pytest.approx(expected)


def test_approx_kl_is_half_the_masked_mean_square():
    """Changes (.1, -.2, .3) and two pads:
    .14 / 3 / 2 = .023333, where the pads would make it .014."""
    change = f64([0.1, -0.2, 0.3, 5.0, math.nan])
    _, _, approx_kl = policy_loss(
        change,
        torch.zeros_like(change),
        torch.ones_like(change),
        torch.tensor([[True, True, True, False, False]]),
    )
    assert approx_kl.item() == pytest.approx(0.023333, abs=1e-5)


NORMALISED = {
    "sequence": (0.0, (-0.5, 0.166667)),
    "token": (0.5, (-0.25, 0.25)),
    "constant": (0.125, (-0.0625, 0.0625)),
}


@pytest.mark.parametrize("normalise", NORMALISED)
def test_length_normalisation_table(normalise):
    """Responses of 1 and 3 tokens with A = +1 and -1 at rho = 1:
    the loss, then what each token weighs."""
    logprobs = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    loss, _, _ = policy_loss(
        logprobs,
        torch.zeros(2, 3),
        f64([1.0], [-1.0]).expand(2, 3),
        mask,
        normalise=normalise,
        longest=8,
    )
    loss.backward()
    expected, (short, long) = NORMALISED[normalise]
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert logprobs.grad.flatten().tolist() == near(short, 0, 0, long, long, long)


def test_the_sequence_ratio_is_the_geometric_mean_over_own_tokens():
    """GSPO of ratios (1.10, .95, 1.30, .90): 1.051539, whatever stands in a masked slot."""
    logprobs = f64([1.10, 0.95, 7.0, 1.30, 0.90]).log().requires_grad_()
    mask = torch.tensor([[True, True, False, True, True]])
    loss, _, _ = policy_loss(
        logprobs,
        torch.zeros(1, 5),
        -torch.ones(1, 5),
        mask,
        clip_low=0.2,
        clip_high=0.2,
        normalise="sequence",
        ratio="sequence",
    )
    loss.backward()
    assert loss.item() == pytest.approx(1.051539, abs=1e-5)
    assert logprobs.grad[0].tolist() == near(*[1.051539 / 4] * 2, 0, *[1.051539 / 4] * 2)


def test_gspo_weighs_a_response_of_one_token_like_one_of_three():
    """Log-ratios (.0003), and (.0006, .0003, -.0006) with the mean .0001; A = +1 and -1.
    (-s_1 + s_2) / 2 = -.000100005; a token of the first weighs -s_1 / 2, of the second s_2 / 6.
    Its ratio may rise by .0004, so a mean of .0005 is clipped."""
    logprobs = f64([3e-4, 0.0, 0.0], [6e-4, 3e-4, -6e-4]).requires_grad_()
    mask = torch.tensor([[True, False, False], [True, True, True]])
    advantages = f64([1.0], [-1.0]).expand(2, 3)
    how = {key: GSPO[key] for key in ("clip_low", "clip_high", "normalise", "ratio")}
    loss, clipped, _ = policy_loss(logprobs, torch.zeros(2, 3), advantages, mask, **how)
    loss.backward()
    assert (
        loss.item() == pytest.approx((-math.exp(3e-4) + math.exp(1e-4)) / 2, abs=1e-9)
        and clipped == 0
    )
    short, long = -math.exp(3e-4) / 2, math.exp(1e-4) / 6
    assert logprobs.grad.flatten().tolist() == pytest.approx(
        [short, 0, 0, long, long, long], abs=1e-9
    )
    for mean, outside in ((3.9e-4, 0), (5e-4, 1)):
        assert (
            policy_loss(
                f64([2 * mean, 0.0]),
                f64([0.0, 0.0]),
                f64([1.0, 1.0]),
                torch.ones(1, 2, dtype=torch.bool),
                **how,
            )[1]
            == outside
        )


@pytest.mark.parametrize("normalise", ["token", "constant"])
def test_a_sequence_ratio_under_another_denominator_is_refused(normalise):
    x = f64([0.0])
    with pytest.raises(
        ValueError, match=f"ratio 'sequence' .GSPO. needs normalise 'sequence', not '{normalise}'"
    ):
        policy_loss(x, x, x, all_true(x), normalise=normalise, longest=8, ratio="sequence")


@pytest.mark.parametrize(
    "change",
    [
        {"normalise": "token"},
        {"normalise": "constant"},
        {"clip_low": 0.2},
        {"clip_high": 0.28},
        {"estimator": "gae"},
    ],
    ids=str,
)
def test_gspo_is_taken_whole_or_refused_before_anything_runs(change):
    rl_settings.check(replace(Settings(), **GSPO))
    with pytest.raises(
        ValueError,
        match="ratio 'sequence' is GSPO only with estimator 'group', "
        "normalise 'sequence' and a clip range",
    ):
        train(None, None, [], replace(Settings(), **GSPO | change), seed=1, stage="x")


@pytest.mark.parametrize(
    "normalise, loss, weights",
    [
        ("token", 0.5, (-1 / 4, 1 / 4)),
        ("sequence", 0.0, (-1 / 5, 1 / 15)),
        ("constant", 2 / 40, (-1 / 40, 1 / 40)),
    ],
)
def test_a_mean_over_responses_counts_those_without_an_advantage(normalise, loss, weights):
    """Five responses of 1, 3, 2, 2 and 2 tokens,
    the last three of them without an advantage; at most 8 tokens each."""
    model = Bigram(UNIFORM, UNIFORM, UNIFORM, UNIFORM)
    own = [[False, True, False, False], [False, True, True, True]] + [
        [False, True, True, False]
    ] * 3
    rows = [([0, 1], own[0][:2]), ([0, 1, 2, 3], own[1])] + [([0, 2, 3], own[2][:3])] * 3
    ids, mask = torch.tensor([[0, 1, 0, 0], [0, 1, 2, 3]] + [[0, 2, 3, 0]] * 3), torch.tensor(own)
    old = torch.where(mask, math.log(0.25), 0.0)
    advantages = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0])[:, None] * mask
    zeros = torch.zeros(5, 4)
    data = Rollouts(
        rows, ids, mask, old, old, zeros, zeros[:, 0], mask.any(1), advantages, zeros, False, {}
    )
    settings = replace(GROUP, normalise=normalise, max_new=8)
    out = learn(
        model,
        None,
        {"policy": NoStep()},
        data,
        settings,
        tokenizer=None,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    assert out["loss"] == pytest.approx(loss, abs=1e-6) and out["updates"] == 1
    # d log p / d logit is 1 - p for the token that was written:
    # row 0 is the 1 after 0, which row 1 writes too
    short, long = weights
    assert model.logits.grad[0, 1].item() == pytest.approx(0.75 * (short + long), abs=1e-6)
    assert model.logits.grad[1, 2].item() == pytest.approx(0.75 * long, abs=1e-6)
    out = learn(
        model,
        None,
        {"policy": NoStep()},
        data,
        replace(settings, minibatches=2),
        tokenizer=None,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    # the mean over two halves
    assert (
        out["updates"] == 2 and normalise == "token" or out["loss"] == pytest.approx(loss, abs=1e-6)
    )


def test_on_the_first_pass_the_loss_says_nothing_and_its_gradient_does():
    logprobs = torch.full((2, 3), -1.0, dtype=torch.float64, requires_grad=True)
    loss, clipped, approx_kl = policy_loss(
        logprobs, logprobs.detach(), f64([1.0], [-1.0]).expand(2, 3), all_true(logprobs)
    )
    loss.backward()
    assert (loss.item(), clipped.item(), approx_kl.item()) == (0, 0, 0)
    assert logprobs.grad.flatten().tolist() == near(*[-1 / 6] * 3, *[1 / 6] * 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "normalise, ratio", [*((name, "token") for name in NORMALISED), ("sequence", "sequence")]
)
def test_what_stands_in_a_masked_slot_leaves_loss_and_gradients_finite(bad, normalise, ratio):
    mask = torch.tensor([[True, True, False], [True, False, False]])

    def losses(filler):
        tensors = [
            torch.where(mask, x, filler)
            for x in (
                f64([-1.0, -2.0, 0.0], [-0.5, 0.0, 0.0]),
                f64([-1.1, -1.9, 0.0], [-0.6, 0.0, 0.0]),
                f64([1.0, 1.0, 0.0], [-2.0, 0.0, 0.0]),
            )
        ]
        tensors[0].requires_grad_()
        out = policy_loss(*tensors, mask, normalise=normalise, longest=8, ratio=ratio)
        out[0].backward()
        return [x.item() for x in out], tensors[0].grad.flatten().tolist()

    assert losses(bad) == losses(0.0)


@pytest.mark.parametrize("normalise", NORMALISED)
def test_the_parts_of_a_minibatch_add_up_to_its_loss(normalise):
    """A part divides by the whole minibatch's 4 own tokens, or 3 responses, not by its own."""
    logprobs = f64([-1.0, -2.0], [-0.5, -1.0], [-0.7, -0.3])
    old = f64([-1.1, -1.9], [-0.6, -1.0], [-0.6, -0.4])
    advantages = f64([1.0, 1.0], [-2.0, 0.0], [0.5, 0.0])
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    whole = policy_loss(logprobs, old, advantages, mask, normalise=normalise, longest=8)[0]
    count = 4 if normalise == "token" else 3
    parts = [
        policy_loss(
            logprobs[rows],
            old[rows],
            advantages[rows],
            mask[rows],
            normalise=normalise,
            longest=8,
            count=count,
        )[0]
        for rows in (slice(0, 1), slice(1, 3), slice(3, 3))
    ]
    assert (
        sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)
        and parts[0].item() != 0
        and parts[2].item() == 0
    )


# ---- the critic's loss ----


@pytest.mark.parametrize("value, loss, slope", [(0.9, 0.045, 0), (0.6, 0.08, -0.4)])
def test_clipped_value_loss_and_gradient(value, loss, slope):
    values = f64([value]).requires_grad_()
    found = value_loss(values, f64([0.5]), f64([1.0]), all_true(values))
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-5)
    assert values.grad.item() == pytest.approx(slope, abs=1e-5)


def test_value_loss_is_the_mean_over_own_tokens_whatever_is_masked():
    mask = torch.tensor([[True, True, False]])
    for filler in (0.0, math.nan, math.inf):
        values = f64([0.9, 0.6, filler]).requires_grad_()
        loss = value_loss(values, f64([0.5, 0.5, filler]), f64([1.0, 1.0, filler]), mask)
        loss.backward()
        assert loss.item() == pytest.approx((0.045 + 0.08) / 2)
        assert values.grad[0].tolist() == near(0, -0.2, 0)


def test_the_parts_of_a_minibatch_add_up_to_its_value_loss():
    """Errors .09 and .16 in one part and .25 in the other: (.09 + .16) / 2 / 3 + .25 / 2 / 3."""
    values, mask = f64([0.7, 0.6], [0.5, 0.0]), torch.tensor([[True, True], [True, False]])
    parts = [
        value_loss(
            values[i : i + 1],
            values[i : i + 1],
            torch.ones(1, 2, dtype=torch.float64),
            mask[i : i + 1],
            count=3,
        ).item()
        for i in range(2)
    ]
    assert parts == near(0.25 / 6, 0.25 / 6)
    assert sum(parts) == pytest.approx(
        value_loss(values, values, torch.ones(2, 2, dtype=torch.float64), mask).item(), abs=1e-12
    )


def test_explained_variance_vector():
    values, returns = f64([1.5, 2.0, 2.5, 9.0]), f64([1.0, 2.0, 3.0, math.nan])
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(values, returns, mask) == pytest.approx(0.75)
    assert (
        explained_variance(returns, returns, mask) == 1
        and explained_variance(torch.full_like(values, 2.0), returns, mask) == 0
    )
    # nothing to explain
    assert math.isnan(explained_variance(values, torch.ones_like(values), mask))


# ---- group baselines ----

ZEROES_AND_ONES = {
    (1, "zscore"): (2.645751, -0.377964),
    (1, "centre"): (0.875, -0.125),
    (1, "leave_one_out"): (1, -0.142857),
    (4, "zscore"): (1, -1),
    (4, "centre"): (0.5, -0.5),
    (4, "leave_one_out"): (0.571429, -0.571429),
}


def advantages_of(*groups, baseline="centre", kept=None):
    scores = f64(*groups)
    return group_advantages(
        scores, all_true(scores) if kept is None else torch.tensor(kept), baseline
    ).tolist()


@pytest.mark.parametrize("right, baseline", ZEROES_AND_ONES)
def test_advantages_of_right_and_wrong_in_a_group_of_eight(right, baseline):
    up, down = ZEROES_AND_ONES[right, baseline]
    assert advantages_of([1.0] * right + [0.0] * (8 - right), baseline=baseline)[0] == near(
        *[up] * right, *[down] * (8 - right)
    )


@pytest.mark.parametrize("baseline", ["zscore", "centre", "leave_one_out"])
@pytest.mark.parametrize("score", [0.0, 1.0, 0.1])
def test_a_group_in_which_all_are_alike_gives_no_advantage(baseline, score):
    assert advantages_of([score] * 8, baseline=baseline)[0] == near(*[0] * 8)


@pytest.mark.parametrize(
    "baseline, expected",
    [
        ("centre", (0.625, -0.375, 0.125, -0.375)),
        ("leave_one_out", (0.833333, -0.5, 0.166667, -0.5)),
    ],
)
def test_advantages_of_graded_scores(baseline, expected):
    assert advantages_of([1.0, 0.0, 0.5, 0.0], baseline=baseline)[0] == near(*expected)


def test_the_standard_deviation_blows_a_near_tie_up_to_full_size():
    assert advantages_of([0.501, 0.5, 0.5, 0.499], baseline="zscore")[0] == near(
        1.414214, 0, 0, -1.414214
    )
    assert advantages_of([0.501, 0.5, 0.5, 0.499], baseline="centre")[0] == near(
        0.001, 0, 0, -0.001
    )


def test_no_standardised_advantage_exceeds_the_root_of_the_group_less_one():
    generator = torch.Generator().manual_seed(0)
    for size in (2, 4, 8):
        scores = torch.randn(200, size, generator=generator, dtype=torch.float64) ** 3
        assert (
            group_advantages(scores, all_true(scores), "zscore").abs().max()
            <= math.sqrt(size - 1) + 1e-9
        )
        # which is reached
        assert advantages_of([5.0] + [0.0] * (size - 1), baseline="zscore")[0][0] == pytest.approx(
            math.sqrt(size - 1)
        )


@pytest.mark.parametrize("baseline", ["zscore", "centre", "leave_one_out"])
def test_every_groups_advantages_sum_to_zero_whoever_is_masked_out(baseline):
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    kept = torch.rand(50, 6, generator=generator) < 0.7
    advantages = group_advantages(scores, kept, baseline)
    assert (
        advantages.sum(1).abs().max() < 1e-9
        and (advantages[~kept] == 0).all()
        and (advantages[kept] != 0).float().mean() > 0.9
    )


@pytest.mark.parametrize("masked", [100.0, math.nan])
def test_a_sample_that_is_masked_out_is_no_part_of_its_groups_mean(masked):
    """(1, 0, .5) have the mean .5 and the variance 1/6;
    of the two others a sample sees 3/2 of its distance."""
    kept = [[True, True, True, False]]
    assert advantages_of([1.0, 0.0, 0.5, masked], kept=kept)[0] == near(0.5, -0.5, 0, 0)
    assert advantages_of([1.0, 0.0, 0.5, masked], kept=kept, baseline="zscore")[0] == near(
        1.224745, -1.224745, 0, 0
    )
    assert advantages_of([1.0, 0.0, 0.5, masked], kept=kept, baseline="leave_one_out")[0] == near(
        0.75, -0.75, 0, 0
    )


@pytest.mark.parametrize("baseline", ["zscore", "centre", "leave_one_out"])
def test_a_group_with_fewer_than_two_samples_left_gets_nothing(baseline):
    kept = [[False, True, False], [False, False, False]]
    assert advantages_of([1.0, 5.0, 2.0], [1.0, 5.0, 2.0], kept=kept, baseline=baseline) == [
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_an_unknown_baseline_is_refused():
    with pytest.raises(
        ValueError, match="baseline is 'median'; there is zscore, centre and leave_one_out"
    ):
        advantages_of([1.0, 0.0], baseline="median")


# ---- two rollouts by hand, from tokens to losses ----


class Bigram(nn.Module):
    """A stub whose next token depends on the last one alone: a table of probabilities."""

    def __init__(self, *table):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(table).log())

    def forward(self, ids, select=None, attend=None):
        return self.logits[ids][select]


class Critic(nn.Module):
    """A stub that says the given value at each position, that is before the next token."""

    def __init__(self, *table):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))

    def forward(self, ids):
        return self.table[:, : ids.shape[1]]


class NoStep:
    """Stands in for Optimizers and changes nothing."""

    def step(self, scale):
        return 0.0


# Tokens: 0 is the prompt, 1 and 2 are words, 3 is the end mark.
# Row 0 answers "1 end"; row 1 writes 2, then a tool inserts 1, then it ends.
ROWS = [([0, 1, 3], [False, True, True]), ([0, 2, 1, 3], [False, True, False, True])]
IDS = torch.tensor([[0, 1, 3, 3], [0, 2, 1, 3]])
OWN = torch.tensor([[False, True, True, False], [False, True, False, True]])
UNIFORM = (0.25, 0.25, 0.25, 0.25)
# p(1|0) = 1/2, p(2|0) = 1/8, p(3|1) = 1/4
OLD = Bigram((0.25, 0.5, 0.125, 0.125), UNIFORM, UNIFORM, UNIFORM)
# p(1|0) = p(2|0) = 1/4, p(3|1) = 1/2
REFERENCE = Bigram(UNIFORM, (0.125, 0.25, 0.125, 0.5), UNIFORM, UNIFORM)
# .6, .0875 and .325
NEW = Bigram((0.15625, 0.6, 0.0875, 0.15625), (0.225, 0.225, 0.225, 0.325), UNIFORM, UNIFORM)
# 7 and 9 stand where no own token follows
OLD_CRITIC = Critic((0.5, 0.8, 7.0, 7.0), (0.0, 9.0, -0.4, 7.0))
NEW_CRITIC = Critic((0.6, 1.3, 7.0, 7.0), (-0.3, 9.0, -0.5, 7.0))
KL_COEF = 0.1 / math.log(2)  # halving or doubling a token's probability is then worth .1


def by_hand(estimator):
    """The two rollouts as `rollout` would hand them over,
    and their token rewards; scores +1 and -1, lambda 1/2."""
    with torch.no_grad():
        old = token_logprobs(OLD, IDS, OWN)
        ref = token_logprobs(REFERENCE, IDS, OWN)
        values = critic_values(OLD_CRITIC, IDS, False)
    scores = torch.tensor([1.0, -1.0])
    reward = token_rewards(scores, old, ref, OWN, KL_COEF)
    if estimator == "gae":
        advantages, returns = gae(reward, values, OWN, 1.0, 0.5)
        advantages = whiten(advantages, OWN)
    else:
        k1 = torch.where(OWN, old - ref, 0.0).sum(1)
        advantages = (
            group_advantages((scores - KL_COEF * k1)[None], torch.tensor([[True, True]])).reshape(
                -1, 1
            )
            * OWN
        )
        returns = torch.zeros_like(advantages)
    return Rollouts(
        ROWS, IDS, OWN, old, ref, values, scores, OWN.any(1), advantages, returns, False, {}
    ), reward


def learned_by_hand(data, critic):
    settings = Settings(epochs=1, minibatches=1, clip_low=0.2, clip_high=0.28)
    return learn(
        NEW,
        critic,
        {"policy": NoStep(), "critic": NoStep()},
        data,
        settings,
        tokenizer=None,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )


def test_two_rollouts_by_hand_through_gae():
    data, reward = by_hand("gae")
    # log-probabilities: log 1/2, log 1/4 | log 1/8, -, log 1/4; the tool's token has none
    assert data.old_logprobs[0].tolist() == near(0, -0.693147, -1.386294, 0)
    assert data.old_logprobs[1].tolist() == near(0, -2.079442, 0, -1.386294)
    # k1 is log 2, -log 2 | -log 2, -, -log 2, so the KL costs .1 or pays .1;
    # the scores +1 and -1 come at the ends
    assert reward[0].tolist() == near(0, -0.1, 1.1, 0)
    assert reward[1].tolist() == near(0, 0.1, 0, -0.9)
    # V before each own token: .5, .8 | 0, -, -.4
    assert data.old_values[OWN].tolist() == near(0.5, 0.8, 0.0, -0.4)
    # delta: -.1 + .8 - .5 = .2, 1.1 - .8 = .3 | .1 - .4 - 0 = -.3, -, -.9 + .4 = -.5
    # A: .2 + .3 / 2 = .35, .3 | -.3 - .5 / 2 = -.55, -, -.5;  R = A + V: .85, 1.1 | -.55, -, -.9
    assert data.returns[OWN].tolist() == near(0.85, 1.1, -0.55, -0.9)
    # mean of A: -.1; deviations .45, .4, -.45, -.4; variance .18125, its root .425735
    assert data.advantages[OWN].tolist() == near(1.056996, 0.939552, -1.056996, -0.939552)
    out = learned_by_hand(data, NEW_CRITIC)
    # rho: .6 / .5 = 1.2, .325 / .25 = 1.3 | .0875 / .125 = .7, -, 1.3; bounds .8 and 1.28
    # losses: -1.2 * 1.056996 = -1.268395, -1.28 * .939552 = -1.202627
    # (clipped) | .8 * 1.056996 = .845597 (clipped), -, 1.3 * .939552 = 1.221418
    assert (
        out["loss"] == pytest.approx((-1.268395 - 1.202627 + 0.845597 + 1.221418) / 4, abs=1e-5)
        and out["clip_fraction"] == 0.5
    )
    # (log rho)^2: .033241, .068835 | .127217, -, .068835;
    # half their mean .037266; the largest |log rho| is that of .7
    assert out["approx_kl"] == pytest.approx(0.037266, abs=1e-5)
    assert out["first_log_ratio"] == pytest.approx(0.356675, abs=1e-5)
    # new V: .6, 1.3 | -.3, -, -.5; within .2 of the old: .6, 1.0 | -.2, -, -.5
    # worse squared errors: .25^2 = .0625, max(.2^2, .1^2) = .04 | max(.25^2,
    # .35^2) = .1225, -, .4^2 = .16; half their mean .048125
    assert out["value_loss"] == pytest.approx(0.048125, abs=1e-5)
    # R - V = A has the variance .18125; R has the mean .125 and the variance .745625
    assert (
        out["explained_variance"] == pytest.approx(1 - 0.18125 / 0.745625, abs=1e-5)
        and out["updates"] == 1
    )


def test_two_rollouts_by_hand_through_the_group():
    data, _ = by_hand("group")
    # a row's score less its KL: 1 - .1 + .1 = 1 | -1 + .1 + .1 = -.8; their mean is .1
    assert data.advantages[0].tolist() == near(0, 0.9, 0.9, 0)
    assert data.advantages[1].tolist() == near(0, -0.9, 0, -0.9)
    # losses: -1.2 * .9, -1.28 * .9 | .8 * .9, -, 1.3 * .9; their sum is -.342
    out = learned_by_hand(data, None)
    assert out["loss"] == pytest.approx(-0.342 / 4, abs=1e-5) and out["clip_fraction"] == 0.5
    assert math.isnan(out["value_loss"]) and math.isnan(out["explained_variance"])


# ---- rollouts ----


@pytest.fixture
def policy(tokenizer):
    """A small random model that likes the end mark,
    so that most replies end before their twelfth token."""
    model = GPT(Config(tokenizer.vocab_size, 128, 2, 32, 4, 2, 64, tied=False)).init_weights(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        # what every position has in common, so that a head without bias can have a favourite
        model.embedding.weight[:, 0] = 1.0
        model.head.weight[sorted(tokenizer.runtime_ids), 0] = -5.0
        model.head.weight[tokenizer.end_id, 0] = 3.4
    return model.eval()


@pytest.fixture
def scored(monkeypatch):
    """Rewards that differ from response to response; one that is cut off is masked out."""
    monkeypatch.setattr(
        ppo,
        "robust_reward",
        lambda domain, *, tokens, truncated, **_: None if truncated else sum(tokens) % 97 / 97,
    )


def some_tasks(count=6):
    return world.draw_tasks(world.generator(0, "test_ppo"), ("math", "stem"), count)


def moved(model, scale=0.02, seed=3):
    """The model with every weight pushed a little."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def roll(
    policy, tokenizer, settings=GROUP, reference=None, critic=None, kl_coef=0.0, seed=0, tasks=None
):
    return rollout(
        policy,
        policy if reference is None else reference,
        critic,
        None,
        tokenizer,
        tasks or some_tasks(settings.prompts),
        settings=settings,
        kl_coef=kl_coef,
        seed=seed,
    )


class Spy:
    """Stands in for a function of ppo.py, calls it, and keeps what went in and came out."""

    def __init__(self, monkeypatch, name, keep=lambda args, result: (args, result)):
        self.function, self.keep, self.calls = getattr(ppo, name), keep, []
        monkeypatch.setattr(ppo, name, self)

    def __call__(self, *args, **how):
        result = self.function(*args, **how)
        self.calls.append(self.keep(args, result))
        return result


def test_rows_are_prompt_major_and_every_row_is_scored_by_its_own_task(
    policy, tokenizer, monkeypatch
):
    """Rewards equal to the prompt's index: every group is all alike, so every advantage is 0."""
    tasks = some_tasks(3)
    index = {task.prompt: float(i) for i, task in enumerate(tasks)}
    monkeypatch.setattr(
        world, "score_replies", lambda tasks, replies: [index[task.prompt] for task in tasks]
    )
    monkeypatch.setattr(ppo, "robust_reward", lambda domain, *, verified, **_: verified)
    data = roll(policy, tokenizer, tasks=tasks)
    assert (
        data.scores.tolist() == [i // 4 for i in range(12)]
        and (data.advantages == 0).all()
        and data.log["dead_groups"] == 1
    )
    for i, (ids, mask) in enumerate(data.rows):
        prompt = tokenizer.prompt(tasks[i // 4].messages)
        assert (
            ids[: len(prompt)] == prompt
            and not any(mask[: len(prompt)])
            and all(mask[len(prompt) :])
        )


@pytest.mark.parametrize(
    "settings", [GROUP, replace(GROUP, temperature=0.7), GAE, replace(GAE, temperature=1.4)]
)
def test_the_first_pass_sees_a_ratio_of_one(policy, tokenizer, scored, settings):
    critic = RewardModel(policy) if settings.estimator == "gae" else None
    data = roll(policy, tokenizer, settings, critic=critic)
    out = learn(
        policy,
        critic,
        {"policy": NoStep(), "critic": NoStep()},
        data,
        replace(settings, minibatches=3),
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    assert (
        out["first_log_ratio"] < 1e-5
        and out["approx_kl"] < 1e-9
        and out["clip_fraction"] == 0
        and out["updates"] > 1
    )
    # nor does generation, with its cache, see other probabilities
    assert data.log["sampling_gap"] < 1e-4


def test_the_first_log_ratio_is_taken_before_any_update(policy, tokenizer, scored):
    data = roll(policy, tokenizer)
    settings = replace(GROUP, epochs=2, minibatches=2)
    out = learn(
        policy,
        None,
        {"policy": Optimizers(policy, 1e-2)},
        data,
        settings,
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    assert out["first_log_ratio"] < 1e-5 and out["approx_kl"] > 1e-4


def test_old_logprobs_are_those_of_the_rows_alone(policy, tokenizer, scored):
    data = roll(policy, tokenizer)
    for k, (ids, mask) in enumerate(data.rows):
        with torch.no_grad():
            alone = token_logprobs(policy, torch.tensor([ids]), torch.tensor([mask]))[0]
        assert (
            torch.allclose(data.old_logprobs[k, : len(ids)], alone, atol=1e-5)
            and (data.old_logprobs[k, len(ids) :] == 0).all()
        )


def test_the_logged_kl_is_the_mean_over_responses_of_the_sum_over_tokens(policy, tokenizer, scored):
    reference = moved(policy)
    data = roll(policy, tokenizer, reference=reference, kl_coef=0.1)
    sums = []
    for ids, mask in data.rows:
        row, own = torch.tensor([ids]), torch.tensor([mask])
        with torch.no_grad():
            sums.append(
                float(
                    (token_logprobs(policy, row, own) - token_logprobs(reference, row, own)).sum()
                )
            )
    assert (
        data.log["kl"] == pytest.approx(sum(sums) / len(sums), abs=1e-4)
        and abs(data.log["kl"]) > 1e-3
    )


def test_a_kl_target_without_a_kl_coef_is_refused(policy, tokenizer):
    with pytest.raises(ValueError, match="kl_target multiplies kl_coef"):
        train(
            policy,
            tokenizer,
            [],
            replace(GROUP, kl_target=1.0, kl_coef=0.0),
            seed=1,
            stage="rl_stem",
        )


def test_pads_change_no_kl(policy, tokenizer, scored):
    reference = moved(policy)
    data = roll(policy, tokenizer, reference=reference, kl_coef=0.1)
    ids = nn.functional.pad(data.ids, (0, 9), value=tokenizer.pad_id)
    mask = nn.functional.pad(data.mask, (0, 9), value=False)
    with torch.no_grad():
        k1 = token_logprobs(policy, ids, mask) - token_logprobs(reference, ids, mask)
    assert torch.allclose(
        k1.sum(1),
        torch.where(data.mask, data.old_logprobs - data.reference_logprobs, 0.0).sum(1),
        atol=1e-5,
    )
    assert (k1[:, -9:] == 0).all()


def test_a_reference_equal_to_the_policy_gives_a_kl_of_exactly_zero(policy, tokenizer, scored):
    data = roll(policy, tokenizer, reference=copy.deepcopy(policy), kl_coef=0.1)
    assert data.log["kl"] == 0 and torch.equal(data.old_logprobs, data.reference_logprobs)


def test_old_and_reference_are_read_at_the_temperature_of_sampling(policy, tokenizer, scored):
    data = roll(
        policy, tokenizer, replace(GROUP, temperature=0.7), reference=moved(policy), kl_coef=0.1
    )
    for model, kept in ((policy, data.old_logprobs), (moved(policy), data.reference_logprobs)):
        with torch.no_grad():
            assert torch.allclose(kept, token_logprobs(model, data.ids, data.mask, 0.7), atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [{"normalise": "tokens"}, {"ratio": "both"}, {"estimator": "GAE"}, {"baseline": "median"}],
)
def test_an_unknown_choice_is_refused_before_anything_runs(change):
    with pytest.raises(ValueError, match="there is"):
        train(None, None, [], replace(GROUP, **change), seed=1, stage="x")


@pytest.mark.parametrize(
    "change",
    [
        {"baseline": "zscore"},
        {"normalise": "constant"},
        {"normalise": "sequence"},
        GSPO,
        {"clip_low": 1e-6},
        {"clip_high": 1e-6},
        {"max_new": 3},
        {"estimator": "gae", "gamma": 0.5},
        {"estimator": "gae", "gae_lambda": 0.0},
        {"estimator": "gae", "kl_coef": 0.5},
    ],
    ids=str,
)
def test_every_setting_reaches_the_update(policy, tokenizer, scored, change):
    """Two epochs, so that clipping matters; the weights end elsewhere when one setting changes."""
    ends = []
    for more in ({"estimator": change.get("estimator", "group")}, change):
        model = copy.deepcopy(policy)
        train(
            model,
            tokenizer,
            some_tasks(),
            replace(GROUP, epochs=3, lr=1e-2, **more),
            seed=1,
            stage="x",
        )
        ends.append(weights_of(model))
    assert not same_weights(ends[0], ends[1])


def test_the_kl_lowers_the_score_that_a_group_compares(policy, tokenizer, scored):
    reference = moved(policy)
    plain, data = (
        roll(policy, tokenizer, reference=reference, kl_coef=coef) for coef in (0.0, 0.5)
    )
    k1 = torch.where(data.mask, data.old_logprobs - data.reference_logprobs, 0.0).sum(1)
    expected = group_advantages((data.scores - 0.5 * k1).view(3, 4), data.kept.view(3, 4)).flatten()
    assert torch.allclose(
        data.advantages.sum(1) / data.mask.sum(1).clamp(min=1), expected, atol=1e-5
    )
    assert not torch.allclose(data.advantages, plain.advantages, atol=1e-3)


def test_gae_of_a_rollout_is_that_of_its_parts_whitened(policy, tokenizer, scored):
    critic, reference = RewardModel(policy), moved(policy)
    data = roll(policy, tokenizer, GAE, reference=reference, critic=critic, kl_coef=0.1)
    reward = token_rewards(data.scores, data.old_logprobs, data.reference_logprobs, data.mask, 0.1)
    advantages, returns = gae(reward, data.old_values, data.mask, 1.0, 0.95)
    assert torch.equal(data.returns, returns)
    assert torch.equal(data.advantages, whiten(advantages, data.mask))
    ends = torch.tensor([len(ids) - 1 for ids, _ in data.rows])[:, None]
    finished = data.kept
    assert torch.allclose(
        advantages.gather(1, ends)[finished, 0],
        (reward - data.old_values).gather(1, ends)[finished, 0],
        atol=1e-6,
    )


def test_what_a_tool_inserts_is_no_part_of_the_mask(policy, tokenizer, scored):
    with torch.no_grad():
        policy.head.weight[tokenizer.call_id, 0] = 2.6
    data = roll(policy, tokenizer, replace(GROUP, max_new=40), seed=2)
    # the model may also write such a mark itself; what a tool answers stands behind an end mark
    inserted = (data.ids == tokenizer.result_id) & (data.ids.roll(1, 1) == tokenizer.end_id)
    called = inserted.any(1)
    assert (
        called.any() and not data.mask[inserted].any() and (data.advantages[~data.mask] == 0).all()
    )
    for k in called.nonzero()[:, 0].tolist():
        ids, mask = data.rows[k]
        start = next(
            i
            for i, token in enumerate(ids)
            if token == tokenizer.result_id and ids[i - 1] == tokenizer.end_id
        )
        assert mask[start - 1] and ids[start - 1] == tokenizer.end_id and not mask[start]


def test_the_log_counts_only_what_is_kept(policy, tokenizer, monkeypatch):
    """Four groups of three: all masked out, one left,
    two alike, two unlike; the first three teach nothing."""
    table = iter([None, None, None, 1.0, None, None, 0.5, 0.5, None, 0.0, 1.0, None])
    monkeypatch.setattr(ppo, "robust_reward", lambda domain, **_: next(table))
    data = roll(policy, tokenizer, replace(GROUP, prompts=4, samples=3))
    assert (
        data.log["dead_groups"] == 0.75
        and data.log["reward"] == pytest.approx(3.0 / 5)
        and data.kept.sum() == 5
    )
    assert (
        data.advantages.abs().amax(1).nonzero()[:, 0].tolist() == [9, 10]
        and not data.mask[:3].any()
    )


def test_reward_true_reward_and_the_models_score_are_means_over_the_same_responses(
    policy, tokenizer, monkeypatch
):
    """Of four the second is cut off and the fourth unchecked:
    (1 + .5) / 2, (1 + 0) / 2 and (1 + 3) / 2."""
    table = iter([1.0, None, 0.5, None])
    monkeypatch.setattr(ppo, "robust_reward", lambda domain, **_: next(table))
    monkeypatch.setattr(world, "score_replies", lambda tasks, replies: [1.0, 0.0, 0.0, None])
    monkeypatch.setattr(ppo, "predicted_reward", lambda *args: torch.tensor([1.0, 9.0, 3.0, 9.0]))
    settings = replace(GROUP, prompts=1, samples=4)
    log = rollout(
        policy,
        policy,
        None,
        RewardModel(policy),
        tokenizer,
        some_tasks(1),
        settings=settings,
        kl_coef=0.0,
        seed=0,
    ).log
    assert (log["reward"], log["true_reward"], log["rm_score"]) == (0.75, 0.5, 2.0)


def test_where_every_response_is_masked_out_no_reward_is_known(policy, tokenizer, monkeypatch):
    monkeypatch.setattr(ppo, "robust_reward", lambda domain, **_: None)
    log = roll(policy, tokenizer).log
    assert math.isnan(log["reward"]) and math.isnan(log["true_reward"]) and log["dead_groups"] == 1


def test_the_logged_entropy_is_of_rows_of_every_prompt(policy, tokenizer, scored, monkeypatch):
    """80 rows of 20 prompts: 64 of them are looked at,
    and what only the last prompt has is seen."""
    seen = []

    def entropy(model, ids, mask, temperature):
        seen.extend(ids.tolist())
        return torch.where(mask, 2.0, 99.0)

    monkeypatch.setattr(rollouts, "entropy_of", entropy)
    tasks = some_tasks(20)
    data = roll(policy, tokenizer, replace(GROUP, prompts=20), tasks=tasks)
    # of the model's own tokens
    assert len(data.rows) == 80 and len(seen) == 64 and data.log["entropy"] == 2.0
    for task in tasks:
        prompt = tokenizer.prompt(task.messages)
        assert sum(row[: len(prompt)] == prompt for row in seen) in (3, 4)


def test_entropy_of_known_logits():
    model = Bigram([math.exp(z) for z in (0, 1, 2)], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    ids, mask = torch.tensor([[0, 1, 2]]), torch.tensor([[False, True, True]])
    # token 1 comes after token 0, whose logits are 0, 1, 2
    assert entropy_of(model, ids, mask, 1.0)[0].tolist() == near(0, 0.832396, math.log(3))
    assert entropy_of(model, ids, mask, 1e4)[0].tolist() == near(0, math.log(3), math.log(3))


def test_a_value_is_read_before_its_token(policy, tokenizer):
    """Changing a token changes the values after it and never its own."""
    critic, ids = RewardModel(policy), torch.arange(10, 18)[None]
    changed = ids.clone()
    changed[0, 4] = 99
    with torch.no_grad():
        before = critic_values(critic, ids, False)[0]
        after = critic_values(critic, changed, False)[0]
    assert before[0] == 0 and torch.equal(before[:5], after[:5]) and (before[5:] != after[5:]).all()


def test_values_have_one_precision_in_the_rollout_and_in_the_update(
    policy, tokenizer, scored, monkeypatch
):
    """bfloat16 products on the CPU, as on a GPU: the head is float32 in both,
    with the same numbers within a caller's autocast."""
    for module in (ppo, rewards):
        monkeypatch.setattr(
            module, "autocast", lambda device: torch.autocast(device.type, torch.bfloat16)
        )
    spy = Spy(monkeypatch, "value_loss", lambda args, result: (args[0].detach(), args[1]))
    critic = RewardModel(policy)
    data = roll(policy, tokenizer, GAE, critic=critic)
    learn(
        policy,
        critic,
        {"policy": NoStep(), "critic": NoStep()},
        data,
        GAE,
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    ((values, old),) = spy.calls
    assert values.dtype == old.dtype == data.old_values.dtype == torch.float32
    # nor in name alone
    assert not torch.equal(old, old.bfloat16().float())
    assert not torch.equal(values, values.bfloat16().float())
    with torch.no_grad():
        alone = critic(data.ids)
        with torch.autocast("cpu", torch.bfloat16):
            assert (
                torch.equal(critic(data.ids), alone)
                and predicted_reward(critic, tokenizer, data.rows).dtype == torch.float32
            )


# ---- learning ----


class PlainDescent:
    """Stands in for Optimizers: p -= gradient,
    so that weights tell gradients apart and nothing is normalised away."""

    def __init__(self, model, lr=1.0):
        self.model, self.lr = model, lr

    def step(self, scale):
        with torch.no_grad():
            for p in self.model.parameters():
                if p.grad is not None:
                    p -= self.lr * p.grad
                    p.grad = None
        return 0.0


def test_a_masked_rows_tokens_leave_the_loss_and_the_update_unchanged(policy, tokenizer, scored):
    data = roll(policy, tokenizer, replace(GROUP, max_new=5))
    masked = (~data.kept).nonzero()[:, 0].tolist()
    assert 0 < len(masked) < 12
    other = copy.deepcopy(data)
    for k in masked:
        other.ids[k] = 40 + torch.arange(data.ids.shape[1])
        other.rows[k] = (other.ids[k].tolist(), [False] * data.ids.shape[1])
        other.advantages[k] = math.nan
    ends = []
    for seen in (data, other):
        tensors = (
            token_logprobs(policy, seen.ids, seen.mask),
            seen.old_logprobs,
            seen.advantages,
            seen.mask,
        )
        losses = [
            policy_loss(*tensors, normalise=normalise, longest=5)[0].item()
            for normalise in NORMALISED
        ]
        model = copy.deepcopy(policy)
        learn(
            model,
            None,
            {"policy": PlainDescent(model)},
            seen,
            GROUP,
            tokenizer=tokenizer,
            rehearsal=(),
            rng=random.Random(0),
            scale=1.0,
        )
        ends.append((losses, weights_of(model)))
    assert (
        ends[0][0] == ends[1][0]
        and same_weights(ends[0][1], ends[1][1])
        and not same_weights(policy.state_dict(), ends[0][1])
    )


def test_rollouts_without_an_advantage_change_nothing(policy, tokenizer, monkeypatch):
    monkeypatch.setattr(ppo, "robust_reward", lambda domain, **_: 1.0)
    before = weights_of(policy)
    out = learn(
        policy,
        None,
        {"policy": Optimizers(policy, 1e-3)},
        roll(policy, tokenizer),
        GROUP,
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    assert (
        same_weights(before, policy.state_dict())
        and out["updates"] == 0
        and out["first_log_ratio"] == 0
    )


def test_the_minibatches_of_a_pass_hold_every_row_with_an_advantage_once(
    policy, tokenizer, scored, monkeypatch
):
    spy = Spy(monkeypatch, "policy_loss", lambda args, result: args[3].sum().item())
    data = roll(policy, tokenizer)
    rows = int((data.advantages.abs().amax(1) > 0).sum())
    out = learn(
        policy,
        None,
        {"policy": NoStep()},
        data,
        replace(GROUP, epochs=3, minibatches=2),
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    tokens = int(data.mask[data.advantages.abs().amax(1) > 0].sum())
    assert (
        rows > 4
        and out["updates"] == 6
        and [sum(spy.calls[i : i + 2]) for i in (0, 2, 4)] == [tokens] * 3
    )


def test_rehearsal_adds_its_share_of_the_supervised_gradient(policy, tokenizer, scored):
    rows = [
        tokenizer.render(
            [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": str(n)}]
        )
        for n in range(3)
    ]
    data, ends = roll(policy, tokenizer), []
    for settings in (GROUP, replace(GROUP, rehearsal_rows=3, rehearsal_coef=0.5)):
        model = copy.deepcopy(policy)
        learn(
            model,
            None,
            {"policy": PlainDescent(model)},
            data,
            settings,
            tokenizer=tokenizer,
            rehearsal=rows,
            rng=random.Random(0),
            scale=1.0,
        )
        ends.append(model.head.weight.detach())
    model = copy.deepcopy(policy)
    (0.5 * batch_loss(model, tokenizer, rows, supervised_count(rows), CPU)).backward()
    assert (
        torch.allclose(ends[0] - ends[1], model.head.weight.grad, atol=1e-5)
        and model.head.weight.grad.abs().max() > 1e-2
    )


def test_rehearsal_keeps_to_the_rows_of_a_forward(policy, tokenizer, scored, monkeypatch):
    rows = [
        tokenizer.render(
            [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": str(n)}]
        )
        for n in range(7)
    ]
    settings = replace(GROUP, rehearsal_rows=7, micro_rows=3)
    data = roll(policy, tokenizer)
    seen = []
    forward = GPT.forward
    monkeypatch.setattr(
        GPT,
        "forward",
        lambda model, ids, *rest, **how: seen.append(len(ids)) or forward(model, ids, *rest, **how),
    )
    learn(
        policy,
        None,
        {"policy": NoStep()},
        data,
        settings,
        tokenizer=tokenizer,
        rehearsal=rows,
        rng=random.Random(0),
        scale=1.0,
    )
    assert seen[:3] == [3, 3, 1] and max(seen) == 3


def test_a_step_raises_the_probability_of_what_was_better_than_its_group(policy, tokenizer, scored):
    data = roll(policy, tokenizer)
    learn(
        policy,
        None,
        {"policy": PlainDescent(policy, 0.1)},
        data,
        GROUP,
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    with torch.no_grad():
        change = token_logprobs(policy, data.ids, data.mask) - data.old_logprobs
    assert (torch.where(data.mask, change, 0.0) * data.advantages).sum() > 0


def test_a_step_for_one_response_raises_its_own_probability(policy, tokenizer, scored):
    """Alone: beside others, with which it shares all weights, it may fall."""
    data = roll(policy, tokenizer)
    best = int(data.advantages.sum(1).argmax())
    data.advantages[:best] = data.advantages[best + 1 :] = 0
    learn(
        policy,
        None,
        {"policy": PlainDescent(policy, 0.01)},
        data,
        GROUP,
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=1.0,
    )
    with torch.no_grad():
        change = token_logprobs(policy, data.ids, data.mask) - data.old_logprobs
    assert change[best][data.mask[best]].sum() > 0


def test_the_critic_learns_to_explain_the_returns(policy, tokenizer, scored):
    critic = RewardModel(policy)
    data, optimizers = roll(policy, tokenizer, GAE, critic=critic), Optimizers(critic, 1e-2)
    settings = replace(GAE, value_clip=100.0)
    losses = [
        learn(
            policy,
            critic,
            {"policy": NoStep(), "critic": optimizers},
            data,
            settings,
            tokenizer=tokenizer,
            rehearsal=(),
            rng=random.Random(0),
            scale=1.0,
        )["value_loss"]
        for _ in range(8)
    ]
    assert losses[-1] < 0.5 * losses[0], losses


def test_a_critic_that_begins_as_the_reward_model_is_in_the_units_of_the_squashed_score(policy):
    """The reward of chat is tanh(score / 2):
    a score of 3 is worth 0.905148, of -1 it is -0.462117."""
    critic = RewardModel(policy)
    with torch.no_grad():
        critic.score.weight.zero_()
        for score, worth in ((3.0, 0.905148), (-1.0, -0.462117)):
            critic.score.bias.fill_(score)
            assert critic_values(critic, torch.tensor([[1, 2, 3]]), True).tolist() == [
                pytest.approx([0, worth, worth], abs=1e-6)
            ]
            assert critic_values(critic, torch.tensor([[1, 2, 3]]), False).tolist() == [
                [0, score, score]
            ]


# ---- the loop ----


def test_the_critic_starts_as_the_reward_models_readout(policy, tokenizer, monkeypatch):
    model = RewardModel(moved(policy), seed=9)
    with torch.no_grad():
        model.score.bias.fill_(0.7)
    seen = []

    def first(policy, reference, critic, *rest, **how):
        seen.append(weights_of(critic))
        data = rollout(policy, reference, critic, *rest, **how)
        with torch.no_grad():
            assert torch.equal(data.old_values, critic_values(model, data.ids, True))
            everywhere = critic(data.ids)
        ends = torch.tensor([len(mask) - 1 - mask[::-1].index(True) for _, mask in data.rows])
        assert torch.allclose(
            everywhere[torch.arange(len(ends)), ends],
            predicted_reward(model, tokenizer, data.rows),
            atol=1e-5,
        )
        return data

    monkeypatch.setattr(ppo, "rollout", first)
    before = weights_of(model)
    train(
        policy,
        tokenizer,
        some_tasks(3),
        replace(GAE, iterations=1),
        seed=1,
        stage="x",
        reward_model=model,
    )
    # the critic learns, the reward model does not
    assert same_weights(before, seen[0]) and same_weights(before, model.state_dict())


@pytest.mark.parametrize("settings", [replace(GROUP, kl_coef=0.05), replace(GAE, kl_coef=0.05)])
def test_the_reference_is_the_policy_as_it_enters_and_stays_so(
    policy, tokenizer, scored, monkeypatch, settings
):
    spy = Spy(
        monkeypatch,
        "rollout",
        lambda args, result: (args[1], weights_of(args[1]), weights_of(args[0]), result.log["kl"]),
    )
    before = weights_of(policy)
    train(
        policy, tokenizer, some_tasks(), replace(settings, iterations=3, lr=1e-2), seed=1, stage="x"
    )
    assert all(same_weights(before, reference) for _, reference, _, _ in spy.calls)
    assert same_weights(before, spy.calls[-1][0].state_dict())
    assert not same_weights(before, policy.state_dict())
    assert not any(p.requires_grad for p in spy.calls[0][0].parameters())
    assert spy.calls[0][3] == 0 and spy.calls[-1][3] != 0 and same_weights(before, spy.calls[0][2])


@pytest.mark.parametrize("settings", [GROUP, GAE])
def test_the_kl_is_logged_even_where_it_costs_nothing(
    policy, tokenizer, scored, tmp_path, settings
):
    """kl_coef 0 is how a reward is over-optimised on purpose:
    the KL to the start is what one wants to see then."""
    train(
        policy,
        tokenizer,
        some_tasks(),
        replace(settings, lr=1e-2, iterations=3),
        seed=1,
        stage="x",
        log=tmp_path / "x.csv",
    )
    with open(tmp_path / "x.csv", newline="") as file:
        kl = [float(line["kl"]) for line in csv.DictReader(file)]
    assert abs(kl[0]) < 1e-4 < abs(kl[-1])


def test_the_controller_is_fed_the_sum_per_response(policy, tokenizer, scored, monkeypatch):
    used_coefs, rolled = [], ppo.rollout
    monkeypatch.setattr(
        ppo,
        "rollout",
        lambda *args, **how: used_coefs.append(how["kl_coef"]) or rolled(*args, **how),
    )
    sampled = Spy(monkeypatch, "rollout", lambda args, result: result)
    spy = Spy(monkeypatch, "next_kl_coef")
    train(
        policy,
        tokenizer,
        some_tasks(),
        replace(GROUP, iterations=3, kl_coef=0.05, kl_target=6.0, kl_horizon=100, lr=1e-2),
        seed=1,
        stage="x",
    )
    coef = 0.05
    for used, data, ((given, kl, target, episodes, horizon), result) in zip(
        used_coefs, sampled.calls, spy.calls
    ):
        assert used == given == coef and (target, episodes, horizon) == (6.0, 12, 100)
        assert kl == pytest.approx(
            float((data.old_logprobs - data.reference_logprobs).sum(1).mean())
        )
        coef = result
    assert len(spy.calls) == 3 and coef < 0.05  # the KL is far below its target


def test_a_reward_that_is_not_finite_names_stage_and_iteration_and_restores_the_last_good_weights(
    policy, tokenizer, monkeypatch
):
    calls = []

    def turns_bad(domain, *, tokens, **_):
        calls.append(1)
        return math.nan if len(calls) == 15 else sum(tokens) % 7 / 7  # 12 rows an iteration

    monkeypatch.setattr(ppo, "robust_reward", turns_bad)
    spy = Spy(monkeypatch, "learn", lambda args, result: weights_of(args[0]))
    before = weights_of(policy)
    with pytest.raises(FloatingPointError, match="^rl_x: a reward is not finite at iteration 1$"):
        train(policy, tokenizer, some_tasks(), GROUP, seed=1, stage="rl_x")
    assert (
        len(spy.calls) == 1
        and same_weights(spy.calls[0], policy.state_dict())
        and not same_weights(before, policy.state_dict())
    )


def test_a_loss_that_is_not_finite_undoes_the_updates_of_its_iteration(
    policy, tokenizer, scored, monkeypatch
):
    losses = []
    entered = Spy(monkeypatch, "rollout", lambda args, result: weights_of(args[0]))
    midway = []

    def turns_bad(*args, **how):
        losses.append(1)
        loss, *rest = policy_loss(*args, **how)
        if len(losses) == 4:  # two minibatches an iteration: the second of the second
            midway.append(weights_of(policy))
        return (loss * math.nan if len(losses) == 4 else loss, *rest)

    monkeypatch.setattr(ppo, "policy_loss", turns_bad)
    with pytest.raises(FloatingPointError, match="^x: the loss is not finite at iteration 1$"):
        train(policy, tokenizer, some_tasks(), replace(GROUP, minibatches=2), seed=1, stage="x")
    assert same_weights(entered.calls[1], policy.state_dict())
    assert not same_weights(entered.calls[1], midway[0])


@pytest.mark.parametrize("settings", [GROUP, GAE])
def test_a_log_has_one_line_an_iteration_with_everything_to_watch(
    policy, tokenizer, scored, tmp_path, settings
):
    out = train(
        policy, tokenizer, some_tasks(), settings, seed=1, stage="x", log=tmp_path / "x.csv"
    )
    with open(tmp_path / "x.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert (
        [line["iteration"] for line in lines] == ["0", "1"]
        and float(lines[0]["reward"]) == out["first_reward"]
        and not policy.training
    )
    watched = [
        "reward",
        "true_reward",
        "kl",
        "entropy",
        "length",
        "truncated",
        "dead_groups",
        "loss",
        "clip_fraction",
        "approx_kl",
        "grad_norm",
    ]
    watched += ["value_loss", "explained_variance"] if settings.estimator == "gae" else []
    assert all(math.isfinite(float(line[name])) for line in lines for name in watched)


def test_training_repeats_bit_for_bit_with_the_same_seed(policy, tokenizer, scored):
    start, ends = weights_of(policy), []
    for seed in (1, 1, 2):
        policy.load_state_dict(start)
        torch.manual_seed(random.randrange(10**6))
        train(policy, tokenizer, some_tasks(), GROUP, seed=seed, stage="x")
        ends.append(weights_of(policy))
    assert same_weights(ends[0], ends[1]) and not same_weights(ends[0], ends[2])


@pytest.mark.parametrize("settings", [GROUP, GAE])
def test_what_is_rewarded_grows(policy, tokenizer, monkeypatch, settings):
    """The reward is the share of tokens from the lower half of the vocabulary,
    a third at first (the end mark is not among them)."""
    monkeypatch.setattr(
        ppo,
        "robust_reward",
        lambda domain, *, tokens, **_: sum(token < 256 for token in tokens) / len(tokens),
    )
    settings = replace(
        settings,
        iterations=16,
        prompts=4,
        samples=8,
        epochs=2,
        minibatches=2,
        max_new=6,
        lr=1e-2,
        critic_lr=1e-2,
    )
    out = train(policy, tokenizer, some_tasks(8), settings, seed=1, stage="x")
    assert out["reward"] > out["first_reward"] + 0.2, (out["first_reward"], out["reward"])


# ---- the stages ----


def test_the_filter_keeps_two_to_fourteen_right_of_sixteen(policy, tokenizer, monkeypatch):
    monkeypatch.setattr(
        rollouts,
        "pass_rates",
        lambda model, tokenizer, tasks, **_: [k / 16 for k in range(17)] + [None],
    )
    kept, counts = ready_tasks(policy, tokenizer, "rl_stem", replace(GROUP, candidates=18), seed=1)
    everything = world.draw_tasks(world.generator(1, "rl_stem"), ("math", "stem"), 18)
    assert kept == everything[2:15]
    assert counts == {"prompts": 18, "kept": 13, "too_hard": 2, "too_easy": 2, "not_checked": 1}


def test_the_filter_of_eight_samples_keeps_one_to_seven(policy, tokenizer, monkeypatch):
    monkeypatch.setattr(
        rollouts, "pass_rates", lambda model, tokenizer, tasks, **_: [k / 8 for k in range(9)]
    )
    assert (
        ready_tasks(policy, tokenizer, "rl_code", replace(GROUP, candidates=9), seed=1)[1]["kept"]
        == 7
    )


def test_the_filter_asks_the_policy_that_enters_and_chat_is_not_filtered(
    policy, tokenizer, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        rollouts,
        "pass_rates",
        lambda model, tokenizer, tasks, **_: asked.append(model) or [0.5] * len(tasks),
    )
    assert (
        len(ready_tasks(policy, tokenizer, "rl_code", replace(GROUP, candidates=5), seed=1)[0]) == 5
    )
    assert asked == [policy]
    tasks, counts = ready_tasks(
        policy, tokenizer, "rl_preference", replace(GROUP, candidates=5), seed=1
    )
    assert (
        len(asked) == 1
        and counts == {"prompts": 5, "kept": 5}
        and {task.domain for task in tasks} == {"chat"}
    )


@pytest.mark.parametrize(
    "rate, why",
    [
        (0.0, "too hard 7, too easy 0, not checked 0"),
        (1.0, "too hard 0, too easy 7, not checked 0"),
        (None, "too hard 0, too easy 0, not checked 7"),
    ],
)
def test_a_stage_whose_filter_leaves_nothing_says_so_and_changes_nothing(
    policy, tokenizer, monkeypatch, capsys, rate, why
):
    monkeypatch.setattr(
        rollouts, "pass_rates", lambda model, tokenizer, tasks, **_: [rate] * len(tasks)
    )
    before = weights_of(policy)
    out = rl_stem(policy, tokenizer, replace(GROUP, candidates=7), seed=1)
    assert (
        out["skipped"] and out["filter"]["kept"] == 0 and same_weights(before, policy.state_dict())
    )
    assert (
        capsys.readouterr().out
        == "rl_stem: skipped, because none of 7 prompts has a pass rate between 10% and 90% "
        f"({why})\n"
    )


def test_a_stage_trains_on_the_kept_prompts_only(policy, tokenizer, scored, monkeypatch):
    monkeypatch.setattr(
        rollouts, "pass_rates", lambda model, tokenizer, tasks, **_: [0.5, 0.0, 1.0, 0.25, 0.0]
    )
    spy = Spy(monkeypatch, "rollout", lambda args, result: {task.prompt for task in args[5]})
    tasks = world.draw_tasks(world.generator(1, "rl_stem"), ("math", "stem"), 5)
    out = rl_stem(policy, tokenizer, replace(GROUP, candidates=5), seed=1)
    assert spy.calls == [{tasks[0].prompt, tasks[3].prompt}] * 2 and out["filter"]["kept"] == 2


def test_the_preference_stage_is_trained_on_the_reward_models_score(policy, tokenizer):
    model = RewardModel(policy, seed=1)
    out = ppo.rl_preference(
        policy, tokenizer, model, replace(GROUP, kl_coef=0.03, candidates=4, iterations=1), seed=1
    )
    assert math.isfinite(out["rm_score"]) and out["filter"]["kept"] == 4


def test_verified_stages_keep_no_reference_and_preference_does():
    assert (
        STAGE_SETTINGS["rl_stem"].kl_coef
        == STAGE_SETTINGS["rl_code"].kl_coef
        == 0
        < STAGE_SETTINGS["rl_preference"].kl_coef
    )


# ---- the command ----


def run_command(monkeypatch, capsys, *flags):
    """(exit code, stdout, stderr) of `python ppo.py` in this process."""
    monkeypatch.setattr(
        sys, "argv", ["ppo.py", "--threads", "1", "--device", "cpu", *map(str, flags)]
    )
    code = 0
    try:
        ppo.main()
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    return code, told.out, told.err


def shown(monkeypatch, capsys, policy, tokenizer, tmp_path, *flags):
    """(lines of the table that --show-rollout prints, the rollouts behind it)."""
    save_checkpoint(tmp_path / "sft.pt", policy, tokenizer, "overall_sft")
    spy = Spy(monkeypatch, "rollout", lambda args, result: result)
    code, out, err = run_command(
        monkeypatch,
        capsys,
        "--show-rollout",
        "--init",
        tmp_path / "sft.pt",
        "--out",
        tmp_path / "out",
        *flags,
    )
    assert code == 0, err
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:2] == ["token", "logprob"])
    return lines[head + 1 :], spy.calls[0]


def test_show_rollout_prints_one_row_a_token(policy, tokenizer, tmp_path, monkeypatch, capsys):
    lines, data = shown(monkeypatch, capsys, policy, tokenizer, tmp_path)
    own = data.ids[0][data.mask[0]].tolist()
    assert own
    assert [line[:14].strip() for line in lines] == [
        repr(tokenizer.encoding.decode([token]))[:14] for token in own
    ]
    for line, t in zip(lines, data.mask[0].nonzero()[:, 0].tolist()):
        numbers = [float(word) for word in line.split()[-6:]]
        assert (
            numbers[0] == pytest.approx(data.old_logprobs[0, t].item(), abs=6e-4)
            and numbers[2] == 0
        )
        assert numbers[3] == pytest.approx(data.old_values[0, t].item(), abs=6e-4)
        assert numbers[5] == pytest.approx(data.advantages[0, t].item(), abs=6e-4)
    # the whole reward is at the end
    assert float(lines[-1].split()[-2]) == pytest.approx(data.scores[0].item(), abs=6e-4)


def test_show_rollout_takes_a_reward_model_for_the_preference_stage(
    policy, tokenizer, tmp_path, monkeypatch, capsys
):
    save_checkpoint(tmp_path / "rm.pt", RewardModel(policy), tokenizer, "reward_model")
    lines, data = shown(
        monkeypatch,
        capsys,
        policy,
        tokenizer,
        tmp_path,
        "--stage",
        "rl_preference",
        "--reward-model",
        tmp_path / "rm.pt",
    )
    assert len(lines) == data.mask[0].sum() > 0


def test_show_rollout_says_when_there_is_nothing_to_show(
    policy, tokenizer, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ppo, "robust_reward", lambda domain, **_: None)
    lines, _ = shown(monkeypatch, capsys, policy, tokenizer, tmp_path)
    assert lines == ["no token is in the loss: the response was cut off, or could not be checked"]


def test_show_prints_the_numbers_of_the_loss_functions(monkeypatch, capsys):
    """The group: A = +-.5, rho = e^(new - old); GAE: section 3's response of three tokens."""
    code, out, _ = run_command(monkeypatch, capsys, "--show")
    rows = [line.split() for line in out.splitlines()]
    old, new, rho, advantages, unclipped, clipped, larger = f64(
        *([float(x) for x in row[-7:]] for row in rows[2:8])
    ).T.reshape(7, 2, 3)
    assert code == 0 and rows[1][-1] == "larger"
    mask, scores = torch.ones(2, 3, dtype=torch.bool), f64([1.0, 0.0])
    expected = group_advantages(scores, mask[:1, :2])[0]
    assert advantages.tolist() == [[expected[0]] * 3, [expected[1]] * 3]
    assert torch.allclose(rho, (new - old).exp(), atol=6e-4)
    for t in range(6):  # the loss of each token alone is the larger of its two terms
        one = [x.reshape(6, 1)[t : t + 1] for x in (new, old, advantages, mask)]
        assert policy_loss(*one, clip_low=Settings.clip_low, clip_high=Settings.clip_high)[
            0
        ].item() == pytest.approx(larger.flatten()[t].item(), abs=6e-4)
    assert (
        torch.allclose(unclipped, -advantages * rho, atol=1e-3)
        and torch.equal(larger, torch.maximum(unclipped, clipped))
        and (clipped != unclipped).any()
    )
    measured = policy_loss(
        new, old, advantages, mask, clip_low=Settings.clip_low, clip_high=Settings.clip_high
    )
    told = [float(word) for word in re.findall(r"-?\d\.\d+", " ".join(rows[9]))]
    assert told == pytest.approx([x.item() for x in measured], abs=6e-5) and 0 < told[1] < 1
    reward, values, deltas, *estimates = f64(
        *([float(x) for x in row[-5:]] for row in rows[12:15])
    ).T.tolist()
    assert reward == pytest.approx(REWARD[0].tolist(), abs=6e-4) and values == VALUES[0].tolist()
    assert deltas == pytest.approx(section_three(gae_lambda=0.0)[1], abs=6e-4)
    for told, known in zip(estimates, section_three()[1:]):
        assert told == pytest.approx(known, abs=6e-4)


@pytest.mark.parametrize(
    "flags, expected",
    [
        *(
            ((f"--{name}", value), {name: value})
            for name in CHOICES
            if name != "ratio"
            for value in CHOICES[name]
        ),
        (("--ratio", "token"), {"ratio": "token"}),
        (("--ratio", "sequence"), GSPO),
        (
            ("--ratio", "sequence", "--normalise", "sequence", "--baseline", "zscore"),
            GSPO | {"baseline": "zscore"},
        ),
        (
            ("--kl-coef", "0.25", "--iterations", "7", "--lr", "0.125"),
            {"kl_coef": 0.25, "iterations": 7, "lr": 0.125},
        ),
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_flag_reaches_its_setting_and_changes_no_other(
    policy, tokenizer, tmp_path, monkeypatch, capsys, flags, expected
):
    given = []

    def stop(stage, policy, tokenizer, settings, **_):
        given.append((stage, settings))
        raise ValueError("seen")

    monkeypatch.setattr(alone, "evaluate", lambda *_, **__: {})
    monkeypatch.setattr(ppo, "rl_stage", stop)
    save_checkpoint(tmp_path / "sft.pt", policy, tokenizer, "overall_sft")
    code, _, err = run_command(
        monkeypatch,
        capsys,
        "--stage",
        "rl_code",
        "--init",
        tmp_path / "sft.pt",
        "--out",
        tmp_path / "out",
        *flags,
    )
    assert (code, err) == (2, "error: seen\n")
    assert given == [("rl_code", replace(STAGE_SETTINGS["rl_code"], **expected))]


@pytest.mark.parametrize(
    "flags, told",
    [
        (("--ratio", "sequence", "--normalise", "token"), "ratio 'sequence' is GSPO only with"),
        (("--ratio", "sequence", "--estimator", "gae"), "ratio 'sequence' is GSPO only with"),
        (("--baseline", "zscore", "--estimator", "gae"), "--baseline: is of --estimator group"),
    ],
)
def test_flags_that_are_no_method_together_are_refused_before_a_model_is_read(
    tmp_path, monkeypatch, capsys, flags, told
):
    code, _, err = run_command(
        monkeypatch, capsys, *flags, "--init", tmp_path / "missing.pt", "--out", tmp_path / "out"
    )
    assert (
        code == 2
        and err.startswith(f"error: {told}")
        and err.count("\n") == 1
        and not (tmp_path / "out").exists()
    )


def test_the_help_names_the_defaults_of_the_published_forms(monkeypatch, capsys):
    code, out, _ = run_command(monkeypatch, capsys, "--help")
    told = " ".join(out.split())
    assert code == 0
    assert all(
        f"default: {getattr(Settings, name)}" in told[told.index(f" --{name} {{") :][:260]
        for name in ("baseline", "normalise", "ratio")
    )


@pytest.mark.parametrize("flags", [("--data", "own.jsonl"), ("--init", "missing.pt")])
def test_what_cannot_be_used_ends_with_code_two_and_one_line(flags, tmp_path, monkeypatch, capsys):
    code, _, err = run_command(
        monkeypatch, capsys, flags[0], tmp_path / flags[1], "--out", tmp_path / "out"
    )
    assert (
        code == 2
        and err.startswith("error: ")
        and err.count("\n") == 1
        and not (tmp_path / "out").exists()
    )


def test_a_policys_checkpoint_is_no_reward_model(policy, tokenizer, tmp_path, monkeypatch, capsys):
    save_checkpoint(tmp_path / "sft.pt", policy, tokenizer, "overall_sft")
    code, _, err = run_command(
        monkeypatch,
        capsys,
        "--init",
        tmp_path / "sft.pt",
        "--stage",
        "rl_preference",
        "--reward-model",
        tmp_path / "sft.pt",
        "--out",
        tmp_path / "out",
    )
    assert (
        code == 2
        and err.startswith(f"error: {tmp_path}/sft.pt: not a reward model")
        and err.count("\n") == 1
    )


# ---- a stage that was killed in the middle ----


def test_rl_goes_on_in_the_middle_and_ends_with_the_same_weights(
    policy, tokenizer, scored, tmp_path, monkeypatch
):
    """Weights of policy and critic, both optimizers, the order of prompts,
    its generator and the KL coefficient are all carried over."""
    settings = replace(
        GAE, iterations=5, kl_coef=0.05, kl_target=6.0, kl_horizon=100, lr=1e-2, save_every=2
    )

    def run(folder):
        folder.mkdir(exist_ok=True)
        learner, model = copy.deepcopy(policy), RewardModel(policy, 3)
        train(
            learner,
            tokenizer,
            some_tasks(4),
            settings,
            seed=1,
            stage="x",
            reward_model=model,
            log=folder / "x.csv",
        )
        return learner

    whole, scale = run(tmp_path / "whole"), ppo.learning_rate_scale
    with monkeypatch.context() as patch:  # killed in the fourth iteration; two were saved
        patch.setattr(
            ppo,
            "learning_rate_scale",
            lambda step, *rest, **more: (
                (_ for _ in ()).throw(KeyboardInterrupt)
                if step == 3
                else scale(step, *rest, **more)
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    assert (tmp_path / "killed" / "x.part").exists()
    again = run(tmp_path / "killed")
    assert (
        same_weights(again.state_dict(), whole.state_dict())
        and not (tmp_path / "killed" / "x.part").exists()
    )
    assert (tmp_path / "killed" / "x.csv").read_text() == (tmp_path / "whole" / "x.csv").read_text()


@pytest.mark.parametrize("kl_coef, read", [(0.0, [0, 4]), (0.1, [0, 1, 2, 3, 4])])
def test_the_reference_is_read_of_every_row_where_the_kl_costs(monkeypatch, kl_coef, read):
    """Elsewhere of the rows that are looked at, here two of five; the others' KL is then 0."""
    monkeypatch.setattr(rollouts, "LOOKED_AT", 2)
    ids = torch.arange(5)[:, None].expand(5, 3)
    old = torch.full((5, 3), -1.0)
    seen = []

    def reference(ids, own):
        seen.extend(ids[:, 0].tolist())
        return torch.full(ids.shape, -3.0)

    found = rollouts.reference_logprobs(reference, old, ids, ids >= 0, kl_coef, 2)
    assert seen == read
    assert found[:, 0].tolist() == [-3.0 if row in read else -1.0 for row in range(5)]
    assert old.eq(-1).all()


@pytest.mark.parametrize("kl_coef", [0.0, 0.25])
def test_training_hands_its_kl_coefficient_on_to_where_the_reference_is_read(
    policy, tokenizer, scored, monkeypatch, kl_coef
):
    handed = []
    read = rollouts.reference_logprobs

    def recorded(reader, old, ids, own, coef, size):
        handed.append(coef)
        return read(reader, old, ids, own, coef, size)

    monkeypatch.setattr(rollouts, "reference_logprobs", recorded)
    settings = replace(GROUP, iterations=1, kl_coef=kl_coef)
    train(policy, tokenizer, some_tasks(), settings, seed=1, stage="x")
    assert handed == [kl_coef]
