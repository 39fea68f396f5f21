r"""Reads the data files that people already have into three kinds of record, all plain dicts.

A file is JSONL (one object per line) or one JSON array of objects, in UTF-8 with or without a BOM, gzipped or
not. Each record has one of these layouts; further keys are ignored.

kind "instruction" (for sft.py)
    {"messages": [{"role": "user", "content": "2+3?"}, {"role": "assistant", "think": "2+3=5", "content": "5"}]}
    {"prompt": "Name a planet.", "response": "Mars."}
    {"question": "2+3?", "answer": "2+3=<<2+3=5>>5\n#### 5"}                      GSM8K, or a plain answer
    {"instruction": "Translate to French.", "input": "cat", "output": "chat"}     Alpaca; "input" may be missing
    {"instruction": "Add.", "instances": [{"input": "2 3", "output": "5"}]}       self-instruct
    {"text": "Write add(a, b).", "code": "def add(a, b): ...", "test_list": ["assert add(2, 3) == 5"]}     MBPP
kind "preference" (for dpo.py, reward_model.py)
    {"prompt": "Name a planet.", "chosen": "Mars.", "rejected": "The Moon."}
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"}      HH-RLHF
kind "ranking" (for reward_model.py)
    {"prompt": "Name a planet.", "responses": ["Pluto", "The Sun", "Mars"], "ranking": "C > A = B"}
    or a "preference" as above, which is a ranking of two

A prompt is a string (one user turn) or a list of messages; "chosen" and "rejected" are strings, or lists of messages
that end in the reply. Roles are system, user, assistant and tool; a message may also carry "think" and "tool_call",
both strings. A "messages" record may carry its own checks: "answer", a string, or "tests", {"test_list": [...],
"test_setup_code": "..."}; GSM8K and MBPP records get theirs from the file. An MBPP prompt does not say what the
function is called, only its tests do: whoever runs them has to show the model at least one.

Records that are well formed but teach nothing (an empty reply, two equal replies) are dropped and counted; anything
else that is wrong stops with the file, the line and the remedy. What was left out: OpenAI's "tool_calls" objects and
ShareGPT's "conversations"; and streaming, as a file is read whole.
"""
import contextlib
import csv
import gzip
import io
import json
import os
import re
import string
import zlib

ROLES = ("system", "user", "assistant", "tool")

LAYOUTS = {  # the first layout whose keys are all there is taken
    "instruction": (("messages",), ("prompt", "response"), ("question", "answer"), ("instruction", "instances"),
                    ("instruction", "output"), ("text", "code")),
    "preference": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "ranking": (("prompt", "responses", "ranking"), ("prompt", "chosen", "rejected"), ("chosen", "rejected")),
}

# The answer is a number or a fraction, so that a Markdown heading ("#### Summary") stays text.
GSM8K_ANSWER = re.compile(r"(.*?)(?:^|\n)#### *(-?[$]?\.?\d[\d.,/]*)\s*", re.DOTALL)
HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


class DataError(ValueError):
    """A file that cannot be used. str() is one line: `FILE:LINE: what is wrong; what is expected or the remedy`."""


def read_records(path, kind):
    """Reads `path` as records of `kind`: "instruction", "preference" or "ranking".

    Returns (records, dropped); dropped counts the unusable records by reason, e.g. {"empty reply": 4}.
      instruction  {"messages": [...]}, and "answer" or "tests" where the file has them; ends in an assistant turn
      preference   {"prompt": messages up to and including the last user turn, "chosen": str, "rejected": str}
      ranking      {"prompt": messages, "responses": [str, ...], "ranking": "B > A = C"}
    Raises DataError.
    """
    if kind not in LAYOUTS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(LAYOUTS)}")
    rows = _numbered(path)
    if not rows:
        raise DataError(f"{path}:1: the file holds no record; expected one JSON object per line or an array of them")
    records, dropped = [], {}
    for where, value in rows:
        try:
            for made in _convert(value, kind):
                if isinstance(made, str):
                    dropped[made] = dropped.get(made, 0) + 1
                else:
                    records.append(made)
        except DataError as error:
            raise DataError(f"{path}:{where}: {error}") from None
    return records, dropped


