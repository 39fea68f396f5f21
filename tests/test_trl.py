"""Losses and gradients beside TRL's, where it is installed:
SFT, reward model, DPO and GRPO on the same ids and weights, to 1e-5.

TRL's trainer computes its own loss of its own collated batch with `transformers`'
Qwen3 of our weights (as tests/benchmarks/peers.py times it), and its gradient
is compared with ours at every weight. Rows have different lengths. Written for TRL 1.16;
not compared are GRPO's advantages, whose deviation TRL divides by a sample's size less 1.
"""

import random
from dataclasses import asdict

import pytest
import torch

from data.files import hf
from data.runtime.rl_settings import GSPO
from data.runtime.rows import pad_rows, supervised_count
from dpo import dpo_loss, reference_logprobs, sequence_logprobs
from model import GPT, Config, token_logprobs
from ppo import policy_loss
from reward_model import RewardModel, ranking_loss, score_rows
from sft import batch_loss
from tests.benchmarks import peers

pytestmark = [
    pytest.mark.skipif(
        bool(peers.MISSING), reason=f"not installed: {', '.join(peers.MISSING)} (pip install trl)"
    ),
    pytest.mark.filterwarnings("ignore"),
]
CPU = torch.device("cpu")
# prompt, chosen and rejected response of four pairs,
# in tokens; the last of a response is the end mark
LENGTHS = ((7, 5, 9), (4, 8, 3), (9, 2, 2), (5, 6, 7))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def models():
    """(model, reference): two small random models without a weight that is 0."""
    made = []
    for seed in (0, 1):
        model = GPT(Config(768, 64, 2, 32, 4, 2, 48, tied=False)).init_weights(seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("out.weight", "down.weight")):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        made.append(model.eval())
    return made[0], made[1].requires_grad_(False)


@pytest.fixture(scope="module")
def pairs(tokenizer):
    rng = random.Random(0)
    drawn = []
    for prompt, *responses in LENGTHS:
        ids = rng.choices(range(min(tokenizer.mark_ids)), k=prompt)
        drawn.append(
            tuple(
                (
                    ids + rng.choices(range(min(tokenizer.mark_ids)), k=n - 1) + [tokenizer.end_id],
                    [False] * prompt + [True] * n,
                )
                for n in responses
            )
        )
    return drawn


def first_batch(trainer, **more):
    """The collated batch that its first step would see;
    in evaluation mode a trainer divides by no accumulation steps."""
    trainer.model.eval()
    rows = [trainer.train_dataset[k] for k in range(trainer.args.per_device_train_batch_size)]
    return trainer.data_collator(rows) | more


def assert_same(loss, model, trainer, batch):
    """Our loss and TRL's of the batch, and the gradient of every weight."""
    trunk, prefix = (model.trunk, "trunk.") if isinstance(model, RewardModel) else (model, "")
    theirs = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    model.zero_grad()
    loss.backward()
    theirs.backward()
    own, peer = dict(model.named_parameters()), dict(trainer.model.named_parameters())
    names = {f"{prefix}{name}": parts for name, parts in hf.names(asdict(trunk.config)).items()}
    if prefix:
        del names["trunk.head.weight"]  # a reward model does not use it
        names["score.weight"] = ["score.weight"]
    assert {part for parts in names.values() for part in parts} == set(peer)
    for name, parts in names.items():
        gradient = torch.cat([peer[part].grad for part in parts])
        assert torch.allclose(own[name].grad, gradient, atol=1e-5), (
            name,
            float((own[name].grad - gradient).abs().max()),
        )
        assert own[name].grad.abs().max() > 1e-4, name


def test_sft(models, tokenizer, pairs):
    model, rows = models[0], [chosen for chosen, _ in pairs]
    columns = {
        "input_ids": [ids for ids, _ in rows],
        "labels": [[i if on else -100 for i, on in zip(*row)] for row in rows],
    }
    trainer = peers.trl_trainer(
        "SFT",
        model,
        tokenizer,
        columns,
        steps=1,
        batch=4,
        settings={"dataset_kwargs": {"skip_prepare_dataset": True}},
    )
    assert_same(
        batch_loss(model, tokenizer, rows, supervised_count(rows), CPU),
        model,
        trainer,
        first_batch(trainer),
    )


def test_reward_model(models, tokenizer, pairs):
    model = RewardModel(models[0], seed=1)
    columns = {
        "chosen_ids": [chosen[0] for chosen, _ in pairs],
        "rejected_ids": [rejected[0] for _, rejected in pairs],
    }
    trainer = peers.trl_trainer("Reward", model, tokenizer, columns, steps=1, batch=4, settings={})
    scores = score_rows(model, tokenizer, [row for pair in pairs for row in pair]).view(-1, 2)
    assert_same(
        ranking_loss(scores, torch.tensor([[0, 1]] * 4)), model, trainer, first_batch(trainer)
    )


