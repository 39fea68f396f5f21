"""Dialogues and documents as rows of tokens, and the order in which they are learned from."""

import random
from dataclasses import replace

Row = tuple[list[int], list[bool]]  # token ids and the mask of supervised ones


def supervised_count(rows: list[Row]) -> int:
    return sum(sum(mask[1:]) for _, mask in rows)


def dialogue_rows(tokenizer, records: list[dict], context: int) -> list[Row]:
    """Rendered dialogues; one that is longer than the context is left out, and one with a tool call where the tokenizer has no mark for it."""
    rows = [tokenizer.render(record["messages"]) for record in records
            if tokenizer.call_id is not None or not any(message["role"] == "tool" or message.get("tool_call") for message in record["messages"])]
    return [row for row in rows if len(row[0]) <= context]


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
