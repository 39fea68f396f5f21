"""Weights of other makers: directories in Hugging Face layout of the Llama, Qwen2 and Qwen3 kind.

`read_model` gives the numbers of a `model.Config` and the weights under our names. `write_model`
writes a directory that `transformers` opens. What our model cannot compute is refused by name:
sliding windows, scaled rotary positions, mixtures of experts, other activations, and biases but
those of Qwen2 (Qwen2.5 is of this kind too). Rotary positions are rotate-half on both sides, so no
row of a matrix changes its place. The tokenizer of such a directory is in hf_tokenizer.py.

The `safetensors` package is needed here alone. It is imported only when a directory is read or
written.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from data.files.writing import replacing, write_text
from data.runtime.command import made_folder


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def safetensors():
    try:
        import safetensors.torch as package
    except ImportError:
        raise ValueError(
            "reading and writing safetensors needs the package safetensors: pip install safetensors"
        ) from None
    return package


KINDS = ("llama", "qwen2", "qwen3")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # how many, as makers write it


def config_of(raw: dict, where) -> dict:
    """The fields of `model.Config` for a config.json.

    Raises ValueError that names what our model cannot compute, or the field that is missing.
    """
    kind = raw.get("model_type")
    rope = raw.get("rope_parameters") or {}
    scaled = rope if rope.get("rope_type", "default") != "default" else None
    rotated = raw.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1
    slides = "sliding_attention" in (raw.get("layer_types") or ())
    if kind not in KINDS:  # Qwen2 gives a width beside the switch that it has
        slides = slides or raw.get("sliding_window")
    activation = raw.get("hidden_act", "silu")
    refused = {  # what has a value that is not false cannot be read
        "model_type": None if kind in KINDS else repr(kind),
        "attention_bias": raw.get("attention_bias"),
        "mlp_bias": raw.get("mlp_bias"),
        "rope_scaling": raw.get("rope_scaling") or scaled,
        "partial_rotary_factor": rotated != 1,
        "sliding window": raw.get("use_sliding_window") or slides,
        "mixture of experts": next(filter(None, map(raw.get, EXPERTS)), None),
        "hidden_act": activation if activation != "silu" else None,
    }
    named = [f"{name} ({value})" for name, value in refused.items() if value]
    if named:
        can = f"{', '.join(KINDS[:-1])} and {KINDS[-1]} can be read"
        raise ValueError(f"{where}: not supported: {', '.join(named)}; {can}")
    try:
        return {
            "vocab_size": raw["vocab_size"],
            "context": raw["max_position_embeddings"],
            "layers": raw["num_hidden_layers"],
            "width": raw["hidden_size"],
            "heads": raw["num_attention_heads"],
            "kv_heads": raw.get("num_key_value_heads") or raw["num_attention_heads"],
            "ffn": raw["intermediate_size"],
            "head_dim": raw.get("head_dim") or 0,
            "rope_base": float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
            "norm_eps": raw.get("rms_norm_eps", 1e-6),
            "qk_norm": kind == "qwen3",
            "qkv_bias": kind == "qwen2",
            "tied": bool(raw.get("tie_word_embeddings", False)),
        }
    except KeyError as error:
        raise ValueError(f"{where}: {error} is missing") from None


def raw_config(config: dict) -> dict:
    """The config.json of a `model.Config` given as a dict."""
    kind = kind_of(config)
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["context"],
        "num_hidden_layers": config["layers"],
        "hidden_size": config["width"],
        "num_attention_heads": config["heads"],
        "num_key_value_heads": config["kv_heads"],
        "intermediate_size": config["ffn"],
        "head_dim": config["head_dim"] or config["width"] // config["heads"],
        "rope_theta": config["rope_base"],
        "rms_norm_eps": config["norm_eps"],
        "tie_word_embeddings": config["tied"],
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "float32",
    }


def kind_of(config: dict) -> str:
    """The layout of a `model.Config` given as a dict: Qwen3 has QK-norm, Qwen2 biases."""
    if config["qk_norm"]:
        return "Qwen3"
    return "Qwen2" if config["qkv_bias"] else "Llama"


def names(config: dict) -> dict[str, list[str]]:
    """Our name of each weight -> the names of the tensors that are stacked to it, in order."""
    table = {
        "embedding.weight": ["model.embed_tokens.weight"],
        "norm.weight": ["model.norm.weight"],
    }
    if not config["tied"]:
        table["head.weight"] = ["lm_head.weight"]
    for i in range(config["layers"]):
        theirs = f"model.layers.{i}"
        ours = f"blocks.{i}"
        table[f"{ours}.attention_norm.weight"] = [f"{theirs}.input_layernorm.weight"]
        table[f"{ours}.ffn_norm.weight"] = [f"{theirs}.post_attention_layernorm.weight"]
        table[f"{ours}.attention.qkv.weight"] = [
            f"{theirs}.self_attn.{letter}_proj.weight" for letter in "qkv"
        ]
        if config["qkv_bias"]:
            table[f"{ours}.attention.qkv.bias"] = [
                f"{theirs}.self_attn.{letter}_proj.bias" for letter in "qkv"
            ]
        table[f"{ours}.attention.out.weight"] = [f"{theirs}.self_attn.o_proj.weight"]
        table[f"{ours}.gate_up.weight"] = [
            f"{theirs}.mlp.gate_proj.weight",
            f"{theirs}.mlp.up_proj.weight",
        ]
        table[f"{ours}.down.weight"] = [f"{theirs}.mlp.down_proj.weight"]
        if config["qk_norm"]:
            table[f"{ours}.attention.query_norm.weight"] = [f"{theirs}.self_attn.q_norm.weight"]
            table[f"{ours}.attention.key_norm.weight"] = [f"{theirs}.self_attn.k_norm.weight"]
    return table


def read_model(folder) -> tuple[dict, dict[str, Tensor]]:
    """(fields of `model.Config`, weights by our names in float32) of a directory.

    The weights may be one file or several. Raises ValueError in one line that names the file, for
    anything missing, unexpected or not supported.
    """
    folder = Path(folder)
    config = config_of(read_json(folder / "config.json"), folder / "config.json")
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        files = sorted(set(read_json(index).get("weight_map", {}).values()))
    weights = {}
    for file in files:
        package = safetensors()
        try:
            weights |= package.load_file(folder / file)
        except Exception as error:  # the package's own errors are no OSError
            raise ValueError(f"{folder / file}: cannot be read ({error})") from None
    wanted = names(config)
    used = [name for stacked in wanted.values() for name in stacked]
    missing = [name for name in used if name not in weights]
    if missing:
        raise ValueError(f"{folder}: {missing[0]} is missing ({len(missing)} tensors in all)")
    spare = [name for name in weights if name not in used and not derived(name, config)]
    if spare:
        raise ValueError(
            f"{folder}: {spare[0]} has no place in the model ({len(spare)} tensors in all)"
        )
    try:
        return config, {
            ours: torch.cat([weights[name].float() for name in stacked])
            for ours, stacked in wanted.items()
        }
    except RuntimeError:  # tensors of one matrix that differ in width
        raise ValueError(f"{folder}: the tensors have other shapes than config.json says") from None


def derived(name: str, config: dict) -> bool:
    """Whether a tensor that we have no name for says nothing new, so that it can be left out."""
    if name.endswith("rotary_emb.inv_freq"):
        return True
    return config["tied"] and name == "lm_head.weight"


def write_model(folder, config: dict, weights: dict[str, Tensor], **more) -> None:
    """The directory that `read_model` reads back exactly, and `transformers` too.

    `more` goes into config.json: the ids of marks. Raises ValueError for a model with parts that
    no layout has.
    """
    if config.get("smear"):
        raise ValueError(
            "--export: this model has smear, a part that the Llama, Qwen2 and Qwen3 layouts "
            "lack; only models without it can be exported"
        )
    if config["qk_norm"] and config["qkv_bias"]:
        raise ValueError(
            "--export: this model has QK-norm and biases of q, k and v; Qwen3's layout has the "
            "first, Qwen2's the second, none both"
        )
    folder = made_folder(folder, "give another --export DIR")
    head = config["head_dim"] or config["width"] // config["heads"]
    sizes = {
        "qkv": [config["heads"] * head, config["kv_heads"] * head, config["kv_heads"] * head],
        "gate_up": [config["ffn"]] * 2,
    }
    stored = {}
    for ours, stacked in names(config).items():
        matrix = ours.split(".")[-2]
        pieces = weights[ours].split(sizes.get(matrix, [len(weights[ours])]))
        for name, piece in zip(stacked, pieces):
            stored[name] = piece.detach().float().cpu().contiguous()
    package = safetensors()
    with replacing(folder / "model.safetensors") as temporary:
        try:
            package.save_file(stored, temporary, metadata={"format": "pt"})
        except Exception as error:  # the package's own errors are no OSError
            raise OSError(str(error)) from None
    write_text(folder / "config.json", json.dumps(raw_config(config) | more, indent=1) + "\n")
    # safetensors lets nobody else read its file
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
