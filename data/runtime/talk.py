"""A conversation in the terminal: one asks, the model answers, its tool calls are shown."""

from data import world
from data.runtime.command import ask
from data.runtime.decoding import generate
from data.runtime.devices import seed_of

MAX_NEW = 96  # tokens of a reply
ROOM = 16  # tokens that a reply must find in the context, or the conversation starts over


def talk(model, tokenizer, args, greeting: str) -> None:
    """Asks and answers until the end of the input, at args.temperature, from args.seed.

    An empty line forgets what was said so far.
    """
    print(f"{greeting} An empty line starts over, Ctrl-D ends.")
    messages = []
    turn = 0
    while True:
        try:
            text = ask("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not text:
            messages = []
            continue
        messages.append({"role": "user", "content": text})
        prompt = tokenizer.prompt(messages)
        if len(prompt) + ROOM > model.config.context:
            print("(the conversation is full and starts over)")
            messages = messages[-1:]
            prompt = tokenizer.prompt(messages)[-model.config.context // 2 :]
        turn += 1
        try:
            samples = generate(
                model,
                tokenizer,
                [prompt],
                max_new=MAX_NEW,
                temperature=args.temperature,
                seed=seed_of(args.seed, turn),
                run_tool=world.run_tool,
            )
        except KeyboardInterrupt:
            print("(stopped)")
            messages.pop()
            continue
        reply = tokenizer.read_reply(samples.lists()[0])
        show(reply)
        messages.append({"role": "assistant", "content": reply.content})


def show(reply) -> None:
    """What the model thought, what it called and what it says, a line each."""
    if reply.think:
        print(f"  (thinks) {reply.think}")
    for call, result in reply.calls:
        print(f"  (calls)  {call} -> {result}")
    print(reply.content if reply.complete else f"{reply.content} (cut off)")
