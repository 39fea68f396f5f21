"""Dialogues and documents as rows of tokens, the order in which they are learned from, batches."""

import random
import zlib
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from data.files import formats, json_calls
from data.runtime.devices import seed_of

Row = tuple[list[int], list[bool]]  # token ids and the mask of supervised ones


def supervised_count(rows: list[Row]) -> int:
    """The supervised tokens that are predicted: nothing predicts the first of a row."""
    return sum(sum(mask[1:]) for _, mask in rows)


def tokens_of(rows: list[Row]) -> int:
    return sum(len(ids) for ids, _ in rows)


def tokens_a_row(rows: list[Row]) -> float:
    return tokens_of(rows) / max(1, len(rows))


# ---- records as rows; what cannot be learned from is left out and counted ----


def that_fit(records, context: int, rows_of) -> tuple[list[tuple[dict, list[Row]]], dict]:
    """([(record, its rows)], how many records are left out for which reason).

    rows_of(record) renders a record; [] where the tokenizer lacks a mark that it needs.
    """
    kept = []
    dropped = Counter()
    for record in records:
        rows = rows_of(record)
        why = why_not(rows, context)
        if why:
            dropped[why] += 1
        else:
            kept.append((record, rows))
    return kept, dict(dropped)


def why_not(rows: list[Row], context: int) -> str:
    """Why a record's rows cannot be learned from, or ""; without rows it cannot be rendered."""
    if not rows:
        return "tool call, for which the tokenizer has no mark"
    if max(len(ids) for ids, _ in rows) > context:
        return f"longer than the context of {context} tokens"
    return "" if all(any(mask[1:]) for _, mask in rows) else "no supervised token"


def dialogue_rows(tokenizer, records: list[dict], context: int) -> tuple[list[Row], dict]:
    """(rendered dialogues, how many are left out for which reason)."""

    def rows_of(record: dict) -> list[Row]:
        messages = record["messages"]
        return [] if no_mark(tokenizer, messages) else [tokenizer.render(messages)]

    kept, dropped = that_fit(records, context, rows_of)
    return [row for _, rows in kept for row in rows], dropped


def ranking_rows(
    tokenizer, records: list[dict], context: int
) -> tuple[list[tuple[dict, list[Row]]], dict]:
    """([(record of kind "ranking", its responses as rows)], how many are left out and why)."""

    def rows_of(record: dict) -> list[Row]:
        if no_mark(tokenizer, record["prompt"]):
            return []
        return response_rows(tokenizer, record["prompt"], record["responses"])

    return that_fit(records, context, rows_of)


def no_mark(tokenizer, messages: list[dict]) -> bool:
    """Whether a dialogue has tools and the tokenizer has no way to write them."""
    if tokenizer.call_id is not None:
        return False
    if tokenizer.json_calls:
        return not json_calls.can_write(messages)
    return any(
        message["role"] == "tool" or message.get("tool_call") or message.get("tools")
        for message in messages
    )


def response_rows(tokenizer, prompt: list[dict], texts: list[str]) -> list[Row]:
    """Responses to a prompt (messages) as rows.

    What the assistant said in the prompt itself is not supervised.
    """
    start_at = len(tokenizer.prompt(prompt))
    rows = []
    for text in texts:
        ids, mask = tokenizer.render([*prompt, {"role": "assistant", "content": text}])
        rows.append((ids, [k >= start_at and on for k, on in enumerate(mask)]))
    return rows


def document_rows(tokenizer, texts: list[str], length: int) -> list[Row]:
    """Documents one after the other, cut into rows of `length` tokens, all of them supervised.

    Each row begins with the token that ends the row before, so that every token is predicted once.
    What is left at the end and fills no row is dropped.
    """
    stream = [tokenizer.end_id]
    for text in texts:
        stream += tokenizer.document(text)
    starts = range(0, len(stream) - length + 1, length - 1)
    return [(stream[i : i + length], [True] * length) for i in starts]


def tell_dropped(stage: str, dropped: dict) -> None:
    """A line on the terminal, where something was left out."""
    if dropped:
        print(f"{stage}: {formats.dropped_line(dropped)}", flush=True)


# ---- what is trained on and what is held out ----


def check_prompts(name: str, prompts: list[str], dropped: dict | None = None) -> None:
    """Raises ValueError, which begins with `name`, for fewer than two different prompts.

    `dropped`: how many records were left out and why.
    """
    count = len(set(prompts))
    if count < 2:
        left = "1 different prompt is left" if count == 1 else f"{count} different prompts are left"
        raise ValueError(
            f"{name}: {left}{formats.because(dropped)}; two are needed, one to train on "
            "and one to hold out; give more data"
        )


