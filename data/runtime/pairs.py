"""Pairs of a chosen and a rejected response, of a file or of a model, and what is held out."""

from data.files import formats
from data.files.comparisons import as_ranking
from data.runtime.rows import Row, check_prompts, ranking_rows, split

Pair = tuple[Row, Row]  # chosen and rejected: one prompt, two responses, the mask on the response


def file_pairs(
    alone, records: list[dict], dropped: dict, context: int
) -> tuple[list[Pair], list[Pair]]:
    """(trained on, held out): the pairs of --data, a tenth of its prompts held out.

    `alone`: the command, an alone.Alone; `context`: the model's.
    """
    name = alone.args.data
    rankings = map(as_ranking, records)
    kept, left_out = ranking_rows(alone.tokenizer, rankings, alone.context(context))
    dropped = dropped | left_out
    if dropped:
        print(formats.dropped_line(dropped))
    if not kept:
        because = formats.because(dropped)
        raise ValueError(f"{name}: no pair is left to train on{because}; give more data")
    openings = [formats.opening(record["prompt"]) for record, _ in kept]
    check_prompts(name, openings, dropped)
    pairs, held_out = split(name, [tuple(rows) for _, rows in kept], openings, 10)
    return pairs[: alone.args.records], held_out


def tenth_held_out(made: list) -> tuple[list, list]:
    """(trained on, held out) of pairs that were made of a model's own responses."""
    if len(made) < 2:
        raise ValueError(
            "the model's own responses make fewer than two pairs: "
            "it says the same or breaks off everywhere"
        )
    first = len(made) // 10 + 1
    return made[first:], made[:first]
