"""dpo.py: the losses and their gradients, what a log-probability sums over,
the pairs, the loop, and what bad files get."""

import csv
import json
import math
import random
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import PlainDescent
from torch import nn

import dpo
from data import world
from data.files.checkpoints import save_checkpoint
from data.runtime import alone
from data.runtime.decoding import Samples
from data.runtime.rows import response_rows
from dpo import (
    Settings,
    annotated_pairs,
    dpo_loss,
    probe,
    reference_logprobs,
    sequence_logprobs,
    train,
)
from model import GPT, Config, load_checkpoint, token_logprobs

CPU = torch.device("cpu")
# section 5's pair: log-ratios (2, -1), h = 3
POLICY, REFERENCE, LENGTHS = (-10.0, -15.0), (-12.0, -14.0), (8.0, 10.0)
LN2 = math.log(2)


def loss_of(policy=POLICY, reference=REFERENCE, **how):
    """(loss, gradients with respect to the policy's two log-probabilities,
    chosen reward, rejected reward), in float64."""
    chosen, rejected = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in policy)
    lengths = {
        f"{side}_lengths": torch.tensor([n], dtype=torch.float64)
        for side, n in zip(("chosen", "rejected"), LENGTHS)
    }
    losses, *rewards = dpo_loss(
        chosen,
        rejected,
        *(torch.tensor([x], dtype=torch.float64) for x in reference),
        **{**lengths, **how},
    )
    losses.sum().backward()
    return (
        losses.item(),
        (chosen.grad.item(), rejected.grad.item()),
        *(reward.item() for reward in rewards),
    )


def loss_at(h, **how):
    return loss_of((h, 0.0), (0.0, 0.0), **how)


class Fixed(nn.Module):
    """A stub with section 0's toy logits,
    cos(a (t+1) (v+1)), which depend on the position alone."""

    def __init__(self, a, length=5, vocabulary=4):
        super().__init__()
        # (S, V)
        self.logits = nn.Parameter(
            torch.cos(a * torch.arange(1, length + 1)[:, None] * torch.arange(1, vocabulary + 1))
        )

    def forward(self, ids, select=None, attend=None):
        return self.logits[: ids.shape[1]].expand(len(ids), -1, -1)[select]


# section 6's pair
TOY = (
    ([0, 1, 2, 3, 1], [False, False, True, True, True]),
    ([0, 1, 3, 0], [False, False, True, True]),
)
TOY_TOKENIZER = SimpleNamespace(pad_id=0)


