"""data/files/formats.py: every layout becomes the record it should,
and every broken file is named with its line."""

import ast
import gzip
import json
import math
import re
from pathlib import Path

import pytest

from data.files import formats, layouts, writing
from data.files.comparisons import parse_ranking
from data.files.formats import DataError, read_records

FIXTURES = Path(__file__).parent / "fixtures"
CHAT = [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "5"}]
CALL = {"role": "assistant", "content": "", "tool_call": "calc(2+3)"}
PAIR = {"prompt": "Name a planet.", "chosen": "Mars.", "rejected": "The Moon."}
RANKING = {
    "prompt": "Name a planet.",
    "responses": ["Pluto", "The Sun", "Mars"],
    "ranking": "C > A = B",
}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def read_all(tmp_path, rows, kind="instruction"):
    """(records, dropped, notes without the file's name)
    of a JSONL file with these objects (or these lines)."""
    path = tmp_path / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    records, dropped, notes = read_records(path, kind)
    assert all(note.startswith(str(path)) and "\n" not in note for note in notes)
    return records, dropped, [note.removeprefix(str(path)) for note in notes]


def read(tmp_path, rows, kind="instruction"):
    return read_all(tmp_path, rows, kind)[:2]


def error_of(path, kind="instruction"):
    with pytest.raises(DataError) as caught:
        read_records(path, kind)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)), message
    return message[len(str(path)) :]


def error_in(tmp_path, data, kind="instruction", name="bad.jsonl"):
    """The message, after the file's name, for a file that holds these bytes, text or object."""
    path = tmp_path / name
    if isinstance(data, dict):
        data = json.dumps(data)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return error_of(path, kind)


# The layouts of instruction records


@pytest.mark.parametrize(
    "row, messages",
    [
        ({"messages": CHAT}, CHAT),
        ({"prompt": "2+3?", "response": "5"}, CHAT),
        (
            {"prompt": CHAT + [user("Sure?")], "response": "Yes"},
            CHAT + [user("Sure?"), assistant("Yes")],
        ),
        ({"question": "2+3?", "answer": "5"}, CHAT),
        ({"instruction": "2+3?", "output": "5"}, CHAT),
        ({"instruction": "2+3?", "input": "", "output": "5"}, CHAT),
        ({"instruction": "2+3?", "input": None, "output": "5"}, CHAT),
        (
            {"instruction": "Translate.", "input": "cat", "output": "chat"},
            [user("Translate.\n\ncat"), assistant("chat")],
        ),
        ({"text": "2+3?", "code": "5"}, CHAT),
        ({"messages": CHAT[:1] + [CALL]}, CHAT[:1] + [CALL]),
    ],
)
def test_each_instruction_layout_becomes_messages(tmp_path, row, messages):
    assert read(tmp_path, [row]) == ([{"messages": messages}], {})


def test_every_example_in_the_docstring_is_read(tmp_path):
    kind, seen = None, {"instruction": 0, "preference": 0, "ranking": 0}
    for line in layouts.__doc__.splitlines():
        if line.startswith("kind "):
            kind = line.split('"')[1]
        elif line.startswith("    {"):
            example = re.sub(r"   +\S.*$", "", line.strip())  # cuts the remark behind it
            records, dropped = read(tmp_path, [example], kind)
            assert len(records) == 1 and not dropped, line
            seen[kind] += 1
    assert seen == {"instruction": 9, "preference": 2, "ranking": 1}


def test_messages_keep_thoughts_calls_and_checks_and_lose_other_keys(tmp_path):
    turns = [
        {"role": "system", "content": "Be brief."},
        user("2+3?"),
        CALL,
        {"role": "tool", "content": "5"},
        {"role": "assistant", "think": "it said 5", "content": "5"},
    ]
    tests = {"test_list": ["assert True"], "test_setup_code": ""}
    noisy = [{**turn, "weight": 1, "think": turn.get("think")} for turn in turns]
    records, _ = read(tmp_path, [{"messages": noisy, "answer": "5", "tests": tests, "id": 7}])
    assert records == [{"messages": turns, "answer": "5", "tests": tests}]


def test_gsm8k_steps_are_thought_and_the_number_is_the_answer(tmp_path):
    answer = (
        "She sold 48/2 = <<48/2=24>>24 clips.\nThat makes 48+24 = <<48+24=72>>72.\n#### 1,234,072"
    )
    (record,), _ = read(tmp_path, [{"question": "How many?", "answer": answer}])
    assert record["answer"] == "1234072"
    assert record["messages"] == [
        user("How many?"),
        {
            "role": "assistant",
            "think": "She sold 48/2 = 24 clips.\nThat makes 48+24 = 72.",
            "content": "1234072",
        },
    ]


@pytest.mark.parametrize(
    "last, number",
    [
        ("#### -7", "-7"),
        ("#### 3.50", "3.50"),
        ("#### 3/4", "3/4"),
        ("#### $1,200.", "1200"),
        ("#### .5", ".5"),
    ],
)
def test_gsm8k_numbers_keep_sign_and_fraction(tmp_path, last, number):
    (record,), _ = read(tmp_path, [{"question": "?", "answer": last}])
    assert record == {"messages": [user("?"), assistant(number)], "answer": number}


