"""Checkpoints on disk, whole or not there at all, and stages that were stopped in the middle.

A checkpoint holds the tokenizer that it belongs to. What was trained is taken up again only where
everything that decided it is the same: its key, one line of names and digests, is kept beside the
weights (`key_of`).
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from data import world
from data.files import hf, hf_tokenizer
from data.files import tokenizer as tokenizers
from data.files.writing import replacing
from data.runtime import sandbox
from data.runtime.devices import rank, ranks


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


# ---- what decides a training ----


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
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "ranks": ranks(),
        "no-exec": not sandbox.enabled,
        "world": world.WORLD_VERSION,
        "tokenizer": tokenizer.fingerprint,
        "default-system": digest(tokenizer.default_system),
    }


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
NOT_TRAINED_BY = ("out", "eval_n", "rounds", "device", "threads", "data", "recompute")


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


def once(path: Path, key: str, into, tokenizer, stage: str, train, **more) -> tuple:
    """(model, measured) of train(), saved straight after it with its key.

    Where `path` holds a training of an equal key, it is into() with its weights and what was
    measured then: what is left to do is to evaluate it.
    """
    kept = kept_training(path, key)
    if kept is not None:
        model = into()
        model.load_state_dict(kept["model"], strict=False)  # without the head of a tied model
        print(
            f"{path} holds this training already, only its evaluation follows; "
            "delete the file to train again",
            flush=True,
        )
        return model.eval(), kept["measured"]
    try_room(path, into())
    model, measured = train()
    rounded = json.loads(json.dumps(measured))  # as it is read back: tuples are lists
    save_checkpoint(path, model, tokenizer, stage, key=key, measured=rounded, **more)
    return model, measured


def kept_training(path: Path, key: str) -> dict | None:
    """What was saved with an equal key; None for anything else, which a training replaces."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return saved if saved.get("key") == key and not not_finite(saved["model"]) else None
    except Exception:
        return None


def not_finite(weights: dict) -> str | None:
    """The name of the first tensor that holds a nan or an infinity."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


# ---- checkpoints ----


def damage(path: Path) -> str:
    """What is wrong with a file: "is missing", "is cut off or damaged", or "" where it opens.

    Its tensors are not read: a stage that goes on from them compares their digest.
    """
    if not path.exists():
        return "is missing"
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)["model"]
    except Exception:
        return "is cut off or damaged"
    return ""


def save_checkpoint(path: Path, model: nn.Module, tokenizer, stage: str, **more) -> None:
    """The model with its config and its tokenizer, written by rank 0; the others wait."""
    if rank() == 0:
        state = dict(model.state_dict())
        if model.config.tied:
            state.pop("head.weight", None)
        content = {
            "config": asdict(model.config),
            "tokenizer": tokenizer.fingerprint,
            "tokenizer_json": tokenizer.source,
            "stage": stage,
            "default_system": tokenizer.default_system,
            "model": state,
        }
        write(path, content | more)
    if ranks() > 1:
        dist.barrier()


def load(path, tokenizer, device, build, kind: str) -> tuple[nn.Module, dict]:
    """(build(fields of the config) with the weights, everything else that was saved).

    Of a file of ours, or for kind "checkpoint" of a directory in Hugging Face layout. Raises
    ValueError in one line for anything else, or where the tokenizer is another one.
    """
    if Path(path).is_dir() and kind == "checkpoint":
        return load_directory(path, tokenizer, device, build)
    saved = read_saved(path, device, kind)
    try:
        model = build(saved["config"]).to(device)
        missing, unexpected = model.load_state_dict(saved.pop("model"), strict=False)
        saved["tokenizer"], saved["stage"]
    except Exception as error:
        raise ValueError(f"{path}: not a {kind} of this project ({type(error).__name__})") from None
    wrong = not_finite(model.state_dict())
    if wrong:
        raise ValueError(f"{path}: {wrong} is not finite; take the checkpoint of an earlier stage")
    if unexpected or set(missing) - ({"head.weight"} if model.config.tied else set()):
        raise ValueError(f"{path}: not a {kind} of this project (other weights)")
    check_tokenizer(path, saved["tokenizer"], tokenizer)
    return model, saved


def read_saved(path, device, kind: str) -> dict:
    """The content of a file of ours; raises ValueError in one line for another one."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
        raise ValueError(f"{path}: cut off or damaged, or not a {kind} of this project") from None