def some_pairs(tokenizer, count, seed=0):
    """A question of random digits; the chosen response is a few 7s,
    the rejected one a few 3s, of unequal length."""
    rng = random.Random(seed)
    return [
        tuple(
            response_rows(
                tokenizer,
                [{"role": "user", "content": "9" * rng.randint(1, 12)}],
                ["7" * rng.randint(1, 9), "3" * rng.randint(1, 9)],
            )
        )
        for _ in range(count)
    ]


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def weights_of(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def read_csv(path):
    with open(path, newline="") as file:
        return [
            {key: float(value) if value else None for key, value in line.items()}
            for line in csv.DictReader(file)
        ]


# ---- the loss ----


@pytest.mark.parametrize(
    "how, loss, gradients",
    [
        ({}, 0.554355, (-0.0425557, 0.0425557)),
        ({"label_smoothing": 0.1}, 0.584355, (-0.0325557, 0.0325557)),
        ({"kind": "ipo"}, 4.0, (-4.0, 4.0)),
        # h = 2/8 + 1/10 = 0.35 and sg(-1.75) = 0.148047;
        # each side's gradient is divided by its own length
        (
            {"length_normalised": True, "beta": 5.0},
            0.160224,
            (-5 * 0.148047 / 8, 5 * 0.148047 / 10),
        ),
        ({"nll_coef": 1.0}, 1.804355, (-0.0425557 - 1 / 8, 0.0425557)),
    ],
    ids=["dpo", "cdpo", "ipo", "length-normalised", "with likelihood"],
)
def test_loss_and_gradient_vectors(how, loss, gradients):
    value, found, *_ = loss_of(**how)
    assert value == pytest.approx(loss, abs=1e-6) and found == pytest.approx(gradients, abs=1e-6)


def test_the_rewards_are_beta_times_the_log_ratios_and_carry_no_gradient():
    assert loss_of()[2:] == pytest.approx((0.2, -0.1), abs=1e-12)
    policy = torch.tensor([-10.0], requires_grad=True)
    assert not any(
        reward.requires_grad
        for reward in dpo_loss(policy, policy, torch.zeros(1), torch.zeros(1))[1:]
    )


def test_the_loss_is_ln_2_and_the_rewards_are_0_where_policy_and_reference_are_equal():
    loss, gradients, *rewards = loss_of(REFERENCE, REFERENCE)
    assert (
        loss == pytest.approx(LN2, abs=1e-12)
        and rewards == [0, 0]
        and gradients == pytest.approx((-0.05, 0.05), abs=1e-12)
    )


def test_only_the_difference_counts_whether_the_chosen_response_rose_or_fell():
    # log-ratios (3, -4) and (-3, -10): h = 7
    rose, fell = loss_of((-9.0, -18.0)), loss_of((-15.0, -24.0))
    assert rose[0] == pytest.approx(0.403186, abs=1e-6)
    assert rose[0] == pytest.approx(fell[0], abs=1e-12)
    assert rose[1] == pytest.approx(fell[1], abs=1e-12)
    assert rose[2] > 0 > fell[2]


def test_the_likelihood_term_tells_a_chosen_response_that_fell():
    fell = loss_of((-15.0, -24.0), nll_coef=1.0)[0]
    rose = loss_of((-9.0, -18.0), nll_coef=1.0)[0]
    assert fell - rose == pytest.approx(6 / 8, abs=1e-12)


def test_ipo_pulls_back_what_is_past_its_target():
    loss, gradients, *_ = loss_at(7.0, kind="ipo")
    assert loss == pytest.approx(4, abs=1e-9) and gradients == pytest.approx((4, -4), abs=1e-9)
    # the target: 1 / (2 * 0.1)
    assert (
        loss_at(5.0, kind="ipo")[0] == pytest.approx(0, abs=1e-12)
        and loss_at(4.0, kind="ipo")[1][0] < 0
    )
    assert loss_at(7.0)[1][0] < 0  # DPO pushes on for ever


def test_smoothed_labels_have_a_finite_minimum_at_the_logit_of_their_share():
    best = math.log(0.9 / 0.1) / 0.1
    assert best == pytest.approx(21.972246, abs=1e-6)
    loss, gradients, *_ = loss_at(best, label_smoothing=0.1)
    assert loss == pytest.approx(0.325083, abs=1e-6)
    assert gradients == pytest.approx((0, 0), abs=1e-9)
    assert loss < min(
        loss_at(best - 1, label_smoothing=0.1)[0], loss_at(best + 1, label_smoothing=0.1)[0]
    )


def test_swapping_chosen_and_rejected_flips_h():
    """-log sg(x) + log sg(-x) = -x, so the two losses differ by beta h = 0.3."""
    there, back = loss_of(), loss_of(POLICY[::-1], REFERENCE[::-1])
    assert back[0] - there[0] == pytest.approx(0.3, abs=1e-12) and there[2:] == back[2:][::-1]
    assert loss_of(POLICY[::-1], REFERENCE[::-1], kind="ipo")[0] == pytest.approx(
        (-3 - 5) ** 2, abs=1e-9
    )


def test_huge_differences_stay_finite():
    for h in (-1e6, 1e6):
        loss, gradients, *_ = loss_at(h)
        assert math.isfinite(loss) and all(map(math.isfinite, gradients))
    assert loss_at(-1e6)[0] == pytest.approx(1e5)


def test_a_batch_is_a_column_of_single_pairs():
    sides = [
        torch.tensor([a, b], dtype=torch.float64)
        for a, b in zip((*POLICY, *REFERENCE), (1.0, 2.0, 3.0, 4.0))
    ]
    losses, chosen, rejected = dpo_loss(*sides)
    assert losses.shape == chosen.shape == rejected.shape == (2,)
    assert losses.tolist() == pytest.approx(
        [0.554355, loss_of((1.0, 2.0), (3.0, 4.0))[0]], abs=1e-6
    )


@pytest.mark.parametrize("how", [{"length_normalised": True}, {"nll_coef": 0.5}])
@pytest.mark.parametrize("missing", ["chosen_lengths", "rejected_lengths"])
def test_missing_lengths_are_refused(how, missing):
    with pytest.raises(ValueError, match="lengths"):
        loss_of(**how, **{missing: None})


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind is 'hinge'; there is sigmoid and ipo"):
        loss_of(kind="hinge")


# ---- log-probabilities ----


def test_a_response_costs_the_sum_over_its_tokens_and_not_their_mean():
    """Section 0's token log-probabilities; with means the pair of section 5 would cost 0.675800."""
    with torch.no_grad():
        chosen, rejected = sequence_logprobs(Fixed(0.3), TOY_TOKENIZER, list(TOY), CPU).tolist()
    assert chosen == pytest.approx(-1.835535 - 2.141342 - 1.965396, abs=1e-5)
    assert rejected == pytest.approx(-2.968701, abs=1e-5)
    means = [(a / LENGTHS[0], b / LENGTHS[1]) for a, b in (POLICY, REFERENCE)]
    assert loss_of(*means)[0] == pytest.approx(0.675800, abs=1e-6) and loss_of()[0] < 0.6


def test_policy_reference_and_loss_together_give_the_toy_pairs_loss():
    logps = reference_logprobs(Fixed(0.3), TOY_TOKENIZER, [TOY], CPU)
    reference = reference_logprobs(Fixed(0.4), TOY_TOKENIZER, [TOY], CPU)
    assert [float(x) for x in reference] == pytest.approx([-5.853107, -3.205556], abs=1e-5)
    losses, chosen, rejected = dpo_loss(*logps, *reference)
    assert losses.item() == pytest.approx(0.709581, abs=1e-5)
    assert (chosen - rejected).item() == pytest.approx(-0.0326022, abs=1e-6)


def test_the_end_mark_is_counted(tiny_model, tokenizer):
    ids, mask = some_pairs(tokenizer, 1)[0][0]
    assert ids[-1] == tokenizer.end_id and mask[-1]
    with torch.no_grad():
        whole, cut = sequence_logprobs(
            tiny_model, tokenizer, [(ids, mask), (ids, [*mask[:-1], False])], CPU
        ).tolist()
        last = tiny_model(torch.tensor([ids]))[0, -2].log_softmax(0)[tokenizer.end_id].item()
    assert whole - cut == pytest.approx(last, abs=1e-4) and last < -1


def test_pads_change_no_log_probability(tiny_model, tokenizer):
    rows = [side for pair in some_pairs(tokenizer, 8) for side in pair]
    assert len({len(ids) for ids, _ in rows}) > 4
    with torch.no_grad():
        together = sequence_logprobs(tiny_model, tokenizer, rows, CPU)
        alone = torch.cat([sequence_logprobs(tiny_model, tokenizer, [row], CPU) for row in rows])
        long = sequence_logprobs(tiny_model, tokenizer, [*rows, ([1] * 100, [False] * 100)], CPU)
    assert (
        torch.allclose(together, alone, atol=1e-4)
        and torch.allclose(long[:-1], alone, atol=1e-4)
        and long[-1] == 0
    )


def test_the_cached_reference_is_the_recomputed_one_whatever_the_batches(tiny_model, tokenizer):
    pairs = some_pairs(tokenizer, 7)
    cached = reference_logprobs(tiny_model, tokenizer, pairs, CPU, size=3)
    for side in (0, 1):
        with torch.no_grad():
            again = sequence_logprobs(tiny_model, tokenizer, [pair[side] for pair in pairs], CPU)
        assert torch.allclose(cached[side], again, atol=1e-4) and not cached[side].requires_grad


def test_the_prompts_labels_contribute_no_gradient(tokenizer):
    """Exactly the positions before a response's tokens have one:
    the header predicts 8, 8 predicts 5, 5 predicts the end mark."""
    pair = tuple(
        response_rows(tokenizer, [{"role": "user", "content": "What is 47 + 38?"}], ["85", "75"])
    )
    ids = pair[0][0]
    policy = Fixed(0.3, len(ids), 768)
    prompt = len(tokenizer.prompt([{"role": "user", "content": "What is 47 + 38?"}]))
    chosen, rejected = sequence_logprobs(policy, tokenizer, list(pair), CPU)
    dpo_loss(chosen[None], torch.zeros(1), torch.zeros(1), torch.zeros(1))[0].sum().backward()
    touched = policy.logits.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert (
        touched == list(range(prompt - 1, prompt + 2)) == [len(ids) - 4, len(ids) - 3, len(ids) - 2]
    )
    # what is chosen becomes likelier
    assert all(policy.logits.grad[t, ids[t + 1]] < 0 for t in touched)


def test_show_prints_the_numbers_of_the_loss_function(capsys):
    """Chosen -1.5 against -3.5 and rejected -4 against -3: log-ratios 2 and -1, h = 3."""
    dpo.show()
    told = capsys.readouterr().out
    loss, slopes, *rewards = loss_of((-1.5, -4.0), (-3.5, -3.0))
    assert f"loss = -log sigmoid(beta h) = {loss:.4f}" in told and f"{loss:.4f}" == "0.5544"
    assert "h = 2.000 - (-1.000) = 3.000, beta h = 0.300" in told
    assert f"these: {rewards[0]:.3f}, {rewards[1]:.3f}" in told
    weight = 1 / (1 + math.exp(0.3))
    assert f"sigmoid(-beta h) = {weight:.4f}" in told
    assert f"times the weight: {slopes[0]:.5f}, {slopes[1]:.5f}" in told


# ---- pairs ----


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": "Name a planet."}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello there!"},
            {"role": "user", "content": "Bye"},
        ],
    ],
    ids=["one turn", "after a reply"],
)
def test_a_pair_is_supervised_on_its_responses_and_end_marks_alone(tokenizer, prompt):
    for (ids, mask), text in zip(
        tuple(response_rows(tokenizer, prompt, ["Mars, I think.", "The Moon"])),
        ("Mars, I think.", "The Moon"),
    ):
        supervised = [token for token, on in zip(ids, mask) if on]
        assert supervised == [*tokenizer.encode(text), tokenizer.end_id]
        assert ids == tokenizer.prompt(prompt) + supervised and len(mask) == len(ids)


