"""How much goes into one forward, so that a model of any size fits into memory.

A batch that is larger is accumulated: gradients and losses are sums divided by counts of the whole
batch, so that parts of any size give the same up to rounding.
"""

import torch
from torch import nn

ROOM = 2_000_000_000  # bytes of a CPU's memory for one forward and its backward, besides weights


def room_of(device: torch.device) -> int:
    """The bytes that one forward may take: of a CUDA card a quarter, else ROOM on any machine.

    So a run does not depend on how much memory a computer has.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 4
    return ROOM


def bytes_a_token(config, recompute: bool = False) -> int:
    """About what a token of a training forward takes in float32; config: a model.Config.

    A block keeps some 13 vectors of its width and 4 of its FFN's for the backward pass, and the
    loss needs three vectors of logits. With recompute only one block's are there at a time.
    """
    block = 13 * config.width + 4 * config.ffn
    blocks = block + config.layers * config.width if recompute else block * config.layers
    return 4 * (blocks + 3 * config.vocab_size)


def fitting(
    network: nn.Module, rows: list, most: int, tokens: int | None = None, each: int = 1
) -> int:
    """How many items, of `each` rows, go into one forward: `most` of them, or fewer where memory or
    the number of `tokens` would not do; at least one.

    rows [(ids, mask)] are what they are taken of; the longest counts. Memory's limit lies above all
    batches of the tiny run, whose sums so keep their order (tested).
    """
    model = getattr(network, "module", network)  # under torchrun it is wrapped
    trunk = getattr(model, "trunk", model)
    longest = max((len(ids) for ids, _ in rows), default=1) * each
    fit = [most]
    if tokens is not None:
        fit.append(tokens // longest)
    if hasattr(trunk, "blocks"):  # not a stand-in for a model, which takes no room
        a_token = bytes_a_token(trunk.config, trunk.recompute)
        fit.append(room_of(trunk.embedding.weight.device) // a_token // longest)
    return max(1, min(fit))


def forwards(network: nn.Module, rows: list, most: int, tokens: int | None = None) -> list[list]:
    """The rows in order, as lists of as many as `fitting` says."""
    size = fitting(network, rows, most, tokens)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def cached_rows(model: nn.Module, rows: int, columns: int, dtype: torch.dtype) -> int:
    """How many of `rows` are decoded at once: their keys and values take half of the room."""
    config = model.config
    row = 2 * config.layers * config.kv_heads * config.head_size * columns * dtype.itemsize
    return max(1, min(rows, room_of(model.embedding.weight.device) // 2 // row))
