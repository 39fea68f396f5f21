"""Tools as Qwen2.5's dialogues have them: definitions, calls and results are text in ChatML turns.

    <|im_start|>system
    Be brief.

    # Tools
    ... <tools>
    {"type": "function", "function": {"name": "age", ...}}
    </tools> ...<|im_end|>
    <|im_start|>user
    How old is Tom?<|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name": "age", "arguments": {"of": "Tom"}}
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    31
    </tool_response><|im_end|>

The system turn is there without definitions too, and results in a row share one user's turn. A call
is text here, `NAME {...}` (`age {"of": "Tom"}`), or NAME alone for one without arguments. Calls are
learned from and read; while it samples nothing runs them.
"""

import json
import re

# What stands around the definitions is the format's own wording: a model was trained on it.
TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    'within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, '
    '"arguments": <args-json-object>}\n</tool_call>'
)
CALL_BEFORE = '<tool_call>\n{"name": "'
CALL_MIDDLE = '", "arguments": '
CALL_AFTER = "}\n</tool_call>"
RESULT_BEFORE = "<tool_response>\n"
RESULT_AFTER = "\n</tool_response>"
NO_CALL = "a tool call is NAME and a JSON object of arguments in this chat format"


def as_chatml(messages: list[dict], default_system: str) -> list[dict]:
    """The messages with all that concerns tools written into the content of their turns.

    A system turn of definitions alone says what the default one says. Raises ValueError for a call
    that is no `NAME {...}`, and for definitions in any turn but a first one of the system's.
    """
    turns = []
    for i, message in enumerate(messages):
        turn = dict(message)
        tools = turn.pop("tools", None)
        call = turn.pop("tool_call", None)
        if tools and (i or turn["role"] != "system"):
            raise ValueError("definitions of tools stand in the first system turn in this format")
        if tools:
            defined = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
            said = turn["content"] or default_system
            turn["content"] = said + "\n\n" + TOOLS_BEFORE + defined + TOOLS_AFTER
        if call:
            said = [turn["content"]] if turn.get("content") else []
            turn["content"] = "\n".join([*said, call_text(call)])
        if turn["role"] == "tool":
            turn = {"role": "user", "content": RESULT_BEFORE + turn["content"] + RESULT_AFTER}
            if i and messages[i - 1]["role"] == "tool":
                turn["content"] = turns.pop()["content"] + "\n" + turn["content"]
        turns.append(turn)
    return turns


def can_write(messages: list[dict]) -> bool:
    """Whether `as_chatml` writes these messages."""
    try:
        as_chatml(messages, "")
    except ValueError:
        return False
    return True


def call_text(call: str) -> str:
    """`NAME {...}` between the marks of a call; raises ValueError for any other text."""
    name, _, arguments = call.strip().partition(" ")
    arguments = arguments.strip() or "{}"
    try:
        whole = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        whole = False
    if not whole or '"' in name or "\\" in name:
        raise ValueError(NO_CALL)
    return CALL_BEFORE + name + CALL_MIDDLE + arguments + CALL_AFTER


# ---- known by what it writes ----

# Qwen2.5's template as `written` gives it, around its default system turn, which models differ in.
WRITTEN = (
    "«if»<|im_start|>system\n«if»‹messages.0.content›«else»DEFAULT«endif»\n\n"
    f"{TOOLS_BEFORE}«for»\n‹tool|tojson›«endfor»{TOOLS_AFTER}<|im_end|>\n"
    "«else»«if»<|im_start|>system\n‹messages.0.content›<|im_end|>\n"
    "«else»<|im_start|>system\nDEFAULT<|im_end|>\n«endif»«endif»"
    "«for»«if»<|im_start|>‹message.role›\n‹message.content›<|im_end|>\n"
    "«elif»<|im_start|>‹message.role›«if»\n‹message.content›«endif»"
    f"«for»«if»«set»«endif»\n{CALL_BEFORE}‹tool_call.name›{CALL_MIDDLE}"
    f"‹tool_call.arguments|tojson›{CALL_AFTER}«endfor»<|im_end|>\n"
    f"«elif»«if»<|im_start|>user«endif»\n{RESULT_BEFORE}‹message.content›{RESULT_AFTER}"
    "«if»<|im_end|>\n«endif»«endif»«endfor»«if»<|im_start|>assistant\n«endif»"
)
DEFAULT = re.compile(r"«else»<\|im_start\|>system\n([^«»‹›]+)<\|im_end\|>\n«endif»«endif»")
LITERAL = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
VALUE = r"[\w.]+(?:\s*\|\s*tojson)?"
ESCAPED = {"n": "\n", "\\": "\\", "'": "'", '"': '"'}


def written(template: str) -> str | None:
    """All that a template writes, in its order.

    «word» stands where it branches, repeats or sets, ‹name› for a value. Conditions are left out.
    None where text stands between the tags, or an output is no sum of texts and values.
    """
    if re.search("[«»‹›]", template):
        return None
    # a minus takes the white space beside it, `transformers` the line break after a block
    template = re.sub(r"\s*(\{[%{])-|-([%}]\})\s*", r"\1\2", template).replace("%}\n", "%}")
    inside = rf"(?:{LITERAL}|[^'\"])*?"
    tags = re.findall(rf"\{{%{inside}%\}}|\{{\{{{inside}\}}\}}", template, re.DOTALL)
    if "".join(tags) != template:
        return None
    pieces = []
    for tag in tags:
        said = tag[2:-2].strip()
        if tag.startswith("{%"):
            pieces.append(f"«{said.split()[0]}»")
            continue
        said = re.sub(r"\[['\"]?(\w+)['\"]?\]", r".\1", said)
        if not re.fullmatch(rf"(?:{LITERAL}|{VALUE})(?:\s*\+\s*(?:{LITERAL}|{VALUE}))*", said):
            return None
        for term in re.findall(rf"{LITERAL}|{VALUE}", said):
            if term[0] in "'\"":
                pieces.append(re.sub(r"\\(.)", lambda c: ESCAPED.get(c[1], c[0]), term[1:-1]))
            else:
                pieces.append(f"‹{re.sub(' ', '', term)}›")
    return "".join(pieces)


def default_system_of(template: str) -> str:
    """The default system turn of a template that writes what Qwen2.5's writes; "" of any other."""
    text = written(template)
    default = DEFAULT.search(text or "")
    if default and text == WRITTEN.replace("DEFAULT", default[1]):
        return default[1]
    return ""


# the texts of this format for `chat_template.TOOL_TEMPLATE`, quoted
MARKS = {
    "tools_before": TOOLS_BEFORE,
    "tools_after": TOOLS_AFTER,
    "call_before": CALL_BEFORE,
    "call_middle": CALL_MIDDLE,
    "call_after": CALL_AFTER,
    "result_before": RESULT_BEFORE,
    "result_after": RESULT_AFTER,
    "no_call": NO_CALL,
}
