"""Cases for model, sft, dpo and reward_model; what each function must do is in its docstring."""

import torch

from tests.classroom.cases import (
    TOKENIZER,
    Case,
    Table,
    normal,
    own_mask,
    token_rows,
    whole,
)

CPU = torch.device("cpu")


# ---- sft ----


def supervised_positions(rng) -> list[Case]:
    def case(told, mask, edge=False):
        return Case(told, {"ids": whole(rng, 9, *mask.shape), "mask": mask}, edge=edge)

    first = torch.ones(2, 4, dtype=torch.bool)
    return [
        case("two rows of seven tokens", own_mask(rng, 2, 7)),
        case("three rows of eight tokens", own_mask(rng, 3, 8)),
        case("the first token is supervised too", first, edge=True),
        case("nothing is supervised", ~first, edge=True),
    ]


def masked_cross_entropy(rng) -> list[Case]:
    def case(told, rows, count, edge=False):
        inputs = {"logits": normal(rng, rows, 5, scale=2).float(), "targets": whole(rng, 5, rows)}
        return Case(told, inputs | {"count": count}, ("logits",), edge)

    return [
        case("four tokens, the whole batch", 4, 4),
        case("three of the eight tokens of a batch", 3, 8),
        case("a micro-batch without a supervised token", 0, 6, edge=True),
        case("a batch without a supervised token", 0, 0, edge=True),
    ]


def held_out_loss(rng) -> list[Case]:
    def call(chapter, function, inputs):
        model = Table(inputs["weight"])
        return function(model, TOKENIZER, inputs["rows"], CPU, micro_tokens=inputs["micro_tokens"])

    def case(told, count, micro_tokens, edge=False):
        weight = normal(rng, 7, 7).float()
        inputs = {"weight": weight, "rows": token_rows(rng, count, 7)}
        return Case(told, inputs | {"micro_tokens": micro_tokens}, edge=edge, call=call)

    return [
        case("five rows in one forward", 5, 1000),
        case("seven rows, about two a forward", 7, 14),
        case("a forward holds less than a row", 3, 1, edge=True),
    ]


# ---- model ----


def learning_rate_scale(rng) -> list[Case]:
    def call(chapter, function, inputs):
        return [function(step, **inputs) for step in range(inputs["steps"])]

    def case(told, edge=False, **inputs):
        return Case(told, inputs, edge=edge, call=call)

    steps = rng.randrange(20, 40)
    return [
        case("no warm-up", steps=steps, warmup=0, constant=0.5),
        case("a warm-up", steps=steps, warmup=rng.randrange(2, 6), constant=0.4),
        case("the warm-up is longer than the rest", True, steps=9, warmup=7, constant=0.5),
        case("never constant", True, steps=steps, warmup=3, constant=0.0),
        case("never falling", True, steps=12, warmup=2, constant=1.0),
    ]


def rotate(rng) -> list[Case]:
    def case(told, rows, heads, width, pairs, edge=False):
        angles = normal(rng, width, pairs, scale=2)
        inputs = {"x": normal(rng, rows, heads, width, 2 * pairs)}
        inputs |= {"cos": angles.cos(), "sin": angles.sin()}
        return Case(told, inputs, ("x",), edge)

    return [
        case("a head of four numbers", 1, 1, 2, 2),
        case("two rows, three heads", 2, 3, 4, 3),
        case("one pair of numbers", 1, 2, 3, 1, edge=True),
    ]


def smeared(rng) -> list[Case]:
    def case(told, reach, length, edge=False):
        inputs = {"row": normal(rng, 2, reach + length, 3), "weights": normal(rng, reach, 3)}
        return Case(told, inputs, ("row", "weights"), edge)

    return [
        case("three tokens back, four positions", 3, 4),
        case("two tokens back, five positions", 2, 5),
        case("one position, as in decoding", 3, 1, edge=True),
    ]


