"""The sizes side by side: one dial, --size, sets everything else.

tiny is for a laptop's CPU and takes minutes. small is for one GPU and takes minutes. base has the
SmolLM2 shapes, for one GPU or more.

The settings of size tiny are the defaults of each chapter, each with its reason beside it. Here
stands what the larger sizes change, in proportion to tiny's. Nothing of it was measured.
"""

from dataclasses import replace

# the fields of a `model.Config`; a tokenizer's vocabulary takes the place of vocab_size
SHAPES = {
    # two wide layers learn more in a minute on a CPU than four narrow ones
    "tiny": {
        "student": {
            "vocab_size": 768,
            "context": 256,
            "layers": 2,
            "width": 96,
            "heads": 4,
            "kv_heads": 2,
            "ffn": 160,
            "rope_base": 1000.0,  # the short base suits rows of 30 to 150 tokens
            "tied": False,
            "smear": 3,
        },
        "teacher": {
            "vocab_size": 768,
            "context": 256,
            "layers": 2,
            "width": 192,
            "heads": 6,
            "kv_heads": 3,
            "ffn": 368,
            "rope_base": 1000.0,
            "tied": False,
            "smear": 3,
        },
    },
    "small": {
        "student": {
            "vocab_size": 512,
            "context": 512,
            "layers": 8,
            "width": 320,
            "heads": 5,
            "kv_heads": 5,
            "ffn": 864,
            "smear": 3,
        },
        "teacher": {
            "vocab_size": 512,
            "context": 512,
            "layers": 12,
            "width": 512,
            "heads": 8,
            "kv_heads": 4,
            "ffn": 1408,
            "smear": 3,
        },
    },
    "base": {
        "student": {
            "vocab_size": 49152,
            "context": 2048,
            "layers": 30,
            "width": 576,
            "heads": 9,
            "kv_heads": 3,
            "ffn": 1536,
            "rope_base": 100000.0,
            "qk_norm": False,
        },
        "teacher": {
            "vocab_size": 49152,
            "context": 2048,
            "layers": 32,
            "width": 960,
            "heads": 15,
            "kv_heads": 5,
            "ffn": 2560,
            "rope_base": 100000.0,
            "qk_norm": False,
        },
    },
}

# ---- the settings of the larger sizes: a dict a size, an entry a stage ----

SMALL_RL = {"prompts": 64, "samples": 16, "candidates": 2000, "lr": 2e-4}
BASE_RL = {
    "prompts": 64,
    "samples": 16,
    "candidates": 2000,
    "lr": 2e-6,
    "critic_lr": 1e-5,
    "max_new": 256,
    "micro_rows": 8,
    "save_every": 2,
}
SMALL_DPO = {"steps": 200, "rows": 64, "lr": 5e-5}
BASE_DPO = {"steps": 200, "rows": 64, "lr": 1e-6, "micro_pairs": 4}
GENTLE = {  # SFT of weights that somebody has pretrained
    "batch_tokens": 32768,
    "muon_lr": 0.001,
    "adam_lr": 1e-4,
    "micro_tokens": 4096,
    "save_every": 100,
}

