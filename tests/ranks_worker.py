"""What tests/test_ranks.py runs in one process and under torchrun:
every concept file's updates on fixed data, and what they end with.

    python tests/ranks_worker.py FILE                                        one process
    torchrun --nproc_per_node=2 tests/ranks_worker.py FILE                   two gloo ranks on a CPU
"""

import argparse
import copy
import random
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import distill
import dpo
import ppo
import reward_model
import sft
from data import world
from data.files import tokenizer as tokenizers
from data.runtime.decoding import generate
from data.runtime.devices import rank, start
from data.runtime.rows import dialogue_rows
from model import GPT, Config, Optimizers


def main() -> None:
    start(argparse.Namespace(threads=1, no_exec=False, device="cpu"))
    tokenizer = tokenizers.tiny()
    # in float32 a weight whose gradient is by chance no larger than its rounding, 5e-9 where its
    # neighbours have 3e-3, is moved by AdamW as far as any, and apart by the order of a sum
    policy = GPT(Config(768, 256, 2, 32, 4, 2, 48, tied=False)).init_weights(1).double()
    # weights that start at zero have gradients
    # of rounding errors, which AdamW makes as large as any
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1
                )
    records = world.overall_demonstrations(
        1, {"reasoning": 24, "chat": 24, "agent": 8, "judge": 8, "new_prompt": 8}
    )
    rows, _ = dialogue_rows(tokenizer, sum(records["reasoning"], []) + records["chat"], 256)
    ends = {}

    # Muon orthogonalises in bfloat16, whose rounding moves a weight
    # by a few thousandths of its learning rate: so that is small here
    # seven rows: one rank has four of them, the other three, in micro-batches
    model = copy.deepcopy(policy)
    sft.train(
        model,
        tokenizer,
        rows,
        sft.Settings(4, rows=7, micro_tokens=160, muon_lr=0.001),
        seed=1,
        stage="sft",
    )
    ends["sft"] = model.state_dict()

    chats, _ = dialogue_rows(tokenizer, records["chat"], 256)
    pairs = [
        (
            a,
            (
                a[0][: a[1].index(True)] + b[0][b[1].index(True) :],
                [False] * a[1].index(True) + b[1][b[1].index(True) :],
            ),
        )
        for a, b in zip(chats[::2], chats[1::2])
    ]
    model = copy.deepcopy(policy)
    # the other rank rehearses nothing
    dpo.train(
        model,
        tokenizer,
        pairs,
        dpo.Settings(steps=4, rows=5, micro_pairs=2, rehearsal_rows=1),
        seed=1,
        rehearsal=rows,
    )
    ends["dpo"] = model.state_dict()

    rankings = [
        {"ranking": random.Random(k).choice(["A > B", "B > A", "A = B"]), "rows": list(pair)}
        for k, pair in enumerate(pairs)
    ]
    model = reward_model.RewardModel(policy, 1)
    reward_model.train(
        model,
        tokenizer,
        rankings,
        reward_model.Settings(epochs=2, rows=5, ties="rao_kupper"),
        seed=1,
    )
    ends["reward_model"] = model.state_dict()
    model = reward_model.RewardModel(policy, 1)  # one prompt: nothing is left for the other rank
    reward_model.train(
        model, tokenizer, rankings[:3], reward_model.Settings(epochs=1, rows=1), seed=1
    )
    ends["reward_model alone"] = model.state_dict()

    model, teacher = copy.deepcopy(policy), GPT(policy.config).init_weights(2)
    distill.train(
        model,
        teacher,
        tokenizer,
        pairs,
        rows,
        distill.Settings(steps=4, rows=5, muon_lr=0.001, rehearsal_rows=3, micro_pairs=2),
        seed=1,
    )
    ends["distill"] = model.state_dict()

    tasks = world.draw_tasks(random.Random(3), ("math", "code", "chat"), 3)
    kinds = {
        "group": {},
        "gae": {"estimator": "gae", "normalise": "token"},
        # nine rows: one rank needs two micro-batches for its five, the other one for its four
        "gae uneven": {"estimator": "gae", "normalise": "token", "minibatches": 1, "micro_rows": 4},
        # a minibatch is one row: nothing is left for the other rank
        "sequence": {"normalise": "sequence", "minibatches": 9},
    }
    common = {
        "samples": 3,
        "epochs": 2,
        "minibatches": 2,
        "micro_rows": 2,
        "rehearsal_rows": 3,
        "max_new": 12,
        "mask_truncated": False,
    }
    for name, special in kinds.items():
        settings = replace(ppo.Settings(), **common | special)
        model, rm = copy.deepcopy(policy), reward_model.RewardModel(policy, 5)
        critic = copy.deepcopy(rm) if "estimator" in special else None
        data = ppo.rollout(
            model, policy, critic, rm, tokenizer, tasks, settings=settings, kl_coef=0.1, seed=7
        )
        if critic is None:  # rewards of an untrained model differ too little to learn from
            data.advantages = torch.where(
                data.mask,
                torch.randn(data.mask.shape, generator=torch.Generator().manual_seed(4)),
                0.0,
            )
        optimizers = {"policy": Optimizers(model, settings.lr)} | (
            {"critic": Optimizers(critic, 1e-3)} if critic else {}
        )
        ppo.learn(
            model,
            critic,
            optimizers,
            data,
            settings,
            tokenizer=tokenizer,
            rehearsal=rows,
            rng=random.Random(1),
            scale=1.0,
        )
        ends[f"ppo {name}"] = model.state_dict() | (
            {f"critic.{key}": value for key, value in critic.state_dict().items()} if critic else {}
        )
        ends[f"rollout {name}"] = {"ids": data.ids, "old": data.old_logprobs, "mask": data.mask}

    samples = generate(
        policy,
        tokenizer,
        [row[0][: 5 + k] for k, row in enumerate(rows[:5])],
        n=3,
        max_new=9,
        seed=3,
        rows=6,
    )
    ends["generate"] = {"tokens": samples.tokens, "logprobs": samples.logprobs}
    if rank() == 0:
        torch.save(ends, sys.argv[1])


if __name__ == "__main__":
    main()
