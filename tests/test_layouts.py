"""Layouts of other makers: hand-written records, what they become, and which tokens are learned."""

import copy
import json
import re

import pytest

from data.files import real
from data.files.formats import DataError, read_records
from data.runtime.rows import dialogue_rows

ASK = {"role": "user", "content": "How old is Tom?"}
SYSTEM = {"role": "system", "content": "Be brief."}
AGE = {"type": "function", "function": {"name": "age", "parameters": {"of": "a name"}}}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(*arguments, **more):
    """An OpenAI turn with a call of `age` for each of the arguments."""
    calls = [
        {"id": f"c{k}", "type": "function", "function": {"name": "age", "arguments": one}}
        for k, one in enumerate(arguments)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def write(folder, *rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder, row, kind="instruction"):
    """(records, dropped, notes) of a file with this object alone."""
    return read_records(write(folder, row), kind)


def refused(path, kind="instruction"):
    """The message, behind the file's name, with which a file is refused."""
    with pytest.raises(DataError) as caught:
        read_records(path, kind)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)), message
    return message[len(str(path)) :]


# ---- each layout: its messages, and its supervised tokens in brackets ----

TOLD = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hi", "weight": 0},
    {"from": "gpt", "value": "Ho", "weight": 0},
    {"from": "human", "value": "Bye"},
    {"from": "gpt", "value": "So"},
]
BYE = [
    SYSTEM,
    {"role": "user", "content": "Hi"},
    assistant("Ho", weight=0),
    {"role": "user", "content": "Bye"},
    assistant("So"),
]
BYE_MASK = (
    "<|system|>Be brief.<|user|>Hi<|assistant|>Ho<|end|><|user|>Bye<|assistant|>[S][o][<|end|>]"
)
CALLED = assistant("", tool_call='age {"of": 1}')
RESULT = {"role": "tool", "content": "31"}
CALL_MASK = (
    "<|user|>How old is Tom?<|assistant|>"
    '[<|tool_call|>][age][ ][{]["][o][f]["][:][ ][1][}][<|end|>]'
    "<|tool_result|>31<|assistant|>[3][1][<|end|>]"
)


@pytest.mark.parametrize(
    "row, messages, marked",
    [
        ({"conversations": TOLD}, BYE, BYE_MASK),
        ({"conversations": BYE}, BYE, BYE_MASK),
        ({"conversations": TOLD[1:], "system": "Be brief."}, BYE, BYE_MASK),
        (
            {"prompt": "Bye", "completion": "So"},
            BYE[3:],
            "<|user|>Bye<|assistant|>[S][o][<|end|>]",
        ),
        # TRL learns from the completion alone
        ({"prompt": [*BYE[:2], assistant("Ho"), BYE[3]], "completion": BYE[4:]}, BYE, BYE_MASK),
        ({"prompt": [*BYE[:2], assistant("Ho"), BYE[3]], "completion": "So"}, BYE, BYE_MASK),
        (
            {"prompt": "Double x.", "code": "f = 2", "test_list": ["assert f"], "test_imports": []},
            [{"role": "user", "content": "Double x."}, assistant("f = 2")],
            "<|user|>Double x.<|assistant|>[f][ =][ ][2][<|end|>]",
        ),
        (
            {
                "messages": [
                    ASK,
                    call('{"of": 1}'),
                    RESULT | {"tool_call_id": "c0"},
                    assistant("31"),
                ]
            },
            [ASK, CALLED, RESULT, assistant("31")],
            CALL_MASK,
        ),
        (  # as in `transformers`: arguments that are no text, the call without its wrapping
            {
                "messages": [
                    ASK,
                    assistant("", tool_calls=[{"name": "age", "arguments": {"of": 1}}]),
                    RESULT,
                    assistant("31"),
                ]
            },
            [ASK, CALLED, RESULT, assistant("31")],
            CALL_MASK,
        ),
        (
            {"messages": [ASK, call("{}", content="I look.")]},
            [ASK, assistant("I look.", tool_call="age")],
            "<|user|>How old is Tom?<|assistant|>[I][ l][ook][.][<|tool_call|>][age][<|end|>]",
        ),
        (
            {"messages": [ASK, assistant("So")], "tools": [AGE]},
            [{"role": "system", "content": "", "tools": [AGE]}, ASK, assistant("So")],
            f"<|system|>Tools:\n{json.dumps(AGE)}<|user|>How old is Tom?"
            "<|assistant|>[S][o][<|end|>]",
        ),
        (
            {"messages": [SYSTEM, ASK, assistant("So")], "tools": json.dumps([AGE])},
            [SYSTEM | {"tools": [AGE]}, ASK, assistant("So")],
            f"<|system|>Be brief.\n\nTools:\n{json.dumps(AGE)}<|user|>How old is Tom?"
            "<|assistant|>[S][o][<|end|>]",
        ),
    ],
)
def test_each_layout_becomes_its_messages_and_its_replies_are_learned(
    tmp_path, tokenizer, row, messages, marked
):
    (record,), dropped, notes = read(tmp_path, row)
    assert record["messages"] == messages and not dropped and not notes
    assert tokenizer.marked(*tokenizer.render(messages)) == marked
    again = read(tmp_path, record)
    assert again == ([record], {}, [])


