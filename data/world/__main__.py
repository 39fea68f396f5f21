"""python -m data.world: samples of the world, counts, and the training of its tokenizer."""

import argparse
from collections import Counter

from data import world
from data.files import tokenizer as tokenizers
from data.runtime.command import guarded


def main() -> None:
    parser = argparse.ArgumentParser("data.world", description=world.__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--show", type=int, default=0, help="print this many samples")
    parser.add_argument("--stats", action="store_true", help="count the different problems by family and level")
    parser.add_argument("--tokenizer", action="store_true", help="train the tokenizer on the world's text and write it")
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples")
    args = parser.parse_args()
    if args.show < 0:
        raise ValueError(f"--show {args.show}: needs a positive number")
    if args.show:
        overall = world.overall_demonstrations(args.seed, {"reasoning": args.show * 2, "chat": args.show, "agent": args.show, "judge": args.show, "new_prompt": args.show})
        records = [*sum(overall.pop("reasoning"), []), *sum(overall.values(), [])]
        texts = [{"text": text} for text in world.documents(args.seed, args.show)]
        for record in world.generator(args.seed, "show").sample(records + texts, args.show):
            for message in record.get("messages", []):
                told = f"<think>{message['think']}</think>" if message.get("think") else ""
                told += f"<call>{message['tool_call']}</call>" if message.get("tool_call") else ""
                print(f"{message['role']:>9}: {told}{message['content']}")
            if "text" in record:
                print(f" document: {record['text']}")
            print()
    if args.tokenizer:
        texts = world.tokenizer_text()
        tokenizers.save(tokenizers.train(texts, tokenizers.ENTRIES), tokenizers.TINY)
        tokens = sum(len(tokenizers.load(tokenizers.TINY).encode(text)) for text in texts)
        return print(f"{tokenizers.TINY.name}: {sum(map(len, texts)) / tokens:.2f} characters a token on the world's text")
    if args.stats or not args.show:
        print(f"{'family':18}{'domain':7}" + "".join(f"{'level ' + str(level):>9}" for level in range(1, 6)) + f"{'all':>8}{'test':>7}{'dev':>6}{'facts':>7}{'phrasings':>11}")
        for family in world.FAMILIES:
            counts = Counter(family.levels.values())
            kinds = family.phrasings if isinstance(family.phrasings, dict) else {None: family.phrasings}
            print(f"{family.name:18}{family.domain:7}" + "".join(f"{counts[level]:9d}" for level in range(1, 6))
                  + f"{len(family.levels):8d}{len(family.contents('test')):7d}{len(family.contents('dev')):6d}"
                  f"{sum(family.is_fact(dict(content)) for content in family.levels):7d}{min(map(len, kinds.values())):11d}")
        print("a fact is told in some phrasings and asked in another: it is in train and in test or dev")
        print(f"world version {world.WORLD_VERSION}, evaluation hash {world.evaluation_hash()}")


if __name__ == "__main__":
    guarded(main)