def test_a_plain_answer_with_a_heading_is_not_taken_for_gsm8k(tmp_path):
    (record,), _ = read(tmp_path, [{"question": "?", "answer": "Text\n#### Summary"}])
    assert record == {"messages": [user("?"), assistant("Text\n#### Summary")]}


def test_mbpp_code_loses_carriage_returns_and_tabs_and_keeps_its_tests(tmp_path):
    row = {
        "text": "Write f.",
        "code": "def f():\r\n\tx = 1\r\n\treturn x",
        "task_id": 1,
        "challenge_test_list": [],
        "test_setup_code": "a = 1\r\n",
        "test_list": ["assert f() == 1", "assert g('\t')"],
    }
    (record,), _ = read(tmp_path, [row])
    assert record["messages"] == [user("Write f."), assistant("def f():\n    x = 1\n    return x")]
    assert record["tests"] == {
        "test_list": ["assert f() == 1", "assert g('\t')"],
        "test_setup_code": "a = 1\n",
    }


def test_every_self_instruct_instance_is_a_record(tmp_path):
    row = {
        "instruction": "Add.",
        "instances": [
            {"input": "2 3", "output": "5"},
            {"input": "", "output": ""},
            {"input": "1 1", "output": "2"},
        ],
    }
    records, dropped = read(tmp_path, [row])
    assert [record["messages"] for record in records] == [
        [user("Add.\n\n2 3"), assistant("5")],
        [user("Add.\n\n1 1"), assistant("2")],
    ]
    assert dropped == {"empty reply": 1}


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"prompt": "Hi", "response": " \n"}, "empty reply"),
        ({"prompt": "Hi", "response": "\u200b"}, "empty reply"),
        ({"prompt": " ", "response": "Hi"}, "empty prompt"),
        ({"messages": [assistant("Hi")]}, "empty prompt"),
        ({"messages": CHAT[:1]}, "no reply at the end"),
    ],
)
def test_instructions_that_teach_nothing_are_dropped_and_counted(tmp_path, row, reason):
    records, dropped = read(tmp_path, [row, {"messages": CHAT}, row])
    assert records == [{"messages": CHAT}] and dropped == {reason: 2}


# Preference pairs


def test_a_transcript_is_split_at_its_last_assistant_turn(tmp_path):
    shared = (
        "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Soup?\n\nHuman is no turn here\n\nAssistant:"
    )
    row = {"chosen": shared + " Boil water.\n\nAdd salt.", "rejected": shared + " No."}
    records, dropped = read(tmp_path, [row], "preference")
    assert dropped == {}
    assert records == [
        {
            "prompt": [user("Hi"), assistant("Hello!"), user("Soup?\n\nHuman is no turn here")],
            "chosen": "Boil water.\n\nAdd salt.",
            "rejected": "No.",
        }
    ]


def hh(*turns):
    return "".join(
        f"\n\n{speaker}: {said}"
        for speaker, said in zip(("Human", "Assistant") * len(turns), turns)
    )


@pytest.mark.parametrize(
    "chosen, rejected, reason",
    [
        (hh("Hi", "A", "Yes", "B"), hh("Hi", "C", "Yes", "B."), "prefix differs"),
        (hh("Hi", "A"), hh("Hi", "A") + "\n\nAssistant: B", "prefix differs"),
        (hh("Hi", "A"), hh("Hi", ""), "empty reply"),
        (hh("Hi", "A"), hh("Hi", "A "), "identical pair"),
        (hh("Hi", "A", "Yes"), hh("Hi", "A", "Yes"), "empty reply"),
        (
            hh("Hi", "A") + "\n\nAssistant: B",
            hh("Hi", "A") + "\n\nAssistant: C",
            "no user turn before the reply",
        ),
        (hh(" ", "A"), hh(" ", "B"), "empty prompt"),
    ],
)
def test_pairs_that_teach_nothing_are_dropped_and_counted(tmp_path, chosen, rejected, reason):
    records, dropped = read(tmp_path, [{"chosen": chosen, "rejected": rejected}], "preference")
    assert records == [] and dropped == {reason: 1}


@pytest.mark.parametrize(
    "prompt, chosen, rejected",
    [
        ("Name a planet.", "Mars.", "The Moon."),
        ([user("Name a planet.")], "Mars.", "The Moon."),
        ("\n\nHuman: Name a planet.\n\nAssistant:", "Mars.", "The Moon."),
        ("Name a planet.", [assistant("Mars.")], [assistant("The Moon.")]),
        (
            "Name a planet.",
            [user("Name a planet."), assistant("Mars.")],
            [user("Name a planet."), assistant("The Moon.")],
        ),
        (
            None,
            [user("Name a planet."), assistant("Mars.")],
            [user("Name a planet."), assistant("The Moon.")],
        ),
        (None, hh("Name a planet.", "Mars."), hh("Name a planet.", "The Moon.")),
        (None, hh("Name a planet.", "Mars.").strip(), hh("Name a planet.", "The Moon.").strip()),
    ],
)
def test_each_preference_layout_becomes_the_same_pair(tmp_path, prompt, chosen, rejected):
    row = {"chosen": chosen, "rejected": rejected} | ({} if prompt is None else {"prompt": prompt})
    assert read(tmp_path, [row], "preference") == (
        [{**PAIR, "prompt": [user("Name a planet.")]}],
        {},
    )


