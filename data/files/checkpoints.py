"""Checkpoints: what a finished training leaves behind, read back and exported.

A checkpoint holds the tokenizer that it belongs to, and its key (keys.py): what was trained is
taken up again only where everything that decided it is the same. How weights are written, and what
a stage leaves in its middle, is in saving.py.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from data import world
from data.files import hf, hf_tokenizer
from data.files import tokenizer as tokenizers
from data.files.keys import (  # noqa: F401, a chapter takes what it needs from one place
    differences,
    digest,
    key_line,
    key_of,
    key_of_run,
    surroundings,
)
from data.files.saving import (  # noqa: F401
    Resume,
    load_middle,
    not_finite,
    remove_middle,
    save_middle,
    try_room,
    write,
)
from data.files.writing import write_json
from data.runtime.devices import rank, ranks


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
            "json_calls": tokenizer.json_calls,
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
    return model.to(device), {"stage": f"{hf.kind_of(config)} directory"}


def check_tokenizer(path, theirs: str, tokenizer) -> None:
    if tokenizer is not None and tokenizer.fingerprint != theirs:
        raise ValueError(
            f"{path}: was trained with another tokenizer ({theirs}, here {tokenizer.fingerprint})"
        )


def export(model: nn.Module, tokenizer, folder) -> None:
    """Write the Hugging Face layout, which opens in `transformers` and reads back exactly.

    `transformers` generates greedily from it unless told otherwise, and ends a reply where we do.
    Raises ValueError for a model with a part that no layout has.
    """
    marks = {"eos_token_id": tokenizer.end_id, "pad_token_id": tokenizer.pad_id}
    hf.write_model(folder, asdict(model.config), model.state_dict(), **marks)
    hf_tokenizer.write_tokenizer(folder, tokenizer)
    ends = {"eos_token_id": [tokenizer.end_id, *sorted(tokenizer.runtime_ids)]}
    write_json(Path(folder) / "generation_config.json", marks | ends)


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
                f"{path}: no Llama, Qwen2 or Qwen3 directory (config.json, tokenizer.json, "
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
        text = saved.get("tokenizer_json")
    except Exception:  # load_checkpoint says what is wrong with the file
        text = None
    if not text:
        return tokenizers.tiny()
    tokenizer = hf_tokenizer.tokenizer_from(text, path)
    tokenizer.default_system = saved.get("default_system", "")
    tokenizer.json_calls = saved.get("json_calls", False)
    return tokenizer
