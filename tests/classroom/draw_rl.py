"""Cases for ppo, distill and self_reward; what each function must do is in its docstring."""

from types import SimpleNamespace

import torch

from tests.classroom.cases import Case, normal, own_mask, whole

NAN = float("nan")


# ---- ppo ----


def kl_estimates(rng) -> list[Case]:
    names = ("logprobs", "reference_logprobs")

    def case(told, scale, edge=False, near=None):
        inputs = {name: normal(rng, 2, 4, scale=scale, mean=-2) for name in names}
        if near is not None:
            inputs["reference_logprobs"] = inputs["logprobs"] + near
        return Case(told, inputs, names, edge)

    return [
        case("two rows of four tokens", 0.7),
        case("policies far apart", 2.0),
        case("policies that are equal", 1.0, True, 0.0),
    ]


def token_rewards(rng) -> list[Case]:
    def case(told, mask, kl_coef, edge=False, hidden=None):
        inputs = {"scores": normal(rng, len(mask)), "mask": mask, "kl_coef": kl_coef}
        for name in ("logprobs", "reference_logprobs"):
            inputs[name] = normal(rng, *mask.shape, mean=-2)
            if hidden is not None:
                inputs[name][~mask] = hidden
        return Case(told, inputs, ("scores",), edge)

    masked_out = own_mask(rng, 3, 8)
    masked_out[1] = False
    return [
        case("three rows, with a tool's tokens and padding", own_mask(rng, 3, 8), 0.05),
        case("a large kl_coef", own_mask(rng, 2, 7), 0.5),
        case("without a penalty", own_mask(rng, 2, 7), 0.0, True),
        case("a row that is masked out", masked_out, 0.1, True),
        case("nan outside the mask", own_mask(rng, 2, 7), 0.1, True, NAN),
    ]


def gae(rng) -> list[Case]:
    def case(told, mask, gamma, gae_lambda, edge=False):
        inputs = {name: normal(rng, *mask.shape) for name in ("reward", "values")}
        inputs |= {"mask": mask, "gamma": gamma, "gae_lambda": gae_lambda}
        return Case(told, inputs, ("reward", "values"), edge)

    every = torch.ones(2, 5, dtype=torch.bool)
    empty = own_mask(rng, 2, 7)
    empty[0] = False
    return [
        case("every token is an own one", every, 1.0, 0.95),
        case("a discount", every, 0.9, 0.8),
        case("a tool's tokens between own ones", own_mask(rng, 3, 8), 0.9, 0.95, True),
        case("lambda 0", every, 0.9, 0.0, True),
        case("a row that is masked out", empty, 1.0, 0.9, True),
    ]


def group_advantages(rng) -> list[Case]:
    def case(told, kept, edge=False, scores=None, **how):
        scores = normal(rng, *kept.shape) if scores is None else scores
        return Case(told, {"scores": scores, "kept": kept} | how, ("scores",), edge)

    every = torch.ones(2, 4, dtype=torch.bool)
    some = torch.tensor([[True, False, True, True, False], [True, False, False, False, False]])
    alike = torch.full((2, 4), 0.7, dtype=torch.float64)
    return [
        case("two groups of four", every),
        case("three groups of five", torch.ones(3, 5, dtype=torch.bool)),
        case("zscore", every, True, baseline="zscore"),
        case("leave_one_out", every, True, baseline="leave_one_out"),
        case("samples that are masked out", some, True),
        case("masked out, leave_one_out", some, True, baseline="leave_one_out"),
        case("all alike, zscore", every, True, alike, baseline="zscore"),
        case("an unknown baseline", every, True, baseline="median"),
    ]


def next_kl_coef(rng) -> list[Case]:
    def call(chapter, function, inputs):
        shared = inputs["kl_coef"], inputs["target"], inputs["episodes"], inputs["horizon"]
        coef, target, episodes, horizon = shared
        return [function(coef, kl, target, episodes, horizon) for kl in inputs["kls"]]

    def case(told, kls, edge=False):
        inputs = {"kl_coef": round(rng.uniform(0.01, 0.2), 4), "target": 6.0, "kls": kls}
        return Case(told, inputs | {"episodes": 256, "horizon": 4000}, edge=edge, call=call)

    near = [round(rng.uniform(5, 7), 3) for _ in range(4)]
    return [
        case("a KL near its target", near),
        case("a KL far from its target", [0.5, 12.0, 40.0]),
        case("a KL of 0, and on target", [0.0, 6.0], True),
    ]


