"""CSV files, folders, `python -m data.files.formats FILE`, and what a refused command leaves."""

import gzip
import json
import sys

import pytest
import torch

from data.files import formats, preview
from data.files.checkpoints import save_checkpoint
from data.files.formats import DataError, read_records
from data.runtime import command

ASK = {"role": "user", "content": "How old is Tom?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def assistant(text):
    return {"role": "assistant", "content": text}


def write(folder, *rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(path, kind="instruction"):
    """The message, behind the file's name, with which a file is refused."""
    with pytest.raises(DataError) as caught:
        read_records(path, kind)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)), message
    return message[len(str(path)) :]


# ---- CSV ----


def test_a_csv_has_the_keys_in_its_first_row(tmp_path):
    text = 'prompt,response,id\r\n"Say ""a, b""\nnow",a,7\r\n\r\nHi,,8\r\n'
    for name, data in (
        ("a.csv", b"\xef\xbb\xbf" + text.encode()),
        ("a.csv.gz", gzip.compress(text.encode())),
    ):
        (tmp_path / name).write_bytes(data)
        records, dropped, notes = read_records(tmp_path / name, "instruction")
        asked = {"role": "user", "content": 'Say "a, b"\nnow'}
        assert records == [{"messages": [asked, assistant("a")]}]
        assert dropped == {"empty reply": 1} and notes[0].endswith("ignored keys: 'id' 2 times")


def test_a_list_in_a_csv_is_json(tmp_path):
    path = tmp_path / "a.csv"
    quoted = json.dumps([ASK, assistant("31")]).replace('"', '""')
    path.write_text(f'messages,tools\n"{quoted}",\n')
    assert read_records(path, "instruction")[0] == [{"messages": [ASK, assistant("31")]}]
    path.write_text("messages\n[ASK]\n")
    assert (
        refused(path) == ":2: 'messages' is '[ASK]'; in a CSV it is a list as JSON, or give JSONL"
    )


def test_a_prompt_in_a_csv_is_text_or_a_json_list_of_messages(tmp_path):
    path = tmp_path / "a.csv"
    quoted = json.dumps([SYSTEM, ASK]).replace('"', '""')
    path.write_text(f'prompt,completion\n"{quoted}",31\n"[1, {{2}}]",3\n')
    records = read_records(path, "instruction")[0]
    listed = {"role": "user", "content": "[1, {2}]"}
    messages = [[SYSTEM, ASK, assistant("31")], [listed, assistant("3")]]
    assert [record["messages"] for record in records] == messages
    path.write_text(f'prompt,completion\n"{[ASK]}",31\n')  # Python's own spelling
    assert refused(path).startswith(":2: 'prompt' is ")


@pytest.mark.parametrize(
    "text, message",
    [
        ("prompt,response\na,b\nc\n", ":3: the row has 1 cells and the header 2; put a cell that"),
        ('prompt,response\na,"b\nc,d\n', ":2: broken CSV (unexpected end of data); expected"),
        ("prompt,prompt\na,b\n", ":1: the header names a column twice; rename one"),
        ("prompt;response\na;b\n", ":2: no instruction layout fits the keys 'prompt;response'"),
        ('prompt,response\n"a\nb",c\n,d,e\n', ":4: the row has 3 cells and the header 2"),
        ("prompt,response\n", ":1: the file holds no record"),
    ],
)
def test_a_broken_csv_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert refused(path).startswith(message)


# ---- folders ----


