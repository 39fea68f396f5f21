r"""Reads the data files that people already have into three kinds of record, all plain dicts.

A file is JSONL (one object per line) or one JSON array of objects, in UTF-8 with or without a BOM, gzipped or
not. Each record has one of these layouts; a further key is named once, with its count, as ignored.

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
both strings; "reasoning_content", "reasoning" and "thinking", in a message or beside a reply, are
read as "think". An assistant's turn with "weight" 0 ("train", "loss" or "trainable" false) is read
by the model and not learned from. In any layout the columns "system", a string, and "history",
messages or [[question, reply], ...], come first.
A "messages" record may carry its own checks: "answer", a string, or "tests", {"test_list": [...],
"test_setup_code": "..."}; GSM8K and MBPP records get theirs from the file. An MBPP prompt does not say what the
function is called, only its tests do: whoever runs them has to show the model at least one.

Records that are well formed but teach nothing (an empty reply, two equal replies) are dropped and counted; anything
else that is wrong stops with the file, the line and the remedy. What was left out: definitions of
tools, OpenAI's "tool_calls" and "function_call" objects (refused) and ShareGPT's "conversations";
and streaming, as a file is read whole.
"""
import gzip
import json
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

THOUGHTS = ("think", "reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "train", "loss", "trainable")
TOOLS = ("tools", "functions", "function_call", "tool_calls")
FIRST = ("system", "history")
READ = {  # the keys of a record that its layout uses, beside FIRST
    ("messages",): ("messages", "answer", "tests"),
    ("prompt", "response"): ("prompt", "response", *THOUGHTS),
    ("question", "answer"): ("question", "answer", *THOUGHTS),
    ("instruction", "instances"): ("instruction", "instances"),
    ("instruction", "output"): ("instruction", "input", "output", *THOUGHTS),
    ("text", "code"): ("text", "code", "test_list", "test_setup_code", *THOUGHTS),
}

# A dialogue that somebody has already rendered: it would be learned as the words of one turn.
SPELLED = {
    "a chat mark": re.compile(r"<\|\w+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"),
    "a speaker's label": re.compile(
        r"^(?:Human|Assistant|### *(?:Human|Assistant|Instruction|Response)):", re.M),
}

TO_JSONL = ("write it as JSONL, e.g. pandas.read_parquet(...).to_json(..., orient='records', "
            "lines=True)")
ARROW = "write it as JSONL, e.g. datasets.Dataset.from_file(...).to_json(...)"
GZIP = b"\x1f\x8b"
OTHER_FORMS = (  # by the first bytes, since a name can say anything
    (b"PAR1", "a Parquet file", TO_JSONL),
    (b"ARROW1", "an Arrow file", ARROW),
    (b"\xff\xff\xff\xff", "an Arrow stream", ARROW),
    (b"PK\x03\x04", "a zip archive", "unpack it with unzip and give the file inside"),
    (b"BZh", "packed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "packed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the file inside"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8, e.g. iconv -f UTF-32 -t UTF-8"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8, e.g. iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8, e.g. iconv -f UTF-16 -t UTF-8"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the data",
     "fetch the data with git lfs pull"),
)


class DataError(ValueError):
    """A file that cannot be used. str() is one line: `FILE:LINE: what is wrong; what is expected or the remedy`."""


def read_records(path, kind):
    """Reads `path` as records of `kind`: "instruction", "preference" or "ranking".

    Returns (records, dropped, notes). dropped counts the unusable records by reason, e.g.
    {"empty reply": 4}; notes are lines that the caller prints: keys that were ignored, dialogues
    that are already rendered, repeated records.
      instruction  {"messages": [...]}, and "answer" or "tests" where the file has them; ends in an assistant turn
      preference   {"prompt": messages up to and including the last user turn, "chosen": str, "rejected": str}
      ranking      {"prompt": messages, "responses": [str, ...], "ranking": "B > A = C"}
    An assistant's message that is not to be learned from has "weight": 0. Raises DataError.
    """
    if kind not in LAYOUTS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(LAYOUTS)}")
    rows = _numbered(path)
    if not rows:
        raise DataError(f"{path}:1: the file holds no record; expected one JSON object per line or an array of them")
    records, dropped, ignored, spelled, scored = [], {}, {}, {}, {}
    for where, value in rows:
        try:
            for made in _convert(value, kind, ignored):
                if isinstance(made, str):
                    dropped[made] = dropped.get(made, 0) + 1
                    continue
                records.append(made)
                if kind != "instruction" and (order := _score_order(value)):
                    scored.setdefault(order, []).append(where)
                for what, found in _spelled(made):
                    spelled.setdefault(what, (where, found, []))[2].append(made)
        except DataError as error:
            raise DataError(f"{path}:{where}: {error}") from None
    notes = [f"{path}: {_ignored_line(ignored)}"] if ignored else []
    for what, (where, found, those) in spelled.items():
        notes.append(f"{path}:{where}: the text holds {what}, {_clip(found)}, in {len(those)} of "
                     f"{len(records)} records, here first, and is learned as it stands; give "
                     "messages with roles, or take it out")
    return records, dropped, notes + _scores(path, scored, len(records)) + _repeats(path, records)


