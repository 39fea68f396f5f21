"""A record's dialogue as messages: each way to write turns, and what comes before them.

A message is {"role": ..., "content": ...}. Roles are system, user, assistant and tool. An
assistant's may have "think", "tool_call" and "weight": 0, a system turn "tools".
"reasoning_content", "reasoning" and "thinking", in a message or beside a reply, are read as
"think". A turn with "weight" 0 ("train", "loss" or "trainable" false) is read by the model and not
learned from. OpenAI's "tool_calls" of one call becomes the text `NAME ARGUMENTS` in "tool_call".

Refused: several calls in one turn, "functions" and "function_call", content in parts. Everything
here takes one JSON object of a file and raises DataError without the file's name, which
`formats.read_records` puts in front. `ignored` counts the keys that are not used.
"""

import json
import re

from data.files.loading import (
    DataError,
    blank,
    clip,
    list_of,
    object_of,
    text_of,
    type_name,
)

ROLES = ("system", "user", "assistant", "tool")
THOUGHTS = ("think", "reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "train", "loss", "trainable")
TOOLS = ("tools", "functions", "function_call", "tool_calls")
TAKES = {"system": "tools", "assistant": "tool_calls"}  # which of them a turn may have
SPEAKERS = {"human": "user", "gpt": "assistant", "system": "system", "tool": "tool"}  # ShareGPT's

HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


# ---- turns ----


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


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
            if given(message.get(tool)) and TAKES.get(role) != tool:
                remedy = "expected the call as one string in 'tool_call' of an assistant's turn"
                if tool in ("tools", "functions"):
                    remedy = "give definitions in the record's 'tools', or leave the record out"
                raise DataError(f"{where} has '{tool}'; {remedy}")
        weight = weight_of(message, f"{where}.")
        used = WEIGHTS if weight == 0 else ()
        fields = {}
        if role == "assistant":
            fields = reply_fields(message, where)
            if weight == 0:
                fields["weight"] = 0
            used = ("tool_call", "tool_calls", *THOUGHTS, *WEIGHTS)
        elif role == "system":
            fields = tools_of(message, f"{where}.")
            used = ("tools", *used)
        elif role == "tool":
            used = ("tool_call_id", *used)  # with one call a turn it says nothing new
        messages.append({"role": role, "content": content_of(message, where, fields)} | fields)
        article = "an" if role == "assistant" else "a"
        ignore(message, ("role", "content", *used), ignored, f" of {article} {role} turn")
    return messages


def conversation_of(value, ignored):
    """The messages of ShareGPT's "conversations": from and value, or role and content."""
    turns = []
    for i, turn in enumerate(list_of(value, "conversations")):
        where = f"conversations[{i}]"
        if "from" in object_of(turn, where):
            speaker = turn["from"]
            if speaker not in tuple(SPEAKERS):
                raise DataError(
                    f"{where} is from {clip(speaker)}; expected one of {', '.join(SPEAKERS)}"
                )
            said = text_of(turn, "value", f"{where}.")
            rest = {key: held for key, held in turn.items() if key not in ("from", "value")}
            turn = rest | {"role": SPEAKERS[speaker], "content": said}
        turns.append(turn)
    return messages_of({"conversations": turns}, "conversations", ignored)


def content_of(message, where, fields):
    """The text of a turn. A call may stand without one."""
    content = message.get("content")
    if content is None and "tool_call" in fields:
        return ""
    if isinstance(content, list) and any(isinstance(part, dict) for part in content):
        kinds = {str(part.get("type")) for part in content if isinstance(part, dict)}
        raise DataError(
            f"'{where}.content' is a list of content parts ({clip(', '.join(sorted(kinds)))}); "
            "only text is learned here: join the text parts to one string, or leave the record out"
        )
    return text_of(message, "content", f"{where}.")


def reply_fields(message, where):
    """What only an assistant's message has: its thought and its tool call."""
    fields = {}
    thought = thought_of(message, f"{where}.")
    if thought:
        fields["think"] = thought
    call = ""
    if message.get("tool_call") is not None:
        call = text_of(message, "tool_call", f"{where}.")
    if given(message.get("tool_calls")):
        if not blank(call):
            raise DataError(f"{where} has 'tool_call' and 'tool_calls'; keep one of them")
        call = call_of(list_of(message, "tool_calls"), where)
    if not blank(call):
        fields["tool_call"] = call
    return fields


def call_of(calls, where):
    """OpenAI's call {"function": {"name": ..., "arguments": ...}} as text, `NAME ARGUMENTS`.

    The arguments are JSON, as text or as an object; a call without any is its name alone.
    """
    if len(calls) > 1:
        raise DataError(
            f"{where} has {len(calls)} calls in 'tool_calls', and a turn holds one here; give each "
            "a turn of its own with its result behind it, or leave the record out"
        )
    place = f"{where}.tool_calls[0]"
    call = object_of(calls[0], place)
    function = object_of(call.get("function", call), f"{place}.function")
    name = text_of(function, "name", f"{place}.function.")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    return f"{name} {arguments.strip()}" if given(arguments) else name


def tools_of(value, where=""):
    """{"tools": [...]} of a record or a system turn, or {}; some files have the list as text."""
    tools = value.get("tools")
    if not given(tools):
        return {}
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            pass
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(
            f"'{where}tools' is {type_name(tools)}; expected OpenAI's list of objects, "
            '[{"type": "function", "function": {...}}]'
        )
    return {"tools": tools}


def unlearnable(messages):
    """Why a dialogue teaches nothing, or ""."""
    for message in messages:
        learned = message["role"] == "assistant" and message.get("weight") != 0
        if learned and blank(message["content"]) and "tool_call" not in message:
            return "empty reply"
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return "empty prompt" if all(map(blank, asked)) else ""


def unusable(prompt):
    """Why a reply cannot follow this prompt, or "". A tool's result counts as a turn to answer."""
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        return "no user turn before the reply"
    return "empty prompt" if blank(prompt[-1]["content"]) else ""


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


def whole(value, messages, ignored):
    """A record's messages behind those of its columns, its "tools" in the system turn."""
    messages = after(first_turns(value, ignored), messages)
    tools = tools_of(value)
    if not tools or not messages:
        return messages
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": ""} | tools, *messages]
    if messages[0].get("tools", tools["tools"]) != tools["tools"]:
        raise DataError("'tools' and those of the system turn differ; keep one of them")
    return [messages[0] | tools, *messages[1:]]


def after(first, messages):
    """Messages behind the first ones; a system turn is in front, and said once."""
    if not messages or messages[: len(first)] == first:
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

    Raises DataError for tools in another place than theirs: without them a dialogue means
    something else.
    """
    for key, held in value.items():
        if key in used or held is None:
            continue
        if key in TOOLS:
            if given(held):
                raise DataError(
                    f"the record has {key!r}, which is not read there; give definitions in 'tools' "
                    "and calls in the messages' 'tool_calls', or leave the record out"
                )
            continue
        name = f"{clip(key)}{where}"
        ignored[name] = ignored.get(name, 0) + 1
