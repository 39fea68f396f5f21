"""What every command shares: flags, terminal, folder, and how it ends on bad input and Ctrl-C."""

import argparse
import atexit
import contextlib
import math
import os
import sys
from pathlib import Path

from data.runtime import own_files

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

# the least value of a number on the command line; above 0 where a 0 would do nothing or divide
LEAST = {
    "steps": 1,
    "iterations": 1,
    "rounds": 1,
    "eval_n": 1,
    **own_files.LEAST,
    "threads": 1,
    "rehearsal_rows": 0,
    "temperature": 0,
    "kl_coef": 0,
    "nll_coef": 0,
}
ABOVE_ZERO = ("lr", "beta")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """The default of every flag; where that is None, the flag's help says what it means."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse with the defaults in --help, and its errors in one line."""

    def __init__(self, doc: str):
        super().__init__(description=doc.split("\n\n")[0], formatter_class=Help)

    def error(self, message: str):
        fail(f"{message}; --help lists the flags")

    def parse_args(self, *args, **more):
        """argparse's, with the home folder for `~`, which a shell leaves alone in --out=~/run."""
        steady_terminal()
        parsed = super().parse_args(*args, **more)
        for name, value in vars(parsed).items():
            if isinstance(value, list):
                setattr(parsed, name, [home_for_tilde(item) for item in value])
            else:
                setattr(parsed, name, home_for_tilde(value))
        return parsed


def home_for_tilde(value):
    return os.path.expanduser(value) if isinstance(value, str) else value


# ---- the terminal ----


class Steady:
    """A stream to a terminal that may go away (`| head -1`, a closed window, a full disk).

    What is then printed is lost, never the run.
    """

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self.silence()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self.silence()

    def silence(self) -> None:
        # what the stream still holds goes there too, or Python's last flush would complain
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def steady_terminal() -> None:
    """Standard output and error that never end a run.

    What they cannot show is escaped, and what they cannot take is lost.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # closed; the next file that is opened would get this number, and a library's output
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream if isinstance(stream, Steady) else Steady(stream))
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")


def ask(prompt: str) -> str:
    """input(prompt). Raises ValueError without a standard input, and EOFError at its end."""
    if sys.stdin is None or getattr(sys.stdin, "closed", False):
        raise ValueError("standard input is closed; this command is for somebody who types")
    return input(prompt)


# ---- the folder ----

HELD = {}  # path of a lock -> the open file that holds it
MADE = []  # the folders that were made for that, the innermost first


def out_folder(path) -> Path:
    """The folder of a run, made where it is not there, tried, and held for this process alone.

    It is held until `release` or the process's end, however that ends; under torchrun rank 0 holds
    it for all. Raises ValueError in one line, with the other's process id, where another process
    holds it, and OSError where nothing can be written.
    """
    missing = [place for place in (Path(path), *Path(path).parents) if not os.path.exists(place)]
    folder = made_folder(path)
    lock = folder.resolve() / ".lock"
    if os.environ.get("RANK", "0") != "0" or lock in HELD:
        return folder
    while True:
        try:
            file = open(lock, "a+", encoding="ascii")
        except OSError as error:
            raise unwritable(folder, error) from None
        if not locked(file):
            file.seek(0)
            other = file.read(20).strip()
            file.close()
            raise ValueError(
                f"{folder}: another run is writing there (process {other or 'unknown'}); "
                "wait for it, or give another --out"
            )
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                break
        file.close()  # who held it has just removed it
    HELD[lock] = file
    MADE.extend(place.resolve() for place in missing)
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError as error:
        release()
        raise unwritable(folder, error) from None
    return folder


def unwritable(folder: Path, error: OSError) -> OSError:
    return OSError(f"{folder}: nothing can be written there ({error.strerror}); give another --out")


def made_folder(path, remedy: str = "give another --out") -> Path:
    """The folder, made where it is not there. Raises OSError in one line with the remedy."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        files = [place for place in (folder, *folder.parents) if os.path.isfile(place)]
        why = f"{files[0]} is a file" if files else error.strerror
        raise OSError(f"{folder}: the folder cannot be made ({why}); {remedy}") from None
    return folder


def locked(file) -> bool:
    """Whether this process now holds the operating system's lock on an open file.

    The system frees it when the process dies.
    """
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            file.seek(4096)  # behind the text, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
    except OSError:
        return False
    return True


