"""Weights on disk, whole or not there at all, and stages that were stopped in the middle."""

import os
from pathlib import Path

import torch
from torch import nn

from data.files.keys import differences, key_of
from data.files.writing import replacing
from data.runtime.devices import rank


def write(path: Path, content: dict) -> None:
    """Under a temporary name, then renamed: a file of this name is always whole.

    Raises OSError in one line.
    """
    with replacing(path) as temporary:
        try:
            torch.save(content, Path(temporary))
        except (
            RuntimeError
        ) as error:  # torch's writer names a line of its own source in place of the cause
            raise OSError(
                "the disk is full or the limit on a file's size is reached: "
                + str(error).splitlines()[0]
            ) from None


def try_room(path: Path, model: nn.Module) -> None:
    """Writes and removes a file as large as the model's checkpoint.

    Raises OSError in one line, before a training and not after it.
    """
    if rank():
        return
    size = 2**16 + sum(
        parameter.numel() * parameter.element_size() for parameter in model.parameters()
    )
    trial = f"{path}.tmp"
    try:
        with open(trial, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(bytes(size))
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror}); "
            f"the checkpoint needs {size / 1e6:.1f} MB"
        ) from None
    finally:
        Path(trial).unlink(missing_ok=True)


def not_finite(weights: dict) -> str | None:
    """The name of the first tensor that holds a nan or an infinity."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


# ---- a stage in the middle ----


class Resume:
    """A stage that is saved every `every` steps beside its log, and goes on there when killed.

    resume = Resume(log, settings.save_every, tokenizer, device, model=model, optimizers=optimizers)
    state = resume.load({"step": 0, "tokens": 0}, weights=model, settings=settings, rows=rows)
    for step in range(state["step"], settings.steps):
        ...
        resume.save(step + 1, {"step": step + 1, "tokens": tokens})
    resume.done()

    Without a log, or with every=0, nothing is written. `parts`: what has a state_dict.
    """

    def __init__(self, log: Path | None, every: int, tokenizer, device, **parts):
        self.log = log
        self.every = every if log is not None else 0
        self.tokenizer = tokenizer
        self.device = device
        self.parts = parts
        self.key = ""

    def load(self, beginning: dict, **decides) -> dict:
        """The state that was saved, with the weights of the parts; `beginning` where there is none.

        `decides`: everything that decides the training. A file of another training is removed.
        """
        if not self.every:
            return beginning
        self.key = key_of(self.tokenizer, self.device, **decides)
        return load_middle(middle_of(self.log), self.key, **self.parts) or beginning

    def save(self, step: int, state: dict) -> None:
        """Where `step` steps are done and it is time to save."""
        if self.every and step % self.every == 0:
            save_middle(middle_of(self.log), self.key, state, **self.parts)

    def done(self) -> None:
        remove_middle(self.log)


def middle_of(log: Path) -> Path:
    """The file of a stage in its middle."""
    return log.with_suffix(".part")


def save_middle(path: Path, key: str, state: dict, **parts) -> None:
    """A stage in the middle: what its loop carries in `state`, and the state_dict of each part.

    Where that cannot be written a line says so, and the training goes on.
    """
    if rank() == 0:
        content = {"key": key, "state": state}
        content |= {name: part.state_dict() for name, part in parts.items()}
        try:
            write(path, content)
        except OSError as error:
            told = "the stage goes on, and would begin again if it were stopped now"
            print(f"{error}; {told}", flush=True)


def load_middle(path: Path, key: str, **parts) -> dict | None:
    """The `state` of a stage that was stopped in the middle, its parts loaded; None without a file.

    A file of another key is removed, and a line says what differs. Raises ValueError in one line
    for a damaged file.
    """
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        was = saved["key"]
    except FileNotFoundError:  # another rank has removed it
        return None
    except Exception as error:
        remedy = "delete it to begin the stage again"
        raise ValueError(f"{path}: damaged ({type(error).__name__}); {remedy}") from None
    if was != key:
        told = ", ".join(name for name, _, _ in differences(was, key)) or "key"
        print(
            f"{path} is of another training ({told}) and is removed; the stage begins again",
            flush=True,
        )
        remove_middle(path)
        return None
    for name, part in parts.items():
        named = not_finite(saved[name]) if isinstance(part, nn.Module) else None
        if named:
            raise ValueError(f"{path}: {named} is not finite; delete it to begin the stage again")
        part.load_state_dict(saved[name])
    return saved["state"]


def remove_middle(log: Path | None) -> None:
    """The stage of this log is over, or begins again: what was saved in its middle goes."""
    if log is not None and rank() == 0:
        for path in (middle_of(log), log.with_suffix(".part.tmp")):
            path.unlink(missing_ok=True)