def parse_ranking(text, count):
    """The level of each of `count` responses, 0 for the best; ties share one: ("D > C > A = B", 4) -> [2, 2, 1, 0].

    Raises DataError (without a file) if a label is unknown, named twice or missing.
    """
    if not isinstance(text, str) or not 2 <= count <= 26:
        raise DataError(f"'ranking' is {_type(text)} for {count} responses; expected a string for 2 to 26 responses")
    labels = string.ascii_uppercase[:count]
    levels = {}
    for level, tied in enumerate(text.upper().split(">")):
        for label in tied.split("="):
            label = label.strip()
            if label not in tuple(labels):
                raise DataError(f"ranking {_clip(text)} has the unknown label {_clip(label)}; "
                                f"expected each of {labels[0]} to {labels[-1]} once, joined by > and =")
            if label in levels:
                raise DataError(f"ranking {_clip(text)} names {label} twice; name each response once")
            levels[label] = level
    missing = [label for label in labels if label not in levels]
    if missing:
        raise DataError(f"ranking {_clip(text)} leaves out {', '.join(missing)}; name each of {count} responses once")
    return [levels[label] for label in labels]


def dropped_line(dropped):
    """One line such as `dropped 15 records: 9 prefix differs, 4 empty reply, 2 identical pair`, most frequent first."""
    total = sum(dropped.values())
    reasons = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    line = f"dropped {total} record{'' if total == 1 else 's'}"
    return line + (": " + ", ".join(f"{count} {reason}" for reason, count in reasons) if reasons else "")


def read_text(path):
    r"""A plain text file for pretraining, with "\n" line ends. Raises DataError if it is blank or not UTF-8."""
    text = _load(path).replace("\r\n", "\n")
    if not text.strip():
        raise DataError(f"{path}:1: the file is empty; expected plain text")
    return text


def read_jsonl(path):
    """The objects of a JSONL file or JSON array as they stand; an empty file is []. Raises DataError."""
    return [value for _, value in _numbered(path)]


def write_text(path, text):
    """Writes the file under a temporary name and renames it: a reader or a killed run never sees half a file. Under torchrun
    only rank 0 writes."""
    if os.environ.get("RANK", "0") != "0":
        return
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path):
    """A temporary name that is renamed to `path` at the end: a file of that name is always whole. On failure the temporary file is
    removed; an OSError (a full disk) comes back as one line that names `path`."""
    temporary = f"{path}.tmp"  # same folder, as a rename across disks is not atomic
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(f"{path}: cannot be written ({error.strerror or error})") from None
        raise


