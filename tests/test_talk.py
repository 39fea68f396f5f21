"""python model.py CHECKPOINT ...: questions typed, by a pipe or by --prompt, to one or several."""

import io
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import model as models
from data.files import hf_tokenizer
from data.files import tokenizer as tokenizers
from data.files.checkpoints import save_checkpoint
from data.runtime import talk
from dpo import sequence_logprobs
from model import GPT, Config

WIDTH = 4


def answering(tokenizer, context=128, **answers) -> GPT:
    """A model that answers everything by one token: answers={"7": p, ..}, keys after a letter.

    Its blocks add nothing, so the next token depends on the last one alone: after the assistant's
    header it is drawn with the probabilities given, and after that the reply ends.
    """
    model = GPT(Config(tokenizer.vocab_size, context, 1, WIDTH, 2, 1, 8, tied=False))
    model.init_weights(0)
    header = tokenizer.headers["assistant"][-1]
    said = {tokenizer.encode(name[1:])[0]: p for name, p in answers.items()}
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.embedding.weight[:, 0] = 1.0  # one-hot: what the last token was
        model.embedding.weight[[header, *said]] = 0.0
        model.embedding.weight[header, 1] = 1.0
        model.embedding.weight[list(said), 2] = 1.0
        model.head.weight.fill_(-100.0)
        for token, p in said.items():
            model.head.weight[token, 1] = math.log(p) / math.sqrt(WIDTH)  # RMSNorm's factor
        model.head.weight[tokenizer.end_id, 2] = 0.0
    return model


@pytest.fixture
def checkpoints(tokenizer, tmp_path) -> dict[str, Path]:
    """seven and eight answer so; coin says 7 three times of four; bytes has another tokenizer."""
    own = hf_tokenizer.portable(tokenizers.from_ranks({bytes([i]): i for i in range(256)}))
    made = {
        "seven": (answering(tokenizer, a7=1.0), tokenizer),
        "eight": (answering(tokenizer, a8=1.0), tokenizer),
        "coin": (answering(tokenizer, a7=0.75, a8=0.25), tokenizer),
        "bytes": (answering(own, a9=1.0), own),
    }
    for name, (model, its) in made.items():
        save_checkpoint(tmp_path / f"{name}.pt", model, its, "a stage")
    return {name: tmp_path / f"{name}.pt" for name in made}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def told(monkeypatch, capsys, checkpoints):
    """told(flags, input) -> (standard output, standard error); names stand for checkpoints."""

    def run(flags: str, typed: str | None = "", stdin=io.StringIO):
        words = flags.split(" ") if flags else []
        given = [str(checkpoints.get(word, word)) for word in words]
        monkeypatch.setattr(sys, "argv", ["model.py", *given])
        monkeypatch.setattr(sys, "stdin", None if typed is None else stdin(typed))
        models.main()
        return capsys.readouterr()

    return run


def test_a_pipe_gets_one_answer_a_line_and_nothing_else(told):
    assert told("seven", "Hi\nWhy?\nAnd then?") == ("7\n7\n7\n", "")
    assert told("seven", "") == ("", "")


