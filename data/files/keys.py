"""What decides a training, in one line of names and digests: its key.

It is kept beside the weights. What was trained, or stopped in the middle, is taken up again only
where the key is the same.
"""

import hashlib
from pathlib import Path

import torch
from torch import nn

from data import world
from data.runtime import sandbox
from data.runtime.devices import ranks


def digest(*values) -> str:
    """Twelve hex digits of any values.

    Of a module its weights, of a Path the file's bytes or the folder's files with their names, of
    lists their entries, of anything else its repr.
    """
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, nn.Module):
            for name, tensor in value.state_dict().items():
                total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                total.update(flat.view(torch.uint8).numpy())
        elif isinstance(value, Path):
            for file in files_in(value):
                if file != value:  # in a folder a file's name says what it is for
                    total.update(f"{file.name}|".encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
        elif isinstance(value, (list, tuple)):
            # one by one, since the text of all rows at once would need gigabytes
            for item in value:
                total.update(repr(item).encode())
                total.update(b";")
        else:
            total.update(repr(value).encode())
        total.update(b"|")
    return total.hexdigest()[:12]


def files_in(path: Path) -> list[Path]:
    """A file, or a folder's files but those whose name begins with a dot."""
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.is_file()]
    return sorted(file for file in files if not file.name.startswith("."))


def key_of(tokenizer, device, **decides) -> str:
    """What decides a training, in one line: where it runs, and a digest of each of `decides`.

    That is the entering weights, the rows, the settings and whatever else.
    """
    compiled = any(getattr(value, "compiled", False) for value in decides.values())
    names = surroundings(tokenizer, device) | {"compile": compiled}
    return key_line(names | {name: digest(value) for name, value in decides.items()})


def surroundings(tokenizer, device) -> dict:
    """What decides every training, whatever is trained: for a chapter's key and a stage's."""
    names = {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "ranks": ranks(),
        "no-exec": not sandbox.enabled,
        "world": world.WORLD_VERSION,
        "tokenizer": tokenizer.fingerprint,
        "default-system": digest(tokenizer.default_system),
    }
    if tokenizer.json_calls:  # a key of before has no such name
        names["json-calls"] = True
    return names


def key_line(names: dict) -> str:
    return " ".join(f"{name}={value}" for name, value in names.items())


def differences(was: str, now: str) -> list[tuple[str, str | None, str]]:
    """[(name, value then, value now)] of two keys; None where the old one lacks the name."""
    then, here = named(was), named(now)
    changed = [name for name in here if then.get(name) != here[name]]
    return [(name, then.get(name), here[name]) for name in changed]


def named(key: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in key.split() if "=" in item)


# flags that a key has elsewhere, or needs not
NOT_TRAINED_BY = ("out", "eval_n", "test", "rounds", "device", "threads", "data", "recompute")


def key_of_run(args, tokenizer, device, **models) -> str:
    """The key of what a chapter trains.

    Its flags, but those that do not reach the training; the bytes of --data; the entering models;
    and this project's source, since who has changed a loss means to train again.
    """
    given = sorted(vars(args).items())
    flags = {name: value for name, value in given if name not in NOT_TRAINED_BY}
    data = Path(args.data) if args.data else None
    root = Path(__file__).parents[2]
    files = sorted([*root.glob("*.py"), *root.glob("data/**/*.py")])
    source = [file.read_bytes() for file in files]
    return key_of(tokenizer, device, flags=flags, data=data, source=source, **models)