def write_csv(path, lines):
    """One row a dict; a key that some rows lack is left empty there."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_jsonl(path, records):
    """One JSON object per line."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _load(path):
    """The text of a file, unpacked and without BOM."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data[:2] == b"\x1f\x8b":  # by content, as browsers unpack downloads and keep the .gz in the name
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip data is cut off or damaged ({error}); download it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected one readable file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8; "
                        "save the file as UTF-8") from None


def _numbered(path):
    """[(line number, object)], or for an array [("record N", object)]. Blank lines are skipped."""
    text = _load(path)
    if text.lstrip()[:1] == "[":
        rows = [(f"record {i}", value) for i, value in enumerate(_parse(text, path, 1), 1)]
    else:  # not splitlines(): JSON strings may hold U+2028 and its like unescaped
        rows = [(i, _parse(line, path, i)) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    for where, value in rows:
        if not isinstance(value, dict):
            raise DataError(f"{path}:{where}: the record is {_type(value)}; expected a JSON object {{...}}")
    return rows


def _parse(text, path, line):
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # such an escape can be half a character, which nothing could encode or write again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        line += getattr(error, "lineno", 1) - 1
        place = f" at column {error.colno}" if hasattr(error, "colno") else ""
        raise DataError(f"{path}:{line}: broken JSON ({getattr(error, 'msg', error)}{place}); "
                        "expected one JSON object per line, or one array of objects") from None


def as_ranking(pair):
    """A chosen/rejected pair as a ranking of two."""
    return {"prompt": pair["prompt"], "responses": [pair["chosen"], pair["rejected"]], "ranking": "A > B"}


def _convert(value, kind):
    """What one object becomes: a list of records, or of the reasons (strings) why there is none."""
    layout = next((keys for keys in LAYOUTS[kind] if all(key in value for key in keys)), None)
    if layout is None:
        accepted = " | ".join(", ".join(keys) for keys in LAYOUTS[kind])
        raise DataError(f"no {kind} layout fits the keys {_keys(value)}; expected one of: {accepted}")
    if "rejected" in layout:
        pair = _preference(value)
        return [as_ranking(pair) if kind == "ranking" and isinstance(pair, dict) else pair]
    if kind == "ranking":
        return [_ranking(value)]
    if layout == ("instruction", "instances"):
        instances = [_object(instance, f"instances[{i}]") for i, instance in enumerate(_list(value, "instances"))]
        return [_instruction({**instance, "instruction": value["instruction"]}, ("instruction", "output"))
                for instance in instances]
    return [_instruction(value, layout)]


def _instruction(value, layout):
    record = {}
    if layout == ("messages",):
        record["messages"] = _messages(value, "messages")
        if value.get("answer") is not None:
            record["answer"] = _text(value, "answer")
        if value.get("tests") is not None:
            record["tests"] = _tests(_object(value["tests"], "tests"))
    elif layout == ("prompt", "response"):
        record["messages"] = _prompt(value) + [{"role": "assistant", "content": _text(value, "response")}]
    elif layout == ("question", "answer"):
        reply = {"role": "assistant", "content": _text(value, "answer")}
        worked = GSM8K_ANSWER.fullmatch(reply["content"])
        if worked:
            steps = re.sub(r"<<.*?>>", "", worked[1]).strip()
            reply["content"] = record["answer"] = re.sub("[$,]", "", worked[2]).rstrip(".")
            if steps:
                reply["think"] = steps
        record["messages"] = [{"role": "user", "content": _text(value, "question")}, reply]
    elif layout == ("instruction", "output"):
        parts = [_text(value, "instruction")]
        if value.get("input") is not None and _text(value, "input").strip():
            parts.append(value["input"])
        record["messages"] = [{"role": "user", "content": "\n\n".join(parts)},
                              {"role": "assistant", "content": _text(value, "output")}]
    else:
        record["messages"] = [{"role": "user", "content": _text(value, "text")},
                              {"role": "assistant", "content": _tidy_code(_text(value, "code"))}]
        if "test_list" in value:
            record["tests"] = _tests(value)
    last = record["messages"][-1]
    if last["role"] != "assistant":
        return "no reply at the end"
    if _blank(last["content"]) and _blank(last.get("tool_call", "")):
        return "empty reply"
    if not any(message["role"] == "user" and not _blank(message["content"]) for message in record["messages"]):
        return "empty prompt"
    return record


def _preference(value):
    given = _prompt(value) if "prompt" in value else None
    sides = []
    for key in ("chosen", "rejected"):
        if isinstance(value[key], str) and given is not None:
            sides.append((given, value[key]))
            continue
        turns = _transcript(value[key], key) if isinstance(value[key], str) else _messages(value, key)
        before, reply = turns, ""
        if turns and turns[-1]["role"] == "assistant":
            before, reply = turns[:-1], turns[-1]["content"]
            if "think" in turns[-1] or "tool_call" in turns[-1]:
                raise DataError(f"the reply in '{key}' has think or tool_call, which a pair cannot hold; "
                                "write them into its content")
        if given is not None:  # a list may repeat the prompt before the reply, with a system turn perhaps
            if before and before[-len(given):] != given:
                return "prefix differs"
            before = before or given
        sides.append((before, reply))
    (prompt, chosen), (other, rejected) = sides
    if prompt != other:  # the replies answer different conversations: their margin means nothing
        return "prefix differs"
    if _blank(chosen) or _blank(rejected):
        return "empty reply"
    if chosen.strip() == rejected.strip():
        return "identical pair"
    return _unusable(prompt) or {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _ranking(value):
    responses = _texts(value, "responses")
    parse_ranking(value["ranking"], len(responses))
    prompt = _prompt(value)
    if any(map(_blank, responses)):
        return "empty reply"
    return _unusable(prompt) or {"prompt": prompt, "responses": responses, "ranking": value["ranking"]}


def _unusable(prompt):
    """Why a reply cannot follow this prompt, or "". A tool's result counts as a turn that is answered."""
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        return "no user turn before the reply"
    return "empty prompt" if _blank(prompt[-1]["content"]) else ""


