"""Checkpoints on disk: whole or not there at all, with the tokenizer that they belong to; and stages that were stopped in the middle."""

import os
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from data import hf
from data import tokenizer as tokenizers
from data.devices import rank, ranks


def write(path: Path, content: dict) -> None:
    """Under a temporary name, then renamed, so that a file of this name is always whole."""
    temporary = Path(f"{path}.tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def save_checkpoint(path: Path, model: nn.Module, tokenizer, stage: str, **more) -> None:
    """The model with its config and its tokenizer, written by rank 0; the others wait."""
    if rank() == 0:
        state = {name: value for name, value in model.state_dict().items() if not (model.config.tied and name == "head.weight")}
        write(path, {"config": asdict(model.config), "tokenizer": tokenizer.fingerprint, "tokenizer_json": tokenizer.source, "stage": stage,
                     "default_system": tokenizer.default_system, "model": state, **more})
    if ranks() > 1:
        dist.barrier()


def load(path, tokenizer, device, build, kind: str) -> tuple[nn.Module, dict]:
    """(build(fields of the config) with the weights, everything else that was saved) of a file of ours, or for kind "checkpoint" of a
    directory in Hugging Face layout. Raises ValueError in one line for anything else, or where the tokenizer is another one."""
    if Path(path).is_dir() and kind == "checkpoint":
        config, weights = hf.read_model(path)
        if tokenizer is not None and tokenizer.fingerprint != (own := hf.read_tokenizer(path).fingerprint):
            raise ValueError(f"{path}: was trained with another tokenizer ({own}, here {tokenizer.fingerprint})")
        model = build(config)
        try:
            model.load_state_dict(weights | ({"head.weight": weights["embedding.weight"]} if model.config.tied else {}))
        except RuntimeError:
            raise ValueError(f"{path}: the tensors have other shapes than config.json says") from None
        return model.to(device), {"stage": "Qwen3 directory" if config["qk_norm"] else "Llama directory"}
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        model = build(saved["config"]).to(device)
        missing, unexpected = model.load_state_dict(saved.pop("model"), strict=False)
        saved["tokenizer"], saved["stage"]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint") from None
    except Exception as error:
        raise ValueError(f"{path}: not a {kind} of this project ({type(error).__name__})") from None
    if unexpected or set(missing) - ({"head.weight"} if model.config.tied else set()):
        raise ValueError(f"{path}: not a {kind} of this project (other weights)")
    if tokenizer is not None and saved["tokenizer"] != tokenizer.fingerprint:
        raise ValueError(f"{path}: was trained with another tokenizer ({saved['tokenizer']}, here {tokenizer.fingerprint})")
    return model, saved


def tokenizer_of(path=None):
    """The tokenizer that belongs to a checkpoint or a directory in Hugging Face layout; without a path, the tiny one."""
    if path and Path(path).is_dir():
        if not (Path(path) / "config.json").exists() or not (Path(path) / "tokenizer.json").exists():
            raise ValueError(f"{path}: no Llama or Qwen3 directory (config.json, tokenizer.json, model.safetensors); of a run's folder, give a .pt file in it")
        tokenizer = hf.read_tokenizer(path)
        if tokenizer.default_system is None and rank() == 0:
            print(f"{path}: no chat template that is known here: "
                  "dialogues are rendered as plain ChatML")
        return tokenizer
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True) if path else {}
        text, default_system = saved.get("tokenizer_json"), saved.get("default_system", "")
    except Exception:  # load_checkpoint says what is wrong with the file
        text = None
    if not text:
        return tokenizers.tiny()
    tokenizer = hf.tokenizer_from(text, path)
    tokenizer.default_system = default_system
    return tokenizer


def save_part(path: Path, key: str, state: dict, **parts) -> None:
    """A stage in the middle: what its loop carries in `state`, and the state_dict of each part (model, optimizers)."""
    if rank() == 0:
        write(path, {"key": key, "state": state} | {name: part.state_dict() for name, part in parts.items()})


def load_part(path: Path | None, key: str, **parts) -> dict | None:
    """The `state` of a stage that was stopped in the middle, its parts loaded; None where there is none, or one of another key."""
    if path is None or not path.exists():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["key"] != key:
        return None
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return saved["state"]