def test_replies_that_differ_in_outer_space_alone_are_identical(tmp_path):
    assert read(tmp_path, [{**PAIR, "rejected": " Mars.\n"}], "preference") == (
        [],
        {"identical pair": 1},
    )


def test_lists_that_repeat_another_prompt_are_dropped(tmp_path):
    row = {
        "prompt": "Hi",
        "chosen": [user("Ho"), assistant("A")],
        "rejected": [user("Ho"), assistant("B")],
    }
    assert read(tmp_path, [row], "preference") == ([], {"prefix differs": 1})


# Rankings


def test_a_ranking_gives_each_response_its_level_and_ties_share_one():
    assert parse_ranking("D > C > A = B", 4) == [2, 2, 1, 0]
    assert parse_ranking("b=a", 2) == [0, 0]


@pytest.mark.parametrize(
    "text, count, what",
    [
        ("A > E", 2, "unknown label 'E'"),
        ("A > AB", 2, "unknown label 'AB'"),
        ("A > > B", 2, "unknown label ''"),
        ("A < B", 2, "unknown label 'A < B'"),
        ("", 2, "unknown label ''"),
        ("A > B > A", 2, "names A twice"),
        ("\u0131 > A", 9, "unknown label '\u0131'"),
        ("\u017f > A", 26, "unknown label '\u017f'"),
        ("\uff21 > B", 2, "unknown label '\uff21'"),
        ("A > C", 4, "leaves out B, D"),
        (["A", "B"], 2, "is a list"),
        ("A", 1, "expected a string for 2 to 26"),
    ],
)
def test_a_ranking_that_is_no_order_of_the_responses_is_refused(text, count, what):
    with pytest.raises(DataError, match=re.escape(what)):
        parse_ranking(text, count)


def test_a_ranking_record_is_checked_and_keeps_its_text(tmp_path):
    records, dropped = read(
        tmp_path, [RANKING, {**RANKING, "responses": ["", "b", "c"]}], "ranking"
    )
    assert records == [{**RANKING, "prompt": [user("Name a planet.")]}]
    assert dropped == {"empty reply": 1}
    assert error_in(tmp_path, {**RANKING, "ranking": "C > A"}, "ranking") == (
        ":1: ranking 'C > A' leaves out B; name each of 3 responses once"
    )


def test_a_pair_is_read_as_a_ranking_of_two(tmp_path):
    pair = {"prompt": "Name a planet.", "chosen": "Mars.", "rejected": "The Moon."}
    records, dropped = read(tmp_path, [RANKING, pair, {**pair, "rejected": "Mars."}], "ranking")
    assert records[1] == {
        "prompt": [user("Name a planet.")],
        "responses": ["Mars.", "The Moon."],
        "ranking": "A > B",
    }
    assert len(records) == 2 and sum(dropped.values()) == 1  # two equal replies teach nothing


# Files


