"""The step of every loop, clipped, warmed up and decayed; and what RL draws and logs."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from recorder import Recorder

import distill
import dpo
import ppo
import reward_model
import sft
from data import world
from data.runtime import rollouts
from data.runtime.decoding import Samples
from data.runtime.rows import response_rows
from model import GPT, Config, Optimizers

CLIP = 1.0  # the most that the norm of all gradients together may be


def plain(tokenizer, seed=0) -> GPT:
    """A small model in which every part does something."""
    model = GPT(Config(tokenizer.vocab_size, 128, 1, 16, 2, 1, 16, tied=False)).init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


# ---- clipping ----


@pytest.mark.parametrize("muon_lr", [None, 0.5])
@pytest.mark.parametrize("norm, left", [(10.0, CLIP), (1.5, CLIP), (0.25, 0.25)])
def test_a_step_sees_a_gradient_whose_norm_over_all_parameters_is_at_most_one(
    tokenizer, monkeypatch, muon_lr, norm, left
):
    model, seen = plain(tokenizer), []
    optimizers = Optimizers(model, 0.25, muon_lr)
    for part in optimizers.optimizers:
        monkeypatch.setattr(
            part,
            "step",
            lambda part=part: seen.append(
                [
                    (p, p.grad.clone(), group["lr"])
                    for group in part.param_groups
                    for p in group["params"]
                ]
            ),
        )
    count = sum(p.numel() for p in model.parameters())
    for p in model.parameters():
        p.grad = torch.full_like(p, norm / count**0.5)
    # what is logged is the norm before
    assert optimizers.step(0.5) == pytest.approx(norm, rel=1e-4)
    gradients = [gradient for part in seen for _, gradient, _ in part]
    assert len(gradients) == len(list(model.parameters()))
    assert float(torch.stack([g.pow(2).sum() for g in gradients]).sum().sqrt()) == pytest.approx(
        left, rel=1e-4
    )
    # none is turned
    assert all(
        torch.allclose(g, torch.full_like(g, left / count**0.5), rtol=1e-4) for g in gradients
    )
    # each part has its own learning rate, times the scale
    assert [{lr for _, _, lr in part} for part in seen] == [{0.125}] + (
        [] if muon_lr is None else [{0.25}]
    )
    assert all(p.grad is None for p in model.parameters())


def test_scales_do_not_pile_up(tokenizer):
    model = plain(tokenizer)
    optimizers = Optimizers(model, 0.25, 0.5)
    for scale in (0.5, 1.0, 0.25):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizers.step(scale)
        assert [group["lr"] for part in optimizers.optimizers for group in part.param_groups] == [
            0.25 * scale,
            0.5 * scale,
        ]


# ---- warm-up and decay, in every loop ----


class Log:
    """Stands in for Optimizers: changes nothing, and keeps what it is given."""

    made = []

    def __init__(self, model, adam_lr, muon_lr=None, own_lr=None):
        self.model, self.rates, self.own, self.steps = model, (adam_lr, muon_lr), own_lr, []
        Log.made.append(self)

    def step(self, *args, **how):
        # there is something to step with
        assert any(p.grad is not None for p in self.model.parameters())
        self.steps.append((args, how))
        for p in self.model.parameters():
            p.grad = None
        return 0.0


@pytest.fixture
def logged(monkeypatch):
    monkeypatch.setattr(Log, "made", [])
    for place in (sft, dpo, reward_model, distill, ppo):
        monkeypatch.setattr(place, "Optimizers", Log)
    return Log.made


def rising_and_falling(steps: int, warmup: int, constant: int) -> list[float]:
    """k / (warmup + 1) in warm-up, 1 up to step `constant`, then down in equal parts, never 0."""
    return [
        (k + 1) / (warmup + 1)
        if k < warmup
        else 1.0
        if k < constant
        else (steps - k) / (steps - constant)
        for k in range(steps)
    ]


def rows_of(tokenizer, count: int):
    return [
        tokenizer.render(
            [{"role": "user", "content": f"Say {k}."}, {"role": "assistant", "content": f"{k}."}]
        )
        for k in range(count)
    ]


def pairs_of(tokenizer, count: int):
    return [
        tuple(
            response_rows(tokenizer, [{"role": "user", "content": f"Say {k}."}], [f"{k}.", "No."])
        )
        for k in range(count)
    ]


def scales(optimizers) -> list[float]:
    # nothing but the scale: the clip is everywhere the same
    assert all(len(args) == 1 and not how for args, how in optimizers.steps)
    return [args[0] for args, _ in optimizers.steps]


@pytest.mark.parametrize("warmup, constant, flat_until", [(3, 0.5, 10), (0, 0.25, 5), (6, 0.8, 16)])
def test_sft_warms_up_and_decays_as_its_settings_say(
    logged, tokenizer, warmup, constant, flat_until
):
    settings = sft.Settings(20, rows=2, warmup=warmup, constant=constant, adam_lr=0.25, muon_lr=0.5)
    sft.train(plain(tokenizer), tokenizer, rows_of(tokenizer, 40), settings, seed=1, stage="sft")
    (optimizers,) = logged
    assert optimizers.rates == (0.25, 0.5)
    assert scales(optimizers) == pytest.approx(rising_and_falling(20, warmup, flat_until))


@pytest.mark.parametrize("warmup", [0, 4])
def test_dpo_warms_up_and_decays_as_its_settings_say(logged, tokenizer, monkeypatch, warmup):
    monkeypatch.setattr(dpo, "probe", lambda *args: {})
    settings = dpo.Settings(steps=12, rows=2, lr=0.25, warmup=warmup)
    dpo.train(plain(tokenizer), tokenizer, pairs_of(tokenizer, 4), settings, seed=1)
    (optimizers,) = logged
    assert optimizers.rates == (0.25, None)
    assert scales(optimizers) == pytest.approx(rising_and_falling(12, warmup, 6))


@pytest.mark.parametrize("warmup", [0, 4])
def test_the_reward_model_warms_up_and_decays_as_its_settings_say(logged, tokenizer, warmup):
    rankings = [{"ranking": "A > B", "rows": list(pair)} for pair in pairs_of(tokenizer, 12)]
    settings = reward_model.Settings(epochs=2, rows=2, lr=0.25, muon_lr=0.5, warmup=warmup)
    model = reward_model.RewardModel(plain(tokenizer))
    reward_model.train(model, tokenizer, rankings, settings, seed=1)
    (optimizers,) = logged
    assert optimizers.rates == (0.25, 0.5) and optimizers.model is model
    assert optimizers.own == {"tie_raw": settings.tie_lr}
    assert scales(optimizers) == pytest.approx(rising_and_falling(12, warmup, 6))


@pytest.mark.parametrize("warmup", [0, 3])
def test_distillation_warms_up_and_decays_as_its_settings_say(logged, tokenizer, warmup):
    settings = distill.Settings(steps=10, rows=2, adam_lr=0.25, muon_lr=0.5, warmup=warmup)
    student = plain(tokenizer)
    distill.train(
        student,
        plain(tokenizer, 1),
        tokenizer,
        pairs_of(tokenizer, 4),
        rows_of(tokenizer, 4),
        settings,
        seed=1,
    )
    (optimizers,) = logged
    assert optimizers.rates == (0.25, 0.5) and optimizers.model is student
    assert scales(optimizers) == pytest.approx(rising_and_falling(10, warmup, 4))


ROLLOUT = SimpleNamespace(
    rows=[([1], [False])], log=dict.fromkeys(("reward", "true_reward", "kl"), 0.5)
)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("estimator", ["group", "gae"])
def test_rl_warms_up_and_decays_by_iteration_policy_and_critic_alike(
    logged, tokenizer, monkeypatch, warmup, estimator
):
    recorder, policy = Recorder(monkeypatch), plain(tokenizer)
    recorder.stand_in(ppo, "rollout", ROLLOUT)
    recorder.stand_in(ppo, "learn", {})
    settings = ppo.Settings(
        iterations=10, lr=0.25, critic_lr=0.5, warmup=warmup, estimator=estimator
    )
    ppo.train(
        policy,
        tokenizer,
        world.draw_tasks(world.generator(0), ("math",), 5),
        settings,
        seed=1,
        stage="rl_stem",
    )
    learned = recorder.of("learn")
    assert [given["scale"] for given in learned] == pytest.approx(rising_and_falling(10, warmup, 7))
    assert logged[0].model is policy and logged[0].rates == (0.25, None)
    assert all(
        given["optimizers"]["policy"] is logged[0] and given["settings"] == settings
        for given in learned
    )
    if estimator == "gae":
        assert logged[1].rates == (0.5, None)
        assert all(given["optimizers"]["critic"] is logged[1] for given in learned)
    else:
        assert len(logged) == 1


def test_every_minibatch_of_rl_is_a_step_with_the_iterations_scale_of_policy_and_critic(
    logged, tokenizer, monkeypatch
):
    settings = replace(ppo.Settings(), epochs=3, minibatches=2, rehearsal_rows=0, estimator="gae")
    policy = plain(tokenizer)
    critic = reward_model.RewardModel(policy)
    ids = torch.tensor([[1, 5, 6], [1, 7, 8], [2, 5, 6], [2, 7, 8]])
    mask = torch.tensor([[False, True, True]] * 4)
    old = torch.full(ids.shape, -6.0)
    data = rollouts.Rollouts(
        [(row.tolist(), [False, True, True]) for row in ids],
        ids,
        mask,
        old,
        old,
        torch.zeros(4, 3),
        torch.ones(4),
        mask.any(1),
        torch.ones(4, 3) * mask,
        torch.ones(4, 3) * mask,
        False,
        {},
    )
    optimizers, critic_optimizers = Log(policy, 0.25), Log(critic, 0.5)
    both = {"policy": optimizers, "critic": critic_optimizers}
    update = ppo.learn(
        policy,
        critic,
        both,
        data,
        settings,
        tokenizer=tokenizer,
        rehearsal=(),
        rng=random.Random(0),
        scale=0.375,
    )
    assert scales(optimizers) == scales(critic_optimizers) == [0.375] * 6 and update["updates"] == 6


# ---- rollouts ----


def seeds_of(recorder, tokenizer, seed, stage) -> list[int]:
    recorder.calls.clear()
    tasks = world.draw_tasks(world.generator(0), ("math",), 5)
    settings = ppo.Settings(iterations=6, prompts=2)
    ppo.train(plain(tokenizer), tokenizer, tasks, settings, seed=seed, stage=stage)
    return [given["seed"] for given in recorder.of("rollout")]


def test_every_iteration_stage_and_seed_draws_rollouts_of_its_own(logged, tokenizer, monkeypatch):
    recorder = Recorder(monkeypatch)
    recorder.stand_in(ppo, "rollout", ROLLOUT)
    recorder.stand_in(ppo, "learn", {})
    drawn = [
        seeds_of(recorder, tokenizer, seed, stage)
        for seed in (1, 2)
        for stage in ("rl_stem", "rl_code")
    ]
    assert len({seed for some in drawn for seed in some}) == 4 * 6
    assert seeds_of(recorder, tokenizer, 1, "rl_stem") == drawn[0]


def test_the_seed_of_a_rollout_is_that_of_its_samples_and_another_seed_samples_others(
    tokenizer, monkeypatch
):
    policy, settings = plain(tokenizer), ppo.Settings(samples=2, max_new=6)
    tasks = world.draw_tasks(world.generator(0), ("math",), 3)
    first, again, other = (
        ppo.rollout(
            policy, policy, None, None, tokenizer, tasks, settings=settings, kl_coef=0.0, seed=seed
        ).rows
        for seed in (1, 1, 2)
    )
    assert first == again != other


def told_by_hand(model, rows, temperature):
    """(log p of an own token, entropy at it), a list for each row, from the whole logits."""
    told = []
    for ids, own in rows:
        with torch.no_grad():
            logprobs = (model(torch.tensor([ids]))[0] / temperature).log_softmax(-1)
        places = [k for k in range(len(ids)) if own[k]]
        told.append(
            [
                (
                    float(logprobs[k - 1, ids[k]]),
                    float(-(logprobs[k - 1].exp() * logprobs[k - 1]).sum()),
                )
                for k in places
            ]
        )
    return told


def test_logged_kl_entropy_and_length_are_of_the_models_own_tokens_alone(tokenizer, monkeypatch):
    """Two samples a prompt; in the first and the last a tool has written in the middle."""
    tasks = world.draw_tasks(world.generator(0), ("math",), 2)
    prompts = [tokenizer.prompt(task.messages) for task in tasks]
    end = tokenizer.end_id
    replies = [
        ([40, 41, 42, 43, 44, end], [True, True, False, False, True, True]),
        ([45, end], [True, True]),
        ([46, 47, 48, end], [True] * 4),
        ([49, 50, 51, 52, end], [True, False, False, False, True]),
    ]
    tokens = torch.tensor([ids + [tokenizer.pad_id] * (6 - len(ids)) for ids, _ in replies])
    own = torch.tensor([mask + [False] * (6 - len(mask)) for _, mask in replies])
    lengths = torch.tensor([len(ids) for ids, _ in replies])
    samples = Samples(
        tokens, torch.zeros(tokens.shape), own, lengths, torch.zeros(4, dtype=torch.bool)
    )
    monkeypatch.setattr(rollouts, "generate", lambda *args, **how: samples)
    monkeypatch.setattr(world, "score_replies", lambda tasks, replies: [1.0, 0.0, 1.0, 0.0])
    policy = plain(tokenizer)
    reference = plain(tokenizer, 1)
    settings = ppo.Settings(samples=2, temperature=0.7)
    log = ppo.rollout(
        policy, reference, None, None, tokenizer, tasks, settings=settings, kl_coef=0.0, seed=0
    ).log
    rows = [
        (prompts[k // 2] + ids, [False] * len(prompts[k // 2]) + mask)
        for k, (ids, mask) in enumerate(replies)
    ]
    ours, theirs = told_by_hand(policy, rows, 0.7), told_by_hand(reference, rows, 0.7)
    kl = [sum(a - b for (a, _), (b, _) in zip(one, other)) for one, other in zip(ours, theirs)]
    entropies = [entropy for one in ours for _, entropy in one]
    assert len(entropies) == 4 + 2 + 4 + 2
    assert log["kl"] == pytest.approx(sum(kl) / 4, abs=1e-4) and abs(log["kl"]) > 1e-3
    assert log["entropy"] == pytest.approx(sum(entropies) / 12, abs=1e-4)
    assert log["length"] == 12 / 4 and log["truncated"] == 0
    assert log["sampling_gap"] == pytest.approx(
        max(abs(a) for one in ours for a, _ in one), abs=1e-4
    )


def test_the_log_holds_each_iterations_own_numbers(logged, tokenizer, tmp_path, monkeypatch):
    """Rewards 0.1, 0.2, 0.3 by iteration; the last is returned, and the first beside it."""
    rewards = iter([0.1, 0.2, 0.3])
    recorder = Recorder(monkeypatch)
    recorder.stand_in(
        ppo,
        "rollout",
        lambda **given: SimpleNamespace(
            rows=[([1, 2], [False, True])] * 3,
            log={"reward": next(rewards), "true_reward": 0.5, "kl": 0.25},
        ),
    )
    recorder.stand_in(ppo, "learn", {"loss": 0.5})
    tasks = world.draw_tasks(world.generator(0), ("math",), 5)
    own = ppo.train(
        plain(tokenizer),
        tokenizer,
        tasks,
        ppo.Settings(iterations=3),
        seed=1,
        stage="rl_stem",
        log=tmp_path / "rl.csv",
    )
    head, *lines = [
        line.split(",") for line in (tmp_path / "rl.csv").read_text(encoding="utf-8").splitlines()
    ]
    lines = [dict(zip(head, map(float, line))) for line in lines]
    assert [line["reward"] for line in lines] == [0.1, 0.2, 0.3]
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    assert [line["tokens"] for line in lines] == [6, 12, 18]
    assert own["reward"] == 0.3 and own["first_reward"] == 0.1 and own["tokens"] == 18


def test_logged_learning_rates_are_those_of_the_steps(logged, tokenizer, tmp_path):
    settings = sft.Settings(8, rows=2, warmup=2)
    sft.train(
        plain(tokenizer),
        tokenizer,
        rows_of(tokenizer, 16),
        settings,
        seed=1,
        stage="sft",
        log=tmp_path / "sft.csv",
    )
    head, *lines = [
        line.split(",") for line in (tmp_path / "sft.csv").read_text(encoding="utf-8").splitlines()
    ]
    assert [float(dict(zip(head, line))["lr_scale"]) for line in lines] == pytest.approx(
        scales(logged[0])
    )