def test_a_folder_is_read_whole_by_the_order_of_names_and_says_what_it_does_not_read(tmp_path):
    write(tmp_path, {"prompt": "b", "response": "2", "id": 1}, name="2.jsonl")
    write(tmp_path, {"prompt": "a", "response": "1", "id": 1}, name="1.json")
    (tmp_path / "3.csv").write_text("question,answer\nc,3\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "README.md").write_text("Data.")
    (tmp_path / ".hidden").write_text("")
    records, _, notes = read_records(tmp_path, "instruction")
    assert [record["messages"][1]["content"] for record in records] == ["1", "2", "3"]
    assert notes[0].startswith(
        f"{tmp_path}: not read: README.md (another ending), more (a folder), x.parquet "
        "(a Parquet file: write it as JSONL: python -c"
    )
    assert notes[1:] == [f"{tmp_path}: ignored keys: 'id' 2 times"]
    (tmp_path / "4.jsonl").write_text('{"prompt": "a", "response": "b"}\n{\n')
    assert refused(tmp_path).startswith("/4.jsonl:2: broken JSON")


def test_a_folder_without_a_file_that_can_be_read_is_refused(tmp_path):
    (tmp_path / "x.md").write_text("")
    assert refused(tmp_path) == (
        ": no file of the folder can be read, it holds x.md (another ending); "
        "expected .jsonl, .json, .csv"
    )


def test_the_texts_of_a_folder_are_joined_for_pretraining(tmp_path):
    (tmp_path / "b.txt").write_text("Two.\n")
    write(tmp_path, {"text": "One."}, {"text": "Half."}, name="a.jsonl")
    (tmp_path / "c.csv").write_text("text\nThree.\n")
    (tmp_path / "d.md").write_text("No.")
    text, notes = formats.read_text(tmp_path)
    assert text == "One.\n\nHalf.\n\nTwo.\n\n\nThree."
    assert notes == [f"{tmp_path}: not read: d.md (another ending)"]


# ---- python -m data.files.formats ----


def told_of(monkeypatch, capsys, *flags):
    """(exit code, lines of stdout, stderr) of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["formats", *map(str, flags)])
    code = 0
    try:
        preview.main()
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    return code, told.out.splitlines(), told.err


def test_the_command_says_what_a_file_is_and_shows_a_record(tmp_path, monkeypatch, capsys):
    long = {"prompt": "9" * 300, "response": "b"}
    rows = [{"prompt": "a", "response": ""}, {"prompt": "Bye", "response": "So", "id": 1}, long]
    path = write(tmp_path, *rows, {"question": "Hi", "answer": "Ho"})
    lines = [
        f"{path}: 4 records, layouts: prompt, response (3) | question, answer (1)",
        "dialogues, for sft.py --data: 2 to learn from, dropped 2 records: 1 empty reply, "
        "1 longer than the context of 256 tokens",
        f"{path}: ignored keys: 'id' 1 time",
        "tokens of a row: median 6, longest 6",
    ]
    first = [
        f"record 1 of 2, {path}:2, supervised tokens in brackets:",
        "<|user|>Bye<|assistant|>[S][o][<|end|>]",
    ]
    code, out, err = told_of(monkeypatch, capsys, path)
    assert (code, out[:3], out[4:], err) == (0, lines[:3], first, "")
    assert out[3].startswith("tokens of a row: median ")
    second = told_of(monkeypatch, capsys, path, "--show", 2)[1]
    assert second[4:] == [
        f"record 2 of 2, {path}:4, supervised tokens in brackets:",
        "<|user|>Hi<|assistant|>[H][o][<|end|>]",
    ]
    assert told_of(monkeypatch, capsys, path, "--show", 3)[::2] == (
        2,
        "error: --show 3: 2 records can be learned from\n",
    )


def test_the_command_shows_both_replies_of_a_pair_and_who_can_use_it(tmp_path, monkeypatch, capsys):
    path = write(tmp_path, {"prompt": "Hi", "chosen": "Ho", "rejected": "So"})
    code, out, _ = told_of(monkeypatch, capsys, path)
    assert code == 0 and out[1:3] == [
        "pairs, for dpo.py --data: 1 to learn from",
        "rankings, for reward_model.py --data: 1 to learn from",
    ]
    assert out[-2:] == [
        "chosen: <|user|>Hi<|assistant|>[H][o][<|end|>]",
        "rejected: <|user|>Hi<|assistant|>[S][o][<|end|>]",
    ]
    ranking = {"prompt": "Hi", "responses": ["Ho", "So"], "ranking": "B > A"}
    out = told_of(monkeypatch, capsys, write(tmp_path, ranking))[1]
    assert out[-3] == "ranking: B > A" and out[-1].startswith("B: <|user|>Hi<|assistant|>[S]")


def test_the_command_knows_a_text(tmp_path, monkeypatch, capsys):
    path = write(tmp_path, {"text": "12345678" * 50})
    code, out, _ = told_of(monkeypatch, capsys, path)
    assert code == 0 and out[:2] == [
        f"{path}: plain text of 400 characters",
        "text, for sft.py --pretrain --data: 3 rows of 128 tokens to learn from",
    ]
    assert out[3].startswith("[<|end|>][1][2][3]")


def test_the_command_takes_tokenizer_and_context_of_a_checkpoint(
    tmp_path, monkeypatch, capsys, tokenizer, tiny_model
):
    save_checkpoint(tmp_path / "a.pt", tiny_model, tokenizer, "sft")  # a context of 128 tokens
    path = write(tmp_path, {"prompt": "9" * 200, "response": "b"})
    assert told_of(monkeypatch, capsys, path)[0] == 0
    code, out, err = told_of(monkeypatch, capsys, path, "--init", tmp_path / "a.pt")
    assert code == 2 and "1 longer than the context of 128 tokens" in out[1]
    assert err == f"error: {path}: no record is left to learn from\n"
    torch.save({"weights": 1}, tmp_path / "other.pt")
    code, _, err = told_of(monkeypatch, capsys, path, "--init", tmp_path / "other.pt")
    assert code == 2 and err.endswith("other.pt: not a checkpoint of this project\n")


@pytest.mark.parametrize("text", ["", "{}\n", '{"prompt": "a", "completion": "b", "label": 1}\n'])
def test_the_command_refuses_what_training_would_refuse_in_one_line(
    tmp_path, monkeypatch, capsys, text
):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    code, out, err = told_of(monkeypatch, capsys, path)
    assert code == 2 and out == [] and err.count("\n") == 1
    assert err.startswith(f"error: {path}:1: ")


# ---- a refused command ----


def test_a_refused_command_leaves_no_empty_folder(tmp_path):
    def refuse(where):
        command.out_folder(where)
        raise ValueError("refused")

    (tmp_path / "there").mkdir()
    for place in ("runs/dpo", "there"):
        with pytest.raises(SystemExit):
            command.guarded(refuse, tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]

    def leave(where):
        (command.out_folder(where) / "dpo.csv").write_text("")

    command.guarded(leave, tmp_path / "runs/dpo")
    assert [path.name for path in (tmp_path / "runs/dpo").iterdir()] == ["dpo.csv"]