def split(
    name: str, items: list, prompts: list[str], share: int, most: int | None = None
) -> tuple[list, list]:
    """(trained on, held out): about one in `share` of the items, no more than `most`, whole prompts
    at a time, by a hash of the prompt: the same text is held out in every file, and what is held
    out at 20 is held out at 10 too. `prompts` has one entry an item. Each side has at least one.

    Raises ValueError, which begins with `name`, where all items have one prompt.
    """
    check_prompts(name, prompts)
    counts = Counter(prompts)
    hashes = {prompt: zlib.crc32(prompt.encode()) for prompt in counts}
    order = sorted(counts, key=lambda prompt: (hashes[prompt] % share, hashes[prompt], prompt))
    apart = {order[0]}
    total = counts[order[0]]
    for prompt in order[1:-1]:
        if hashes[prompt] % share == 0 and (most is None or total + counts[prompt] <= most):
            apart.add(prompt)
            total += counts[prompt]
    sides = {False: [], True: []}
    for item, prompt in zip(items, prompts):
        sides[prompt in apart].append(item)
    return sides[False], sides[True]


def before_reply(row: Row) -> str:
    """What stands before the first supervised token of a row, as a key for `split`."""
    ids, mask = row
    return " ".join(map(str, ids[: mask.index(True)]))


# ---- the order of learning ----


class Passes:
    """Whole shuffled passes over `count` items without end: `take(n)` gives the next n indices.

    A pass is drawn when it is needed, so other draws from `rng` may come between. `order` holds
    the drawn indices that are still to come, for a stage that is saved in its middle.
    """

    def __init__(self, count: int, rng: random.Random, order: list[int] = ()):
        self.count = count
        self.rng = rng
        self.order = list(order)

    def take(self, n: int) -> list[int]:
        while len(self.order) < n:
            self.order += self.rng.sample(range(self.count), self.count)
        taken = self.order[:n]
        self.order = self.order[n:]
        return taken


def repeated(rows: list, count: int, rng: random.Random) -> list:
    """`count` rows: whole shuffled passes over `rows`, the last one cut; [] without any."""
    return [rows[k] for k in Passes(len(rows), rng).take(count)] if rows else []


def in_rows(settings, rows: list[Row], mean: float | None = None):
    """`sft.Settings` with `batch_tokens` turned into `rows`, and those no more than len(rows).

    `mean`: tokens of a row, by default of these.
    """
    count = settings.rows
    if settings.batch_tokens:
        count = round(settings.batch_tokens / (mean or tokens_a_row(rows) or 1))
    return replace(settings, rows=max(1, min(count, len(rows))), batch_tokens=0)


def interleave(lists: list[list], rng: random.Random) -> list:
    """One list that keeps the order within each list and spreads each evenly over the whole."""
    keyed = []
    for items in lists:
        for i, item in enumerate(items):
            keyed.append(((i + rng.random()) / len(items), item))
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


def batches_of(rows: list[Row], size: int, rng: random.Random, window: int = 8) -> list[list[Row]]:
    """Batches of like length, so that there is little padding.

    Rows are sorted within windows of `window` batches only, so the order of learning stays.
    """
    batches = []
    for start_at in range(0, len(rows) - size + 1, size * window):
        near = sorted(rows[start_at : start_at + size * window], key=lambda row: len(row[0]))
        cut = [near[i : i + size] for i in range(0, len(near) - size + 1, size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def all_batches(rows: list[Row], settings, seed: int, stage: str) -> list[list[Row]]:
    """The batches of all steps: the rows in order, and again from the start at their end.

    `settings`: sft.Settings. Raises ValueError where the rows are fewer than one batch.
    """
    if settings.batch_tokens:
        told = "train counts a batch in rows; give it in_rows(settings, rows)"
        raise ValueError(f"{stage}: {told}")
    if len(rows) < settings.rows:
        told = f"{len(rows)} rows are left to train on, fewer than one batch of {settings.rows}"
        raise ValueError(f"{stage}: {told}; give more data")
    needed = settings.steps * settings.rows
    taken = (rows * (needed // len(rows) + 1))[:needed]
    return batches_of(taken, settings.rows, random.Random(seed_of(seed, stage, "batches")))


# ---- batches as tensors ----


def pad_batch(rows: list[Row], pad_id: int, device) -> tuple[Tensor, Tensor]:
    """(ids, mask) of N rows on the device, each (N, S); the padding on the right is masked out."""
    ids = pad_rows([ids for ids, _ in rows], pad_id, device=device)
    mask = pad_rows([mask for _, mask in rows], False, device=device)
    return ids, mask


def pad_rows(rows: list[list], pad, left: bool = False, device=None) -> Tensor:
    """Rows of unequal length as one tensor (N, longest); no rows at all as (0, 1)."""
    if rows:
        longest = max(map(len, rows))
        fill = [[pad] * (longest - len(row)) for row in rows]
        padded = [more + row if left else row + more for row, more in zip(rows, fill)]
        tensor = torch.tensor(padded)
    else:
        tensor = torch.zeros(0, 1, dtype=torch.bool if isinstance(pad, bool) else torch.long)
    if device is not None and device.type == "cuda":
        # the copy goes on while the next batch is laid out
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device or "cpu")