def test_bom_crlf_blank_lines_gzip_and_arrays_all_read_the_same(tmp_path):
    rows = [{"prompt": "caf\u00e9\u2028?", "response": str(i)} for i in range(3)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    plain = "\n".join(lines)
    variants = {
        "a.jsonl": plain.encode(),
        "b.jsonl": ("\ufeff" + plain + "\n").encode(),
        "c.jsonl": ("\r\n\r\n".join(lines) + "\r\n").encode(),
        "d.jsonl.gz": gzip.compress(plain.encode(), mtime=0),
        "unpacked.jsonl.gz": plain.encode(),
        "e.json": ("\ufeff \n[" + ",\n".join(lines) + "]").encode(),
        "f.json": json.dumps(rows, indent=2).encode(),
    }
    for name, data in variants.items():
        (tmp_path / name).write_bytes(data)
        records, _, _ = read_records(tmp_path / name, "instruction")
        assert [record["messages"][1]["content"] for record in records] == ["0", "1", "2"], name
        assert records[0]["messages"][0] == user("caf\u00e9\u2028?"), name


GOOD = '{"prompt": "Hi", "response": "Ho"}\n'


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", ":1: the file holds no record"),
        (b"\n \n", ":1: the file holds no record"),
        (b"[]", ":1: the file holds no record"),
        (GOOD + "\n" + '{"prompt": "Hi", "resp\n', ":3: broken JSON (Unterminated string"),
        ('{\n  "prompt": "Hi",\n  "response": "Ho"\n}\n', ":1: broken JSON"),
        ("[" + GOOD + "," + GOOD + ", {]", ":3: broken JSON"),
        (GOOD + '["a list"]', ":2: the record is a list; expected a JSON object"),
        ('[{"prompt": "Hi", "response": "Ho"}, 3]', ":record 2: the record is a number"),
        (
            '[{"prompt": "Hi", "response": "Ho"}, {"prompt": "Hi"}]',
            ":record 2: no instruction layout",
        ),
        (
            GOOD + '{"prompt": "Hi", "reply": "Ho"}',
            ":2: no instruction layout fits the keys 'prompt', 'reply'; "
            "expected one of: messages | conversations | prompt, response | prompt, completion | "
            "question, answer | instruction, instances | instruction, output | text, code | "
            "prompt, code",
        ),
        (GOOD + "{}", ":2: no instruction layout fits the keys (none)"),
        (GOOD + '{"prompt": "Hi", "response": 3}', ":2: 'response' is a number; expected a string"),
        ('{"prompt": 3, "response": "Ho"}', ":1: 'prompt' is a number; expected a list"),
        ('{"messages": []}', ":1: 'messages' is an empty list"),
        ('{"messages": "Hi"}', ":1: 'messages' is a string; expected a list"),
        ('{"messages": ["Hi"]}', ":1: messages[0] is a string; expected an object"),
        (
            '{"messages": [{"role": "bot", "content": "Hi"}]}',
            ":1: messages[0] has the role 'bot'; expected one of system,",
        ),
        (
            '{"messages": [{"role": "user"}]}',
            ":1: 'messages[0].content' is missing or null; expected a string",
        ),
        (
            '{"messages": [{"role": "user", "content": ["Hi"]}]}',
            ":1: 'messages[0].content' is a list",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}',
            ":1: 'messages[0].tool_calls[0].function.name' is missing or null; expected a string",
        ),
        ('{"instruction": "Hi", "instances": []}', ":1: 'instances' is an empty list"),
        (
            '{"instruction": "Hi", "instances": [{"input": ""}]}',
            ":1: 'output' is missing or null; expected a string",
        ),
        (
            '{"text": "Hi", "code": "x", "test_list": "assert x"}',
            ":1: 'test_list' is a string; expected a list",
        ),
        (
            '{"text": "Hi", "code": "x", "test_list": [1]}',
            ":1: test_list[0] is a number; expected a string",
        ),
        (GOOD.encode() + b'{"prompt": "caf\xe9"}', ":2: byte 0xe9 is not UTF-8"),
        (GOOD.encode("utf-16"), ": the file is UTF-16 text; save it as UTF-8"),
        ('{"prompt": "\\ud83d", "response": "Ho"}', ":1: broken JSON"),
        (gzip.compress(GOOD.encode() * 100, mtime=0)[:-9], ": the gzip data is cut off or damaged"),
        (
            gzip.compress(GOOD.encode(), mtime=0)[:10] + b"\xff" * 20,
            ": the gzip data is cut off or damaged",
        ),
        (gzip.compress(GOOD.encode(), mtime=0) + b"junk", ": the gzip data is cut off or damaged"),
    ],
)
def test_a_broken_instruction_file_is_named_with_its_line(tmp_path, data, message):
    assert error_in(tmp_path, data).startswith(message)


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"prompt": "Hi", "chosen": "A"},
            ":1: no preference layout fits the keys 'prompt', 'chosen'; expected one of: "
            "prompt, chosen, rejected | chosen, rejected",
        ),
        ({"prompt": "Hi", "chosen": "A", "rejected": None}, ":1: 'rejected' is missing or null"),
        ({"chosen": "A", "rejected": "B"}, ":1: 'chosen' starts with 'A'; expected a transcript"),
        (
            {"prompt": "Hi", "chosen": [{**assistant("A"), "think": "so"}], "rejected": "B"},
            ":1: the reply in 'chosen' has",
        ),
    ],
)
def test_a_broken_preference_file_is_named_with_its_line(tmp_path, row, message):
    assert error_in(tmp_path, row, "preference").startswith(message)


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"prompt": "Hi"},
            ":1: no ranking layout fits the keys 'prompt'; "
            "expected one of: prompt, responses, ranking",
        ),
        ({**RANKING, "responses": "abc"}, ":1: 'responses' is a string"),
        ({**RANKING, "responses": ["a", 2, "c"]}, ":1: responses[1] is a number"),
        (
            {**RANKING, "responses": ["a"], "ranking": "A"},
            ":1: 'ranking' is a string for 1 responses",
        ),
    ],
)
def test_a_broken_ranking_file_is_named_with_its_line(tmp_path, row, message):
    assert error_in(tmp_path, row, "ranking").startswith(message)


def test_missing_files_and_directories_are_named(tmp_path):
    assert error_of(tmp_path / "none.jsonl") == (
        ": cannot be read (No such file or directory); expected one readable file"
    )
    assert error_of(tmp_path) == (
        ": no file of the folder can be read, it is empty; expected .jsonl, .json, .csv"
    )


def test_an_error_stays_one_short_line_whatever_the_data(tmp_path):
    assert len(error_in(tmp_path, {"a\nb" * 1000: 1})) < 300
    assert len(error_in(tmp_path, {"chosen": "no\n" * 1000, "rejected": ""}, "preference")) < 250
    assert len(error_in(tmp_path, {**RANKING, "ranking": "A\n" * 1000}, "ranking")) < 250


def test_an_unknown_kind_is_the_callers_mistake(tmp_path):
    with pytest.raises(ValueError, match="expected one of instruction, preference, ranking"):
        read_records(tmp_path / "none.jsonl", "dpo")


def test_plain_text_is_read_with_one_kind_of_line_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9\r\nb\n")
    assert formats.read_text(path) == ("caf\u00e9\nb\n", [])
    for data, message in [
        (b" \n", ":1: the file is empty"),
        (b"a\nb\xff", ":2: byte 0xff is not UTF-8"),
    ]:
        path.write_bytes(data)
        with pytest.raises(DataError, match=re.escape(str(path) + message)):
            formats.read_text(path)