def load_directory(path, tokenizer, device, build) -> tuple[nn.Module, dict]:
    """`load` of a directory in Hugging Face layout."""
    config, weights = hf.read_model(path)
    if tokenizer is not None:
        check_tokenizer(path, hf_tokenizer.read_tokenizer(path).fingerprint, tokenizer)
    try:
        model = build(config)
        tied = {"head.weight": weights["embedding.weight"]} if model.config.tied else {}
        model.load_state_dict(weights | tied)
    except (RuntimeError, TypeError, ZeroDivisionError, AssertionError):
        raise ValueError(f"{path}: the tensors have other shapes than config.json says") from None
    wrong = not_finite(weights)
    if wrong:
        raise ValueError(f"{path}: {wrong} is not finite; the weights are damaged")
    kind = "Qwen3 directory" if config["qk_norm"] else "Llama directory"
    return model.to(device), {"stage": kind}


def check_tokenizer(path, theirs: str, tokenizer) -> None:
    if tokenizer is not None and tokenizer.fingerprint != theirs:
        raise ValueError(
            f"{path}: was trained with another tokenizer ({theirs}, here {tokenizer.fingerprint})"
        )


def export(model: nn.Module, tokenizer, folder) -> None:
    """Write the Hugging Face layout, which opens in `transformers` and reads back exactly.

    Raises ValueError for a model with smear.
    """
    marks = {"eos_token_id": tokenizer.end_id, "pad_token_id": tokenizer.pad_id}
    hf.write_model(folder, asdict(model.config), model.state_dict(), **marks)
    hf_tokenizer.write_tokenizer(folder, tokenizer)


TEACHER = Path(__file__).parents[1] / "teacher.tiny.pt"


def given_teacher(size: str, tokenizer) -> Path | None:
    """The teacher that comes with the project, where it fits the size and the tokenizer.

    Raises ValueError in one line where its file is missing, or of another version of the world.
    """
    if size != "tiny" or tokenizer.fingerprint != tokenizers.tiny().fingerprint:
        return None
    remedy = "--teacher train trains one, python -m tests.experiments.teacher remakes the file"
    if not TEACHER.exists():
        raise ValueError(f"{TEACHER}: missing; {remedy}")
    try:
        version = torch.load(TEACHER, map_location="cpu", weights_only=True)["world_version"]
    except Exception as error:
        raise ValueError(f"{TEACHER}: damaged ({type(error).__name__}); {remedy}") from None
    if version != world.WORLD_VERSION:
        raise ValueError(
            f"{TEACHER}: of version {version} of the world, which is at "
            f"{world.WORLD_VERSION}; {remedy}"
        )
    return TEACHER


def tokenizer_of(path=None):
    """The tokenizer of a checkpoint, or of a directory in Hugging Face layout; or the tiny one."""
    if path and Path(path).is_dir():
        if (
            not (Path(path) / "config.json").exists()
            or not (Path(path) / "tokenizer.json").exists()
        ):
            raise ValueError(
                f"{path}: no Llama or Qwen3 directory (config.json, tokenizer.json, "
                "model.safetensors); of a run's folder, give a .pt file in it"
            )
        tokenizer = hf_tokenizer.read_tokenizer(path)
        if tokenizer.default_system is None and rank() == 0:
            print(
                f"{path}: no chat template that is known here: "
                "dialogues are rendered as plain ChatML"
            )
        return tokenizer
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True) if path else {}
        text, default_system = saved.get("tokenizer_json"), saved.get("default_system", "")
    except Exception:  # load_checkpoint says what is wrong with the file
        text = None
    if not text:
        return tokenizers.tiny()
    tokenizer = hf_tokenizer.tokenizer_from(text, path)
    tokenizer.default_system = default_system
    return tokenizer


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
