"""What every command of the project shares: its flags, and how it ends on bad input and on Ctrl-C."""

import argparse
import math
import os
import sys

# the least value of a number on the command line; above 0 where a 0 would do nothing or divide
LEAST = {"steps": 1, "iterations": 1, "rounds": 1, "eval_n": 1, "threads": 1, "rehearsal_rows": 0, "temperature": 0, "kl_coef": 0, "nll_coef": 0}
ABOVE_ZERO = ("lr", "beta")


class Parser(argparse.ArgumentParser):
    """argparse with the defaults in --help, and its errors in one line."""

    def __init__(self, doc: str):
        super().__init__(description=doc.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def error(self, message: str):
        fail(f"{message}; --help lists the flags")


def fail(error: Exception | str, code: int = 2) -> None:
    """Bad input ends a command with one line and exit code 2, Ctrl-C with 130."""
    if code == 2 or os.environ.get("RANK", "0") == "0":  # all ranks are stopped together, and rank 0 says so
        print(f"error: {error}" if code == 2 else f"\n{error}", file=sys.stderr)
    raise SystemExit(code) from None


def check_numbers(args: argparse.Namespace) -> None:
    """Raises ValueError in one line that names the flag."""
    for name, value in vars(args).items():
        flag = f"--{name.replace('_', '-')} {value}"
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{flag}: needs a number")
        if name in ABOVE_ZERO and value is not None and value <= 0:
            raise ValueError(f"{flag}: needs a number above 0")
        if name in LEAST and value is not None and value < LEAST[name]:
            raise ValueError(f"{flag}: needs at least {LEAST[name]}")


def guarded(run, *args, stopped: str = "stopped") -> None:
    """run(*args); bad input and Ctrl-C end it with one line and no traceback."""
    try:
        run(*args)
    except (ValueError, OSError, FloatingPointError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail(stopped, 130)


def command(parser: argparse.ArgumentParser, run, stopped: str) -> None:
    """Parse the command line and call run(args)."""
    guarded(run, parser.parse_args(), stopped=stopped)


def common_flags(doc: str) -> argparse.ArgumentParser:
    """The flags that every concept file and the pipeline share."""
    parser = Parser(doc)
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="tiny", help="model and schedule")
    parser.add_argument("--seed", type=int, default=1, help="demonstrations, initial weights, order and sampling; never the evaluation")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1),
                        help="CPU threads; a run repeats bit for bit only with the same number")
    parser.add_argument("--out", default=None, help="folder for what the run leaves behind")
    parser.add_argument("--data", default=None, help="your own records instead of the tiny world's: a file, or for the pipeline a folder (README)")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--compile", action="store_true", help="torch.compile the training forward and the decode step")
    parser.add_argument("--recompute", action="store_true",
                        help="less memory for a third more work: activations are computed again in the backward pass")
    parser.add_argument("--no-exec", action="store_true", help="never run a model-written program; code then goes unchecked")
    return parser
