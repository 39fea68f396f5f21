"""Chat templates: ours in Jinja for `transformers`, and what another maker's says.

A template of another maker is never run. Its tags are compared with those of plain ChatML, and what
it writes with what Qwen2.5's writes, which has tools. One that is not known is reported.
"""

import json
import re
import string
from pathlib import Path

from data.files import json_calls
from data.files.hf import read_json
from data.files.tokenizer import Tokenizer

# `Tokenizer.render` in Jinja, for `transformers`; on one line, since line breaks would be rendered.
# Without tools, in this very text since the first export: by it such a directory is known again.
CHAT_TEMPLATE = string.Template(
    """
{% set default_system = $default_system %}
{% if default_system and messages[0]['role'] != 'system' %}
{{ $system + default_system + $close }}
{% endif %}
{% for m in messages %}
{% if tools or m['tool_calls'] %}
{{ raise_exception('a tool call is text in tool_call here') }}
{% endif %}
{% if m['role'] == 'user' %}{{ $user + m['content'] + $close }}
{% elif m['role'] == 'system' %}{{ $system + m['content'] + $close }}
{% elif m['role'] == 'assistant' %}
{{ $assistant }}
{% if m['think'] %}{{ $think + m['think'] + $end_think }}{% endif %}
{% if m['tool_call'] %}{{ $tool_call + m['tool_call'] }}{% endif %}
{{ (m['content'] or '') + $end }}
{% elif m['role'] == 'tool' %}{{ $tool_result + m['content'] }}
{% else %}{{ raise_exception('unknown role ' + m['role']) }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ $assistant }}{% endif %}
""".replace("\n", "")
)
# The same where the format has tools. `tools` comes from the caller, or stands in the system turn.
TOOL_TEMPLATE = string.Template(
    """
{% set default_system = $default_system %}
{% macro arguments_of(f) %}
{% if f['arguments'] is string %}{{ f['arguments'] }}
{% elif f['arguments'] %}{{ f['arguments'] | tojson }}{% endif %}
{% endmacro %}
{% set first = messages[0] if messages[0]['role'] == 'system' else {} %}
{% set defined_tools = tools or first['tools'] %}
{% set said = first['content'] or (default_system if defined_tools or not first else '') %}
{% if first or said or defined_tools %}
{{ $system + said }}
{% if defined_tools %}
{% if said %}{{ $gap }}{% endif %}
{{ $tools_before }}
{% for tool in defined_tools %}{{ $newline + (tool | tojson) }}{% endfor %}
{{ $tools_after }}
{% endif %}
{{ $close }}
{% endif %}
{% for m in messages %}
{% if m['tools'] and not (loop.first and first) %}
{{ raise_exception('tools are defined in the first system turn') }}
{% endif %}
{% if m['role'] == 'user' %}{{ $user + m['content'] + $close }}
{% elif m['role'] == 'system' %}
{% if not loop.first %}{{ $system + m['content'] + $close }}{% endif %}
{% elif m['role'] == 'assistant' %}
{{ $assistant }}
{% if m['think'] %}{{ $think + m['think'] + $end_think }}{% endif %}
$calls_and_content
{{ $end }}
{% elif m['role'] == 'tool' %}$result
{% else %}{{ raise_exception('unknown role ' + m['role']) }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ $assistant }}{% endif %}
""".replace("\n", "")
)
# one call, which has a mark: `NAME ARGUMENTS`
MARKED_CALL = """
{{ m['content'] or '' }}
{% set calls = m['tool_calls'] or [] %}
{% if calls | length > 1 %}{{ raise_exception('a turn holds one tool call here') }}{% endif %}
{% for call in calls %}
{% set f = call['function'] or call %}
{% set arguments = arguments_of(f) | trim %}
{{ $tool_call + f['name'] }}
{% if arguments not in ['', '{}', '[]', 'null'] %}{{ ' ' + arguments }}{% endif %}
{% endfor %}
{% if m['tool_call'] %}{{ $tool_call + m['tool_call'] }}{% endif %}
"""
MARKED_RESULT = "{{ $tool_result + m['content'] }}"
# calls and results as `json_calls.as_chatml` writes them
TEXT_CALLS = """
{{ m['content'] or '' }}
{% for call in m['tool_calls'] or [] %}
{% set f = call['function'] or call %}
{% if m['content'] or not loop.first %}{{ $newline }}{% endif %}
{{ $call_before + f['name'] + $call_middle + (arguments_of(f) or '{}') + $call_after }}
{% endfor %}
{% if m['tool_call'] %}
{% set call = m['tool_call'].strip().split(' ', 1) %}
{% set arguments = call[1].strip() if call | length > 1 else '{}' %}
{% if arguments[:1] != '{' %}{{ raise_exception($no_call) }}{% endif %}
{% if m['content'] %}{{ $newline }}{% endif %}
{{ $call_before + call[0] + $call_middle + arguments + $call_after }}
{% endif %}
"""
TEXT_RESULT = """
{% if loop.first or messages[loop.index0 - 1]['role'] != 'tool' %}{{ $user }}
{% else %}{{ $newline }}{% endif %}
{{ $result_before + m['content'] + $result_after }}
{% if loop.last or messages[loop.index0 + 1]['role'] != 'tool' %}{{ $close }}{% endif %}
"""
# plain ChatML as `template_tags` gives it: what may stand before all, a default system turn, turns
DEFINED = ["if not add_generation_prompt is defined", "set add_generation_prompt = false", "endif"]
NO_SYSTEM = "if loop.first and messages[0]['role'] != 'system'"
DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system\n([^\0]*)<\|im_end\|>\n")
JSON_TEXT = r'"(?:[^"\\\n]|\\["\\bfnrt]|\\u[0-9a-f]{4})*"'
TURNS = [
    "<|im_start|>\0role\0\n\0content\0<|im_end|>\n",
    "endfor",
    "if add_generation_prompt",
    "<|im_start|>assistant\n",
    "endif",
]


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Jinja knows no pairs of surrogates