LARGER = {
    "small": {
        # Of different training prompts the world holds, at levels 1 to 4, 19,400 of code, 9,100 of
        # STEM and 2.0 million of math; at each of levels 3, 4 and 5 2,800 to 6,000 of code and
        # 1,800 to 4,100 of STEM; 13,400 of chat, 30,900 of agent. A third of the demonstrations of
        # the cold start is of each domain, so that prompts recur: of 40,000 21,900 are different.
        "documents": 200000,
        "demonstrations": {
            "student": {
                "reasoning": 6000,
                "chat": 1000,
                "agent": 1500,
                "judge": 2500,
                "new_prompt": 2000,
            },
            "teacher": {
                "reasoning": 40000,
                "chat": 8000,
                "agent": 8000,
                "judge": 8000,
                "new_prompt": 4000,
            },
        },
        "pretrain": {
            "steps": 3000,
            "rows": 64,
            "muon_lr": 0.02,
            "adam_lr": 0.01,
            "save_every": 500,
        },
        "cold_start_sft": {"steps": 1500, "rows": 64, "adam_lr": 0.002},
        "overall_sft": {"steps": 3000, "rows": 64, "adam_lr": 0.002, "save_every": 500},
        "dpo": SMALL_DPO,
        "distill": {"steps": 1500, "rows": 32, "rehearsal_rows": 32, "queries": 20000},
        "reward_model": {"prompts": 5000, "rows": 32, "lr": 3e-4, "muon_lr": 0.002},
        "rl_stem": SMALL_RL,
        "rl_code": SMALL_RL,
        "rl_preference": SMALL_RL,
        "self_reward": {
            "prompts": 2000,
            "requests": 6000,
            "held_out": 500,
            "training": SMALL_DPO,
        },
    },
    "base": {
        "documents": 1000000,
        "demonstrations": {
            "student": {
                "reasoning": 20000,
                "chat": 3000,
                "agent": 4000,
                "judge": 5000,
                "new_prompt": 3000,
            },
            "teacher": {
                "reasoning": 80000,
                "chat": 12000,
                "agent": 12000,
                "judge": 12000,
                "new_prompt": 6000,
            },
        },
        "pretrain": {
            "steps": 1500,
            "batch_tokens": 131072,
            "muon_lr": 0.01,
            "adam_lr": 0.003,
            "micro_tokens": 4096,
            "save_every": 100,
        },
        "cold_start_sft": {"steps": 600, **GENTLE},
        "overall_sft": {"steps": 1500, **GENTLE},
        "dpo": BASE_DPO,
        "distill": {
            "steps": 600,
            "rows": 32,
            "rehearsal_rows": 32,
            "queries": 20000,
            "muon_lr": None,
            "adam_lr": 1e-5,
            "max_new": 256,
            "micro_pairs": 4,
        },
        "reward_model": {
            "prompts": 5000,
            "epochs": 1,
            "rows": 32,
            "micro_prompts": 4,
            "lr": 1e-5,
            "muon_lr": None,
        },
        "rl_stem": BASE_RL,
        "rl_code": BASE_RL,
        "rl_preference": BASE_RL,
        "self_reward": {
            "prompts": 2000,
            "requests": 6000,
            "held_out": 500,
            "training": BASE_DPO,
        },
    },
}

# --smoke: a few steps of everything, to see that it runs
SMOKE_RL = {"iterations": 1, "prompts": 4, "samples": 4, "candidates": 16, "max_new": 64}
SMOKE = {
    "sft": {"steps": 4, "demonstrations": 80},  # of every stage of SFT
    "dpo": {"steps": 2, "rows": 4},
    # untrained models differ by the annotator's noise alone, so any margin will do
    "distill": {"steps": 2, "queries": 60, "margin": 0.0, "max_new": 64},
    "reward_model": {"prompts": 24, "held_out": 12},
    "rl_stem": SMOKE_RL,
    "rl_code": SMOKE_RL,
    "rl_preference": SMOKE_RL,
    "self_reward": {
        "prompts": 8,
        "requests": 40,
        "held_out": 8,
        "training": {"steps": 2, "rows": 4},
    },
}


def sized(settings, stage: str, size: str, smoke: bool = False, **given):
    """A stage's settings of size tiny, changed by LARGER, then by what is `given`, then by SMOKE.

    An entry that is a dict changes fields of the field: "training" of self_reward is dpo.Settings.
    """
    changes = LARGER.get(size, {}).get(stage, {}) | given
    if smoke:
        changes |= SMOKE[stage]
    for name, value in changes.items():
        if isinstance(value, dict):
            changes[name] = replace(getattr(settings, name), **value)
    return replace(settings, **changes)
