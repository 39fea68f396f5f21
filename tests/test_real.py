"""Real files in place of the world: what is read, held out, dropped, and how a reply is checked."""

import gzip
import json

import pytest

from data import world
from data.files import formats, real, writing
from data.files.tokenizer import Reply


def record(k: int) -> dict:
    return {
        "question": f"What is {k} + {k}?",
        "answer": f"{k} + {k} = <<{k}+{k}={2 * k}>>{2 * k}\n#### {2 * k}",
    }


def program(k: int) -> dict:
    return {
        "text": f"Write a function that adds {k}.",
        "code": f"def add(x):\r\n\treturn x + {k}",
        "test_list": [f"assert add(1) == {1 + k}", f"assert add(5) == {5 + k}"],
        "test_setup_code": "",
        "task_id": k,
    }


def pair(k: int) -> dict:
    return {"prompt": f"Name fruit number {k}.", "chosen": f"Plum {k}.", "rejected": "No."}


def sanitized(k: int) -> dict:
    """A record of MBPP's sanitized file; its test needs what it imports."""
    return {
        "prompt": f"Write a function that adds {k}.",
        "code": f"def add(x):\n    return x + {k}",
        "test_imports": ["import math"],
        "test_list": [f"assert add(math.floor(1.5)) == {1 + k}"],
    }


@pytest.fixture
def folder(tmp_path):
    for name, make in (("math", record), ("code", program), ("preference", pair)):
        writing.write_jsonl(tmp_path / f"{name}.jsonl", [make(k) for k in range(100)])
    return tmp_path


def test_a_twentieth_by_the_text_is_held_out_and_never_demonstrated(folder):
    read = real.read_folder(folder)
    for domain in real.DOMAINS:
        train, test = read.tasks["train"][domain], read.tasks["test"][domain]
        assert len(train) + len(test) == 100 and 1 <= len(test) <= 15
        shown = {record["messages"][-2]["content"] for record in read.demonstrations[domain]}
        assert shown == {task.prompt for task in train}
        assert not shown & {task.prompt for task in test}
    assert read.demonstrations["chat"][0]["messages"][-1]["content"].startswith("Plum")


def test_a_test_file_is_the_test_part_and_files_may_be_gzipped(folder):
    (folder / "math_test.jsonl").write_text(json.dumps(record(500)) + "\n")
    with gzip.open(folder / "preference.jsonl.gz", "wt") as file:
        file.write((folder / "preference.jsonl").read_text())
    (folder / "preference.jsonl").unlink()
    read = real.read_folder(folder)
    assert [task.answer for task in read.tasks["test"]["math"]] == ["1000"]
    assert len(read.tasks["train"]["math"]) == 100
    assert len(read.pairs) == 100


def test_own_instructions_take_the_place_of_the_chosen_replies(folder):
    (folder / "chat.jsonl").write_text(
        '{"instruction": "Greet.", "input": "", "output": "Hello."}\n'
    )
    assert [
        one["messages"][-1]["content"] for one in real.read_folder(folder).demonstrations["chat"]
    ] == ["Hello."]


def test_an_mbpp_prompt_shows_its_first_test_alone(folder):
    task = real.read_folder(folder).tasks["train"]["code"][0]
    assert (
        "assert add(1) ==" in task.prompt and "add(5)" not in task.prompt and len(task.tests) == 2
    )


def test_sanitized_mbpp_is_checked_with_what_its_tests_import(folder):
    writing.write_jsonl(folder / "code.jsonl", [sanitized(k) for k in range(100)])
    read = real.read_folder(folder)
    task, shown = read.tasks["train"]["code"][0], read.demonstrations["code"][0]["messages"]
    assert task.prompt == shown[0]["content"] and "assert add(math.floor(1.5)) ==" in task.prompt
    told = [shown[1]["content"], "def add(x):\n    return 0"]
    assert world.score_replies([task] * 2, [Reply(text) for text in told]) == [1, 0]


def test_pairs_with_tools_are_for_the_reward_model_alone(folder):
    tools = [{"type": "function", "function": {"name": "age"}}]
    writing.write_jsonl(
        folder / "preference.jsonl",
        [pair(k) | ({"tools": tools} if k < 30 else {}) for k in range(100)],
    )
    read = real.read_folder(folder)
    assert len(read.pairs) == 100 and read.pairs[0]["prompt"][0]["tools"] == tools
    assert sum(len(tasks["chat"]) for tasks in read.tasks.values()) == 70
    assert read.dropped == {"pairs with tools in the prompt, for all but the reward model": 30}


def test_a_reply_that_broke_off_is_wrong_and_chat_has_no_truth():
    task = real.Task("math", "?", (("user", "?"),), "72")
    chat = real.Task("chat", "Hi", (("user", "Hi"),))
    assert world.score_replies(
        [task, chat, chat],
        [Reply("72", complete=False), Reply("Hello"), Reply("Hello", complete=False)],
    ) == [0.0, None, 0.0]


def test_programs_run_in_the_sandbox_with_or_without_a_fence():
    task = real.Task(
        "code", "?", (("user", "?"),), tests=(("f(2)", 4), ("f(3)", 9)), setup="UNIT = 1"
    )
    replies = [
        "def f(x): return x * x * UNIT",
        "Sure:\n```python\ndef f(x):\n    return x * x\n```\nDone.",
        "def f(x): return 4",
        "Sure, here it is.",
    ]
    assert world.score_replies([task] * 4, [Reply(text) for text in replies]) == [1, 1, 0, 0]