def chat_template(tokenizer: Tokenizer, default_system: str, with_json_calls: bool) -> str:
    """The Jinja template that renders every field of a message as `tokenizer.render` does.

    Only the line break after an assistant's last turn, where a format has one, is not ours.
    """

    def text(*ids):
        return quoted(tokenizer.encoding.decode(ids))

    refused = "raise_exception('no mark for a tool call or its result')"
    marks = {"think": '""', "end_think": quoted("\n"), "tool_call": refused, "tool_result": refused}
    ids = {
        "think": tokenizer.think_id,
        "end_think": tokenizer.end_think_id,
        "tool_call": tokenizer.call_id,
        "tool_result": tokenizer.result_id,
    }
    marks |= {name: text(i) for name, i in ids.items() if i is not None}
    marks |= {role: text(*header) for role, header in tokenizer.headers.items()}
    marks |= {
        "default_system": quoted(default_system),
        "close": text(*tokenizer.close),
        "end": text(tokenizer.end_id, *tokenizer.after_end),
        "gap": quoted("\n\n"),
        "newline": quoted("\n"),
    }
    if with_json_calls:
        texts = {name: quoted(text) for name, text in json_calls.MARKS.items()}
        return filled(TEXT_CALLS, TEXT_RESULT, marks | texts)
    if tokenizer.call_id is not None:
        around = {"tools_before": quoted("Tools:"), "tools_after": '""'}
        return filled(MARKED_CALL, MARKED_RESULT, marks | around)
    return CHAT_TEMPLATE.substitute(marks)


def filled(calls: str, result: str, marks: dict) -> str:
    """TOOL_TEMPLATE with a format's own way to write calls and results."""
    parts = {"calls_and_content": calls, "result": result}
    lines = {
        name: string.Template(part.replace("\n", "")).substitute(marks)
        for name, part in parts.items()
    }
    return TOOL_TEMPLATE.substitute(marks | lines)


def read_template(folder: Path) -> str | None:
    """The text of a directory's chat template; None where there is none."""
    alone = folder / "chat_template.jinja"
    config = folder / "tokenizer_config.json"
    if alone.exists():  # it comes first, as in `transformers`
        try:
            return alone.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(f"{alone}: cannot be read ({error})") from None
    raw = read_json(config) if config.exists() else {}
    template = raw.get("chat_template") if isinstance(raw, dict) else None
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def template_tags(template: str) -> list[str] | None:
    """The tags of a template, whatever their spaces and quotes.

    A block becomes its words, an output the text that it writes, a message's field its name
    between NUL characters. None where text stands between the tags, or an output is not a sum of
    texts and fields.
    """
    template = template.replace("\\n", "\n")
    # a minus takes the white space beside it
    template = re.sub(r"\s*(\{[%{])-|-([%}]\})\s*", r"\1\2", template)
    template = template.replace("%}\n", "%}")  # `transformers` drops the line break after a block
    tags = re.findall(r"\{%.*?%\}|\{\{.*?\}\}", template, re.DOTALL)
    if "".join(tags) != template:
        return None
    literal = r"""(?:'[^'\\]*'|"[^"\\]*")"""
    known = []
    for tag in tags:
        inside = tag[2:-2].strip()
        if tag.startswith("{%"):
            known.append(" ".join(inside.replace('"', "'").split()))
            continue
        field = r"""\bmessage(?:\[['"](\w+)['"]\]|\.(\w+))"""
        inside = re.sub(field, "'\0\\1\\2\0'", inside)
        if not re.fullmatch(rf"{literal}(?:\s*\+\s*{literal})*", inside):
            return None
        known.append("".join(text[1:-1] for text in re.findall(literal, inside)))
    return known


def kind_of(template: str, tokenizer: Tokenizer) -> tuple[str | None, bool]:
    """(the system turn that a ChatML template puts before a dialogue that has none, tools as text).

    The first is "" where it puts nothing, None for a template of any other kind. The second says
    whether definitions, calls and results of tools are written as `json_calls` does. What
    `write_tokenizer` wrote is known too.
    """
    written = re.match(rf"\{{% set default_system = ({JSON_TEXT}) %\}}", template)
    if written:
        for with_calls in (False, True):
            ours = chat_template(tokenizer, json.loads(written[1]), with_calls)
            if template == ours:
                return json.loads(written[1]), with_calls
    default = json_calls.default_system_of(template)
    if default:
        return default, True
    return plain_default(template), False


def plain_default(template: str) -> str | None:
    """The default system turn of a plain ChatML template; None for another kind."""
    tags = template_tags(template) or []
    if tags[:3] == DEFINED:
        tags = tags[3:]
    if tags[:1] != ["for message in messages"]:
        return None
    if tags[1:] == TURNS:
        return ""
    if tags[1:2] + tags[3:] == [NO_SYSTEM, "endif", *TURNS]:
        found = DEFAULT_SYSTEM.fullmatch(tags[2])
        return found[1] if found else None
    return None