def test_what_is_written_is_utf8_lines_and_is_read_back(tmp_path):
    path = tmp_path / "out.jsonl"
    rows = [{"prompt": "caf\u00e9\u2028", "n": 1.5}, {"a": None}]
    writing.write_jsonl(path, rows)
    assert path.read_bytes() == b'{"prompt": "caf\xc3\xa9\xe2\x80\xa8", "n": 1.5}\n{"a": null}\n'
    assert formats.read_jsonl(path) == rows
    writing.write_jsonl(path, [])
    assert formats.read_jsonl(path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    writing.write_jsonl(path, [{"old": 1}])
    with pytest.raises(TypeError):
        writing.write_jsonl(path, [{"new": 1}, {"new": object()}])
    with monkeypatch.context() as patch:
        patch.setattr(
            writing.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed here"))
        )
        with pytest.raises(OSError):
            writing.write_jsonl(path, [{"new": 1}])
    assert formats.read_jsonl(path) == [{"old": 1}]


def test_the_line_on_dropped_records_counts_the_frequent_reason_first():
    counts = {"identical pair": 2, "empty reply": 4, "prefix differs": 9}
    assert (
        formats.dropped_line(counts)
        == "dropped 15 records: 9 prefix differs, 4 empty reply, 2 identical pair"
    )
    assert formats.dropped_line({"empty reply": 1}) == "dropped 1 record: 1 empty reply"
    assert formats.dropped_line({}) == "dropped 0 records"


# Real records


@pytest.mark.parametrize(
    "name, kind, count, dropped",
    [
        ("gsm8k_train_20.jsonl", "instruction", 20, {}),
        ("mbpp_20.jsonl", "instruction", 20, {}),
        ("self_instruct_20.jsonl", "instruction", 20, {}),
        ("rasbt_20.json", "instruction", 20, {}),
        (
            "hh_rlhf_20.jsonl.gz",
            "preference",
            16,
            {"empty reply": 2, "prefix differs": 1, "identical pair": 1},
        ),
        ("ultrafeedback_10.jsonl", "preference", 7, {"identical pair": 2, "empty reply": 1}),
    ],
)
def test_real_files_are_read_and_survive_a_round_trip(tmp_path, name, kind, count, dropped):
    records, counts, _ = read_records(FIXTURES / name, kind)
    assert len(records) == count and counts == dropped
    writing.write_jsonl(tmp_path / "copy.jsonl", records)
    assert read_records(tmp_path / "copy.jsonl", kind)[:2] == (records, {})


def test_real_gsm8k_answers_are_numbers_and_their_steps_are_clean():
    records, _, _ = read_records(FIXTURES / "gsm8k_train_20.jsonl", "instruction")
    assert [record["answer"] for record in records[:3]] == ["72", "10", "5"]
    for record in records:
        question, reply = record["messages"]
        assert reply["content"] == record["answer"] and float(record["answer"]) >= 0
        assert reply["think"] and not re.search("<<|>>|####", reply["think"])


def test_real_mbpp_programs_parse_after_tidying():
    records, _, _ = read_records(FIXTURES / "mbpp_20.jsonl", "instruction")
    for record in records:
        code = record["messages"][1]["content"]
        ast.parse(code)
        assert not re.search("[\r\t]", code) and len(record["tests"]["test_list"]) == 3


def test_real_pairs_end_their_prompt_with_the_person():
    for name in ("hh_rlhf_20.jsonl.gz", "ultrafeedback_10.jsonl"):
        for pair in read_records(FIXTURES / name, "preference")[0]:
            assert pair["prompt"][-1]["role"] == "user" and pair["chosen"] != pair["rejected"]
            assert not re.search("Human:|Assistant:", str(pair))


# Nothing means something else in silence


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "think"])
def test_reasoning_keys_become_the_thought_of_a_reply(tmp_path, key):
    told = [
        {"messages": [user("2+3?"), assistant("5") | {key: "2+3=5"}]},
        {"prompt": "2+3?", "response": "5", key: "2+3=5"},
        {"question": "2+3?", "answer": "5", key: "2+3=5"},
        {"instruction": "2+3?", "output": "5", key: "2+3=5"},
        {"instruction": "2+3?", "instances": [{"input": "", "output": "5", key: "2+3=5"}]},
    ]
    for row in told:
        (record,), dropped, notes = read_all(tmp_path, [row])
        assert (
            record["messages"] == [user("2+3?"), assistant("5") | {"think": "2+3=5"}]
            and not dropped
            and not notes
        )
        (record,), _, notes = read_all(
            tmp_path, [json.loads(json.dumps(row).replace("2+3=5", " "))]
        )
        assert record["messages"] == CHAT and not notes
    other = {"thinking": "no"} if key != "thinking" else {"think": "no"}
    assert "different thoughts in think" in error_in(tmp_path, {**told[1], **other})


def test_worked_steps_and_a_thought_beside_them_are_refused(tmp_path):
    row = {"question": "?", "answer": "1+1=2\n#### 2", "reasoning": "so"}
    assert error_in(tmp_path, row).startswith(
        ":1: the record has a thought beside the worked steps"
    )