def replies_of(texts, tokenizer):
    """Samples that say the given texts, whatever the prompts."""
    rows = [[*tokenizer.encode(text), tokenizer.end_id] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [tokenizer.pad_id] * (width - len(row)) for row in rows])
    own = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return Samples(
        tokens,
        torch.zeros(tokens.shape),
        own,
        torch.tensor([len(row) for row in rows]),
        torch.zeros(len(rows), dtype=torch.bool),
    )


def test_the_annotators_favourite_stands_against_what_it_likes_least(tokenizer, monkeypatch):
    """Of four samples that the annotator likes 1, 4, 0.2 and 2,
    the second against the third; a group within its threshold is left out."""
    likings = iter([1, 4, 0.2, 2, 3.0, 3.1, 3.2, 3.4] * 3)
    monkeypatch.setattr(
        dpo,
        "generate",
        lambda model, tokenizer, prompts, n, seed: replies_of(
            ["a", "b", "c", "d"] * len(prompts), tokenizer
        ),
    )
    monkeypatch.setattr(
        dpo.world_chat, "annotate", lambda true_reward, rng, complete: next(likings)
    )
    pairs = annotated_pairs(None, tokenizer, seed=1, prompts=6)
    assert len(pairs) == 3
    for (chosen, chosen_mask), (rejected, rejected_mask) in pairs:
        assert tokenizer.decode([t for t, on in zip(chosen, chosen_mask) if on]) == "b<|end|>"
        assert tokenizer.decode([t for t, on in zip(rejected, rejected_mask) if on]) == "c<|end|>"
        assert chosen[:-2] == rejected[:-2] and not any(chosen_mask[:-2])


