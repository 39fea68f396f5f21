"""A record's dialogue as messages: what each instruction layout means, and each way to write turns.

A message is {"role": ..., "content": ...}. An assistant's may have "think", "tool_call" and
"weight": 0. Everything here takes one JSON object of a file and raises DataError without the file's
name, which `formats.read_records` puts in front. `ignored` counts the keys that are not used.
"""

import re

from data.files.loading import (
    DataError,
    blank,
    clip,
    list_of,
    object_of,
    text_of,
    texts_of,
    type_name,
)

ROLES = ("system", "user", "assistant", "tool")
THOUGHTS = ("think", "reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "train", "loss", "trainable")
TOOLS = ("tools", "functions", "function_call", "tool_calls")

# The answer is a number or a fraction, so that a Markdown heading ("#### Summary") stays text.
GSM8K_ANSWER = re.compile(r"(.*?)(?:^|\n)#### *(-?[$]?\.?\d[\d.,/]*)\s*", re.DOTALL)
HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


# ---- the instruction layouts ----


def instruction(value, layout, ignored):
    """A record {"messages": [...]} with its "answer" or "tests", or the reason why there is none.

    `layout`: the keys that the object was recognised by.
    """
    record = {}
    if layout == ("messages",):
        record["messages"] = messages_of(value, "messages", ignored)
        if value.get("answer") is not None:
            record["answer"] = text_of(value, "answer")
        if value.get("tests") is not None:
            record["tests"] = tests_of(object_of(value["tests"], "tests"))
            ignore(value["tests"], ("test_list", "test_setup_code"), ignored, " of 'tests'")
    elif layout == ("prompt", "response"):
        record["messages"] = prompt_of(value, ignored) + [assistant(text_of(value, "response"))]
    elif layout == ("question", "answer"):
        reply = assistant(text_of(value, "answer"))
        worked = GSM8K_ANSWER.fullmatch(reply["content"])
        if worked:
            steps = re.sub(r"<<.*?>>", "", worked[1]).strip()
            record["answer"] = re.sub("[$,]", "", worked[2]).rstrip(".")
            reply["content"] = record["answer"]
            if steps:
                reply["think"] = steps
        record["messages"] = [user(text_of(value, "question")), reply]
    elif layout == ("instruction", "output"):
        asked = [text_of(value, "instruction")]
        if value.get("input") is not None and text_of(value, "input").strip():
            asked.append(value["input"])
        record["messages"] = [user("\n\n".join(asked)), assistant(text_of(value, "output"))]
    else:
        program = tidy_code(text_of(value, "code"))
        record["messages"] = [user(text_of(value, "text")), assistant(program)]
        if "test_list" in value:
            record["tests"] = tests_of(value)
    last = record["messages"][-1]
    if layout != ("messages",):
        add_thought(value, last)
    record["messages"] = after(first_turns(value, ignored), record["messages"])
    if last["role"] != "assistant":
        return "no reply at the end"
    return empty_turn(record["messages"]) or record


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def add_thought(value, reply):
    """Puts the thought that stands beside a reply into it."""
    thought = thought_of(value)
    if not thought:
        return
    if "think" in reply:
        raise DataError(
            "the record has a thought beside the worked steps of its 'answer'; keep one of the two"
        )
    reply["think"] = thought


def empty_turn(messages):
    """Which turn of a dialogue is empty, "empty reply" or "empty prompt", or "" where none is."""
    for message in messages:
        learned = message["role"] == "assistant" and message.get("weight") != 0
        if learned and blank(message["content"]) and blank(message.get("tool_call", "")):
            return "empty reply"
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return "empty prompt" if all(map(blank, asked)) else ""


def tests_of(value):
    """MBPP's tests: {"test_list": [...], "test_setup_code": "..."}."""
    setup = text_of(value, "test_setup_code") if value.get("test_setup_code") is not None else ""
    return {"test_list": texts_of(value, "test_list"), "test_setup_code": tidy_code(setup)}


def tidy_code(code):
    return code.replace("\r\n", "\n").replace("\t", "    ")


# ---- turns ----


def messages_of(value, key, ignored):
    """The messages in a list of objects, with the keys that are used."""
    messages = []
    for i, message in enumerate(list_of(value, key)):
        where = f"{key}[{i}]"
        object_of(message, where)
        role = message.get("role")
        if role not in ROLES:
            raise DataError(
                f"{where} has the role {clip(role)}; expected one of {', '.join(ROLES)}"
            )
        for tool in TOOLS:  # ignored, an agent's calls would vanish without a word
            if given(message.get(tool)):
                raise DataError(
                    f"{where} has '{tool}'; expected the call as one string in 'tool_call'"
                )
        clean = {"role": role, "content": text_of(message, "content", f"{where}.")}
        weight = weight_of(message, f"{where}.")
        if role == "assistant":
            clean |= reply_fields(message, f"{where}.")
            if weight == 0:
                clean["weight"] = 0
            used = ("tool_call", *THOUGHTS, *WEIGHTS)
        else:
            used = WEIGHTS if weight == 0 else ()
        article = "an" if role == "assistant" else "a"
        ignore(message, ("role", "content", *used), ignored, f" of {article} {role} turn")
        messages.append(clean)
    return messages


def reply_fields(message, where):
    """What only an assistant's message has: its thought and its tool call."""
    fields = {}
    thought = thought_of(message, where)
    if thought:
        fields["think"] = thought
    if message.get("tool_call") is not None:
        call = text_of(message, "tool_call", where)
        if not blank(call):
            fields["tool_call"] = call
    return fields


def thought_of(value, where=""):
    """What the reasoning keys of a message or record hold, or ""."""
    thoughts = {text_of(value, key, where) for key in THOUGHTS if value.get(key) is not None}
    thoughts = [thought for thought in thoughts if not blank(thought)]
    if len(thoughts) > 1:
        raise DataError(
            f"{where.rstrip('.') or 'the record'} has different thoughts in "
            f"{', '.join(THOUGHTS)}; keep one"
        )
    return thoughts[0] if thoughts else ""


def weight_of(message, where):
    """0 or 1, or None where the message does not say."""
    weights = {}
    for key in WEIGHTS:
        weight = message.get(key)
        if weight is None:
            continue
        if weight not in (0, 1):
            raise DataError(
                f"'{where}{key}' is {clip(weight)}; expected 0 or 1 (false or "
                "true), as a turn is learned whole or not at all"
            )
        weights[key] = int(weight)
    if len(set(weights.values())) > 1:
        raise DataError(f"{where.rstrip('.')} says both 0 and 1 in {', '.join(weights)}; keep one")
    return next(iter(weights.values()), None)


def prompt_of(value, ignored):
    """The messages of "prompt": a list of them, one user turn, or a transcript of HH-RLHF."""
    prompt = value["prompt"]
    if not isinstance(prompt, str):
        return messages_of(value, "prompt", ignored)
    labelled = prompt.lstrip().startswith("Human:") and "\n\nAssistant:" in prompt
    if not labelled and not prompt.startswith("\n\nHuman:"):
        return [user(prompt)]
    # some copies of HH-RLHF have the prompt apart, up to "\n\nAssistant:"
    turns = transcript(prompt.lstrip(), "prompt")
    return turns[:-1] if turns[-1] == assistant("") else turns


def transcript(text, key):
    r"""HH-RLHF's "\n\nHuman: ...\n\nAssistant: ..." as messages."""
    start, *turns = HH_TURN.split(text)
    if start.strip():
        raise DataError(
            f"'{key}' starts with {clip(start)}; expected a transcript '\\n\\nHuman: ... "
            "\\n\\nAssistant: ...', or a 'prompt' beside it"
        )
    speakers, said = turns[::2], turns[1::2]
    return [
        user(text.strip()) if speaker == "Human" else assistant(text.strip())
        for speaker, text in zip(speakers, said)
    ]


def first_turns(value, ignored):
    """The messages that the columns "system" and "history" put before a record's own."""
    messages = []
    if value.get("system") is not None and not blank(text_of(value, "system")):
        messages.append({"role": "system", "content": value["system"]})
    history = value.get("history")
    if isinstance(history, list) and history and not isinstance(history[0], dict):
        for i, turn in enumerate(history):
            if not isinstance(turn, list) or [type(said) for said in turn] != [str, str]:
                raise DataError(
                    f"history[{i}] is {type_name(turn)}; expected [question, reply], both "
                    "strings, or messages"
                )
            messages += [user(turn[0]), assistant(turn[1])]
    elif history is not None and history != []:
        messages += messages_of(value, "history", ignored)
    return messages


def after(first, messages):
    """A record's messages behind those of its columns; a system turn is in front, and said once."""
    if messages[: len(first)] == first:
        return messages
    if messages[0]["role"] == "system":
        if first[0]["role"] == "system" and first[0] != messages[0]:
            raise DataError("'system' and the system turn of the messages differ; keep one of them")
        return messages[:1] + [turn for turn in first if turn != messages[0]] + messages[1:]
    return first + messages


# ---- keys that are not used ----


def given(value):
    """Whether a key says anything; some exporters write the empty forms into every record."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null")
    return bool(value)


def ignore(value, used, ignored, where=""):
    """Counts the keys that are not used, by their name and `where`, e.g. " of a tool turn".

    Raises DataError for tools: without them a dialogue means something else.
    """
    for key, held in value.items():
        if key in used or held is None:
            continue
        if key in TOOLS:
            if given(held):
                raise DataError(
                    f"the record has {key!r}, and definitions of tools and calls by "
                    "OpenAI's formats are not supported; leave the record out, or "
                    "write its calls as strings in 'tool_call'"
                )
            continue
        name = f"{clip(key)}{where}"
        ignored[name] = ignored.get(name, 0) + 1
