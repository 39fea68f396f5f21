"""What a data file is and what can be learned from it, with one record as it will be rendered.

Run as `python -m data.files.formats FILE`. Every record is converted and rendered as with a
chapter's --data, so that what is dropped, ignored or too long is seen before anybody trains.
"""

import statistics
from collections import Counter
from pathlib import Path

from data.files import formats, hf
from data.files.checkpoints import read_saved, tokenizer_of
from data.files.comparisons import as_ranking
from data.files.layouts import LAYOUTS, layout_of
from data.files.loading import RECORDS, DataError, files_of, holds_records, load, named, numbered
from data.runtime.command import Parser, command
from data.runtime.rows import document_rows, no_mark, response_rows, that_fit

TINY_CONTEXT = 256  # tokens of a row in a model of size tiny
TEXT_ROW = 128  # tokens of a row in sft.py --pretrain
USES = {
    "instruction": "dialogues, for sft.py --data",
    "preference": "pairs, for dpo.py --data",
    "ranking": "rankings, for reward_model.py --data",
}


def main() -> None:
    parser = Parser(__doc__)
    parser.prog = "python -m data.files.formats"
    parser.add_argument("file", metavar="FILE", help="JSONL, JSON, CSV, text, or a folder of them")
    told = "checkpoint whose tokenizer and context count; without it, those of size tiny"
    parser.add_argument("--init", metavar="CHECKPOINT", default=None, help=told)
    told = "which of the records that can be learned from is shown"
    parser.add_argument("--show", metavar="N", type=int, default=1, help=told)
    command(parser, run, "stopped")


def run(args) -> None:
    if args.show < 1:
        raise ValueError(f"--show {args.show}: needs at least 1")
    tokenizer = tokenizer_of(args.init)
    context = context_of(args.init)
    if is_text(args.file):
        return preview_text(args, tokenizer)
    files, _ = files_of(args.file, *RECORDS)
    values = [value for file in files for _, value in numbered(file)]
    kinds = [kind for kind in LAYOUTS if values and layout_of(values[0], kind)]
    lines = [f"{args.file}: {counted(values, 'record')}, {layouts_told(values)}"]
    notes = {}  # a line -> None: pairs and rankings have the same
    shown = None
    refused = []
    for kind in kinds or ["instruction"]:
        try:
            found, dropped, more = formats.placed_records(args.file, kind)
        except DataError as error:
            refused.append(error)
            lines.append(f"{USES[kind]}: refused, {error}")
            continue
        kept, left_out = that_fit(found, context, lambda one: rows_of(tokenizer, kind, one[1]))
        dropped = dropped | left_out
        told = f", {formats.dropped_line(dropped)}" if dropped else ""
        lines.append(f"{USES[kind]}: {len(kept)} to learn from{told}")
        notes |= dict.fromkeys(more)
        shown = shown or kept
    if refused and shown is None:
        raise refused[0]
    print("\n".join([*lines, *notes]))
    if not shown:
        raise ValueError(f"{args.file}: no record is left to learn from")
    show_record(args, tokenizer, shown)


def counted(items, name: str) -> str:
    return f"{len(items)} {name}{'' if len(items) == 1 else 's'}"


def context_of(path) -> int:
    """The most tokens of a row in the checkpoint's model."""
    if not path:
        return TINY_CONTEXT
    if Path(path).is_dir():
        file = Path(path) / "config.json"
        return hf.config_of(hf.read_json(file), file)["context"]
    try:
        return read_saved(path, "cpu", "checkpoint")["config"]["context"]
    except (KeyError, TypeError):
        raise ValueError(f"{path}: not a checkpoint of this project") from None


def layouts_told(values: list[dict]) -> str:
    """`layout: messages`, or every layout with its count where there are several."""
    found = Counter()
    for value in values:
        layouts = [layout_of(value, kind) for kind in LAYOUTS]
        found[next((", ".join(keys) for keys in layouts if keys), "none")] += 1
    if len(found) == 1:
        return f"layout: {next(iter(found))}"
    return "layouts: " + " | ".join(f"{keys} ({count})" for keys, count in found.most_common())


def rows_of(tokenizer, kind: str, record: dict) -> list:
    """A record's dialogue or responses as rows; [] where the tokenizer lacks a mark for them."""
    if no_mark(tokenizer, record.get("messages") or record["prompt"]):
        return []
    if kind == "instruction":
        return [tokenizer.render(record["messages"])]
    ranking = as_ranking(record) if kind == "preference" else record
    return response_rows(tokenizer, ranking["prompt"], ranking["responses"])


def show_record(args, tokenizer, kept: list) -> None:
    """The lengths of all rows, then the rows of one record.

    kept: [((place, record), rows)].
    """
    lengths = [len(ids) for _, rows in kept for ids, _ in rows]
    print(f"tokens of a row: median {statistics.median(lengths):.0f}, longest {max(lengths)}")
    if args.show > len(kept):
        raise ValueError(f"--show {args.show}: {counted(kept, 'record')} can be learned from")
    (place, record), rows = kept[args.show - 1]
    print(f"record {args.show} of {len(kept)}, {place}, supervised tokens in brackets:")
    names = [""]
    if "chosen" in record:
        names = ["chosen: ", "rejected: "]
    elif "ranking" in record:
        names = [f"{chr(ord('A') + i)}: " for i in range(len(rows))]
        print(f"ranking: {record['ranking']}")
    for name, row in zip(names, rows):
        print(name + tokenizer.marked(*row))


# ---- text for pretraining ----


def is_text(path) -> bool:
    """Whether a file is plain text or holds records of text; of a folder, its first of records."""
    files = files_of(path, *formats.TEXTS)[0]
    file = next((file for file in files if named(file, *RECORDS)), files[0])
    if not holds_records(load(file), file):
        return True
    rows = numbered(file)
    first = rows[0][1] if rows else {}
    return "text" in first and not any(layout_of(first, kind) for kind in LAYOUTS)


def preview_text(args, tokenizer) -> None:
    text, notes = formats.read_text(args.file)
    rows = document_rows(tokenizer, [text], TEXT_ROW)
    print(f"{args.file}: plain text of {len(text)} characters")
    told = counted(rows, "row")
    print(f"text, for sft.py --pretrain --data: {told} of {TEXT_ROW} tokens to learn from")
    for note in notes:
        print(note)
    if args.show > len(rows):
        raise ValueError(f"--show {args.show}: {counted(rows, 'row')} can be learned from")
    print(f"row {args.show} of {len(rows)}, supervised tokens in brackets:")
    print(tokenizer.marked(*rows[args.show - 1]))