@pytest.mark.parametrize("name", ["math", "code", "preference"])
def test_a_missing_file_is_named(folder, name):
    (folder / f"{name}.jsonl").unlink()
    with pytest.raises(formats.DataError, match=f"{name}.jsonl: no such file") as caught:
        real.read_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_broken_line_is_named_with_its_file(folder):
    with open(folder / "code.jsonl", "a") as file:
        file.write("{broken\n")
    with pytest.raises(formats.DataError, match="code.jsonl:101"):
        real.read_folder(folder)


def test_records_that_nothing_checks_are_counted_and_a_file_of_nothing_else_is_refused(folder):
    (folder / "math.jsonl").write_text('{"question": "Why?", "answer": "Because."}\n')
    with pytest.raises(
        formats.DataError, match="math.jsonl: nothing that can be checked is left to train on"
    ):
        real.read_folder(folder)


@pytest.mark.parametrize("wrong", ["print(add(1))", "assert add(1) = 2"])
def test_a_test_that_is_no_assert_drops_its_record(folder, wrong):
    writing.write_jsonl(
        folder / "code.jsonl",
        [program(k) | ({"test_list": [wrong]} if k % 2 else {}) for k in range(100)],
    )
    read = real.read_folder(folder)
    assert (
        sum(len(tasks["code"]) for tasks in read.tasks.values()) == 50
        and read.dropped["a test that is no assert"] == 50
    )


def test_long_prompts_are_left_out_and_counted(folder):
    read = real.read_folder(folder)
    real.drop_long(read, lambda messages: len(messages[-1]["content"]), 60)
    assert all(
        len(task.prompt) <= 60
        for part in read.tasks.values()
        for tasks in part.values()
        for task in tasks
    )
    assert (
        read.tasks["train"]["code"] == []
        and read.dropped["prompts of more than 60 tokens, for RL and evaluation"] == 100
        and read.tasks["train"]["math"]
    )


def test_a_test_file_that_repeats_training_prompts_is_said_and_they_are_not_trained_on(folder):
    writing.write_jsonl(folder / "math_test.jsonl", [record(k) for k in (3, 4, 500)])
    read = real.read_folder(folder)
    assert (
        f"{folder / 'math_test.jsonl'}: 2 records of math.jsonl repeat its prompts "
        "and are not trained on" in read.notes
    )
    trained = {task.prompt for task in read.tasks["train"]["math"]}
    assert len(trained) == len(read.demonstrations["math"]) == 98
    assert not trained & {task.prompt for task in read.tasks["test"]["math"]}


def test_what_one_file_holds_out_no_other_file_trains_on(folder):
    held = [task.prompt for task in real.read_folder(folder).tasks["test"]["math"]]
    chats = [{"prompt": prompt, "response": "Two."} for prompt in [*held, "Hi"]]
    writing.write_jsonl(folder / "chat.jsonl", chats)
    read = real.read_folder(folder)
    assert [one["messages"][0]["content"] for one in read.demonstrations["chat"]] == ["Hi"]
    assert read.dropped == {"prompts of another file's held-out part": len(held)}


def test_copies_of_a_prompt_are_on_one_side(folder):
    writing.write_jsonl(
        folder / "preference.jsonl",
        [pair(k) | {"chosen": f"{n}"} for n in range(5) for k in range(40)],
    )
    read = real.read_folder(folder)
    train, test = ({task.prompt for task in read.tasks[part]["chat"]} for part in ("train", "test"))
    assert train and test and not train & test and len(read.tasks["test"]["chat"]) == 5 * len(test)
    assert len(read.notes) == 2 and "code.jsonl: ignored keys: 'task_id' 100 times" in read.notes[0]
    assert "preference.jsonl: 160 records repeat only the prompt of an earlier one" in read.notes[1]


def test_an_mbpp_prompt_is_the_same_one_whichever_of_its_tests_comes_first(folder):
    turned = [one | {"test_list": one["test_list"][::-1]} for one in map(program, range(40))]
    writing.write_jsonl(folder / "code.jsonl", [*map(program, range(40)), *turned])
    read = real.read_folder(folder)
    train, test = (
        {task.prompt.split("\n")[0] for task in read.tasks[part]["code"]}
        for part in ("train", "test")
    )
    assert train and test and not train & test and len(train | test) == 40

    writing.write_jsonl(folder / "code_test.jsonl", turned[:3])
    read = real.read_folder(folder)
    assert len(read.tasks["train"]["code"]) == len(read.demonstrations["code"]) == 80 - 6
    assert not {task.prompt.split("\n")[0] for task in read.tasks["train"]["code"]} & {
        one["text"] for one in turned[:3]
    }


def test_a_question_that_math_or_code_holds_out_is_in_no_pair_and_no_chat(folder):
    read = real.read_folder(folder)
    held = [
        read.tasks["test"]["math"][0].prompt,
        read.tasks["test"]["code"][0].prompt.split("\n")[0],
    ]
    more = [{"prompt": prompt, "chosen": "Yes.", "rejected": "No."} for prompt in held]
    writing.write_jsonl(folder / "preference.jsonl", [*map(pair, range(100)), *more])
    read = real.read_folder(folder)
    prompts = [one["prompt"][-1]["content"] for one in read.pairs]
    assert len(prompts) == 100 and not set(prompts) & set(held)
    assert not {one["messages"][-2]["content"] for one in read.demonstrations["chat"]} & set(held)
    assert read.dropped["pairs of another file's held-out prompts"] == 2