def token_logprobs(rng) -> list[Case]:
    def call(chapter, function, inputs):
        table = Table(inputs["weight"])
        return function(table, inputs["ids"], inputs["mask"], inputs["temperature"])

    def case(told, mask, temperature=1.0, edge=False):
        inputs = {"weight": normal(rng, 7, 7).float(), "ids": whole(rng, 7, *mask.shape)}
        inputs |= {"mask": mask, "temperature": temperature}
        return Case(told, inputs, ("weight",), edge, call)

    nothing = own_mask(rng, 2, 8)
    nothing[1] = False
    return [
        case("two rows of eight tokens", own_mask(rng, 2, 8)),
        case("temperature 0.7", own_mask(rng, 2, 7), 0.7),
        case("a row without a masked token", nothing, edge=True),
    ]


def generate(rng) -> list[Case]:
    def call(chapter, function, inputs):
        inputs = dict(inputs)
        model = Table(inputs.pop("weight"), inputs.pop("context"))
        written = function(model, TOKENIZER, inputs.pop("prompts"), **inputs)
        return [[list(ids), [float(one) for one in logprobs]] for ids, logprobs in written]

    def case(told, edge=False, context=40, **inputs):
        prompts = [ids for ids, _ in token_rows(rng, 4, 7)]
        inputs |= {"weight": normal(rng, 7, 7).float(), "prompts": prompts, "context": context}
        return Case(told, inputs | {"seed": rng.randrange(100)}, edge=edge, call=call)

    return [
        case("temperature 1", max_new=12, temperature=1.0),
        case("temperature 0.6", max_new=12, temperature=0.6),
        case("temperature 0 is greedy", True, max_new=6, temperature=0.0),
        case("the context ends first", True, context=11, max_new=30, temperature=1.0),
    ]


# ---- dpo ----


def sequence_logprobs(rng) -> list[Case]:
    def call(chapter, function, inputs):
        return function(Table(inputs["weight"]), TOKENIZER, inputs["rows"], CPU)

    def case(told, count, edge=False):
        inputs = {"weight": normal(rng, 7, 7).float(), "rows": token_rows(rng, count, 7)}
        return Case(told, inputs, ("weight",), edge, call)

    return [case("three rows", 3), case("five rows", 5), case("one row", 1, edge=True)]


def dpo_loss(rng) -> list[Case]:
    names = [f"{who}_{side}_logps" for who in ("policy", "reference") for side in SIDES]

    def case(told, edge=False, scale=3.0, **how):
        inputs = {name: normal(rng, 3, scale=scale, mean=-12) for name in names}
        return Case(told, inputs | how, tuple(names[:2]), edge)

    lengths = {f"{side}_lengths": whole(rng, 12, 3, low=2) for side in SIDES}
    return [
        case("three pairs, beta 0.1"),
        case("three pairs, beta 0.4", beta=0.4),
        case("gaps of thousands", True, scale=3000.0),
        case("labels smoothed by 0.2", True, label_smoothing=0.2),
        case("ipo", True, kind="ipo", beta=0.2),
        case("divided by length", True, length_normalised=True, beta=2.0, **lengths),
        case("a likelihood term", True, nll_coef=0.7, **lengths),
        case("lengths are missing", True, nll_coef=0.7),
        case("an unknown kind", True, kind="hinge"),
    ]


SIDES = ("chosen", "rejected")


# ---- reward_model ----