def test_pairs_are_made_of_training_prompts_and_repeat_with_the_seed(tokenizer):
    model = GPT(Config(768, 256, 1, 16, 2, 1, 24)).init_weights(0).eval()
    drawn = [annotated_pairs(model, tokenizer, seed=seed, prompts=6, n=2) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0]
    for (ids, mask), _ in drawn[0]:
        text = tokenizer.encoding.decode(ids[: mask.index(True)])
        text = text[len("<|user|>") : -len("<|assistant|>")]
        task = world.parse(
            text.replace("<|end|>", "").replace("<|assistant|>", " || ").replace("<|user|>", " || ")
        )
        assert task.domain == "chat" and world.part_of(task) == "train"


# ---- the loop ----


def test_training_starts_at_ln_2_and_margin_0_and_the_margin_grows(tiny_model, tokenizer, tmp_path):
    pairs = some_pairs(tokenizer, 12)
    out = train(
        tiny_model,
        tokenizer,
        pairs,
        Settings(20, rows=8, lr=1e-3, warmup=2),
        seed=1,
        log=tmp_path / "dpo.csv",
    )
    lines = read_csv(tmp_path / "dpo.csv")
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert lines[0]["loss"] == pytest.approx(LN2, abs=1e-5)
    assert (
        lines[-1]["margin"] > 0.1 and lines[-1]["accuracy"] == 1 and lines[-1]["loss"] < LN2 - 0.05
    )
    assert (
        lines[-1]["chosen_logprob"] - lines[-1]["rejected_logprob"]
        > lines[0]["chosen_logprob"] - lines[0]["rejected_logprob"] + 1
    )
    assert (
        out["margin"] == lines[-1]["margin"]
        and out["tokens"] == lines[-1]["tokens"]
        and not tiny_model.training
    )
    assert len(lines) == 20 and [line["kl"] is not None for line in lines] == [False] * 19 + [True]