def _prompt(value):
    prompt = value["prompt"]
    if not isinstance(prompt, str):
        return _messages(value, "prompt")
    if not prompt.startswith("\n\nHuman:"):
        return [{"role": "user", "content": prompt}]
    turns = _transcript(prompt, "prompt")  # some copies of HH-RLHF have the prompt apart, up to "\n\nAssistant:"
    return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns


def _transcript(text, key):
    r"""HH-RLHF's "\n\nHuman: ...\n\nAssistant: ..." as messages."""
    start, *turns = HH_TURN.split(text)
    if start.strip():
        raise DataError(f"'{key}' starts with {_clip(start)}; expected a transcript '\\n\\nHuman: ... "
                        "\\n\\nAssistant: ...', or a 'prompt' beside it")
    return [{"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
            for speaker, said in zip(turns[::2], turns[1::2])]


def _messages(value, key):
    messages = []
    for i, message in enumerate(_list(value, key)):
        _object(message, f"{key}[{i}]")
        if message.get("role") not in ROLES:
            raise DataError(f"{key}[{i}] has the role {_clip(message.get('role'))}; expected one of {', '.join(ROLES)}")
        if message.get("tool_calls"):  # ignored, an agent's calls would vanish without a word
            raise DataError(f"{key}[{i}] has 'tool_calls'; expected the call as one string in 'tool_call'")
        clean = {"role": message["role"]}
        for part in ("content", "think", "tool_call"):
            if part == "content" or message.get(part) is not None:
                clean[part] = _text(message, part, f"{key}[{i}].")
        messages.append(clean)
    return messages


def _tests(value):
    setup = _text(value, "test_setup_code") if value.get("test_setup_code") is not None else ""
    return {"test_list": _texts(value, "test_list"), "test_setup_code": _tidy_code(setup)}


def _blank(text):
    """Nothing to see: strip() alone would let UltraFeedback's zero-width spaces pass for replies."""
    return not any(char.isprintable() and not char.isspace() for char in text)


def _tidy_code(code):
    return code.replace("\r\n", "\n").replace("\t", "    ")


def _object(value, name):
    if not isinstance(value, dict):
        raise DataError(f"{name} is {_type(value)}; expected an object")
    return value


def _list(value, key):
    if not isinstance(value.get(key), list) or not value[key]:
        found = "an empty list" if value.get(key) == [] else _type(value.get(key))
        raise DataError(f"'{key}' is {found}; expected a list with entries")
    return value[key]


def _text(value, key, where=""):
    if not isinstance(value.get(key), str):
        raise DataError(f"'{where}{key}' is {_type(value.get(key))}; expected a string")
    return value[key]


def _texts(value, key):
    for i, entry in enumerate(_list(value, key)):
        if not isinstance(entry, str):
            raise DataError(f"{key}[{i}] is {_type(entry)}; expected a string")
    return value[key]


def _type(value):
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "missing or null"}
    return names.get(type(value), "a number")


def _keys(value):
    return ", ".join(map(_clip, value)) or "(none)"


def _clip(value):
    """repr, which keeps the error on one line, cut to a readable length."""
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