def ranking_loss(rng) -> list[Case]:
    def case(told, levels, ties="drop", edge=False, **how):
        inputs = {"scores": normal(rng, *levels.shape), "levels": levels, "ties": ties} | how
        return Case(told, inputs, ("scores", *[name for name in how if name == "width"]), edge)

    def shuffled(*levels):
        return torch.tensor([rng.sample(row, len(row)) for row in levels])

    width = normal(rng, scale=0.1, mean=0.6)
    tied = shuffled([0, 1, 1, 2], [0, 0, 0, 1])
    gone = torch.tensor([[0, 1, 1, -1], [1, 0, 0, 2]])
    alone = torch.tensor([[0, 1, 2], [0, 0, 0], [0, -1, -1]])
    return [
        case("two prompts without ties", shuffled([0, 1, 2, 3], [0, 1, 2, 3])),
        case("ties, which are dropped", tied),
        case("ties as half a win each", tied, "half", True),
        case("ties of Rao and Kupper", tied, "rao_kupper", True, width=width),
        case("ties of Davidson", tied, "davidson", True, width=width),
        case("an output that is missing", gone, edge=True),
        case("prompts without a pair that counts", alone, edge=True),
        case("a micro-batch of five prompts", tied, edge=True, count=5),
        case("an unknown rule", tied, "guess", True),
    ]


class Counter(torch.nn.Module):
    """A reward model that scores a position by the ids up to it."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, ids, last=None):
        values = self.weight[ids].cumsum(1)  # (N, S)
        return values if last is None else values[torch.arange(len(ids)), last]


def score_rows(rng) -> list[Case]:
    def call(chapter, function, inputs):
        return function(Counter(inputs["weight"]), TOKENIZER, inputs["rows"])

    def case(told, rows, edge=False):
        return Case(told, {"weight": normal(rng, 7), "rows": rows}, ("weight",), edge, call)

    ids = [rng.randrange(1, 7) for _ in range(6)]
    inner = (ids, [False, True, True, False, True, False])
    return [
        case("three rows of unequal length", token_rows(rng, 3, 7)),
        case("five rows of unequal length", token_rows(rng, 5, 7)),
        case("what follows the last own token is not read", [inner], edge=True),
        case("a row without a response", [(ids, [False] * 6)], edge=True),
    ]


def repetition_penalty(rng) -> list[Case]:
    def case(told, tokens, edge=False, **how):
        return Case(told, {"tokens": tokens} | how, edge=edge)

    few = [rng.randrange(2) for _ in range(14)]
    return [
        case("fourteen tokens of two kinds", few),
        case("pairs of two kinds", few[::-1], n=2),
        case("fewer tokens than n", few[:2], True),
        case("no token at all", [], True),
        case("nothing repeated", list(range(9)), True),
    ]


def robust_reward(rng) -> list[Case]:
    def call(chapter, function, inputs):
        return [function(**{**inputs["shared"], **one}) for one in inputs["responses"]]

    def case(told, responses, edge=False, **shared):
        base = {"domain": "math", "verified": 1.0, "learned": None, "complete": True}
        base |= {"truncated": False, "longest": 16, "tokens": [rng.randrange(3) for _ in range(9)]}
        return Case(told, {"shared": base | shared, "responses": responses}, edge=edge, call=call)

    liked = [round(rng.gauss(0, 2), 3) for _ in range(4)]
    broken = [{"complete": False}, {"domain": "chat", "complete": False, "learned": 3.0}]
    return [
        case("right and wrong, verified", [{"verified": 1.0}, {"verified": 0.0}]),
        case("chat", [{"learned": one} for one in liked], domain="chat", verified=None),
        case("a learned score beside a verifier", [{"learned": one} for one in liked], True),
        case("nobody could check it", [{"verified": None}, {"domain": "chat"}], True),
        case("no end mark", broken, True),
        case(
            "cut off", [{"mask_truncated": True}, {"mask_truncated": False}], True, truncated=True
        ),
    ]


def overlong_penalty(rng) -> list[Case]:
    longest = rng.randrange(40, 60)
    margin = rng.randrange(8, 16)

    def call(chapter, function, inputs):
        return [function(length, inputs["longest"], inputs["margin"]) for length in range(80)]

    def case(told, edge=False, **inputs):
        return Case(told, inputs, edge=edge, call=call)

    return [
        case("every length up to 79", longest=longest, margin=margin),
        case("another limit", longest=longest - 7, margin=margin + 3),
        case("no margin", True, longest=longest, margin=0),
    ]