def test_a_real_pipe_ends_with_0(checkpoints):
    command = [sys.executable, "model.py", str(checkpoints["seven"])]
    done = subprocess.run(
        command, input="Why?\n", capture_output=True, text=True, cwd=Path(models.__file__).parent
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")


def test_several_answer_under_their_names_each_with_its_own_tokenizer(told, checkpoints):
    out, _ = told("seven bytes eight", "Hi\nWhy?\n")
    each = [(checkpoints["seven"], 7), (checkpoints["bytes"], 9), (checkpoints["eight"], 8)]
    assert out == "".join(f"{path}:\n{answer}\n" for path, answer in each) * 2


def test_a_prompt_is_answered_once_and_no_input_is_read(told):
    assert told("seven --prompt Why?", None) == ("7\n", "")


def test_each_conversation_goes_on_with_its_own_answers_and_an_empty_line_starts_over(
    told, tokenizer, monkeypatch
):
    asked, generate = [], talk.generate
    monkeypatch.setattr(
        talk, "generate", lambda *args, **how: asked.extend(args[2]) or generate(*args, **how)
    )
    told("seven eight", "Hi\nWhy?\n\nNew\n")

    def dialogue(*turns):
        roles = ("user", "assistant", "user")
        return tokenizer.prompt([{"role": r, "content": t} for r, t in zip(roles, turns)])

    assert asked == [
        *[dialogue("Hi")] * 2,
        dialogue("Hi", "7", "Why?"),
        dialogue("Hi", "8", "Why?"),
        *[dialogue("New")] * 2,
    ]


def test_samples_stand_with_their_log_probability_at_temperature_1(told):
    """ln 0.75 and ln 0.25, and the end mark is certain; at temperature 2 both are drawn as often
    as 1 to 1 / sqrt(3), which changes no log-probability."""
    out, _ = told("coin --n 16 --temperature 2 --prompt Why?")
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == [f"{k} of 16" for k in range(1, 17)]
    nats = {"7": "-0.29", "8": "-1.39"}
    for head, answer in zip(lines[::2], lines[1::2]):
        assert head.endswith(f"of 16: log p {nats[answer]} nats at temperature 1, 2 tokens")
    assert {"7", "8"} == set(lines[1::2])


def test_the_log_probability_is_that_of_the_tokens_that_the_model_wrote(tiny_model, tokenizer):
    """As in DPO, the sum over the masked tokens: not the prompt, no tool's result, no padding."""
    rows = [
        ([5, 6, 7, 8, 9], [False, False, True, False, True]),
        ([5, 6, 7], [False, True, True]),
    ]
    expected = sequence_logprobs(tiny_model, tokenizer, rows, torch.device("cpu"))
    assert talk.response_logprobs(tiny_model, tokenizer, rows) == pytest.approx(expected.tolist())


def test_in_a_terminal_there_is_a_greeting_and_a_mark_to_type_behind(
    told, checkpoints, monkeypatch
):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    told("seven eight", "Why?\n", Terminal)
    shown = screen.getvalue()
    greeting = "{}: 6,304 parameters, stage a stage."
    for name in ("seven", "eight"):
        assert greeting.format(checkpoints[name]) in shown
    assert f"Ctrl-D ends.\nyou> {checkpoints['seven']}:\n7\n" in shown and shown.endswith("you> \n")


def test_what_a_terminal_is_told_stays_out_of_a_file(told, checkpoints):
    """Typed, and the output kept: the marks go where they can be seen."""
    out, error = told("seven", "Why?\n", Terminal)
    assert out == "7\n"
    assert error.endswith("Ctrl-D ends.\nyou> you> \n")


def test_a_full_conversation_starts_over_and_a_long_question_is_read_at_its_end(
    told, tokenizer, tmp_path
):
    save_checkpoint(tmp_path / "short.pt", answering(tokenizer, 32, a7=1.0), tokenizer, "x")
    out, error = told(f"{tmp_path}/short.pt", f"1 2 3 4\n5 6 7 8\n{'9 ' * 40}\n")
    assert out == "7\n7\n7\n"
    assert error == (
        f"({tmp_path}/short.pt: the conversation is full and starts over)\n" * 2
        + f"({tmp_path}/short.pt: longer than its context of 32 tokens; it reads the end)\n"
    )


@pytest.mark.parametrize(
    "flags, words",
    [
        ("seven nothing.pt eight --prompt Why?", "nothing.pt: no such checkpoint"),
        ("seven --n 0", "--n 0: needs at least 1"),
        ("seven --prompt ", "--prompt: needs a question, and this one is empty"),
        ("seven eight --export there", "--export there: writes one checkpoint; given are "),
        ("seven --export there --prompt Why?", "--export there: answers nothing; leave out"),
        ("", "required: CHECKPOINT; --help lists the flags"),
    ],
)
def test_bad_input_ends_with_one_line_and_2(told, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        told(flags)
    out, error = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_ctrl_c_stops_the_answer_and_not_the_conversation_but_ends_a_pipe(
    told, tokenizer, monkeypatch, capsys
):
    """The question that was stopped is forgotten."""
    asked, generate = [], talk.generate

    def stopped_once(model, tokenizer, prompts, **how):
        asked.extend(prompts)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return generate(model, tokenizer, prompts, **how)

    monkeypatch.setattr(talk, "generate", stopped_once)
    out, error = told("seven", "Hi\nWhy?\n", Terminal)
    assert out == "7\n" and "(stopped)\n" in error
    assert asked[1] == tokenizer.prompt([{"role": "user", "content": "Why?"}])
    asked.clear()
    with pytest.raises(SystemExit) as ended:
        told("seven", "Hi\nWhy?\n")
    assert ended.value.code == 130 and capsys.readouterr().out == ""