def opening(messages):
    """What is said before the first reply of a dialogue. The split goes by it (`rows.split`)."""
    replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    said = messages[:replies[0]] if replies else messages
    return "\n".join(" ".join(message["content"].split()) for message in said)


def parse_ranking(text, count):
    """The level of each of `count` responses, 0 for the best; ties share one: ("D > C > A = B", 4) -> [2, 2, 1, 0].

    Raises DataError (without a file) if a label is unknown, named twice or missing.
    """
    if not isinstance(text, str) or not 2 <= count <= 26:
        raise DataError(f"'ranking' is {_type(text)} for {count} responses; expected a string for 2 to 26 responses")
    labels = string.ascii_uppercase[:count]
    levels = {}
    for level, tied in enumerate(text.split(">")):
        for label in tied.split("="):
            label = label.strip()
            label = label.upper() if label.isascii() else label  # upper() makes an I of a dotless i
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


def because(dropped):
    """` (dropped 3 records: 3 empty reply)` for the end of a message that too little is left; ""
    where nothing was dropped."""
    return f" ({dropped_line(dropped)})" if dropped else ""


def read_text(path):
    r"""(text, notes) of a file for pretraining, with "\n" line ends: plain text, or records
    {"text": ...}, which are joined by a blank line. notes are lines to print, as in `read_records`.

    Raises DataError if it is blank or not UTF-8, and for records without a "text".
    """
    text = _load(path).replace("\r\n", "\n")
    if not text.strip():
        raise DataError(f"{path}:1: the file is empty; expected plain text")
    if not _holds_records(text, path):
        return text, []
    texts, ignored = [], {}
    rows = _numbered(path)
    for where, value in rows:
        try:
            texts.append(_text(value, "text").replace("\r\n", "\n"))
            _ignore(value, ("text",), ignored)
        except DataError as error:
            raise DataError(f"{path}:{where}: {error}; for pretraining a record is "
                            "{\"text\": ...}, and a file of plain text needs no JSON") from None
    kept = [text for text in texts if not _blank(text)]
    if not kept:
        raise DataError(f"{path}:1: no record holds text; expected {{\"text\": ...}} or plain text")
    notes = [f"{path}: {_ignored_line(ignored)}"] if ignored else []
    if len(kept) < len(texts):
        notes.append(f"{path}: {dropped_line({'empty text': len(texts) - len(kept)})}")
    return "\n\n".join(kept), notes


def read_jsonl(path):
    """The objects of a JSONL file or JSON array as they stand; an empty file is []. Raises DataError."""
    return [value for _, value in _numbered(path)]


