"""How much goes into one forward: by hand, tiny's batches whole, parts that sum to the whole."""

import random
from dataclasses import replace

import pytest
import torch

import dpo
import ppo
import reward_model
import sft
from data.runtime import room
from data.runtime.decoding import generate
from data.runtime.rollouts import Rollouts
from data.runtime.room import bytes_a_token, cached_rows, fitting, forwards
from data.runtime.rows import pad_batch
from model import GPT, SIZES, Config

CPU = torch.device("cpu")
# 13 * 16 + 4 * 8 = 240 numbers a block and 3 * 10 of logits: 4 * (2 * 240 + 30) bytes a token
SMALL = Config(vocab_size=10, context=64, layers=2, width=16, heads=2, kv_heads=1, ffn=8)
LENGTHS = (9, 21, 5, 14, 30, 11)  # unequal, so that a mean of means is another number


def plain(config: Config, seed: int = 0) -> GPT:
    """Random weights in every matrix."""
    model = GPT(config).init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def some_rows(vocabulary: int, lengths=LENGTHS) -> list:
    """Rows of random tokens; a row of n has its last n // 3 supervised."""
    rng = random.Random(1)
    rows = []
    for n in lengths:
        ids = [rng.randrange(vocabulary) for _ in range(n)]
        rows.append((ids, [k >= n - n // 3 for k in range(n)]))
    return rows


# ---- by hand ----


def test_bytes_of_a_token_by_hand():
    assert bytes_a_token(SMALL) == 2040
    # one block, and the input of each of two: 240 + 2 * 16 numbers
    assert bytes_a_token(SMALL, recompute=True) == 4 * (240 + 32 + 30)


def test_as_many_rows_as_fit_into_the_room_and_one_at_least(monkeypatch):
    model, rows = GPT(SMALL), some_rows(10)
    monkeypatch.setattr(room, "ROOM", 100 * 2040)  # 100 tokens, and the longest row has 30
    assert fitting(model, rows, 8) == 3
    assert fitting(model, rows, 2) == 2
    assert fitting(model, rows, 8, tokens=60) == 2
    assert fitting(model, rows, 8, each=2) == 1  # a pair of rows has 60
    assert [len(part) for part in forwards(model, rows[:4], 8)] == [4]  # 4 of 21 are 84
    assert sum(forwards(model, rows, 8), []) == rows
    trunk = reward_model.RewardModel(model)
    assert fitting(trunk, rows, 8) == 3
    model.recompute = True
    assert fitting(model, rows, 8) == 5  # 204,000 / 1,208 = 168 tokens
    monkeypatch.setattr(room, "ROOM", 1)
    assert fitting(model, rows, 8) == cached_rows(model, 8, 64, torch.float32) == 1
    assert fitting(model, [], 8) == 1  # a rank without a share


def test_the_estimate_is_near_what_autograd_keeps():
    """Of the SmolLM2 shape in small: what the backward pass saves, logits apart."""
    config = Config(vocab_size=64, context=32, layers=3, width=36, heads=9, kv_heads=3, ffn=96)
    model = plain(replace(config, qk_norm=False))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}  # alive, so that no address recurs

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(4, 32, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden(ids)
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / ids.numel()
    assert found == pytest.approx(bytes_a_token(config) - 4 * 3 * 64, rel=0.1)


def test_keys_and_values_of_rows_decoded_at_once_take_half_of_the_room(monkeypatch):
    """2 layers, 1 head of 8 numbers, keys and values in float32: 128 bytes a column."""
    monkeypatch.setattr(room, "ROOM", 2 * 128 * 50 * 3 + 100)
    model = GPT(SMALL)
    assert cached_rows(model, 512, 50, torch.float32) == 3
    assert cached_rows(model, 512, 50, torch.bfloat16) == 6
    assert cached_rows(model, 2, 50, torch.float32) == 2


# ---- the tiny run ----


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_no_batch_of_the_tiny_run_is_cut(who):
    """Its sums then have the order that the published numbers were made with."""
    model = GPT(SIZES["tiny"][who])
    context = model.config.context
    full = ([0] * context, [True] * context)
    rows = {
        "sft": max(s.rows for s in vars(sft.SCHEDULES["tiny"][who]).values() if hasattr(s, "rows")),
        "held-out loss": 128,
        "pairs": 2 * dpo.Settings.micro_pairs,
        "rl": max(settings.micro_rows for settings in ppo.STAGE_SETTINGS.values()),
        "rankings": reward_model.Settings.micro_prompts * reward_model.Settings.outputs,
    }
    if who == "student":
        rows["predicted reward"] = 256
    for name, count in rows.items():
        assert fitting(model, [full] * count, count) == count, name
    assert cached_rows(model, 512, context, torch.float32) == 512


# ---- parts sum to the whole ----


class Kept:
    """Stands in for Optimizers: keeps the gradients of every step and changes nothing."""

    steps = []

    def __init__(self, model, adam_lr, muon_lr=None, own_lr=None):
        self.model = model

    def step(self, scale):
        gradients = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]
        Kept.steps.append(torch.cat([gradient.flatten() for gradient in gradients]))
        self.model.zero_grad()
        return 0.0


def sft_step(model, tokenizer, rows) -> float:
    settings = sft.Settings(1, rows=len(rows))
    how = {"seed": 1, "stage": "x", "held_out": rows}
    measured = sft.train(model, tokenizer, rows, settings, **how)
    return measured["loss"] + 10 * measured["held_out_loss"]


def dpo_step(model, tokenizer, rows) -> float:
    pairs = list(zip(rows[::2], rows[1::2]))
    settings = dpo.Settings(steps=1, rows=len(pairs), nll_coef=1.0, probe_every=10**9)
    measured = dpo.train(model, tokenizer, pairs, settings, seed=1, rehearsal=rows)
    return measured["loss"] + measured["chosen_logprob"]


def reward_step(model, tokenizer, rows) -> float:
    rankings = [
        {"ranking": "A > B = C", "rows": rows[:3]},
        {"ranking": "B > A", "rows": rows[3:5]},
        {"ranking": "A = B", "rows": rows[:2]},  # counts for nothing
        {"ranking": "B > A", "rows": rows[4:6]},
    ]
    settings = reward_model.Settings(epochs=1, rows=4)
    scorer = reward_model.RewardModel(model)
    return reward_model.train(scorer, tokenizer, rankings, settings, seed=1)["loss"]


def rl_step(model, tokenizer, rows) -> float:
    ids, mask = pad_batch(rows, tokenizer.pad_id, CPU)
    old = torch.where(mask, -6.6, 0.0)  # about log 1/768
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -2.0])[:, None] * mask
    scores, kept = torch.zeros(6), torch.ones(6, dtype=torch.bool)
    data = Rollouts(rows, ids, mask, old, old, 0 * old, scores, kept, advantages, 0 * old)
    settings = ppo.Settings(minibatches=1, samples=6)
    how = {"tokenizer": tokenizer, "rehearsal": rows, "rng": random.Random(1), "scale": 1.0}
    optimizers = {"policy": Kept(model, 0.0)}
    return ppo.learn(model, None, optimizers, data, settings, **how)["loss"]