# TRL's IPO takes means over a response's tokens,
# where ours has the sums of the paper's eq. 17 and the means on request
@pytest.mark.parametrize(
    "kind, how",
    [
        ("sigmoid", {}),
        ("sigmoid_norm", {"length_normalised": True}),
        ("ipo", {"kind": "ipo", "length_normalised": True}),
    ],
)
def test_dpo(models, tokenizer, pairs, kind, how):
    model, reference = models
    columns = {
        "prompt": [peers.letters([i for i, on in zip(*chosen) if not on]) for chosen, _ in pairs]
    }
    for side, name in enumerate(("chosen", "rejected")):
        columns[name] = [peers.letters([i for i, on in zip(*pair[side]) if on]) for pair in pairs]
    settings = {"beta": 0.3, "loss_type": [kind]}
    trainer = peers.trl_trainer(
        "DPO", model, tokenizer, columns, steps=1, batch=4, settings=settings, reference=reference
    )
    rows = [row for pair in pairs for row in pair]
    logps = sequence_logprobs(model, tokenizer, rows, CPU).view(-1, 2)
    lengths = {
        f"{name}_lengths": torch.tensor([sum(pair[side][1]) for pair in pairs])
        for side, name in enumerate(("chosen", "rejected"))
    }
    losses, _, _ = dpo_loss(
        logps[:, 0],
        logps[:, 1],
        *reference_logprobs(reference, tokenizer, pairs, CPU),
        beta=0.3,
        **lengths,
        **how,
    )
    assert_same(losses.mean(), model, trainer, first_batch(trainer))


@pytest.mark.parametrize(
    "loss_type, level, clip, how",
    [
        ("grpo", "token", (0.2, 0.2), {"normalise": "sequence"}),
        ("dapo", "token", (0.2, 0.28), {"normalise": "token"}),
        ("dr_grpo", "token", (0.2, 0.28), {"normalise": "constant", "longest": 12}),
        ("grpo", "sequence", (3e-4, 4e-4), GSPO),
    ],
    ids=["GRPO", "DAPO", "Dr. GRPO", "GSPO"],
)
def test_grpo(models, tokenizer, pairs, loss_type, level, clip, how):
    """Old log-probabilities that lie around the clip range,
    and advantages of both signs; one response's is 0."""
    model, rows = models[0], [row for pair in pairs for row in pair]
    prompts = [[i for i, on in zip(*row) if not on] for row in rows]
    responses = [[i for i, on in zip(*row) if on] for row in rows]
    settings = {
        "num_generations": 2,
        "max_completion_length": 12,
        "loss_type": loss_type,
        "importance_sampling_level": level,
        "epsilon": clip[0],
        "epsilon_high": clip[1],
        "beta": 0.0,
    }
    columns = {"prompt": [peers.letters(prompt) for prompt in prompts]}
    trainer = peers.trl_trainer(
        "GRPO",
        model,
        tokenizer,
        columns,
        steps=1,
        batch=8,
        settings=settings,
        reward_funcs=lambda completions, **_: [0.0],
    )
    ids = pad_rows([row[0] for row in rows], tokenizer.pad_id)
    mask = pad_rows([row[1] for row in rows], False)
    logprobs = token_logprobs(model, ids, mask)
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(2)) * (
        0.3 if level == "token" else 1e-3
    )
    old = torch.where(mask, logprobs.detach() + noise, 0.0)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.0, 0.7])
    loss, clipped, _ = policy_loss(
        logprobs,
        old,
        advantages[:, None].expand(mask.shape),
        mask,
        clip_low=clip[0],
        clip_high=clip[1],
        **{name: value for name, value in how.items() if not name.startswith("clip")},
    )
    assert 0.1 < clipped < 0.9
    trainer.model.eval()
    batch = {
        "prompt_ids": pad_rows(prompts, tokenizer.pad_id, left=True),
        "completion_ids": pad_rows(responses, tokenizer.pad_id),
        "prompt_mask": pad_rows([[1] * len(prompt) for prompt in prompts], 0, left=True),
        "completion_mask": pad_rows([[1] * len(response) for response in responses], 0),
        "advantages": advantages,
        "old_per_token_logps": pad_rows([old[k][mask[k]].tolist() for k in range(8)], 0.0),
        "num_items_in_batch": mask.sum(),
    }
    assert_same(loss, model, trainer, batch)
