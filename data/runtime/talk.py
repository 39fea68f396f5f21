"""Questions to one checkpoint or to several side by side: typed, by a pipe, or one with --prompt.

The answers go to standard output. Everything else (the greeting, what a model thought and called,
notes) goes there in a terminal, and to standard error where the output is a pipe or a file.
"""

import contextlib
import sys

import torch
import torch.nn.functional as F

from data import world
from data.runtime.command import ask, check_numbers
from data.runtime.decoding import generate
from data.runtime.devices import seed_of
from data.runtime.evaluation import sampled_rows
from data.runtime.rows import Row, pad_batch

MAX_NEW = 96  # tokens of a reply
ROOM = 16  # tokens that a reply must find in the context, or the conversation starts over


def add_flags(parser) -> None:
    told = "a .pt file of a run or a Llama, Qwen2 or Qwen3 directory; several answer side by side"
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help=told)
    told = "one question, which is answered once; without it they are read until the input ends"
    parser.add_argument("--prompt", metavar="TEXT", help=told)
    told = (
        "samples a question; above 1 each is shown with its log-probability, in nats a response, "
        "under the model at temperature 1, and a conversation goes on from the first"
    )
    parser.add_argument("--n", type=int, default=1, help=told)
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=1, help="of the samples")
    told = "write the model in Hugging Face layout, and stop"
    parser.add_argument("--export", metavar="DIR", help=told)


def check(args) -> None:
    """Raises ValueError in one line that names the flag."""
    check_numbers(args)
    if args.n < 1:
        raise ValueError(f"--n {args.n}: needs at least 1")
    if args.prompt is not None and not args.prompt.strip():
        raise ValueError("--prompt: needs a question, and this one is empty")
    if args.export and len(args.checkpoints) > 1:
        given = ", ".join(args.checkpoints)
        raise ValueError(f"--export {args.export}: writes one checkpoint; given are {given}")
    if args.export and args.prompt is not None:
        raise ValueError(f"--export {args.export}: answers nothing; leave out --prompt")


# ---- one checkpoint ----


class Conversation:
    """What was said to one checkpoint and what it answered; `name`: the checkpoint's."""

    def __init__(self, name: str, model, tokenizer, told: str):
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.told = told  # of the checkpoint, for the greeting
        self.messages = []

    def answers(self, text: str, args, turn: int) -> list[tuple]:
        """args.n samples, (Reply, its row) each; the first is what the conversation goes on from.

        One that is stopped leaves the conversation as it was.
        """
        self.make_room(text)
        asked = [*self.messages, {"role": "user", "content": text}]
        prompt = self.tokenizer.prompt(asked)
        context = self.model.config.context
        if len(prompt) + ROOM > context:
            note(f"({self.name}: longer than its context of {context} tokens; it reads the end)")
            prompt = prompt[-context // 2 :]
        samples = generate(
            self.model,
            self.tokenizer,
            [prompt],
            n=args.n,
            max_new=MAX_NEW,
            temperature=args.temperature,
            seed=seed_of(args.seed, turn),
            run_tool=world.run_tool,
        )
        replies = [self.tokenizer.read_reply(ids) for ids in samples.lists()]
        self.messages = [*asked, {"role": "assistant", "content": replies[0].content}]
        return list(zip(replies, sampled_rows([prompt], samples)))

    def make_room(self, text: str) -> None:
        """Forgets what was said where one more question would fill the context."""
        asked = [*self.messages, {"role": "user", "content": text}]
        full = len(self.tokenizer.prompt(asked)) + ROOM > self.model.config.context
        if full and self.messages:
            note(f"({self.name}: the conversation is full and starts over)")
            self.messages = []


@torch.no_grad()
def response_logprobs(model, tokenizer, rows: list[Row]) -> list[float]:
    """log p(response | prompt) of each row in nats: the sum over the tokens that the model wrote.

    At temperature 1, whatever the responses were sampled at.
    """
    ids, mask = pad_batch(rows, tokenizer.pad_id, next(model.parameters()).device)  # (N, S) each
    logits = model(ids, select=F.pad(mask[:, 1:], (0, 1))).float()  # (tokens, V)
    picked = logits.log_softmax(-1).gather(1, ids[mask][:, None])[:, 0]  # (tokens,)
    logprobs = torch.zeros(ids.shape, device=ids.device).masked_scatter(mask, picked)
    return logprobs.sum(1).tolist()


# ---- what is shown ----


def notes_apart():
    """Within this what is printed is no answer."""
    return contextlib.redirect_stdout(sys.stdout if sys.stdout.isatty() else sys.stderr)


def note(text: str) -> None:
    with notes_apart():
        print(text, flush=True)


def show(reply) -> None:
    """What the model thought, what it called and what it says, a line each."""
    if reply.think:
        note(f"  (thinks) {reply.think}")
    for call, result in reply.calls:
        note(f"  (calls)  {call} -> {result}")
    print(reply.content if reply.complete else f"{reply.content} (cut off)", flush=True)


def answer(conversations: list[Conversation], text: str, args, turn: int) -> None:
    """The question to each checkpoint, its answers under its name where there are several."""
    for one in conversations:
        answers = one.answers(text, args, turn)
        if len(conversations) > 1:
            print(f"{one.name}:", flush=True)
        if args.n == 1:
            show(answers[0][0])
            continue
        logprobs = response_logprobs(one.model, one.tokenizer, [row for _, row in answers])
        for k, ((reply, (_, mask)), logprob) in enumerate(zip(answers, logprobs), start=1):
            size = f"{sum(mask)} tokens"
            print(f"{k} of {args.n}: log p {logprob:.2f} nats at temperature 1, {size}", flush=True)
            show(reply)


def talk(conversations: list[Conversation], args) -> None:
    """Asks and answers until the end of the input, at args.temperature, from args.seed.

    An empty line forgets what was said so far. With args.prompt there is one question.
    """
    if args.prompt is not None:
        return answer(conversations, args.prompt.strip(), args, turn=1)
    typed = sys.stdin is not None and sys.stdin.isatty()
    if typed:
        greeting = "\n".join(f"{one.name}: {one.told}." for one in conversations)
        note(f"{greeting} An empty line starts over, Ctrl-D ends.")
    turn = 0
    while True:
        try:
            text = question(typed).strip()
        except EOFError:
            break
        except KeyboardInterrupt:
            if not typed:
                raise
            break
        if not text:
            for one in conversations:
                one.messages = []
            continue
        turn += 1
        try:
            answer(conversations, text, args, turn)
        except KeyboardInterrupt:
            if not typed:
                raise
            note("(stopped)")
    if typed:
        note("")  # the terminal's next line begins at its edge


def question(typed: bool) -> str:
    """The next line of the input, asked for where somebody types."""
    if not typed:
        return ask("")
    if sys.stdout.isatty():
        return ask("you> ")
    print("you> ", file=sys.stderr, end="", flush=True)  # the output is kept in a file
    return ask("")