@pytest.mark.parametrize(
    "key, off, on",
    [
        ("weight", 0, 1),
        ("weight", 0.0, 1.0),
        ("train", False, True),
        ("loss", False, True),
        ("trainable", False, None),
    ],
)
def test_a_turn_of_weight_0_says_so_and_one_of_weight_1_is_as_ever(tmp_path, key, off, on):
    turns = [
        user("Hi"),
        assistant("Ho") | {key: off},
        user("2+3?") | {key: off},
        assistant("5") | {key: on},
    ]
    (record,), dropped, notes = read_all(tmp_path, [{"messages": turns}])
    assert (
        record["messages"] == [user("Hi"), assistant("Ho") | {"weight": 0}, *CHAT]
        and not dropped
        and not notes
    )


@pytest.mark.parametrize(
    "turn, message",
    [
        ({"weight": 0.5}, ":1: 'messages[1].weight' is 0.5; expected 0 or 1"),
        ({"train": "no"}, ":1: 'messages[1].train' is 'no'; expected 0 or 1"),
        ({"weight": 1, "train": False}, ":1: messages[1] says both 0 and 1 in weight, train"),
        (
            {"function_call": {"name": "f"}},
            ":1: messages[1] has 'function_call'; expected the call as one string",
        ),
        ({"tools": [{}]}, ":1: messages[1] has 'tools'"),
        (
            {"tool_call": "f 1", "tool_calls": [{"function": {"name": "f"}}]},
            ":1: messages[1] has 'tool_call' and 'tool_calls'; keep one of them",
        ),
    ],
)
def test_a_turn_that_cannot_be_used_as_meant_is_refused(tmp_path, turn, message):
    assert error_in(tmp_path, {"messages": [user("Hi"), assistant("Ho") | turn]}).startswith(
        message
    )


def test_a_pair_whose_reply_is_not_to_be_learned_from_is_dropped(tmp_path):
    row = {"prompt": "Hi", "chosen": [assistant("A") | {"weight": 0}], "rejected": "B"}
    assert read(tmp_path, [row], "preference") == ([], {"a reply of weight 0": 1})


@pytest.mark.parametrize("key", ["functions", "function_call", "tool_calls"])
@pytest.mark.parametrize(
    "row, kind",
    [
        ({"messages": CHAT}, "instruction"),
        ({"prompt": "Hi", "response": "Ho"}, "instruction"),
        (PAIR, "preference"),
        (RANKING, "ranking"),
    ],
)
def test_tools_in_another_place_are_refused_with_their_line_and_empty_ones_say_nothing(
    tmp_path, row, kind, key
):
    assert error_in(tmp_path, {**row, key: [{"name": "f"}]}, kind).startswith(
        f":1: the record has '{key}'"
    )
    for empty in (None, [], {}, "[]", ""):
        records, dropped, notes = read_all(tmp_path, [{**row, key: empty}], kind)
        assert len(records) == 1 and not dropped and not notes


