r"""Reads the data files that people already have into three kinds of record, all plain dicts.

    python -m data.files.formats FILE     what a file is, what can be learned from it, one record

A file is JSONL (one object per line), one JSON array of objects, or a CSV whose first row names the
keys. It is UTF-8 with or without a BOM, gzipped or not. A folder of such files is read whole, by
the order of their names. A key that is not read is ignored, and named once with its count.

    layouts.py       the layouts of the kinds "instruction", "preference" and "ranking"
    comparisons.py   those that compare replies
    dialogues.py     what a message may hold
    loading.py       bytes, places, and the fields of an object
    notes.py         lines on what looks wrong in a file

Records that are well formed but teach nothing (an empty reply, two equal replies) are dropped and
counted. Anything else that is wrong stops with the file, the line and the remedy.

Left out: Parquet (the message has the line that converts it), KTO's labels, pictures and other
content parts. Nothing is streamed: a file is read whole.
"""

from data.files.dialogues import ignore
from data.files.layouts import LAYOUTS, records_of
from data.files.loading import (
    RECORDS,
    DataError,
    blank,
    files_of,
    holds_records,
    load,
    numbered,
    text_of,
)
from data.files.notes import (
    ignored_line,
    repeat_lines,
    score_lines,
    score_order,
    spelled_in,
    spelled_lines,
)

TEXTS = (".txt", *RECORDS)  # what the files of a folder for pretraining are called


# ---- a file ----


def read_records(path, kind):
    """Reads `path` as records of `kind`: "instruction", "preference" or "ranking".

    Returns (records, dropped, notes). dropped counts the unusable records by reason, e.g.
    {"empty reply": 4}. notes are lines that the caller prints: keys that were ignored, dialogues
    that are already rendered, repeated records.
      instruction  {"messages": [...]}, and "answer" or "tests" where the file has them; the last
                   message is an assistant's
      preference   {"prompt": messages up to and including the last user turn,
                    "chosen": str, "rejected": str}
      ranking      {"prompt": messages, "responses": [str, ...], "ranking": "B > A = C"}
    An assistant's message that is not to be learned from has "weight": 0. Raises DataError.
    """
    found, dropped, notes = placed_records(path, kind)
    return [record for _, record in found], dropped, notes


def placed_records(path, kind):
    """`read_records` with [(place, record)] in place of the records."""
    if kind not in LAYOUTS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(LAYOUTS)}")
    files, notes = files_of(path, *RECORDS)
    rows = [row for file in files for row in numbered(file)]
    if not rows:
        raise DataError(
            f"{path}:1: the file holds no record; "
            "expected one JSON object per line or an array of them"
        )
    found = []
    dropped = {}  # reason -> count
    ignored = {}  # key -> count
    spelled = {}  # a form of notes.SPELLED -> [(place, mark)]
    scored = {}  # an order of notes.score_order -> [place]
    for place, value in rows:
        try:
            converted = records_of(value, kind, ignored)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        for made in converted:
            if isinstance(made, str):
                dropped[made] = dropped.get(made, 0) + 1
                continue
            found.append((place, made))
            order = score_order(value) if kind != "instruction" else ""
            if order:
                scored.setdefault(order, []).append(place)
            for what, mark in spelled_in(made):
                spelled.setdefault(what, []).append((place, mark))
    records = [record for _, record in found]
    openings = [opening(record.get("messages") or record["prompt"]) for record in records]
    if ignored:
        notes.append(f"{path}: {ignored_line(ignored)}")
    notes += spelled_lines(spelled, len(records))
    notes += score_lines(scored, len(records))
    notes += repeat_lines(path, records, openings)
    return found, dropped, notes


def read_text(path):
    r"""(text, notes) of a file for pretraining, with "\n" line ends.

    The file is plain text, or records {"text": ...}, which are joined by a blank line, as are the
    files of a folder. notes are lines to print, as in `read_records`. Raises DataError if a file is
    blank or not UTF-8, and for records without a "text".
    """
    files, notes = files_of(path, *TEXTS)
    texts = [text_of_file(file, notes) for file in files]
    return "\n\n".join(texts), notes


def text_of_file(path, notes):
    """`read_text` of one file, which adds its lines to the notes."""
    text = load(path).replace("\r\n", "\n")
    if not text.strip():
        raise DataError(f"{path}:1: the file is empty; expected plain text")
    if not holds_records(text, path):
        return text
    texts = []
    ignored = {}
    for place, value in numbered(path):
        try:
            texts.append(text_of(value, "text").replace("\r\n", "\n"))
            ignore(value, ("text",), ignored)
        except DataError as error:
            raise DataError(
                f"{place}: {error}; for pretraining a record is "
                '{"text": ...}, and a file of plain text needs no JSON'
            ) from None
    kept = [text for text in texts if not blank(text)]
    if not kept:
        raise DataError(f'{path}:1: no record holds text; expected {{"text": ...}} or plain text')
    if ignored:
        notes.append(f"{path}: {ignored_line(ignored)}")
    if len(kept) < len(texts):
        notes.append(f"{path}: {dropped_line({'empty text': len(texts) - len(kept)})}")
    return "\n\n".join(kept)


def read_jsonl(path):
    """The objects of a JSONL file or JSON array as they stand, [] for an empty file."""
    return [value for _, value in numbered(path)]


def opening(messages):
    """What is said before the first reply of a dialogue. The split goes by it (`rows.split`)."""
    said = []
    for message in messages:
        if message["role"] == "assistant":
            break
        said.append(" ".join(message["content"].split()))
    return "\n".join(said)


def dropped_line(dropped):
    """`dropped 15 records: 9 prefix differs, 6 empty reply`, most frequent first."""
    total = sum(dropped.values())
    line = f"dropped {total} record{'' if total == 1 else 's'}"
    if not dropped:
        return line
    reasons = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return f"{line}: {', '.join(f'{count} {reason}' for reason, count in reasons)}"


def because(dropped):
    """` (dropped 3 records: 3 empty reply)`, or "" where nothing was dropped.

    It ends a message that says that too little is left.
    """
    return f" ({dropped_line(dropped)})" if dropped else ""


if __name__ == "__main__":
    from data.files.preview import main  # which imports this file

    main()