@pytest.mark.parametrize("step", [sft_step, dpo_step, reward_step, rl_step])
def test_parts_of_unequal_rows_have_the_loss_and_gradient_of_the_whole(
    step, tokenizer, monkeypatch
):
    """As one forward, then with room for 40 tokens: parts of one or two rows."""
    for place in (sft, dpo, reward_model):
        monkeypatch.setattr(place, "Optimizers", Kept)
    monkeypatch.setattr(dpo, "probe", lambda *args: {"kl": 0.0, "length": 0.0})
    monkeypatch.setattr(Kept, "steps", [])
    forward, widths, losses = GPT.hidden, [], []

    def counted(self, ids, *rest):
        widths.append(ids.numel())
        return forward(self, ids, *rest)

    monkeypatch.setattr(GPT, "hidden", counted)
    config = replace(SMALL, vocab_size=tokenizer.vocab_size)
    rows = some_rows(tokenizer.vocab_size)
    most = []
    for tokens in (10**6, 40):
        monkeypatch.setattr(room, "ROOM", tokens * bytes_a_token(config))
        widths.clear()
        losses.append(step(plain(config), tokenizer, rows))
        most.append(max(widths))
    assert most[1] <= 3 * 21 < 6 * 30 <= most[0]  # what is compared stays together
    assert losses[1] == pytest.approx(losses[0], abs=1e-6, rel=1e-6)
    whole, parts = Kept.steps
    assert float(whole.abs().max()) > 1e-2
    assert torch.allclose(parts, whole, atol=1e-6, rtol=1e-5)


def test_samples_in_parts_are_greedily_the_same(tokenizer, monkeypatch):
    model = plain(replace(SMALL, vocab_size=tokenizer.vocab_size)).eval()
    prompts = [ids for ids, _ in some_rows(tokenizer.vocab_size)]
    how = {"max_new": 8, "temperature": 0.0}
    whole = generate(model, tokenizer, prompts, **how).lists()
    monkeypatch.setattr(room, "ROOM", 2 * 128 * 38 * 2)  # two rows of 30 + 8 columns
    assert generate(model, tokenizer, prompts, **how).lists() == whole