def test_system_and_history_come_first(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    before = [system, user("Hi"), assistant("Ho")]
    columns = {"system": "Be brief.", "history": [["Hi", "Ho"]]}
    rows = [
        {"messages": CHAT},
        {"prompt": "2+3?", "response": "5"},
        {"question": "2+3?", "answer": "5"},
        {"instruction": "2+3?", "output": "5"},
        {"instruction": "2+3?", "instances": [{"output": "5"}]},
    ]
    for row in rows:
        for history in ([["Hi", "Ho"]], before[1:]):
            (record,), _, notes = read_all(tmp_path, [{**row, **columns, "history": history}])
            assert record["messages"] == before + CHAT and not notes
        assert read(tmp_path, [{**row, "system": "", "history": []}])[0][0]["messages"] == CHAT
    for row, kind in ((PAIR, "preference"), (RANKING, "ranking")):
        (record,), _ = read(tmp_path, [{**row, **columns}], kind)
        assert record["prompt"] == before + [user("Name a planet.")]
    (record,), _ = read(tmp_path, [{"messages": [system, *CHAT], **columns}])
    assert record["messages"] == before + CHAT  # the system turn is said once
    assert ":1: 'system' and the system turn of the messages differ" in error_in(
        tmp_path, {"messages": [system, *CHAT], "system": "Be long."}
    )
    assert ":1: history[0] is a list; expected [question, reply]" in error_in(
        tmp_path, {"messages": CHAT, "history": [["Hi"]]}
    )


def test_every_other_key_is_named_once_with_its_count(tmp_path):
    turns = [user("2+3?") | {"name": "Tom", "think": "hm"}, assistant("5") | {"id": 1}]
    rows = [{"messages": turns, "id": k, "source": "x", "score": None} for k in range(3)]
    _, _, notes = read_all(tmp_path, rows)
    assert notes[0] == (
        ": ignored keys: 'id' 3 times, 'id' of an assistant turn 3 times, "
        "'name' of a user turn 3 times, 'source' 3 times, 'think' of a user turn 3 times"
    )
    row = {"instruction": "Add.", "instances": [{"output": "5", "note": 1}], "tests": 1}
    assert read_all(tmp_path, [row])[2] == [
        ": ignored keys: 'note' of an instance 1 time, 'tests' 1 time"
    ]
    assert read_all(tmp_path, [{**PAIR, "margin": 2}], "preference")[2] == [
        ": ignored keys: 'margin' 1 time"
    ]
    assert read_all(tmp_path, [{**RANKING, "margin": 2}], "ranking")[2] == [
        ": ignored keys: 'margin' 1 time"
    ]
    many = read_all(tmp_path, [{**PAIR, **{f"k{n}": 1 for n in range(40)}}], "preference")[2][0]
    assert many.endswith("and 28 other keys") and len(many) < 300


def test_an_empty_reply_in_the_middle_teaches_nothing_either(tmp_path):
    turns = [user("Hi"), assistant(""), user("Hello?"), assistant("Ho")]
    assert read(tmp_path, [{"messages": turns}]) == ([], {"empty reply": 1})
    turns[1]["weight"] = 0
    assert len(read(tmp_path, [{"messages": turns}])[0]) == 1


@pytest.mark.parametrize(
    "text, what",
    [
        ("<|im_start|>user\nHi<|im_end|>", "a chat mark, '<|im_start|>'"),
        ("<s>[INST] Hi [/INST]", "a chat mark, '[INST]'"),
        ("<start_of_turn>user\nHi", "a chat mark, '<start_of_turn>'"),
        ("Human: Hi\nAssistant:", "a speaker's label, 'Human:'"),
        ("### Instruction:\nHi", "a speaker's label, '### Instruction:'"),
    ],
)
def test_a_dialogue_that_is_rendered_already_is_said_with_its_line_and_count(tmp_path, text, what):
    for row, kind in (
        ({"prompt": text, "response": "Ho"}, "instruction"),
        ({"instruction": "Hi", "output": text}, "instruction"),
        ({**PAIR, "prompt": text}, "preference"),
        ({**PAIR, "rejected": text}, "preference"),
        ({**RANKING, "responses": ["a", text, "c"]}, "ranking"),
    ):
        plain = {
            key: value if isinstance(value, list) else "Hi" + key
            for key, value in row.items()
            if key != "ranking"
        }
        plain |= {"responses": ["a", "b", "c"], "ranking": "A > B > C"} if kind == "ranking" else {}
        notes = read_all(
            tmp_path, [plain, row, {**row, "prompt": text + "?"} if "prompt" in row else row], kind
        )[2]
        assert notes[0].startswith(f":2: the text holds {what}, in 2 of 3 records, here first"), (
            row,
            notes,
        )


def test_a_labelled_prompt_of_either_spelling_is_a_dialogue(tmp_path):
    for prompt in (
        "\n\nHuman: Name a planet.\n\nAssistant:",
        "Human: Name a planet.\n\nAssistant:",
    ):
        assert read_all(tmp_path, [{**PAIR, "prompt": prompt}], "preference") == (
            [{**PAIR, "prompt": [user("Name a planet.")]}],
            {},
            [],
        )


@pytest.mark.parametrize(
    "start, form",
    [
        (b"PAR1\x15\x04", "a Parquet file; write it as JSONL"),
        (b"PK\x03\x04\x14", "a zip archive; unpack it"),
        (b"BZh91AY&SY", "packed with bzip2; unpack it with bunzip2"),
        (b"\xfd7zXZ\x00\x00", "packed with xz; unpack it with unxz"),
        (b"\x28\xb5\x2f\xfd", "packed with zstd"),
        (b"ARROW1\0\0", "an Arrow file"),
        (b"x" * 257 + b"ustar", "a tar archive"),
        ("\ufeffHi".encode("utf-16-le"), "UTF-16 text; save it as UTF-8"),
        ("\ufeffHi".encode("utf-16-be"), "UTF-16 text"),
        ("Hi".encode("utf-16-le"), "UTF-16 text or no text"),
        ("\ufeffHi".encode("utf-32-le"), "UTF-32 text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a Git LFS pointer, not the data; fetch the data with git lfs pull",
        ),
    ],
)
def test_a_file_of_another_form_is_named_by_its_first_bytes_with_the_remedy(tmp_path, start, form):
    for name, data in (("a.jsonl", start), ("a.jsonl.gz", gzip.compress(start, mtime=0))):
        assert error_in(tmp_path, data, name=name).startswith(f": the file is {form}")
        with pytest.raises(DataError, match=re.escape(f"{name}: the file is {form}")):
            formats.read_text(tmp_path / name)


def test_records_of_text_are_read_for_pretraining(tmp_path):
    rows = [{"text": "One.\r\n", "id": 1}, {"text": " "}, {"text": "Two."}]
    lines = "\n".join(map(json.dumps, rows))
    for name, data in (
        ("a.jsonl", lines),
        ("a.txt", lines),
        ("a.json", json.dumps(rows, indent=1)),
        ("b.txt", json.dumps(rows)),
    ):
        path = tmp_path / name
        path.write_text(data)
        text, notes = formats.read_text(path)
        assert text == "One.\n\n\nTwo."
        assert notes == [
            f"{path}: ignored keys: 'id' 1 time",
            f"{path}: dropped 1 record: 1 empty text",
        ]
    for name, data, message in (
        (
            "a.jsonl",
            '{"text": "a"}\n{"content": "b"}',
            ":2: 'text' is missing or null; expected a string; for pretraining",
        ),
        ("a.txt", '{"messages": []}\n', ":1: 'text' is missing"),
        ("a.jsonl", "plain", ":1: broken JSON"),
        ("a.jsonl", '{"text": ""}', ":1: no record holds text"),
    ):
        (tmp_path / name).write_text(data)
        with pytest.raises(DataError, match=re.escape(str(tmp_path / name) + message)):
            formats.read_text(tmp_path / name)
    for plain in ("[Scene 1]\nEnter.\n", "{x} is a set\n", "[1, 2]\n", "{\n"):
        (tmp_path / "a.txt").write_text(plain)
        assert formats.read_text(tmp_path / "a.txt") == (plain, [])


@pytest.mark.parametrize(
    "responses, ranking, kept",
    [
        (["a", "a"], "A > B", False),
        (["a", " a\n"], "A > B", False),
        (["a", "a"], "A = B", False),
        (["a", "b", "a"], "A > B > C", False),
        (["a", "b", "a"], "A = C > B", True),
        (["a", "b"], "A = B", True),
    ],
)
def test_rankings_that_set_a_response_above_itself_are_dropped_and_counted(
    tmp_path, responses, ranking, kept
):
    records, dropped = read(
        tmp_path, [{"prompt": "Hi", "responses": responses, "ranking": ranking}], "ranking"
    )
    assert len(records) == kept and dropped == ({} if kept else {"equal responses": 1})


# full-width A, dotless i, long s, Cyrillic A
@pytest.mark.parametrize("label", ["\uff21", "\u0131", "\u017f", "\u0410"])
def test_labels_of_other_alphabets_are_refused(label):
    text = " > ".join("ABCDEFGHIJKLMNOPQRST")
    for plain in "AIS":
        with pytest.raises(DataError, match="unknown label"):
            parse_ranking(text.replace(plain, label), 20)


BELOW = "score_chosen is below score_rejected in "
AS_THEY_STAND = "; all are learned as they stand"
SWAP = AS_THEY_STAND + "; swap their replies, or take them out"


@pytest.mark.parametrize(
    "scores, told",
    [
        ([(8, 7), (6.5, 7), (3, 4)], ":2: " + BELOW + "2 of 3 records, here first" + SWAP),
        (
            [(5, 5), (6, 7)],
            ":2: " + BELOW + "1 of 2 records, here first, and equals it in 1" + SWAP,
        ),
        (
            [(8, 7), (5, 5.0)],
            ":2: score_chosen equals score_rejected in 1 of 2 records, here first" + AS_THEY_STAND,
        ),
        ([(8, 7), (7, 6)], None),
        ([("1", "2"), (None, 3), (True, 2), (math.nan, 1)], None),
    ],
)
@pytest.mark.parametrize("kind", ["preference", "ranking"])
@pytest.mark.parametrize("place", ["record", "metadata"])
def test_a_pair_whose_scores_say_the_opposite_is_said(tmp_path, scores, told, kind, place):
    rows = []
    for k, (chosen, rejected) in enumerate(scores):
        held = {"score_chosen": chosen, "score_rejected": rejected}
        row = {"prompt": str(k), "chosen": "a", "rejected": "b"}
        rows.append(row | (held if place == "record" else {"metadata": held}))
    records, _, notes = read_all(tmp_path, rows, kind)
    assert len(records) == len(rows)
    assert [note for note in notes if "ignored" not in note] == ([told] if told else [])


def test_the_scores_of_a_dropped_pair_count_nothing(tmp_path):
    row = {"prompt": "a", "chosen": "", "rejected": "b", "score_chosen": 1, "score_rejected": 2}
    assert not any("below" in note for note in read_all(tmp_path, [row], "preference")[2])


@pytest.mark.parametrize(
    "replies, told",
    [
        (["Ho", "He"], "1 record repeats only the prompt of an earlier one"),
        (["Ho", "He", "Ha"], "2 records repeat only the prompt of an earlier one"),
        (["Ho", "Ho"], "1 record repeats an earlier one"),
        (["Ho", "Ho", "Ho"], "2 records repeat an earlier one"),
        (["Ho", "Ho", "He"], "1 record repeats an earlier one, 1 more only its prompt"),
    ],
)
def test_a_line_on_repeats_leaves_out_what_there_is_none_of(tmp_path, replies, told):
    rows = [{"prompt": "Hi", "response": reply} for reply in replies]
    assert read_all(tmp_path, rows)[2] == [
        f": {told}; records of one prompt are trained on together or held out together"
    ]


def test_repeated_records_are_counted(tmp_path):
    rows = [{"prompt": "Hi", "response": "Ho"}] * 3 + [
        {"prompt": "Hi ", "response": "He"},
        {"prompt": "2", "response": "2"},
    ]
    assert read_all(tmp_path, rows)[2] == [
        ": 2 records repeat an earlier one, 1 more only its prompt; "
        "records of one prompt are trained on together or held out together"
    ]


def test_an_opening_is_what_is_said_before_the_first_reply():
    assert (
        formats.opening(
            [
                {"role": "system", "content": "Be  brief."},
                user("Hi\nTom"),
                assistant("Ho"),
                user("?"),
            ]
        )
        == "Be brief.\nHi Tom"
    )