def test_the_default_learning_rate_moves_the_loss(tiny_model, tokenizer, tmp_path):
    """A rate that is some hundred times too small (a published
    default for one model on another) leaves the loss at 0.693."""
    train(
        tiny_model,
        tokenizer,
        some_pairs(tokenizer, 12),
        Settings(40, rows=8),
        seed=1,
        log=tmp_path / "dpo.csv",
    )
    assert read_csv(tmp_path / "dpo.csv")[-1]["loss"] < LN2 - 0.02


def test_the_margin_is_exactly_0_before_the_first_step(tiny_model, tokenizer, tmp_path):
    """One pair, so that policy and reference read the very same batch."""
    train(
        tiny_model,
        tokenizer,
        some_pairs(tokenizer, 1),
        Settings(1, rows=1),
        seed=1,
        log=tmp_path / "dpo.csv",
    )
    line = read_csv(tmp_path / "dpo.csv")[0]
    assert (
        line["margin"] == 0
        and line["accuracy"] == 0
        and line["loss"] == pytest.approx(LN2, abs=1e-7)
    )


def test_training_leaves_the_reference_alone(tiny_model, tokenizer, monkeypatch):
    seen, before = [], state_of(tiny_model)
    monkeypatch.setattr(
        dpo,
        "probe",
        lambda model, reference, *rest: (
            seen.append((model, reference)) or {"kl": 0.0, "length": 0.0}
        ),
    )
    train(tiny_model, tokenizer, some_pairs(tokenizer, 4), Settings(3, rows=4, lr=1e-3), seed=1)
    ((model, reference),) = seen
    assert model is tiny_model and reference is not model and not reference.training
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())
    assert all(not p.requires_grad and p.grad is None for p in reference.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_step_of_training_is_measured_against_the_model_as_it_entered(
    tiny_model, tokenizer, tmp_path
):
    """One pair: the margin in the log is beta times what
    its log-probabilities have moved since step 0."""
    train(
        tiny_model,
        tokenizer,
        some_pairs(tokenizer, 1),
        Settings(6, rows=1, lr=1e-3, warmup=0, beta=0.3),
        seed=1,
        log=tmp_path / "dpo.csv",
    )
    first, *rest = read_csv(tmp_path / "dpo.csv")
    for line in rest:
        h = (line["chosen_logprob"] - first["chosen_logprob"]) - (
            line["rejected_logprob"] - first["rejected_logprob"]
        )
        assert line["margin"] == pytest.approx(0.3 * h, abs=1e-4)
        assert line["loss"] == pytest.approx(math.log1p(math.exp(-0.3 * h)), abs=1e-4)
    assert abs(rest[-1]["margin"]) > 0.01


def test_every_setting_reaches_the_loss(tiny_model, tokenizer, monkeypatch):
    seen = []
    monkeypatch.setattr(
        dpo, "dpo_loss", lambda *logps, **how: seen.append(how) or dpo_loss(*logps, **how)
    )
    monkeypatch.setattr(dpo, "probe", lambda *rest: {})
    asked = {
        "beta": 0.3,
        "kind": "sigmoid",
        "label_smoothing": 0.1,
        "length_normalised": True,
        "nll_coef": 0.5,
    }
    pairs = some_pairs(tokenizer, 1)
    train(tiny_model, tokenizer, pairs, Settings(1, rows=1, **asked), seed=1)
    assert seen == [
        {**asked, "chosen_lengths": sum(pairs[0][0][1]), "rejected_lengths": sum(pairs[0][1][1])}
    ]


@pytest.mark.parametrize(
    "how",
    [{}, {"kind": "ipo"}, {"length_normalised": True, "nll_coef": 1.0}],
    ids=["dpo", "ipo", "by length"],
)
def test_accumulation_is_the_large_batch(tiny_model, tokenizer, monkeypatch, how):
    monkeypatch.setattr(dpo, "Optimizers", PlainDescent)
    monkeypatch.setattr(dpo, "probe", lambda *rest: {})
    pairs, start, ends = some_pairs(tokenizer, 8), state_of(tiny_model), []
    entered = weights_of(tiny_model)
    for micro_pairs in (1, 3, 64):
        tiny_model.load_state_dict(start)
        out = train(
            tiny_model,
            tokenizer,
            pairs,
            Settings(2, rows=8, micro_pairs=micro_pairs, **how),
            seed=1,
        )
        ends.append((weights_of(tiny_model), out["loss"]))
    assert all(
        torch.allclose(weights, ends[-1][0], atol=1e-5)
        and loss == pytest.approx(ends[-1][1], rel=1e-4)
        for weights, loss in ends
    )
    assert (ends[0][0] - entered).abs().max() > 1e-3


def test_training_repeats_bit_for_bit_with_the_same_seed(tiny_model, tokenizer, monkeypatch):
    monkeypatch.setattr(dpo, "probe", lambda *rest: {})
    pairs, start, ends = some_pairs(tokenizer, 10), state_of(tiny_model), []
    for seed in (1, 1, 2):
        tiny_model.load_state_dict(start)
        torch.manual_seed(random.randrange(10**6))
        train(
            tiny_model,
            tokenizer,
            pairs,
            Settings(3, rows=4),
            seed=seed,
            rehearsal=[pair[0] for pair in pairs],
        )
        ends.append(weights_of(tiny_model))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_rehearsal_adds_its_coefficient_times_the_cross_entropy(tiny_model, tokenizer, monkeypatch):
    """Plain steps add up: the change by rehearsal is -0.01
    coefficient times the gradient of the mean token loss."""
    monkeypatch.setattr(dpo, "Optimizers", PlainDescent)
    monkeypatch.setattr(dpo, "probe", lambda *rest: {})
    pairs, start, ends = some_pairs(tokenizer, 4), state_of(tiny_model), []
    rehearsal = [pair[0] for pair in some_pairs(tokenizer, 3, seed=7)]
    for rows in ((), rehearsal):
        tiny_model.load_state_dict(start)
        train(
            tiny_model,
            tokenizer,
            pairs,
            Settings(1, rows=4, rehearsal_coef=0.5),
            seed=1,
            rehearsal=rows,
        )
        ends.append(weights_of(tiny_model))
    tiny_model.load_state_dict(start)
    cost = -sequence_logprobs(tiny_model, tokenizer, rehearsal, CPU).sum() / sum(
        sum(mask) for _, mask in rehearsal
    )
    gradient = torch.cat(
        [g.flatten() for g in torch.autograd.grad(cost, list(tiny_model.parameters()))]
    )
    assert (
        torch.allclose(ends[1] - ends[0], -0.01 * 0.5 * gradient, atol=1e-6)
        and gradient.abs().max() > 0.01
    )


def test_the_probe_measures_the_policys_own_samples_against_the_reference(tokenizer, monkeypatch):
    """One sample, [2, 3, 1] after [0, 1]:
    log pi = -5.942274 and log ref = -5.853107, three tokens."""
    sample = Samples(
        torch.tensor([[2, 3, 1]]),
        torch.zeros(1, 3),
        torch.ones(1, 3, dtype=torch.bool),
        torch.tensor([3]),
        torch.tensor([False]),
    )
    monkeypatch.setattr(dpo, "generate", lambda model, tokenizer, prompts, seed: sample)
    assert probe(Fixed(0.3), Fixed(0.4), tokenizer, [[0, 1]], 1) == pytest.approx(
        {"kl": -5.942274 + 5.853107, "length": 3}, abs=1e-5
    )


def test_no_forward_holds_more_rows_than_the_micro_batch(tiny_model, tokenizer, monkeypatch):
    """Two pairs are four rows: so for rehearsal's seven rows,
    the reference's and the probe's five too."""
    pairs, seen, forward = some_pairs(tokenizer, 5), [], GPT.forward
    monkeypatch.setattr(
        GPT,
        "forward",
        lambda model, ids, *rest, **how: seen.append(len(ids)) or forward(model, ids, *rest, **how),
    )
    rehearsal = [pair[0] for pair in some_pairs(tokenizer, 7, seed=7)]
    train(
        tiny_model,
        tokenizer,
        pairs,
        Settings(1, rows=5, micro_pairs=2, rehearsal_rows=7),
        seed=1,
        rehearsal=rehearsal,
    )
    assert seen == [4, 4, 2, 4, 3, 4, 4, 2, 4, 1, 4, 1]


def test_the_probes_parts_make_its_whole(tiny_model, tokenizer):
    other = GPT(tiny_model.config).init_weights(3).eval()
    prompts = [tokenizer.prompt([{"role": "user", "content": "9" * n}]) for n in range(1, 6)]
    whole, parts = (probe(tiny_model, other, tokenizer, prompts, 1, size) for size in (64, 2))
    assert parts == pytest.approx(whole, rel=1e-5)


def test_the_kl_of_a_policy_to_itself_is_0_and_to_another_model_positive(tiny_model, tokenizer):
    other = GPT(tiny_model.config).init_weights(3).eval()
    prompts = [tokenizer.prompt([{"role": "user", "content": "9" * n}]) for n in range(1, 9)]
    assert probe(tiny_model, tiny_model, tokenizer, prompts, 1)["kl"] == 0
    assert probe(tiny_model, other, tokenizer, prompts, 1)["kl"] > 0


def test_training_without_pairs_is_refused(tiny_model, tokenizer):
    with pytest.raises(ValueError, match="dpo: there is no pair to train on"):
        train(tiny_model, tokenizer, [], Settings(1), seed=1)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tiny_model, tokenizer):
    with torch.no_grad():
        tiny_model.norm.weight[0] = float("nan")
    before = weights_of(tiny_model)
    with pytest.raises(FloatingPointError, match="dpo: the loss is nan at step 0"):
        train(tiny_model, tokenizer, some_pairs(tokenizer, 2), Settings(2, rows=2), seed=1)
    assert torch.equal(weights_of(tiny_model).nan_to_num(), before.nan_to_num())


