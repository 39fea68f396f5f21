"""What every command of the project shares: its flags, and how it ends on bad input and on Ctrl-C."""

import argparse
import os
import sys



def fail(error: Exception | str, code: int = 2) -> None:
    """Bad input ends a command with one line and exit code 2, Ctrl-C with 130."""
    print(f"error: {error}" if code == 2 else f"\n{error}", file=sys.stderr)
    raise SystemExit(code) from None


def command(parser: argparse.ArgumentParser, run, stopped: str) -> None:
    """Parse the command line and call run(args); bad input and Ctrl-C end it with one line and no traceback."""
    args = parser.parse_args()
    try:
        run(args)
    except (ValueError, OSError, FloatingPointError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail(stopped, 130)


def common_flags(doc: str) -> argparse.ArgumentParser:
    """The flags that every concept file and the pipeline share."""
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="tiny", help="model and schedule")
    parser.add_argument("--seed", type=int, default=1, help="demonstrations, initial weights, order and sampling; never the evaluation")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1), help="CPU threads; a run repeats bit for bit only with the same number")
    parser.add_argument("--out", default=None, help="folder for what the run leaves behind")
    parser.add_argument("--data", default=None, help="your own records instead of the tiny world's")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--compile", action="store_true", help="torch.compile the training forward and the decode step")
    parser.add_argument("--recompute", action="store_true", help="less memory for a third more work: activations are computed again in the backward pass")
    parser.add_argument("--no-exec", action="store_true", help="never run a model-written program; code then goes unchecked")
    return parser