@atexit.register
def release() -> None:
    """Gives back the folders of `out_folder`, and leaves no file of it in them.

    A folder that was made and got nothing goes: a command that is refused leaves none behind.
    """
    while HELD:
        lock, file = HELD.popitem()
        with contextlib.suppress(OSError):  # Windows removes no open file
            if fcntl:
                os.unlink(lock)
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            if not fcntl:
                os.unlink(lock)
    while MADE:
        with contextlib.suppress(OSError):  # it holds something
            MADE.pop(0).rmdir()


# ---- how a command ends ----

STOPPED = "stopped; a training that was finished is kept, and the same command goes on after it"


def fail(error: Exception | str, code: int = 2) -> None:
    """Bad input ends a command with one line and exit code 2, Ctrl-C with 130."""
    if (
        code == 2 or os.environ.get("RANK", "0") == "0"
    ):  # all ranks are stopped together, and rank 0 says so
        text = " ".join(str(error).split("\n"))
        print(f"error: {text}" if code == 2 else f"\n{text}", file=sys.stderr)
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


def known_failure(error: Exception) -> str | None:
    """The line for an error that is no mistake in the code.

    Bad input, a full disk, a loss that is not finite, no memory left.
    """
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return str(error)
    # torch.OutOfMemoryError, and what the CPU's allocator raises, are RuntimeErrors
    if (
        isinstance(error, MemoryError)
        or isinstance(error, RuntimeError)
        and (
            type(error).__name__ == "OutOfMemoryError"
            or "not enough memory" in str(error)
            or "allocate memory" in str(error)
        )
    ):
        told = str(error).split("\n")[0]
        return f"out of memory{told and f' ({told})'}; a smaller --size or --recompute needs less"
    return None


def guarded(run, *args, stopped: str = "stopped") -> None:
    """run(*args). Known failures and Ctrl-C end it with one line and no traceback."""
    try:
        run(*args)
    except KeyboardInterrupt:
        fail(stopped, 130)
    except Exception as error:
        line = known_failure(error)
        if line is None:
            raise
        fail(line)
    finally:
        release()


def command(parser: argparse.ArgumentParser, run, stopped: str) -> None:
    """Parse the command line and call run(args)."""
    guarded(run, parser.parse_args(), stopped=stopped)


def common_flags(doc: str, folder: str) -> argparse.ArgumentParser:
    """The flags that every chapter and the pipeline share.

    `folder`: where a run goes without --out.
    """
    parser = Parser(doc)
    sizes = ("tiny", "small", "base")
    parser.add_argument("--size", choices=sizes, default="tiny", help="model and schedule")
    told = "demonstrations, initial weights, order and sampling; never the evaluation"
    parser.add_argument("--seed", type=int, default=1, help=told)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    threads = min(4, os.cpu_count() or 1)
    told = "CPU threads; a run repeats bit for bit only with the same number"
    parser.add_argument("--threads", type=int, default=threads, help=told)
    told = f"folder for what the run leaves behind; default: {folder}"
    parser.add_argument("--out", default=None, help=told)
    told = (
        "your own records instead of the tiny world's: a file or a folder of files (data/README.md)"
    )
    parser.add_argument("--data", default=None, help=told)
    told = "a few steps of everything, to see that it runs"
    parser.add_argument("--smoke", action="store_true", help=told)
    told = "torch.compile the training forward and the decode step"
    parser.add_argument("--compile", action="store_true", help=told)
    told = "less memory for a third more work: activations are computed again in the backward pass"
    parser.add_argument("--recompute", action="store_true", help=told)
    told = "never run a model-written program; code then goes unchecked"
    parser.add_argument("--no-exec", action="store_true", help=told)
    return parser


def chapter_flags(
    doc: str,
    name: str,
    init: str = "checkpoint to start from; default: a run's overall_sft, or SFT is done first",
    evaluated: bool = True,
) -> argparse.ArgumentParser:
    """The flags that the chapters share; `name`: of the folder in runs/."""
    parser = common_flags(doc, f"runs/{name}, runs/{name}-smoke with --smoke")
    parser.add_argument("--init", default=None, help=init)
    told = "print the loss of two made-up responses, number by number, and stop"
    parser.add_argument("--show", action="store_true", help=told)
    own_files.add_flags(parser, name)
    if evaluated:
        told = "held-out prompts a domain"
        parser.add_argument("--eval-n", type=int, default=128, help=told)
    return parser
