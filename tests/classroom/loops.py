"""Cases for the three training loops: small models, few steps, plain gradient descent.

Plain descent stands in for AdamW, which turns the rounding error of a tiny gradient into a whole
step. All rows are in every batch, so that their order does not matter.
"""

import importlib
import random
from contextlib import contextmanager

import torch

from tests.classroom.cases import TOKENIZER, Case, normal, own_mask, token_rows

VOCABULARY = 12
RATE = 0.2


class Descent:
    """In place of model.Optimizers: p -= RATE * scale * gradient."""

    def __init__(self, model, *rates, **more):
        self.trained = [p for p in model.parameters() if p.requires_grad]

    @torch.no_grad()
    def step(self, scale: float) -> float:
        given = [p for p in self.trained if p.grad is not None]
        norm = float(torch.stack([p.grad.norm() for p in given]).norm()) if given else 0.0
        for p in given:
            p -= RATE * scale * p.grad
            p.grad = None
        return norm


def small_model(seed: int, width: int = 8):
    """A model of one layer with random weights everywhere."""
    models = importlib.import_module("model")
    model = models.GPT(models.Config(VOCABULARY, 32, 1, width, 2, 1, 12, tied=False))
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.4)
    return model.eval()


@contextmanager
def stand_ins(chapter, **more):
    """The chapter with plain descent for its optimizers, and other things for others."""
    before = {name: getattr(chapter, name) for name in ("Optimizers", *more)}
    vars(chapter).update({"Optimizers": Descent} | more)
    try:
        yield
    finally:
        vars(chapter).update(before)


def drawn_pairs(rng: random.Random, count: int) -> list:
    """(better, worse) rows that answer one prompt."""
    pairs = []
    for _ in range(count):
        prompt = [rng.randrange(1, VOCABULARY) for _ in range(rng.randrange(2, 5))]
        sides = []
        for _ in range(2):
            response = [rng.randrange(1, VOCABULARY) for _ in range(rng.randrange(2, 7))]
            sides.append((prompt + response, [False] * len(prompt) + [True] * len(response)))
        pairs.append(tuple(sides))
    return pairs


def numbers_of(measured: dict, *names: str) -> list:
    return [measured[name] for name in names]


def dpo_train(rng) -> list[Case]:
    def call(chapter, function, inputs):
        model = small_model(inputs["weights"])
        pairs = inputs["pairs"]
        settings = chapter.Settings(rows=len(pairs), warmup=1, lr=1.0, **inputs["settings"])
        how = {"seed": 1, "rehearsal": inputs["rehearsal"]}
        with stand_ins(chapter, probe=lambda *models, **more: {"kl": 0.0, "length": 1.0}):
            measured = function(model, TOKENIZER, pairs, settings, **how)
        rows = [row for pair in pairs for row in pair]
        with torch.no_grad():
            logprobs = chapter.sequence_logprobs(model, TOKENIZER, rows, torch.device("cpu"))
        names = ("loss", "margin", "accuracy", "chosen_logprob", "rejected_logprob", "tokens")
        return [*numbers_of(measured, *names), logprobs]

    def case(told, count, edge=False, rehearsal=(), **settings):
        inputs = {"weights": rng.randrange(1000), "pairs": drawn_pairs(rng, count)}
        inputs |= {"rehearsal": list(rehearsal), "settings": settings}
        return Case(told, inputs, edge=edge, call=call)

    rows = token_rows(rng, 4, VOCABULARY)
    micros = {"micro_pairs": 2, "beta": 0.2}
    return [
        case("four steps on three pairs", 3, steps=4),
        case("one step on one pair, a larger beta", 1, steps=1, beta=0.5),
        case("five pairs, two a forward", 5, True, steps=3, **micros),
        case("with rehearsal", 3, True, rows, steps=3, rehearsal_rows=4, rehearsal_coef=0.5),
        case("ipo, smoothed by nothing", 2, True, steps=2, kind="ipo", beta=0.5),
        case("no pair at all", 0, True, steps=1),
    ]