def _load(path):
    """The text of a file, unpacked and without BOM."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(GZIP):  # browsers unpack downloads and keep the .gz in the name
            data = gzip.decompress(data)
        _check_form(data, path)
        return data.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip data is cut off or damaged ({error}); download it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected one readable file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8; "
                        "save the file as UTF-8") from None


def _check_form(data, path):
    """Raises DataError for bytes of another form, by its name."""
    for start, form, remedy in OTHER_FORMS:
        if data.startswith(start):
            raise DataError(f"{path}: the file is {form}; {remedy}")
    if data[257:262] == b"ustar":
        raise DataError(f"{path}: the file is a tar archive; unpack it and give the file inside")
    if b"\0" in data[:4]:  # half of every ASCII character, where there is no byte order mark
        raise DataError(f"{path}: the file is UTF-16 text or no text; save it as UTF-8, e.g. "
                        "iconv -f UTF-16 -t UTF-8")


def _holds_records(text, path):
    """Whether a file for pretraining is JSONL or an array, by its name or its first record."""
    if str(path).removesuffix(".gz").endswith((".jsonl", ".json")):
        return True
    start = text.lstrip()
    try:
        if start.startswith("{"):
            return isinstance(json.loads(start.split("\n", 1)[0]), dict)
        return start.startswith("[") and all(isinstance(value, dict) for value in json.loads(start))
    except (ValueError, RecursionError):
        return False


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


def _convert(value, kind, ignored):
    """What one object becomes: a list of records, or of the reasons (strings) why there is none.
    Keys that are not used are counted in `ignored`."""
    layout = next((keys for keys in LAYOUTS[kind] if all(key in value for key in keys)), None)
    if layout is None:
        accepted = " | ".join(", ".join(keys) for keys in LAYOUTS[kind])
        raise DataError(f"no {kind} layout fits the keys {_keys(value)}; expected one of: {accepted}")
    _ignore(value, READ.get(layout, layout) + FIRST, ignored)
    if "rejected" in layout:
        pair = _preference(value, ignored)
        return [as_ranking(pair) if kind == "ranking" and isinstance(pair, dict) else pair]
    if kind == "ranking":
        return [_ranking(value, ignored)]
    if layout == ("instruction", "instances"):
        instances = [_object(instance, f"instances[{i}]") for i, instance in enumerate(_list(value, "instances"))]
        for instance in instances:
            _ignore(instance, ("input", "output", *THOUGHTS), ignored, " of an instance")
        shared = {key: value.get(key) for key in ("instruction", *FIRST)}
        return [_instruction({**instance, **shared}, ("instruction", "output"), ignored)
                for instance in instances]
    return [_instruction(value, layout, ignored)]


def _instruction(value, layout, ignored):
    record = {}
    if layout == ("messages",):
        record["messages"] = _messages(value, "messages", ignored)
        if value.get("answer") is not None:
            record["answer"] = _text(value, "answer")
        if value.get("tests") is not None:
            record["tests"] = _tests(_object(value["tests"], "tests"))
            _ignore(value["tests"], ("test_list", "test_setup_code"), ignored, " of 'tests'")
    elif layout == ("prompt", "response"):
        reply = {"role": "assistant", "content": _text(value, "response")}
        record["messages"] = _prompt(value, ignored) + [reply]
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
    if layout != ("messages",) and (thought := _thought(value)):
        if "think" in last:
            raise DataError("the record has a thought beside the worked steps of its 'answer'; "
                            "keep one of the two")
        last["think"] = thought
    record["messages"] = _after(_first(value, ignored), record["messages"])
    if last["role"] != "assistant":
        return "no reply at the end"
    learned = [message for message in record["messages"]
               if message["role"] == "assistant" and message.get("weight") != 0]
    if any(_blank(reply["content"]) and _blank(reply.get("tool_call", "")) for reply in learned):
        return "empty reply"
    if not any(message["role"] == "user" and not _blank(message["content"]) for message in record["messages"]):
        return "empty prompt"
    return record


def _preference(value, ignored):
    given = _prompt(value, ignored) if "prompt" in value else None
    first = _first(value, ignored)
    sides = []
    for key in ("chosen", "rejected"):
        if isinstance(value[key], str) and given is not None:
            sides.append((given, value[key]))
            continue
        turns = (_transcript(value[key], key) if isinstance(value[key], str)
                 else _messages(value, key, ignored))
        before, reply = turns, ""
        if turns and turns[-1]["role"] == "assistant":
            before, reply = turns[:-1], turns[-1]["content"]
            if "think" in turns[-1] or "tool_call" in turns[-1]:
                raise DataError(f"the reply in '{key}' has think or tool_call, which a pair cannot hold; "
                                "write them into its content")
            if "weight" in turns[-1]:
                return "a reply of weight 0"
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
    prompt = _after(first, prompt)
    return _unusable(prompt) or {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _ranking(value, ignored):
    responses = _texts(value, "responses")
    levels = parse_ranking(value["ranking"], len(responses))
    prompt = _after(_first(value, ignored), _prompt(value, ignored))
    if any(map(_blank, responses)):
        return "empty reply"
    texts = [response.strip() for response in responses]
    on_two_levels = len(set(zip(texts, levels))) > len(set(texts))
    if len(set(texts)) == 1 or on_two_levels:
        return "equal responses"
    return _unusable(prompt) or {"prompt": prompt, "responses": responses, "ranking": value["ranking"]}


def _unusable(prompt):
    """Why a reply cannot follow this prompt, or "". A tool's result counts as a turn that is answered."""
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        return "no user turn before the reply"
    return "empty prompt" if _blank(prompt[-1]["content"]) else ""