def test_token_log_probabilities_stand_at_their_tokens(tiny_model, tokenizer):
    """Each masked token's place holds its log-probability
    by the position before it, every other place 0."""
    ids, mask = some_pairs(tokenizer, 1)[0][0]
    with torch.no_grad():
        found = token_logprobs(tiny_model, torch.tensor([ids]), torch.tensor([mask]))[0]
        logps = tiny_model(torch.tensor([ids]))[0].log_softmax(1)
    for t, on in enumerate(mask):
        assert found[t].item() == pytest.approx(logps[t - 1, ids[t]].item() if on else 0, abs=1e-5)


# ---- the command ----

PAIRS = [
    {"prompt": f"Name {n} planets.", "chosen": "Mars, " * n, "rejected": "The Moon. " * n}
    for n in range(1, 7)
]


@pytest.fixture
def command(tmp_path, tokenizer, monkeypatch, capsys):
    """`python dpo.py` in this process from a random tiny checkpoint:
    flags -> (exit code, stdout, stderr)."""
    save_checkpoint(
        tmp_path / "init.pt",
        GPT(Config(768, 128, 1, 16, 2, 1, 24)).init_weights(0),
        tokenizer,
        "overall_sft",
    )

    def run(*flags):
        flags = (
            *"--smoke --threads 1 --device cpu --init".split(),
            tmp_path / "init.pt",
            "--out",
            tmp_path / "out",
            *flags,
        )
        monkeypatch.setattr(sys, "argv", ["dpo.py", *map(str, flags)])
        code = 0
        try:
            dpo.main()
        except SystemExit as stop:
            code = stop.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_own_pairs_are_trained_on_and_leave_a_checkpoint_and_a_log(command, tmp_path, tokenizer):
    records = [
        *PAIRS,
        {"prompt": "Name a planet.", "chosen": "", "rejected": "Mars."},
        {"prompt": "9" * 200, "chosen": "a", "rejected": "b"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    code, out, err = command("--data", tmp_path / "pairs.jsonl")
    assert code == 0, err
    assert "dropped 2 records: 1 empty reply, 1 longer than the context of 128 tokens" in out
    assert "5 pairs to train on, 1 held out" in out and "held-out pairs: loss 0." in out
    model, saved = load_checkpoint(tmp_path / "out" / "dpo.pt", tokenizer)
    assert saved["stage"] == "dpo" and saved["settings"]["steps"] == 2
    assert not torch.equal(weights_of(model), weights_of(load_checkpoint(tmp_path / "init.pt")[0]))
    lines = read_csv(tmp_path / "out" / "dpo.csv")
    assert len(lines) == 2 and lines[0]["loss"] == pytest.approx(LN2, abs=1e-5)
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert left == {"dpo.pt", "dpo.csv", "dpo.json"}


@pytest.mark.parametrize(
    "text, place",
    [
        (json.dumps(PAIRS[0]) + '\n{"prompt": "a", ', ":2: "),
        ("", ":1: "),
        ('{"prompt": "a", "response": "b"}\n', ":1: "),
        (None, ": "),
        (
            json.dumps({"prompt": "9" * 200, "chosen": "a", "rejected": "b"}),
            ": no pair is left to train on "
            "(dropped 1 record: 1 longer than the context of 128 tokens)",
        ),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "b"}',
            ": no pair is left to train on (dropped 1 record: 1 identical pair)",
        ),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}',
            ": 1 different prompt is left; two are needed",
        ),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
            '{"prompt": "d", "chosen": "", "rejected": "c"}',
            ": 1 different prompt is left (dropped 1 record: 1 empty reply); two are needed",
        ),
    ],
    ids=["broken", "empty", "layout", "missing", "long", "identical", "one prompt", "one left"],
)
def test_a_bad_file_ends_with_one_line_and_code_two(command, tmp_path, text, place):
    path = tmp_path / "pairs.jsonl"
    if text is not None:
        path.write_text(text)
    code, _, err = command("--data", path)
    assert code == 2 and err.startswith(f"error: {path}{place}") and err.count("\n") == 1
    assert not (tmp_path / "out" / "dpo.pt").exists()