def distill_train(rng) -> list[Case]:
    def call(chapter, function, inputs):
        student = small_model(inputs["weights"])
        teacher = small_model(inputs["weights"] + 1, 16)
        pairs = inputs["pairs"]
        shared = {"rows": len(pairs), "warmup": 1, "rehearsal_rows": len(inputs["rehearsal"])}
        settings = chapter.Settings(**shared | inputs["settings"])
        how = pairs, inputs["rehearsal"], settings
        with stand_ins(chapter):
            measured = function(student, teacher, TOKENIZER, *how, seed=1)
        names = ("loss", "dpo", "kl_positive", "kl_negative", "margin", "tokens")
        rows = [row for pair in pairs for row in pair]
        with torch.no_grad():
            logprobs = importlib.import_module("dpo").sequence_logprobs(
                student, TOKENIZER, rows, torch.device("cpu")
            )
        return [*numbers_of(measured, *names), logprobs]

    def case(told, count, edge=False, rehearsal=(), **settings):
        inputs = {"weights": rng.randrange(1000), "pairs": drawn_pairs(rng, count)}
        inputs |= {"rehearsal": list(rehearsal), "settings": settings}
        return Case(told, inputs, edge=edge, call=call)

    rows = token_rows(rng, 3, VOCABULARY)
    return [
        case("three steps on three pairs", 3, steps=3),
        case("all weights 1", 2, steps=2, dpo_coef=1.0, neg_coef=1.0),
        case("with rehearsal", 3, True, rows, steps=3),
        case("five pairs, two a forward", 5, True, steps=2, micro_pairs=2),
        case("a student that samples at another temperature", 2, True, steps=2, temperature=2.0),
        case("no pair at all", 0, True, steps=1),
    ]


def ppo_learn(rng) -> list[Case]:
    def call(chapter, function, inputs):
        rewards = importlib.import_module("reward_model")
        policy = small_model(inputs["weights"])
        critic = rewards.RewardModel(policy, 1) if inputs["critic"] else None
        optimizers = {"policy": Descent(policy)}
        if critic is not None:
            optimizers["critic"] = Descent(critic)
        settings = chapter.Settings(minibatches=1, **inputs["settings"])
        data = chapter.Rollouts(**inputs["data"])
        how = {"tokenizer": TOKENIZER, "rehearsal": inputs["rehearsal"], "scale": 0.5}
        how["rng"] = random.Random(1)
        measured = function(policy, critic, optimizers, data, settings, **how)
        names = ["loss", "clip_fraction", "approx_kl", "updates", "first_log_ratio"]
        found = numbers_of(measured, *names)
        models = importlib.import_module("model")
        with torch.no_grad():
            found.append(models.token_logprobs(policy, data.ids, data.mask))
            if critic is not None:
                found += [measured["value_loss"], critic(data.ids)]
        return found

    def case(told, edge=False, critic=False, rehearsal=(), dead=False, **settings):
        mask = own_mask(rng, 4, 8)
        ids = torch.tensor([[rng.randrange(1, VOCABULARY) for _ in range(8)] for _ in range(4)])
        data = {"rows": [(row.tolist(), own.tolist()) for row, own in zip(ids, mask)]}
        data |= {"ids": ids, "mask": mask, "scores": torch.zeros(4)}
        data["kept"] = torch.ones(4, dtype=torch.bool)
        names = ("old_logprobs", "reference_logprobs")
        data |= {name: normal(rng, 4, 8, scale=0.3, mean=-2.4).float() * mask for name in names}
        data |= {name: normal(rng, 4, 8).float() * mask for name in ("old_values", "returns")}
        data["advantages"] = normal(rng, 4, 1).float() * mask
        if dead:
            data["advantages"][1] = 0
        inputs = {"weights": rng.randrange(1000), "data": data, "critic": critic}
        inputs |= {"rehearsal": list(rehearsal), "settings": settings}
        return Case(told, inputs, edge=edge, call=call)

    rows = token_rows(rng, 4, VOCABULARY)
    return [
        case("one pass over four responses", epochs=1),
        case("three passes", epochs=3),
        case("two responses a forward", True, epochs=2, micro_rows=2),
        case("with a critic", True, True, epochs=2),
        case("with rehearsal", True, False, rows, epochs=2, rehearsal_rows=4),
        case("a response without an advantage", True, dead=True, epochs=2, normalise="sequence"),
        case("temperature 0.7", True, epochs=2, temperature=0.7),
    ]