def _prompt(value, ignored):
    prompt = value["prompt"]
    if not isinstance(prompt, str):
        return _messages(value, "prompt", ignored)
    labelled = prompt.lstrip().startswith("Human:") and "\n\nAssistant:" in prompt
    if not labelled and not prompt.startswith("\n\nHuman:"):
        return [{"role": "user", "content": prompt}]
    # some copies of HH-RLHF have the prompt apart, up to "\n\nAssistant:"
    turns = _transcript(prompt.lstrip(), "prompt")
    return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns


def _first(value, ignored):
    """The messages that the columns "system" and "history" put before a record's own."""
    messages = []
    if value.get("system") is not None and not _blank(_text(value, "system")):
        messages.append({"role": "system", "content": value["system"]})
    history = value.get("history")
    if isinstance(history, list) and history and not isinstance(history[0], dict):
        for i, turn in enumerate(history):
            if not isinstance(turn, list) or [type(said) for said in turn] != [str, str]:
                raise DataError(f"history[{i}] is {_type(turn)}; expected [question, reply], both "
                                "strings, or messages")
            messages.append({"role": "user", "content": turn[0]})
            messages.append({"role": "assistant", "content": turn[1]})
    elif history is not None and history != []:
        messages += _messages(value, "history", ignored)
    return messages


def _after(first, messages):
    """A record's messages behind those of its columns; a system turn is in front, and said once."""
    if messages[:len(first)] == first:
        return messages
    if messages[0]["role"] == "system":
        if first[0]["role"] == "system" and first[0] != messages[0]:
            raise DataError("'system' and the system turn of the messages differ; keep one of them")
        return messages[:1] + [turn for turn in first if turn != messages[0]] + messages[1:]
    return first + messages


