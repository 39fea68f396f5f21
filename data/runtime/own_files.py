"""The flags of the chapters that take records of somebody's own: how much of them, and their test.

They are for a model and records that a machine could not get through in the time that there is.
"""

import argparse

CHAPTERS = ("sft", "dpo", "reward_model")
LEAST = {"rows": 1, "records": 1, "context": 16}  # as `command.LEAST`


def check(args) -> None:
    """Raises ValueError in one line for a flag that would change nothing."""
    for flag in ("records", "context", "test"):
        value = getattr(args, flag, None)
        if value is None:
            continue
        if getattr(args, "pretrain", False):
            raise ValueError(f"--{flag} {value}: --pretrain does not use it; leave it out")
        if flag != "test" and not args.data:
            raise ValueError(f"--{flag} {value}: is about the records of --data; give --data FILE")


def add_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds them where the chapter `name` has them."""
    if name not in CHAPTERS:
        return
    told = "dialogues, pairs or rankings of a batch; default: the size's"
    parser.add_argument("--rows", type=int, default=None, help=told)
    told = "of --data at most so many records are trained on; what is held out stays the same"
    parser.add_argument("--records", type=int, default=None, help=told)
    told = "of --data longer records are left out, in tokens; default: the model's context"
    parser.add_argument("--context", type=int, default=None, help=told)
    if name == "sft":
        told = (
            "problems with checked answers, GSM8K or MBPP: --eval-n of them are answered before "
            "and after"
        )
        parser.add_argument("--test", metavar="FILE", default=None, help=told)
