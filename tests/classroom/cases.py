"""Fresh numeric cases: how one is drawn from a seed, run, and told.

A generator in draw_supervised.py, draw_rl.py or loops.py draws inputs alone. What a right function
returns for them is computed later, and in another process than the student's.
"""

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor, nn


@dataclass
class Case:
    told: str  # what is special in it, for the message
    inputs: dict = field(default_factory=dict)
    gradients: tuple[str, ...] = ()  # inputs that the outputs are differentiated by
    edge: bool = False  # a special case; the plain ones must all be right
    # (chapter, function, inputs) -> what the function returned, in a form that can be compared
    call: Callable = lambda chapter, function, inputs: function(**inputs)


def generator(name: str, seed: int) -> random.Random:
    return random.Random(f"{seed} {name}")


# ---- what is drawn ----


def normal(rng: random.Random, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
    count = int(torch.tensor(shape).prod()) if shape else 1
    numbers = [round(rng.gauss(mean, scale), 4) for _ in range(count)]
    return torch.tensor(numbers, dtype=torch.float64).view(shape)


def whole(rng: random.Random, high: int, *shape: int, low: int = 0) -> Tensor:
    drawn = [rng.randrange(low, high) for _ in range(int(torch.tensor(shape).prod()))]
    return torch.tensor(drawn, dtype=torch.long).view(shape)


def own_mask(rng: random.Random, rows: int, width: int) -> Tensor:
    """(rows, width): a prompt, then own tokens with a tool's between them, then padding."""
    mask = torch.zeros(rows, width, dtype=torch.bool)
    for row in range(rows):
        first = rng.randrange(1, 3)
        last = rng.randrange(width - 2, width)
        mask[row, first:last] = True
        mask[row, rng.randrange(first + 1, last - 1)] = False
    return mask


def token_rows(rng: random.Random, count: int, vocabulary: int) -> list:
    """Rows of a prompt that is not supervised and a response that is; id 0 is for padding."""
    rows = []
    for _ in range(count):
        prompt = rng.randrange(1, 5)
        response = rng.randrange(1, 6)
        ids = [rng.randrange(1, vocabulary) for _ in range(prompt + response)]
        rows.append((ids, [False] * prompt + [True] * response))
    return rows


TOKENIZER = SimpleNamespace(pad_id=0, end_id=2, runtime_ids={3}, vocab_size=7)


class Table(nn.Module):
    """A model whose logits depend on the token at a position alone: weight (V, V), a row each."""

    def __init__(self, weight: Tensor, context: int = 64):
        super().__init__()
        self.weight = weight  # no Parameter, so that it is the very tensor of the case
        self.anchor = nn.Parameter(torch.zeros(1))  # a model is asked for its device
        self.config = SimpleNamespace(context=context, vocab_size=len(weight))

    def forward(self, ids, select=None, attend=None):
        logits = self.weight[ids]  # (N, S, V)
        return logits if select is None else logits[select]


def chapter_of(name: str):
    return importlib.import_module(name.split(".")[0])


# ---- what comes back, as JSON can hold it ----


def plain(value):
    """Tensors as {"shape", "values"}, the rest as lists, numbers, text and None.

    Nothing of a class that JSON does not know goes through, so no code of a student's does.
    """
    if isinstance(value, Tensor):
        values = value.detach().cpu()
        kind = values.dtype
        values = values if kind == torch.bool else values.double()
        return {"shape": list(values.shape), "values": values.flatten().tolist()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if type(value) is dict:
        return {str(key): plain(item) for key, item in value.items()}
    raise TypeError(f"returned a {type(value).__name__}")


def leaves(value) -> list[Tensor]:
    """The tensors in what a function returned that carry a gradient."""
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return []


def computed(case: Case, chapter, function) -> dict:
    """{"returned", "gradients"} of a function on a case, or {"raised": type, "told"}.

    Differentiated is the sum of all outputs times fixed weights, so that every one counts.
    """
    inputs = dict(case.inputs)
    for name in case.gradients:
        inputs[name] = inputs[name].clone().requires_grad_()
    try:
        returned = case.call(chapter, function, inputs)
        result = {"returned": plain(returned), "gradients": {}}
        total = torch.zeros((), dtype=torch.float64)
        for output in leaves(returned):
            weights = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).view_as(output)
            total = total + (output.double() * weights).sum()
        for name in case.gradients:
            found = None
            if total.requires_grad:
                found = torch.autograd.grad(
                    total, inputs[name], retain_graph=True, allow_unused=True
                )[0]
            result["gradients"][name] = plain(found)
        return result
    except Exception as error:
        return {"raised": type(error).__name__, "told": str(error)[:300]}
