r"""Reads the data files that people already have into three kinds of record, all plain dicts.

A file is JSONL (one object per line) or one JSON array of objects. It is UTF-8 with or without a
BOM, gzipped or not. Each record has one of these layouts. A further key is ignored, and named once
with its count.

kind "instruction" (for sft.py)
    {"messages": [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "5"}]}
    {"prompt": "Name a planet.", "response": "Mars."}
    {"question": "2+3?", "answer": "2+3=<<2+3=5>>5\n#### 5"}     GSM8K, or a plain answer
    {"instruction": "To French.", "input": "cat", "output": "chat"}     Alpaca; no "input" will do
    {"instruction": "Add.", "instances": [{"input": "2 3", "output": "5"}]}     self-instruct
    {"text": "Double x.", "code": "def f(x): return 2*x", "test_list": ["assert f(2) == 4"]}   MBPP
kind "preference" (for dpo.py, reward_model.py)
    {"prompt": "Name a planet.", "chosen": "Mars.", "rejected": "The Moon."}
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hi!", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}   HH
kind "ranking" (for reward_model.py)
    {"prompt": "Name a planet.", "responses": ["Pluto", "The Sun", "Mars"], "ranking": "C > A = B"}
    or a "preference" as above, which is a ranking of two

A prompt is a string (one user turn) or a list of messages. "chosen" and "rejected" are strings
(HH-RLHF's hold the dialogue too), or lists of messages that end in the reply. Roles are system,
user, assistant and tool. A message may also carry "think" and "tool_call", both strings.
"reasoning_content", "reasoning" and "thinking", in a message or beside a reply, are read as
"think". An assistant's turn with "weight" 0 ("train", "loss" or "trainable" false) is read by the
model and not learned from. In any layout the columns "system", a string, and "history", messages or
[[question, reply], ...], come first.

A "messages" record may carry its own checks: "answer", a string, or "tests", {"test_list": [...],
"test_setup_code": "..."}. GSM8K and MBPP records get theirs from the file. An MBPP prompt does not
say what the function is called, only its tests do: whoever runs them has to show the model at least
one.

Records that are well formed but teach nothing (an empty reply, two equal replies) are dropped and
counted. Anything else that is wrong stops with the file, the line and the remedy.

Left out: definitions of tools, OpenAI's "tool_calls" and "function_call" objects (refused) and
ShareGPT's "conversations". Nothing is streamed: a file is read whole.
"""

import string

from data.files.dialogues import (
    THOUGHTS,
    after,
    first_turns,
    ignore,
    instruction,
    messages_of,
    prompt_of,
    transcript,
)
from data.files.loading import (
    DataError,
    blank,
    clip,
    holds_records,
    list_of,
    load,
    numbered,
    object_of,
    text_of,
    texts_of,
    type_name,
)
from data.files.notes import (
    ignored_line,
    repeat_lines,
    score_lines,
    score_order,
    spelled_in,
    spelled_lines,
)

