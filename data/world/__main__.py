"""python -m data.world: samples of the world, counts, and the training of its tokenizer."""

import argparse
from collections import Counter

from data import world
from data.files import tokenizer as tokenizers
from data.runtime.command import guarded
from data.world.family import LEVELS


def show(count: int, seed: int) -> None:
    """Prints samples of demonstrations and documents."""
    counts = dict.fromkeys(("chat", "agent", "judge", "new_prompt"), count)
    overall = world.overall_demonstrations(seed, {"reasoning": count * 2, **counts})
    records = [record for level in overall.pop("reasoning") for record in level]
    for demonstrations in overall.values():
        records += demonstrations
    records += [{"text": text} for text in world.documents(seed, count)]
    for record in world.generator(seed, "show").sample(records, count):
        for message in record.get("messages", []):
            print(f"{message['role']:>9}: {told_in(message)}")
        if "text" in record:
            print(f" document: {record['text']}")
        print()


def told_in(message: dict) -> str:
    """A message with its worked steps and its call."""
    told = message["content"]
    if message.get("tool_call"):
        told = f"<call>{message['tool_call']}</call>{told}"
    if message.get("think"):
        told = f"<think>{message['think']}</think>{told}"
    return told


def train_tokenizer() -> None:
    """Trains the tokenizer on the world's text and writes it."""
    texts = world.tokenizer_text()
    tokenizers.save(tokenizers.train(texts, tokenizers.ENTRIES), tokenizers.TINY)
    characters = sum(map(len, texts))
    tokens = sum(len(tokenizers.load(tokenizers.TINY).encode(text)) for text in texts)
    rate = f"{characters / tokens:.2f} characters a token"
    print(f"{tokenizers.TINY.name}: {rate} on the world's text")


def print_counts() -> None:
    """Prints how many different problems each family has, by level and by part."""
    levels = "".join(f"{f'level {level}':>9}" for level in LEVELS)
    head = f"{'family':18}{'domain':7}{levels}"
    print(f"{head}{'all':>8}{'test':>7}{'dev':>6}{'facts':>7}{'phrasings':>11}")
    for family in world.FAMILIES:
        counts = Counter(family.levels.values())
        facts = sum(family.is_fact(dict(content)) for content in family.levels)
        phrasings = min(len(family.templates(dict(content))) for content in family.levels)
        by_level = "".join(f"{counts[level]:9d}" for level in LEVELS)
        test = len(family.contents("test"))
        dev = len(family.contents("dev"))
        print(
            f"{family.name:18}{family.domain:7}{by_level}{len(family.levels):8d}"
            f"{test:7d}{dev:6d}{facts:7d}{phrasings:11d}"
        )
    print(
        "a fact is told in some phrasings and asked in another: it is in train and in test or dev"
    )
    print(f"world version {world.WORLD_VERSION}, evaluation hash {world.evaluation_hash()}")


def main() -> None:
    title = world.__doc__.split("\n")[0]
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser("data.world", description=title, formatter_class=formatter)
    add = parser.add_argument
    add("--show", type=int, default=0, help="print this many samples")
    add("--stats", action="store_true", help="count the different problems by family and level")
    add(
        "--tokenizer",
        action="store_true",
        help="train the tokenizer on the world's text and write it",
    )
    add("--seed", type=int, default=1, help="seed of the samples")
    args = parser.parse_args()
    if args.show < 0:
        raise ValueError(f"--show {args.show}: needs a positive number")
    if args.show:
        show(args.show, args.seed)
    if args.tokenizer:
        train_tokenizer()
    elif args.stats or not args.show:
        print_counts()


if __name__ == "__main__":
    guarded(main)