def policy_loss(rng) -> list[Case]:
    def case(told, mask, edge=False, hidden=None, **how):
        inputs = {"old_logprobs": normal(rng, *mask.shape, mean=-2)}
        inputs["logprobs"] = inputs["old_logprobs"] + normal(rng, *mask.shape, scale=0.3)
        inputs |= {"advantages": normal(rng, *mask.shape), "mask": mask}
        if hidden is not None:
            inputs["advantages"][~mask] = hidden
            inputs["old_logprobs"][~mask] = hidden
        return Case(told, inputs | how, ("logprobs",), edge)

    group = {"normalise": "sequence"}
    gspo = group | {"ratio": "sequence", "clip_low": 0.05, "clip_high": 0.08}
    return [
        case("three rows", own_mask(rng, 3, 8)),
        case("a clip range of 0.1 and 0.3", own_mask(rng, 3, 8), clip_low=0.1, clip_high=0.3),
        case("normalise sequence", own_mask(rng, 3, 8), True, **group),
        case("normalise constant", own_mask(rng, 2, 8), True, normalise="constant", longest=20),
        case("the ratio of a sequence", own_mask(rng, 3, 8), True, **gspo),
        case("a part of a minibatch of 40 tokens", own_mask(rng, 2, 8), True, count=40),
        case("nan outside the mask", own_mask(rng, 2, 8), True, NAN),
    ]


def value_loss(rng) -> list[Case]:
    def case(told, mask, edge=False, hidden=None, **how):
        inputs = {name: normal(rng, *mask.shape) for name in ("old_values", "returns")}
        inputs["values"] = inputs["old_values"] + normal(rng, *mask.shape, scale=0.4)
        inputs["mask"] = mask
        if hidden is not None:
            inputs["returns"][~mask] = hidden
        return Case(told, inputs | how, ("values",), edge)

    return [
        case("three rows", own_mask(rng, 3, 8)),
        case("a clip of 0.5", own_mask(rng, 2, 8), clip=0.5),
        case("a part of a minibatch of 30 tokens", own_mask(rng, 2, 8), True, count=30),
        case("nan outside the mask", own_mask(rng, 2, 8), True, NAN),
    ]


# ---- distill ----


def token_divergence(rng) -> list[Case]:
    def call(chapter, function, inputs):
        inputs = dict(inputs)
        return function(inputs.pop("student"), inputs.pop("teacher"), **inputs)

    def case(told, edge=False, scale=1.5, **how):
        inputs = {name: normal(rng, 3, 5, scale=scale) for name in ("student", "teacher")}
        return Case(told, inputs | how, ("student",), edge, call)

    return [
        case("three tokens, forward"),
        case("confident models, forward", scale=4.0),
        case("reverse", True, direction="reverse"),
        case("temperature 2", True, temperature=2.0),
        case("jsd", True, direction="jsd"),
        case("jsd with b = 0.2", True, direction="jsd", jsd_beta=0.2),
        case("an unknown direction", True, direction="sideways"),
    ]


def preference_filter(rng) -> list[Case]:
    def call(chapter, function, inputs):
        domain, margin = inputs["domain"], inputs["margin"]
        return [function(domain, one, others, margin) for one, others in inputs["scores"]]

    def case(told, domain, scores, edge=False):
        inputs = {"domain": domain, "scores": scores, "margin": 1.0}
        return Case(told, inputs, edge=edge, call=call)

    liked = [(round(rng.uniform(0, 5), 2), [round(rng.uniform(0, 5), 2)] * 2) for _ in range(6)]
    verified = [(rng.randrange(2), [rng.randrange(2) for _ in range(3)]) for _ in range(8)]
    return [
        case("math, which a verifier checks", "math", [*verified, (1, [0, 1]), (1, [1])]),
        case("chat, by liking", "chat", [*liked, (4.0, [1.0, 3.5]), (1.0, [2.0])]),
        case("exactly the margin apart", "chat", [(3.0, [2.0, 2.5])], True),
        case("not checked", "code", [(None, [0]), (1, [0, None])], True),
    ]