LAYOUTS = {  # the first layout whose keys are all there is taken
    "instruction": (
        ("messages",),
        ("prompt", "response"),
        ("question", "answer"),
        ("instruction", "instances"),
        ("instruction", "output"),
        ("text", "code"),
    ),
    "preference": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "ranking": (
        ("prompt", "responses", "ranking"),
        ("prompt", "chosen", "rejected"),
        ("chosen", "rejected"),
    ),
}
FIRST = ("system", "history")
READ = {  # the keys of a record that its layout uses, beside FIRST
    ("messages",): ("messages", "answer", "tests"),
    ("prompt", "response"): ("prompt", "response", *THOUGHTS),
    ("question", "answer"): ("question", "answer", *THOUGHTS),
    ("instruction", "instances"): ("instruction", "instances"),
    ("instruction", "output"): ("instruction", "input", "output", *THOUGHTS),
    ("text", "code"): ("text", "code", "test_list", "test_setup_code", *THOUGHTS),
}


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
    if kind not in LAYOUTS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(LAYOUTS)}")
    rows = numbered(path)
    if not rows:
        raise DataError(
            f"{path}:1: the file holds no record; "
            "expected one JSON object per line or an array of them"
        )
    records = []
    dropped = {}  # reason -> count
    ignored = {}  # key -> count
    spelled = {}  # a form of notes.SPELLED -> [(place, mark)]
    scored = {}  # an order of notes.score_order -> [place]
    for where, value in rows:
        try:
            converted = records_of(value, kind, ignored)
        except DataError as error:
            raise DataError(f"{path}:{where}: {error}") from None
        for made in converted:
            if isinstance(made, str):
                dropped[made] = dropped.get(made, 0) + 1
                continue
            records.append(made)
            order = score_order(value) if kind != "instruction" else ""
            if order:
                scored.setdefault(order, []).append(where)
            for what, mark in spelled_in(made):
                spelled.setdefault(what, []).append((where, mark))
    openings = [opening(record.get("messages") or record["prompt"]) for record in records]
    notes = [f"{path}: {ignored_line(ignored)}"] if ignored else []
    notes += spelled_lines(path, spelled, len(records))
    notes += score_lines(path, scored, len(records))
    notes += repeat_lines(path, records, openings)
    return records, dropped, notes


def read_text(path):
    r"""(text, notes) of a file for pretraining, with "\n" line ends.

    The file is plain text, or records {"text": ...}, which are joined by a blank line. notes are
    lines to print, as in `read_records`. Raises DataError if it is blank or not UTF-8, and for
    records without a "text".
    """
    text = load(path).replace("\r\n", "\n")
    if not text.strip():
        raise DataError(f"{path}:1: the file is empty; expected plain text")
    if not holds_records(text, path):
        return text, []
    texts = []
    ignored = {}
    for where, value in numbered(path):
        try:
            texts.append(text_of(value, "text").replace("\r\n", "\n"))
            ignore(value, ("text",), ignored)
        except DataError as error:
            raise DataError(
                f"{path}:{where}: {error}; for pretraining a record is "
                '{"text": ...}, and a file of plain text needs no JSON'
            ) from None
    kept = [text for text in texts if not blank(text)]
    if not kept:
        raise DataError(f'{path}:1: no record holds text; expected {{"text": ...}} or plain text')
    notes = [f"{path}: {ignored_line(ignored)}"] if ignored else []
    if len(kept) < len(texts):
        notes.append(f"{path}: {dropped_line({'empty text': len(texts) - len(kept)})}")
    return "\n\n".join(kept), notes


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


# ---- a record ----


def records_of(value, kind, ignored):
    """What one object becomes: a list of records, or of the reasons (strings) why there is none.

    Keys that are not used are counted in `ignored`.
    """
    layout = next((keys for keys in LAYOUTS[kind] if all(key in value for key in keys)), None)
    if layout is None:
        accepted = " | ".join(", ".join(keys) for keys in LAYOUTS[kind])
        raise DataError(
            f"no {kind} layout fits the keys {key_names(value)}; expected one of: {accepted}"
        )
    ignore(value, READ.get(layout, layout) + FIRST, ignored)
    if "rejected" in layout:
        pair = preference(value, ignored)
        return [as_ranking(pair) if kind == "ranking" and isinstance(pair, dict) else pair]
    if kind == "ranking":
        return [ranking(value, ignored)]
    if layout != ("instruction", "instances"):
        return [instruction(value, layout, ignored)]
    instances = [
        object_of(instance, f"instances[{i}]")
        for i, instance in enumerate(list_of(value, "instances"))
    ]
    for instance in instances:
        ignore(instance, ("input", "output", *THOUGHTS), ignored, " of an instance")
    shared = {key: value.get(key) for key in ("instruction", *FIRST)}
    return [
        instruction({**instance, **shared}, ("instruction", "output"), ignored)
        for instance in instances
    ]