def test_a_missing_checkpoint_is_named(command, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIRS[0]))
    code, _, err = command("--data", tmp_path / "pairs.jsonl", "--init", tmp_path / "none.pt")
    assert code == 2 and err == f"error: {tmp_path}/none.pt: no such checkpoint\n"


def test_the_annotated_pairs_of_the_command_are_trained_on(command, tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "evaluate", lambda *args, **how: {})
    code, out, err = command()
    assert code == 0 and "pairs to train on" in out and (tmp_path / "out" / "dpo.pt").exists(), err


def test_own_pairs_of_one_prompt_are_never_trained_on_and_held_out(command, tmp_path, monkeypatch):
    seen = []
    train = dpo.train

    def record(model, tokenizer, pairs, *args, **how):
        seen.extend(pairs)
        return train(model, tokenizer, pairs, *args, **how)

    monkeypatch.setattr(dpo, "train", record)
    logprobs = dpo.reference_logprobs
    held = []
    monkeypatch.setattr(
        dpo,
        "reference_logprobs",
        lambda model, tokenizer, pairs, *args: (
            held.append(pairs) or logprobs(model, tokenizer, pairs, *args)
        ),
    )
    records = [
        {"prompt": f"{k}?", "chosen": str(n), "rejected": "no", "id": n}
        for n in range(5)
        for k in range(20)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    code, out, err = command("--data", tmp_path / "pairs.jsonl")
    assert (
        code == 0
        and out.count("ignored keys: 'id' 100 times") == 1
        and "80 records repeat only the prompt" in out
    ), err
    asked = [
        {tuple(chosen[0][: chosen[1].index(True)]) for chosen, _ in pairs}
        for pairs in (seen, held[0])
    ]
    assert (
        not asked[0] & asked[1]
        and len(asked[0] | asked[1]) == 20
        and len(seen) + len(held[0]) == 100
    )
