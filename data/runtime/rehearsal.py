"""Rehearsal by distribution: on earlier rows a policy keeps what it was when it entered a stage."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from data.runtime.devices import autocast, micro_batches
from data.runtime.rows import Row, pad_batch, supervised_count


def rehearse_entering(model, entering, tokenizer, rows: list[Row], *, coef, device, size) -> None:
    """The gradient of coef times the mean of KL(entering || model) over the rows' supervised tokens.

    With a cross-entropy on the same rows the stages before would be taught again, and what the last
    one learned would be pulled back to them. `entering`: the frozen model that entered the stage.
    `size` rows a forward; the gradient of a batch must follow (`micro_batches`), with which it is
    reduced over the ranks.
    """
    count = supervised_count(rows)
    for micro in micro_batches(rows, size, model, last=False):
        ids, mask = pad_batch(micro, tokenizer.pad_id, device)  # (N, S) each
        (coef * token_kls(model, entering, ids, mask).sum() / max(1, count)).backward()


def token_kls(model, entering, ids: Tensor, mask: Tensor) -> Tensor:
    """KL(entering || model) in nats where mask (N, S) is True, one number a token, (supervised,)."""
    select = pad(mask[:, 1:], (0, 1))  # (N, S), whose logits predict each supervised token
    with autocast(ids.device):
        logits = model(ids, select=select)  # (supervised, V)
        with torch.no_grad():
            wanted = entering(ids, select=select).float().log_softmax(-1)  # (supervised, V)
    return (wanted.exp() * (wanted - logits.float().log_softmax(-1))).sum(-1)