def key_names(value):
    return ", ".join(map(clip, value)) or "(none)"


def preference(value, ignored):
    """A pair whose replies answer the same dialogue, or the reason why it cannot be used."""
    given = prompt_of(value, ignored) if "prompt" in value else None
    first = first_turns(value, ignored)
    sides = []
    for key in ("chosen", "rejected"):
        if isinstance(value[key], str) and given is not None:
            sides.append((given, value[key]))
            continue
        if isinstance(value[key], str):
            turns = transcript(value[key], key)
        else:
            turns = messages_of(value, key, ignored)
        before, reply = turns, ""
        if turns and turns[-1]["role"] == "assistant":
            before, reply = turns[:-1], turns[-1]["content"]
            if "think" in turns[-1] or "tool_call" in turns[-1]:
                raise DataError(
                    f"the reply in '{key}' has think or tool_call, which a pair cannot hold; "
                    "write them into its content"
                )
            if "weight" in turns[-1]:
                return "a reply of weight 0"
        # a list may repeat the prompt before the reply, with a system turn perhaps
        if given is not None:
            if before and before[-len(given) :] != given:
                return "prefix differs"
            before = before or given
        sides.append((before, reply))
    (prompt, chosen), (other, rejected) = sides
    if prompt != other:  # the replies answer different conversations: their margin means nothing
        return "prefix differs"
    if blank(chosen) or blank(rejected):
        return "empty reply"
    if chosen.strip() == rejected.strip():
        return "identical pair"
    prompt = after(first, prompt)
    return unusable(prompt) or {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def as_ranking(pair):
    """A chosen/rejected pair as a ranking of two."""
    return {
        "prompt": pair["prompt"],
        "responses": [pair["chosen"], pair["rejected"]],
        "ranking": "A > B",
    }


def ranking(value, ignored):
    """A ranking of different responses, or the reason why it cannot be used."""
    responses = texts_of(value, "responses")
    levels = parse_ranking(value["ranking"], len(responses))
    prompt = after(first_turns(value, ignored), prompt_of(value, ignored))
    if any(map(blank, responses)):
        return "empty reply"
    texts = [response.strip() for response in responses]
    on_two_levels = len(set(zip(texts, levels))) > len(set(texts))
    if len(set(texts)) == 1 or on_two_levels:
        return "equal responses"
    return unusable(prompt) or {
        "prompt": prompt,
        "responses": responses,
        "ranking": value["ranking"],
    }


def parse_ranking(text, count):
    """The level of each of `count` responses, 0 for the best; equals share one.

    ("D > C > A = B", 4) -> [2, 2, 1, 0]. Raises DataError (without a file) if a label is unknown,
    named twice or missing.
    """
    if not isinstance(text, str) or not 2 <= count <= 26:
        raise DataError(
            f"'ranking' is {type_name(text)} for {count} responses; "
            "expected a string for 2 to 26 responses"
        )
    labels = string.ascii_uppercase[:count]
    levels = {}
    for level, tied in enumerate(text.split(">")):
        for label in tied.split("="):
            label = label.strip()
            label = label.upper() if label.isascii() else label  # upper() makes an I of a dotless i
            if label not in tuple(labels):
                raise DataError(
                    f"ranking {clip(text)} has the unknown label {clip(label)}; "
                    f"expected each of {labels[0]} to {labels[-1]} once, joined by > and ="
                )
            if label in levels:
                raise DataError(
                    f"ranking {clip(text)} names {label} twice; name each response once"
                )
            levels[label] = level
    missing = [label for label in labels if label not in levels]
    if missing:
        raise DataError(
            f"ranking {clip(text)} leaves out {', '.join(missing)}; "
            f"name each of {count} responses once"
        )
    return [levels[label] for label in labels]


def unusable(prompt):
    """Why a reply cannot follow this prompt, or "". A tool's result counts as a turn to answer."""
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        return "no user turn before the reply"
    return "empty prompt" if blank(prompt[-1]["content"]) else ""