def _transcript(text, key):
    r"""HH-RLHF's "\n\nHuman: ...\n\nAssistant: ..." as messages."""
    start, *turns = HH_TURN.split(text)
    if start.strip():
        raise DataError(f"'{key}' starts with {_clip(start)}; expected a transcript '\\n\\nHuman: ... "
                        "\\n\\nAssistant: ...', or a 'prompt' beside it")
    return [{"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
            for speaker, said in zip(turns[::2], turns[1::2])]


def _messages(value, key, ignored):
    messages = []
    for i, message in enumerate(_list(value, key)):
        where = f"{key}[{i}]"
        _object(message, where)
        role = message.get("role")
        if role not in ROLES:
            raise DataError(f"{where} has the role {_clip(role)}; "
                            f"expected one of {', '.join(ROLES)}")
        for tool in TOOLS:  # ignored, an agent's calls would vanish without a word
            if _given(message.get(tool)):
                raise DataError(f"{where} has '{tool}'; "
                                "expected the call as one string in 'tool_call'")
        clean = {"role": role, "content": _text(message, "content", f"{where}.")}
        weight = _weight(message, f"{where}.")
        if role == "assistant":
            if thought := _thought(message, f"{where}."):
                clean["think"] = thought
            if message.get("tool_call") is not None:
                call = _text(message, "tool_call", f"{where}.")
                clean |= {} if _blank(call) else {"tool_call": call}
            if weight == 0:
                clean["weight"] = 0
            used = ("tool_call", *THOUGHTS, *WEIGHTS)
        else:
            used = WEIGHTS if weight == 0 else ()
        turn = f" of a{'n' if role == 'assistant' else ''} {role} turn"
        _ignore(message, ("role", "content", *used), ignored, turn)
        messages.append(clean)
    return messages


def _thought(value, where=""):
    """What the reasoning keys of a message or record hold, or ""."""
    thoughts = {_text(value, key, where) for key in THOUGHTS if value.get(key) is not None}
    thoughts = [thought for thought in thoughts if not _blank(thought)]
    if len(thoughts) > 1:
        raise DataError(f"{where.rstrip('.') or 'the record'} has different thoughts in "
                        f"{', '.join(THOUGHTS)}; keep one")
    return thoughts[0] if thoughts else ""


def _weight(message, where):
    """0 or 1, or None where the message does not say."""
    weights = {}
    for key in WEIGHTS:
        if (weight := message.get(key)) is not None:
            if weight not in (0, 1):
                raise DataError(f"'{where}{key}' is {_clip(weight)}; expected 0 or 1 (false or "
                                "true), as a turn is learned whole or not at all")
            weights[key] = int(weight)
    if len(set(weights.values())) > 1:
        raise DataError(f"{where.rstrip('.')} says both 0 and 1 in {', '.join(weights)}; keep one")
    return next(iter(weights.values()), None)


def _given(value):
    """Whether a key says anything; some exporters write the empty forms into every record."""
    return value.strip() not in ("", "[]", "{}", "null") if isinstance(value, str) else bool(value)


def _ignore(value, used, ignored, where=""):
    """Counts the keys that are not used. Raises DataError for tools: without them a dialogue means
    something else."""
    for key, held in value.items():
        if key in used or held is None:
            continue
        if key in TOOLS:
            if _given(held):
                raise DataError(f"the record has {key!r}, and definitions of tools and calls by "
                                "OpenAI's formats are not supported; leave the record out, or "
                                "write its calls as strings in 'tool_call'")
            continue
        name = f"{_clip(key)}{where}"
        ignored[name] = ignored.get(name, 0) + 1


def _ignored_line(ignored):
    """`ignored keys: 'id' 20 times, 'name' of a tool turn 3 times`, most frequent first."""
    ordered = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{name} {count} time{'' if count == 1 else 's'}" for name, count in ordered[:12]]
    more = f", and {len(ordered) - 12} other keys" if len(ordered) > 12 else ""
    return "ignored keys: " + ", ".join(told) + more


def _spelled(record):
    """[(what, the mark or label)] for each kind of SPELLED that the texts of a record hold."""
    turns = record.get("messages") or record["prompt"]
    texts = [turn.get(part, "") for turn in turns for part in ("content", "think")]
    texts += [record.get("chosen", ""), record.get("rejected", ""), *record.get("responses", ())]
    found = []
    for what, pattern in SPELLED.items():
        if match := next(filter(None, map(pattern.search, texts)), None):
            found.append((what, match[0]))
    return found


def _score_order(value):
    """"is below" or "equals" for a pair whose own scores do not set the chosen reply above the
    rejected one, else "". UltraFeedback has them in the record or in its metadata."""
    metadata = value["metadata"] if isinstance(value.get("metadata"), dict) else {}
    chosen, rejected = ((value | metadata).get(key) for key in ("score_chosen", "score_rejected"))
    if any(type(score) not in (int, float) for score in (chosen, rejected)):
        return ""
    return "is below" if chosen < rejected else "equals" if chosen == rejected else ""


def _scores(path, scored, count):
    """[a line on pairs that their own scores do not rank as they stand], or [].
    `scored`: what `_score_order` says -> where."""
    if not scored:
        return []
    (first, places), *others = ((order, scored[order]) for order in ("is below", "equals")
                                if order in scored)
    also = "".join(f", and {order} it in {len(more)}" for order, more in others)
    remedy = "; swap their replies, or take them out" if first == "is below" else ""
    return [f"{path}:{places[0]}: score_chosen {first} score_rejected in {len(places)} of {count} "
            f"records, here first{also}; all are learned as they stand{remedy}"]


def _repeats(path, records):
    """[a line on records that stand in the file more than once], or []."""
    whole = len(records) - len({json.dumps(record, sort_keys=True) for record in records})
    openings = {opening(record.get("messages") or record["prompt"]) for record in records}
    prompts = len(records) - len(openings) - whole
    if not whole and not prompts:
        return []
    told = f"{whole} record{' repeats' if whole == 1 else 's repeat'} an earlier one"
    if not whole:
        told = (f"{prompts} record{' repeats' if prompts == 1 else 's repeat'} only the prompt of an "
                "earlier one")
    elif prompts:
        told += f", {prompts} more only its prompt"
    return [f"{path}: {told}; records of one prompt are trained on together or held out together"]


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