def test_a_pair_of_message_lists_has_its_prompt_apart_or_in_both_lists(tmp_path):
    sides = {"chosen": [assistant("31")], "rejected": [assistant("No.")]}
    rows = [
        {"prompt": [SYSTEM, ASK], **sides},
        {key: [SYSTEM, ASK, *reply] for key, reply in sides.items()},
    ]
    made = {"prompt": [SYSTEM, ASK], "chosen": "31", "rejected": "No."}
    for row in rows:
        assert read(tmp_path, row, "preference") == ([made], {}, [])
    (record,), _, _ = read(tmp_path, rows[0] | {"tools": [AGE]}, "preference")
    assert record["prompt"] == [SYSTEM | {"tools": [AGE]}, ASK]


def test_the_imports_of_sanitized_mbpp_stand_with_its_tests(tmp_path):
    row = {
        **{"prompt": "Root of x.", "code": "def f(x):\r\n\treturn math.sqrt(x)"},
        **{"test_list": ["assert f(4) == 2"], "test_imports": ["import math", "import re"]},
    }
    (record,), _, notes = read(tmp_path, row | {"source_file": "a", "task_id": 2})
    assert record["messages"][1]["content"] == "def f(x):\n    return math.sqrt(x)"
    assert record["tests"] == {
        "test_list": ["assert f(4) == 2"],
        "test_setup_code": "import math\nimport re",
    }
    assert real.task_of("code", record).prompt.endswith(f"\n{real.SHOWN}\nassert f(4) == 2")
    assert "'source_file' 1 time, 'task_id' 1 time" in notes[0]
    both = read(tmp_path, row | {"test_setup_code": "a = 1"})[0][0]
    assert both["tests"]["test_setup_code"] == "import math\nimport re\na = 1"


def test_tools_are_left_out_where_the_chat_format_has_no_mark_for_a_call(tokenizer):
    plain = copy.copy(tokenizer)
    plain.call_id = plain.result_id = None
    records = [{"messages": [SYSTEM | {"tools": [AGE]}, ASK, assistant("So")]}]
    dropped = {"tool call, for which the tokenizer has no mark": 1}
    assert dialogue_rows(plain, records, 256) == ([], dropped)
    assert len(dialogue_rows(tokenizer, records, 256)[0]) == 1


# ---- refused by name, with what to do ----


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"messages": [ASK, call("{}", "{}")]},
            ":1: messages[1] has 2 calls in 'tool_calls', and a turn holds one here; give each a "
            "turn of its own with its result behind it, or leave the record out",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}, {"type": "image"}]}]},
            ":1: 'messages[0].content' is a list of content parts ('image, text'); only text is "
            "learned here: join the text parts to one string, or leave the record out",
        ),
        (
            {"conversations": [{"from": "bing", "value": "Hi"}]},
            ":1: conversations[0] is from 'bing'; expected one of human, gpt, system, tool",
        ),
        (
            {"conversations": [{"from": "human"}]},
            ":1: 'conversations[0].value' is missing or null; expected a string",
        ),
        (
            {"messages": [ASK, assistant("So")], "tools": "age"},
            ":1: 'tools' is a string; expected OpenAI's list of objects, "
            '[{"type": "function", "function": {...}}]',
        ),
        (
            {"messages": [SYSTEM | {"tools": [{}]}, ASK, assistant("So")], "tools": [AGE]},
            ":1: 'tools' and those of the system turn differ; keep one of them",
        ),
        (
            {"messages": [SYSTEM | {"functions": [AGE]}, ASK, assistant("So")]},
            ":1: messages[0] has 'functions'; give definitions in the record's 'tools', or leave "
            "the record out",
        ),
    ],
)
def test_what_cannot_be_learned_as_meant_is_refused_with_its_line_and_remedy(
    tmp_path, row, message
):
    assert refused(write(tmp_path, row)) == message


@pytest.mark.parametrize("label", [True, False, 1, "True"])
@pytest.mark.parametrize("kind", ["instruction", "preference", "ranking"])
def test_a_label_of_kto_is_refused_for_every_use(tmp_path, label, kind):
    told = refused(write(tmp_path, {"prompt": "a", "completion": "b", "label": label}), kind)
    assert told == (
        ":1: the record has a 'label', which is KTO's layout of single replies, and no loss here "
        "learns from it; for sft.py keep the records whose label is true and take 'label' out, for "
        "dpo.py join two replies to a prompt as 'chosen' and 'rejected'"
    )


def test_a_label_of_another_meaning_is_a_key_that_is_not_read(tmp_path):
    records, _, notes = read(tmp_path, {"prompt": "a", "completion": "b", "label": "joke"})
    assert len(records) == 1 and "ignored keys: 'label' 1 time" in notes[0]


@pytest.mark.parametrize(
    "row, kind, use",
    [
        ({"chosen": "a", "rejected": "b"}, "instruction", "dpo.py and reward_model.py"),
        ({"prompt": "a", "completion": "b"}, "preference", "sft.py"),
        ({"text": "a"}, "instruction", "sft.py --pretrain"),
    ],
)
def test_a_layout_of_another_use_is_said(tmp_path, row, kind, use):
    assert refused(write(tmp_path, row), kind).endswith(f"; these keys are for {use}")


def test_parquet_is_refused_with_the_line_that_converts_it(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1\x15\x04")
    told = refused(path)
    assert told.startswith(": the file is a Parquet file; write it as JSONL: ")
    code = re.fullmatch(r'.*python -c "(.*)"', told)[1]
    compile(code, "", "exec")
    assert repr(str(path)) in code and repr(str(tmp_path / "train.jsonl")) in code
