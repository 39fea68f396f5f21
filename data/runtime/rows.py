"""Dialogues and documents as rows of tokens, and the order in which they are learned from."""

import random
import zlib
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from data.files import formats

Row = tuple[list[int], list[bool]]  # token ids and the mask of supervised ones


def supervised_count(rows: list[Row]) -> int:
    return sum(sum(mask[1:]) for _, mask in rows)


def dialogue_rows(tokenizer, records: list[dict], context: int) -> tuple[list[Row], dict]:
    """(rendered dialogues, how many are left out for which reason)."""
    rows, dropped = [], Counter()
    for record in records:
        lacking = no_mark(tokenizer, record["messages"])
        made = [] if lacking else [tokenizer.render(record["messages"])]
        if why := why_not(made, context):
            dropped[why] += 1
        else:
            rows += made
    return rows, dict(dropped)


def ranking_rows(tokenizer, records: list[dict], context: int
                 ) -> tuple[list[tuple[dict, list[Row]]], dict]:
    """([(record of kind "ranking", its responses as rows)], how many are left out and why)."""
    kept, dropped = [], Counter()
    for record in records:
        lacking = no_mark(tokenizer, record["prompt"])
        rows = [] if lacking else response_rows(tokenizer, record["prompt"], record["responses"])
        if why := why_not(rows, context):
            dropped[why] += 1
        else:
            kept.append((record, rows))
    return kept, dict(dropped)


def no_mark(tokenizer, messages: list[dict]) -> bool:
    """Whether a dialogue calls a tool and the tokenizer has no mark for that."""
    calls = any(message["role"] == "tool" or message.get("tool_call") for message in messages)
    return calls and tokenizer.call_id is None


def why_not(rows: list[Row], context: int) -> str:
    """Why a record's rows cannot be learned from, or ""; without rows it cannot be rendered."""
    if not rows:
        return "tool call, for which the tokenizer has no mark"
    if max(len(ids) for ids, _ in rows) > context:
        return f"longer than the context of {context} tokens"
    return "" if all(any(mask[1:]) for _, mask in rows) else "no supervised token"


def tell_dropped(stage: str, dropped: dict) -> None:
    """A line on the terminal, where something was left out."""
    if dropped:
        print(f"{stage}: {formats.dropped_line(dropped)}", flush=True)


def check_prompts(name: str, prompts: list[str], dropped: dict | None = None) -> None:
    """Raises ValueError, which begins with `name`, where there are fewer than two different prompts;
    `dropped`: how many records were left out and why."""
    if (count := len(set(prompts))) < 2:
        left = f"{count} different prompt{' is' if count == 1 else 's are'} left"
        raise ValueError(f"{name}: {left}{formats.because(dropped)}; two are needed, one to train on "
                         "and one to hold out; give more data")


def split(name: str, items: list, prompts: list[str], share: int, most: int | None = None
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
    apart, total = {order[0]}, counts[order[0]]
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
    return " ".join(map(str, ids[:mask.index(True)]))


def response_rows(tokenizer, prompt: list[dict], texts: list[str]) -> list[Row]:
    """Responses to a prompt (messages) as rows; whatever the assistant said in the prompt itself is not supervised."""
    start_at = len(tokenizer.prompt(prompt))
    rows = [tokenizer.render([*prompt, {"role": "assistant", "content": text}]) for text in texts]
    return [(ids, [k >= start_at and on for k, on in enumerate(mask)]) for ids, mask in rows]


def document_rows(tokenizer, texts: list[str], length: int) -> list[Row]:
    """Documents one after the other, cut into rows of `length` tokens that are supervised throughout.

    Each row begins with the token that ends the row before, so that every token is predicted once; what is left at the end
    and fills no row is dropped.
    """
    stream = [tokenizer.end_id]
    for text in texts:
        stream += tokenizer.document(text)
    return [(stream[i:i + length], [True] * length) for i in range(0, len(stream) - length + 1, length - 1)]


def repeated(rows: list, count: int, rng: random.Random) -> list:
    """`count` rows: whole shuffled passes over `rows`, the last one cut."""
    taken = []
    while len(taken) < count and rows:
        taken += rng.sample(rows, len(rows))
    return taken[:count]


def tokens_a_row(rows: list[Row]) -> float:
    return sum(len(ids) for ids, _ in rows) / max(1, len(rows))


def in_rows(settings, rows: list[Row], mean: float | None = None):
    """`sft.Settings` with `batch_tokens` turned into `rows`, and those no more than len(rows); `mean`: tokens of a row, by default of these."""
    count = round(settings.batch_tokens / (mean or tokens_a_row(rows) or 1)) if settings.batch_tokens else settings.rows
    return replace(settings, rows=max(1, min(count, len(rows))), batch_tokens=0)


def interleave(parts: list[list], rng: random.Random) -> list:
    """One list that keeps the order within each part and spreads every part evenly over the whole."""
    keyed = [((i + rng.random()) / len(part), part[i]) for part in parts for i in range(len(part))]
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


def batches_of(rows: list[Row], size: int, rng: random.Random, window: int = 8) -> list[list[Row]]:
    """Batches of like length: rows are sorted within windows of `window` batches, so the order of learning stays."""
    batches = []
    for start_at in range(0, len(rows) - size + 1, size * window):
        part = sorted(rows[start_at:start_at + size * window], key=lambda row: len(row[0]))
        cut = [part[i:i + size] for i in range(0, len(part) - size + 1, size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def pad_rows(rows: list[list], pad, left: bool = False, device=None) -> Tensor:
    """Rows of unequal length as one tensor (N, longest); no rows at all as (0, 1)."""
    longest = max(map(len, rows), default=1)
    padded = torch.tensor([[pad] * (longest - len(row)) + row if left else row + [pad] * (longest - len(row)) for row in rows]
                          or torch.zeros(0, 1, dtype=torch.bool if isinstance(pad, bool) else torch.long))
    if device is not None and device.type == "cuda":
        return padded.pin_memory().to(device, non_blocking=True)  # the copy goes on while the next batch is laid out
    return padded.to(device or "cpu")