def joint_loss(rng) -> list[Case]:
    def side(chapter, inputs, name):
        logits = inputs[f"{name}_student"], inputs[f"{name}_teacher"]
        return chapter.Side(*logits, *(inputs[f"{name}_{one}"] for one in LAID_OUT))

    def call(chapter, function, inputs):
        settings = SimpleNamespace(**inputs["settings"])
        both = side(chapter, inputs, "positive"), side(chapter, inputs, "negative")
        return list(function(*both, settings, inputs["counts"]))

    def case(told, edge=False, counts=None, **how):
        settings = {"beta": 0.1, "dpo_coef": 0.5, "pos_coef": 1.0, "neg_coef": 0.3}
        settings |= {"direction": "forward", "temperature": 1.0}
        inputs = {"settings": settings | how, "counts": counts}
        for name, tokens in (("positive", 5), ("negative", 4)):
            for who in ("student", "teacher"):
                inputs[f"{name}_{who}"] = normal(rng, tokens, 6, scale=1.5)
            inputs[f"{name}_tokens"] = whole(rng, 6, tokens)
            inputs[f"{name}_pair"] = torch.tensor([0, 0, 1, 1, 1][:tokens])
            inputs[f"{name}_reference_logps"] = normal(rng, 2, mean=-5)
        return Case(told, inputs, ("positive_student", "negative_student"), edge, call)

    return [
        case("two pairs"),
        case("two pairs, other weights", beta=0.4, dpo_coef=1.0, pos_coef=0.7, neg_coef=1.2),
        case("a part of a batch", True, (4, 11, 9)),
        case("reverse, temperature 2", True, direction="reverse", temperature=2.0),
    ]


LAID_OUT = ("tokens", "pair", "reference_logps")


# ---- self_reward ----


def rouge_l(rng) -> list[Case]:
    def call(chapter, function, inputs):
        return [function(a, b) for a, b in inputs["texts"]]

    def drawn(length):
        return [rng.choice("the cat sat on a red mat".split()) for _ in range(length)]

    def case(told, texts, edge=False):
        return Case(told, {"texts": texts}, edge=edge, call=call)

    return [
        case("four pairs of five words", [(drawn(5), drawn(5)) for _ in range(4)]),
        case("four pairs of unequal length", [(drawn(3), drawn(8)) for _ in range(4)]),
        case("the same words the other way round", [(drawn(6), drawn(6)[::-1])], True),
        case("no words", [([], drawn(3)), (drawn(3), []), ([], [])], True),
    ]


def mean_score(rng) -> list[Case]:
    def call(chapter, function, inputs):
        return [function(verdicts) for verdicts in inputs["verdicts"]]

    def case(told, verdicts, edge=False):
        return Case(told, {"verdicts": verdicts}, edge=edge, call=call)

    scores = [[f"It is fine.\nScore: {rng.randrange(6)}" for _ in range(3)] for _ in range(4)]
    broken = [[*some[:2], "Score: five"] for some in scores[:2]]
    return [
        case("four responses with three verdicts", scores),
        case("a verdict that cannot be read", broken),
        case("none that can be read", [["", "Score: 9", "no"], []], True),
    ]


def select(rng) -> list[Case]:
    def call(chapter, function, inputs):
        return [function(*one, inputs["rho"]) for one in inputs["groups"]]

    def case(told, groups, rho=0.0, edge=False):
        return Case(told, {"groups": groups, "rho": rho}, edge=edge, call=call)

    def group(size=5, unknown=False):
        rewards = [round(rng.uniform(0, 5), 1) for _ in range(size)]
        if unknown:
            rewards[rng.randrange(size)] = None
        return rewards, [rng.randrange(5, 60) for _ in range(size)]

    equals = [([3.0, 4.0, 4.0, 1.0, 1.0], [5, 9, 2, 4, 8])]
    return [
        case("six groups", [group() for _ in range(6)]),
        case("rewards that are not known", [group(unknown=True) for _ in range(6)]),
        case("the first of equals", equals, edge=True),
        case("windows of 0.3", [group() for _ in range(6)], 0.3, True),
        case("windows and unknown rewards", [group(unknown=True) for _ in range(6)], 0.4, True),
        case("no pair", [([2.0, 2.0], [3, 4]), ([None, 1.0], [3, 4])], edge=True),
    ]
