"""Chat templates: ours in Jinja for `transformers`, and the system turn that another's puts first.

A template of another maker is never run. Its tags are compared with those of plain ChatML, and one
that is not known is reported.
"""

import json
import re
import string
from pathlib import Path

from data.files.hf import read_json
from data.files.tokenizer import Tokenizer

# `Tokenizer.render` in Jinja, for `transformers`; on one line, since line breaks would be rendered
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


def chat_template(tokenizer: Tokenizer) -> str:
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
    return CHAT_TEMPLATE.substitute(
        marks | {name: text(i) for name, i in ids.items() if i is not None},
        **{role: text(*header) for role, header in tokenizer.headers.items()},
        default_system=quoted(tokenizer.default_system or ""),
        close=text(*tokenizer.close),
        end=text(tokenizer.end_id, *tokenizer.after_end),
    )


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


def default_system_of(template: str, tokenizer: Tokenizer) -> str | None:
    """The system turn that a ChatML template puts before a dialogue that has none.

    "" where it puts nothing, None for a template of any other kind. What `write_tokenizer` wrote
    is known too.
    """
    written = re.match(rf"\{{% set default_system = ({JSON_TEXT}) %\}}", template)
    if written and template.replace(written[1], '""', 1) == chat_template(tokenizer):
        return json.loads(written[1])
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
