"""Directories of other makers: parity with `transformers`
where it is installed, and everything that is refused."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import dpo
import ppo
import sft
from data import world
from data.files import formats, hf, hf_tokenizer, real
from data.files.checkpoints import save_checkpoint, tokenizer_of
from data.runtime.decoding import Cache, generate
from data.runtime.rows import dialogue_rows, response_rows
from model import GPT, Config, Optimizers, export, load_checkpoint
from tests.benchmarks import peers

safetensors = pytest.importorskip(
    "safetensors", reason="safetensors is not installed: pip install safetensors transformers"
)
BASE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
KINDS = {
    "llama, grouped": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, explicit head size": ("llama", {"head_dim": 16}),
    "llama, every head its own": ("llama", {"num_key_value_heads": 4}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3, tied": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
}


def ours_from(folder) -> GPT:
    return load_checkpoint(folder)[0].eval()


def random_of(kind: str, changes: dict):
    """A model of `transformers` with random weights everywhere, biases and norms too."""
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install safetensors transformers"
    )
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    config = getattr(transformers, f"{name}Config")(**BASE | changes)
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + ("norm" in name))
    return theirs


@pytest.mark.parametrize("kind, changes", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_logits_are_those_of_transformers_padded_and_cached_too(kind, changes, tmp_path):
    theirs = random_of(kind, changes)
    theirs.save_pretrained(tmp_path)
    ours = ours_from(tmp_path)
    assert ours.config.qkv_bias == (kind == "qwen2")
    ids = torch.randint(96, (3, 20))
    expected = theirs(ids).logits
    assert (ours(ids) - expected).abs().max() < 1e-4
    real = torch.ones(3, 20, dtype=torch.bool)
    for row, padded in enumerate((7, 0, 12)):
        real[row, :padded] = False
    padded = theirs(ids, attention_mask=real.long(), position_ids=(real.cumsum(1) - 1).clamp(min=0))
    assert (ours(ids, attend=real) - padded.logits)[real].abs().max() < 1e-4
    for attend, whole in ((None, expected), (real, padded.logits)):
        cache = Cache(ours.config, 3, 20, "cpu", torch.float32)
        parts = []
        for start, end in ((0, 13), (13, 14), (14, 15), (15, 20)):  # one token goes its own way
            seen = None if attend is None else attend[:, :end]
            parts.append(ours.head(ours.hidden(ids[:, start:end], seen, cache)))
        assert (torch.cat(parts, 1) - whole)[real].abs().max() < 1e-4


def test_biases_of_q_k_and_v_are_stepped_by_adamw_and_nothing_changes_without_them():
    model = GPT(Config(96, 64, 2, 32, 4, 2, 48, qk_norm=False, qkv_bias=True)).init_weights(1)
    named = dict(model.named_parameters())
    adamw, muon = Optimizers(model, 1e-3, 1e-2).optimizers
    by_muon = {id(p) for p in muon.param_groups[0]["params"]}
    by_adamw = {id(p) for p in adamw.param_groups[0]["params"]}
    biases = [name for name in named if name.endswith("bias")]
    assert biases == [f"blocks.{i}.attention.qkv.bias" for i in range(2)]
    for name, parameter in named.items():
        assert (id(parameter) in by_muon) == name.endswith(
            ("qkv.weight", "out.weight", "gate_up.weight", "down.weight")
        )
        assert (id(parameter) in by_muon) != (id(parameter) in by_adamw)
        assert not name.endswith("bias") or not parameter.any()
    plain = GPT(Config(96, 64, 2, 32, 4, 2, 48, qk_norm=False)).init_weights(1)
    assert [name for name in named if name not in biases] == list(plain.state_dict())[:-1]
    assert all(torch.equal(named[name], p) for name, p in plain.named_parameters())


QWEN2 = {"qk_norm": False, "qkv_bias": True}


@pytest.mark.parametrize(
    "changes", [{}, {"qk_norm": False}, QWEN2, {"tied": True}, {"head_dim": 16}]
)
def test_what_is_written_reads_back_exactly(changes, tmp_path):
    config = asdict(Config(96, 64, 2, 32, 4, 2, 48)) | {"tied": False} | changes
    model = GPT(Config(**config)).init_weights(1)
    for block in model.blocks:
        if config["qkv_bias"]:
            torch.nn.init.normal_(block.attention.qkv.bias)
    weights = {
        name: value
        for name, value in model.state_dict().items()
        if not (config["tied"] and name == "head.weight")
    }
    hf.write_model(tmp_path, config, weights)
    read, back = hf.read_model(tmp_path)
    assert Config(**read) == Config(**config | {"head_dim": config["head_dim"] or 8})
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_no_layout_has_both_qk_norm_and_biases(tmp_path):
    config = Config(96, 64, 1, 32, 4, 2, 48, qkv_bias=True)
    with pytest.raises(ValueError, match="QK-norm and biases") as caught:
        hf.write_model(tmp_path / "out", asdict(config), GPT(config).state_dict())
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_shards_are_read_as_one(tmp_path):
    config = asdict(Config(96, 64, 2, 32, 4, 2, 48))
    model = GPT(Config(**config)).init_weights(1)
    hf.write_model(tmp_path, config, model.state_dict())
    whole = hf.safetensors().load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    weight_map = {
        name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(sorted(whole))
    }
    for file in set(weight_map.values()):
        hf.safetensors().save_file(
            {name: whole[name] for name in whole if weight_map[name] == file}, tmp_path / file
        )
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(
        hf.read_model(tmp_path)[1]["blocks.1.gate_up.weight"], model.blocks[1].gate_up.weight
    )


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"model_type": "mixtral"}, "mixtral"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"factor": 2.0, "rope_type": "linear"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        ({"num_experts": 8}, "mixture of experts"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_size": None}, "hidden_size"),
        ({"model_type": None}, "model_type .None"),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64}, "sliding win"),
        ({"model_type": "qwen2", "rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_s.*yarn"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}}, "rope_sc.*llama3"),
        ({"model_type": "mistral", "sliding_window": 4096}, "mistral.*sliding window .4096"),
        ({"model_type": "qwen2_moe", "num_experts": 60}, "qwen2_moe.*mixture of experts .60"),
        ({"model_type": "deepseek_v3", "n_routed_experts": 256}, "mixture of experts .256"),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias"),
    ],
)
def test_what_the_model_has_no_part_for_is_refused_by_name(changes, told, tmp_path):
    raw = {
        key: value
        for key, value in (BASE | {"model_type": "qwen3"} | changes).items()
        if value is not None
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=told) as caught:
        hf.read_model(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_switch_that_is_off_refuses_nothing():
    """As Qwen2.5's config.json has it: a window beside a switch that is off."""
    raw = BASE | {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 32768}
    assert hf.config_of(raw | {"rope_scaling": None}, "x")["qkv_bias"]


@pytest.mark.parametrize(
    "own, change, told",
    [
        ({}, {"model.norm.weight": None}, "model.norm.weight is missing"),
        ({}, {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}, "q_proj.bias has no place"),
        (QWEN2, {"model.layers.0.self_attn.k_proj.bias": None}, "k_proj.bias is missing"),
        (
            QWEN2,
            {"model.layers.0.self_attn.o_proj.bias": torch.zeros(32)},
            "o_proj.bias has no place",
        ),
    ],
)
def test_a_missing_and_a_spare_tensor_are_named(own, change, told, tmp_path):
    config = asdict(Config(96, 64, 1, 32, 4, 2, 48)) | own
    hf.write_model(tmp_path, config, GPT(Config(**config)).init_weights(1).state_dict())
    whole = hf.safetensors().load_file(tmp_path / "model.safetensors")
    hf.safetensors().save_file(
        {name: value for name, value in (whole | change).items() if value is not None},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ValueError, match=told):
        hf.read_model(tmp_path)


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="config.json: cannot be read"):
        hf.read_model(tmp_path / "nothing")


# ---- tokenizers ----

TEXTS = [
    "Hello world, it's 12345 tests!",
    "  leading and   many   spaces  7 and tabs\t\tand\n\nlines \n 8",
    "def f(x):\n    return x ** 2  # 3.14",
    "Grüße, señor — naïve café",
    "日本語のテキストと中文",
    "Привет, мир 42",
    "emoji 🎉👩‍🚀 and ½ ² ٣",
    "<|im_start|> spelled out",
    "e\u0301 decomposed",
    "",
]


def trained(pre_tokenizer, folder: Path, normalizer=None):
    """A small byte-level BPE of the `tokenizers` package, saved to folder."""
    package = pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install safetensors transformers"
    )
    from tokenizers import decoders, models, normalizers, trainers

    made = package.Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizer(package.pre_tokenizers), decoders.ByteLevel()
    if normalizer:
        made.normalizer = getattr(normalizers, normalizer)()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS * 5 + [Path(__file__).read_text(encoding="utf-8")], trainer)
    made.save(str(folder / "tokenizer.json"))
    return made


SPLITS = {
    "GPT-2": lambda p: p.ByteLevel(add_prefix_space=False),
    "digits": lambda p: p.Sequence(
        [p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)]
    ),
    "own pattern": lambda p: p.Sequence(
        [
            p.Split(
                __import__("tokenizers").Regex(r"\p{N}{1,3}| ?\p{L}+|\s+|[^\s\p{L}\p{N}]+"),
                "isolated",
            ),
            p.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize("normalizer", [None, "NFC"])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_ids_are_those_of_the_original(split, normalizer, tmp_path):
    pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install safetensors transformers"
    )
    made = trained(split, tmp_path, normalizer)
    ours = hf_tokenizer.read_tokenizer(tmp_path)
    for text in TEXTS:
        if "<|" in text:  # the spelling of a mark stays text with us
            assert ours.end_id not in ours.encode(text) and ours.decode(ours.encode(text)) == text
        else:
            assert ours.encode(text) == made.encode(text, add_special_tokens=False).ids, text


def test_a_dialogue_is_chatml_and_supervised_on_the_assistants_turns(tmp_path):
    made = trained(SPLITS["digits"], tmp_path)
    ours = hf_tokenizer.read_tokenizer(tmp_path)
    messages = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes"},
    ]
    ids, mask = ours.render(messages)
    text = (
        "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>"
    )
    assert (
        ids == made.encode(text).ids
        and ours.encoding.decode([i for i, on in zip(ids, mask) if on])
        == "4<|im_end|>Yes<|im_end|>"
    )
    assert (
        ours.read_reply(ours.encode("Yes") + [ours.end_id]).content == "Yes"
        and ours.pad_id != ours.end_id
    )


def test_dialogues_with_tool_calls_are_left_out_where_there_is_no_mark_for_them(tmp_path):
    trained(SPLITS["digits"], tmp_path)
    ours = hf_tokenizer.read_tokenizer(tmp_path)
    records = world.overall_demonstrations(
        1, {"reasoning": 8, "chat": 4, "agent": 4, "judge": 4, "new_prompt": 4}
    )
    assert dialogue_rows(ours, records["agent"], 1000) == (
        [],
        {"tool call, for which the tokenizer has no mark": len(records["agent"])},
    )
    assert len(dialogue_rows(ours, records["reasoning"][0] + records["judge"], 1000)[0]) == 6


def test_a_tokenizer_of_another_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "tokenizer.json"
    for raw, told in (
        ({"model": {"type": "BPE", "byte_fallback": True}}, "SentencePiece-like BPE"),
        ({"model": {"type": "Unigram"}}, "Unigram"),
        ({"model": {"type": "BPE"}, "normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
    ):
        path.write_text(json.dumps(raw))
        with pytest.raises(ValueError, match=told):
            hf_tokenizer.read_tokenizer(tmp_path)


# ---- export ----


def test_an_exported_checkpoint_opens_in_transformers_and_reads_back_exactly(tokenizer, tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install safetensors transformers"
    )
    model = GPT(Config(tokenizer.vocab_size, 128, 2, 32, 4, 2, 64)).init_weights(0).eval()
    export(model, tokenizer, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        if "<|" not in text:
            assert words.encode(text) == tokenizer.encode(text), text
    talk = [
        {"role": "user", "content": "7 + 8?"},
        {"role": "assistant", "content": "15"},
        {"role": "user", "content": "Sure?"},
    ]
    assert words.apply_chat_template(
        talk, add_generation_prompt=True, return_dict=False
    ) == tokenizer.prompt(talk)
    assert (words.eos_token_id, words.pad_token_id, theirs.config.eos_token_id) == (
        tokenizer.end_id,
        tokenizer.pad_id,
        tokenizer.end_id,
    )
    ids = torch.tensor([tokenizer.prompt(talk)])
    with torch.no_grad():
        assert (model.eval()(ids) - theirs(ids).logits).abs().max() < 1e-4
    again, _ = load_checkpoint(tmp_path, tokenizer)  # its tokenizer is known as ours
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values())
    )


def test_a_model_with_smear_is_refused_by_export_in_one_line(tiny_model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="smear") as error:
        export(tiny_model, tokenizer, tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="smear"):  # or the weights would be dropped in silence
        hf.write_model(tmp_path / "out", asdict(tiny_model.config), tiny_model.state_dict())
    assert not (tmp_path / "out").exists()


def test_the_benchmark_beside_peers_refuses_a_checkpoint_with_a_part_that_they_lack(
    tiny_model, tokenizer, tmp_path, monkeypatch, capsys
):
    save_checkpoint(tmp_path / "x.pt", tiny_model, tokenizer, "sft")
    monkeypatch.setattr(sys, "argv", ["peers.py", "--checkpoint", str(tmp_path / "x.pt")])
    monkeypatch.setattr(peers, "sft_step", None)
    with pytest.raises(SystemExit) as stop:
        peers.main()
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "x.pt: has smear" in err and err.count("\n") == 1


def test_a_checkpoint_trained_from_a_directory_carries_its_tokenizer_and_exports_it_unchanged(
    tmp_path,
):
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    trained(SPLITS["digits"], source)
    words = hf_tokenizer.read_tokenizer(source)
    model = GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48)).init_weights(1)
    save_checkpoint(tmp_path / "sft.pt", model, words, "sft")
    back = tokenizer_of(tmp_path / "sft.pt")
    assert back.fingerprint == words.fingerprint
    assert back.prompt([{"role": "user", "content": "Hi 12"}]) == words.prompt(
        [{"role": "user", "content": "Hi 12"}]
    )
    export(load_checkpoint(tmp_path / "sft.pt", back)[0], back, copy)
    assert (copy / "tokenizer.json").read_text(encoding="utf-8") == (
        source / "tokenizer.json"
    ).read_text(encoding="utf-8")
    assert hf_tokenizer.read_tokenizer(copy).fingerprint == words.fingerprint


# ---- chat templates ----

SMOLLM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
LOOP = "{% for message in messages %}"
OPENING = (
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nDEFAULT<|im_end|>\n' }}{% endif %}"
)
TURN = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
CLOSING = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = LOOP + TURN + CLOSING
WITH_DEFAULT = LOOP + OPENING + TURN + CLOSING
HI = {"role": "user", "content": "Hi"}
TALK = [HI, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "2+2?"}]
BRIEF = {"role": "system", "content": "Be brief."}


# behaves as Qwen2.5's, in our own spelling
TOOLS_TOLD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
CALLS_TOLD = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    'within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": '
    "<args-json-object>}\n</tool_call>"
)
QWEN = "".join(
    [
        "{% if tools %}{{ '<|im_start|>system\\n' }}",
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}",
        "{% else %}{{ 'DEFAULT' }}{% endif %}",
        "{{ " + json.dumps("\n\n" + TOOLS_TOLD) + " }}",
        "{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}",
        "{{ " + json.dumps(CALLS_TOLD + "<|im_end|>\n") + " }}",
        "{% else %}{% if messages[0].role == 'system' %}",
        "{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}",
        "{% else %}{{ '<|im_start|>system\\nDEFAULT<|im_end|>\\n' }}{% endif %}{% endif %}",
        "{% for message in messages %}",
        "{% if message['role'] == 'user' or message['role'] == 'system' and not loop.first ",
        "or message['role'] == 'assistant' and not message['tool_calls'] %}",
        TURN.replace("\n", "\\n"),
        "{% elif message['role'] == 'assistant' %}{{ '<|im_start|>' + message['role'] }}",
        "{% if message['content'] %}{{ '\\n' + message['content'] }}{% endif %}",
        "{% for tool_call in message['tool_calls'] %}",
        "{% if tool_call.function is defined %}{% set tool_call = tool_call.function %}{% endif %}",
        r"""{{ '\n<tool_call>\n{\"name\": \"' + tool_call.name + '\", \"arguments\": ' }}""",
        "{{ tool_call.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}",
        "{{ '<|im_end|>\\n' }}",
        "{% elif message['role'] == 'tool' %}",
        "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}",
        "{% endif %}{{ '\\n<tool_response>\\n' + message['content'] + '\\n</tool_response>' }}",
        "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}",
        "{% endif %}{% endif %}{% endfor %}",
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ]
)
ALIBABA = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def byte_directory(folder: Path, template=None, added=(), vocab=(), merges=(), normalizer=None):
    """A directory whose tokenizer has one token a byte, ChatML's marks and what else is given."""
    folder.mkdir(exist_ok=True)
    marks = [
        {"content": f"<|{name}|>", "special": True} for name in ("endoftext", "im_start", "im_end")
    ]
    letters = [*hf_tokenizer.byte_letters(), *vocab]
    at = {letter: i for i, letter in enumerate(letters)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = [
        flags | one | {"id": at.setdefault(one["content"], len(at))} for one in [*marks, *added]
    ]
    split = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    raw = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "decoder": split,
        "pre_tokenizer": split,
        "added_tokens": tokens,
        "normalizer": normalizer and {"type": normalizer},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "fuse_unk": False,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "byte_fallback": False,
            "merges": list(merges),
            "vocab": {letter: i for i, letter in enumerate(letters)},
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    (folder / "config.json").write_text("{}")
    if template is not None:
        raw = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
        (folder / "tokenizer_config.json").write_text(json.dumps(raw), encoding="utf-8")
    return folder


def of_transformers(folder: Path):
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install safetensors transformers"
    )
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def asked(tokenizer, messages: list[dict]) -> list[int]:
    """The prompt by the chat template of a tokenizer of `transformers`."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


SMOLLM2_OUTPUTS = [
    (
        [HI],
        f"<|im_start|>system\n{SMOLLM}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    (
        [BRIEF, HI],
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    (
        TALK,
        f"<|im_start|>system\n{SMOLLM}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    (
        [BRIEF, *TALK],
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
]


@pytest.mark.parametrize("messages, output", SMOLLM2_OUTPUTS)
def test_a_prompt_is_the_output_of_smollm2s_template(messages, output, tmp_path):
    ours = hf_tokenizer.read_tokenizer(
        byte_directory(tmp_path, WITH_DEFAULT.replace("DEFAULT", SMOLLM))
    )
    assert ours.encoding.decode(ours.prompt(messages)) == output


def test_a_default_system_turn_is_not_supervised_and_stands_before_a_whole_dialogue(tmp_path):
    ours = hf_tokenizer.read_tokenizer(byte_directory(tmp_path, WITH_DEFAULT))
    ids, mask = ours.render(TALK[:2])
    assert ours.encoding.decode(ids) == (
        "<|im_start|>system\nDEFAULT<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>"
    )
    assert ours.encoding.decode([i for i, on in zip(ids, mask) if on]) == "Yes?<|im_end|>"
    ((row, own),) = response_rows(ours, [HI], ["Yes?"])
    assert row == ids and own == mask


TEMPLATES = {
    "ChatML": (CHATML, ""),
    "a default": (WITH_DEFAULT, "DEFAULT"),
    "escaped line breaks": (WITH_DEFAULT.replace("\n", "\\n"), "DEFAULT"),
    "double quotes": (WITH_DEFAULT.replace("'", '"'), "DEFAULT"),
    "attributes": (
        WITH_DEFAULT.replace("message['role']", "message.role").replace(
            "message['content']", "message.content"
        ),
        "DEFAULT",
    ),
    "one string": (WITH_DEFAULT.replace("'<|im_end|>' + '\n'", "'<|im_end|>\n'"), "DEFAULT"),
    "line by line": (
        WITH_DEFAULT.replace("}{", "}\n{").replace("{{", "{{-").replace("{%", "{%-") + "\n",
        "DEFAULT",
    ),
    "a line a block": (WITH_DEFAULT.replace("%}", "%}\n"), "DEFAULT"),
    "a quote in the default": (
        WITH_DEFAULT.replace("DEFAULT", 'Say "I am" + \\n once'),
        'Say "I am" + \n once',
    ),
    "a switch that may be missing": (
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
        "{% endif %}" + CHATML,
        "",
    ),
    "trimmed": (WITH_DEFAULT.replace("message['content']", "message['content'] | trim"), None),
    "other marks": (CHATML.replace("im_start", "start"), None),
    "another role asked": (CHATML.replace("assistant", "model"), None),
    "text between the turns": (CHATML.replace("{% endfor %}", " {% endfor %}"), None),
    "a line break after the default": (WITH_DEFAULT.replace("%}{{'", "%}\n\n{{'"), None),
    "a default before every turn": (WITH_DEFAULT.replace("loop.first and ", ""), None),
    "the default without its end": (WITH_DEFAULT.replace("DEFAULT<|im_end|>", "DEFAULT"), None),
    "a field in the default": (WITH_DEFAULT.replace("DEFAULT", "' + message['content'] + '"), None),
    "a field's name in the default": (WITH_DEFAULT.replace("DEFAULT", "{content}"), "{content}"),
    "an escape": (WITH_DEFAULT.replace("DEFAULT", "\\t"), None),
    "a tool branch": (CHATML.replace(TURN, "{% if tools %}{{ tools }}{% endif %}" + TURN), None),
    "empty": ("", None),
    "tools": (QWEN, "DEFAULT"),
    "tools, line by line": (
        QWEN.replace("{{", "\n    {{-").replace("{%", "\n  {%-") + "\n",
        "DEFAULT",
    ),
    "tools, double quotes": (
        QWEN.replace('\\"', "QUOTE").replace("'", '"').replace("QUOTE", '\\"'),
        "DEFAULT",
    ),
    "tools, two defaults": (QWEN.replace("'DEFAULT'", "'ANOTHER'"), None),
    "tools told in other words": (QWEN.replace("You may call", "Call"), None),
    "tools, results of their own": (QWEN.replace("tool_response", "result"), None),
    "tools, and thoughts": (QWEN.replace("\\n' + message['content']", "\\n<think>' + 'x'"), None),
    "tools, a branch more": (
        QWEN.replace("{{ 'DEFAULT' }}", "{% if a %}{{ 'DEFAULT' }}{% endif %}"),
        None,
    ),
    "tools, another field": (QWEN.replace("tool_call.name", "tool_call.id"), None),
    "tools, a field for the default": (QWEN.replace("'DEFAULT'", "tools"), None),
}


@pytest.mark.parametrize("template, default", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_is_known_by_its_structure_or_not_at_all(template, default, tmp_path):
    ours = hf_tokenizer.read_tokenizer(byte_directory(tmp_path, template))
    assert ours.default_system == default
    assert ours.json_calls == (default is not None and "tools" in template)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if TEMPLATES[name][1] is not None])
def test_prompts_are_those_that_transformers_renders(name, tmp_path):
    ours = hf_tokenizer.read_tokenizer(byte_directory(tmp_path, TEMPLATES[name][0]))
    theirs = of_transformers(tmp_path)
    for talk in (
        [HI],
        TALK,
        TALK[:2],
        [BRIEF],
        [BRIEF, *TALK],
        [HI, BRIEF, HI],
        [{"role": "system", "content": ""}, HI],
        [{"role": "user", "content": "\n\n  def f():\n\treturn 1\n\n "}],
    ):
        assert ours.prompt(talk) == asked(theirs, talk), talk


AGE = {"type": "function", "function": {"name": "age", "parameters": {"of": "größe <b>"}}}
PRICE = {"type": "function", "function": {"name": "price", "parameters": {}}}
ASKS = [
    {"role": "user", "content": "How old is Tom?"},
    {"role": "assistant", "content": "", "tool_call": 'age {"of": "Tom é"}'},
    {"role": "tool", "content": "31"},
    {"role": "assistant", "content": "I look.", "tool_call": 'price {"of": ["a", "b"], "in": 2}'},
    {"role": "tool", "content": "<b>1</b>"},
    {"role": "tool", "content": "2\n"},
    {"role": "assistant", "content": "31, 1 and 2."},
]


def in_openais_words(talk: list[dict]) -> tuple[list[dict], list | None]:
    """(the messages with `tool_calls` for `tool_call`, the definitions of their system turn)."""
    messages = []
    for message in talk:
        made = {key: value for key, value in message.items() if key not in ("tool_call", "tools")}
        if "tool_call" in message:
            name, _, arguments = message["tool_call"].partition(" ")
            function = {"name": name, "arguments": json.loads(arguments)}
            made["tool_calls"] = [{"type": "function", "function": function}]
        messages.append(made)
    tools = talk[0].get("tools")
    if tools and not messages[0]["content"]:  # a system turn for the definitions alone
        messages = messages[1:]
    return messages, tools


@pytest.mark.parametrize("first", [[], [BRIEF], [BRIEF | {"tools": [AGE, PRICE]}], [{}]])
def test_tools_are_those_of_qwens_template(first, tmp_path):
    if first == [{}]:
        first = [{"role": "system", "content": "", "tools": [AGE]}]
    ours = hf_tokenizer.read_tokenizer(byte_directory(tmp_path, QWEN.replace("DEFAULT", ALIBABA)))
    theirs = of_transformers(tmp_path)
    for end in range(1, len(ASKS) + 1):
        talk = [*first, *ASKS[:end]]
        messages, tools = in_openais_words(talk)
        how = {"return_dict": False, "tools": tools}
        assert ours.prompt(talk) == theirs.apply_chat_template(
            messages, add_generation_prompt=True, **how
        )
        whole = ours.render(talk)[0] + ours.after_end * (talk[-1]["role"] == "assistant")
        assert whole == theirs.apply_chat_template(messages, **how)


def test_calls_are_learned_as_text_and_results_and_definitions_are_not(tmp_path):
    ours = hf_tokenizer.read_tokenizer(byte_directory(tmp_path, QWEN.replace("DEFAULT", ALIBABA)))
    talk = [{"role": "system", "content": "", "tools": [AGE]}, *ASKS]
    ids, mask = ours.render(talk)
    assert ours.encoding.decode([i for i, on in zip(ids, mask) if on]) == (
        '<tool_call>\n{"name": "age", "arguments": {"of": "Tom é"}}\n</tool_call><|im_end|>'
        'I look.\n<tool_call>\n{"name": "price", "arguments": {"of": ["a", "b"], "in": 2}}\n'
        "</tool_call><|im_end|>31, 1 and 2.<|im_end|>"
    )
    told = f"<|im_start|>system\n{ALIBABA}\n\n{TOOLS_TOLD}\n" + json.dumps(AGE, ensure_ascii=False)
    text = ours.encoding.decode(ids)
    assert text.startswith(told + CALLS_TOLD + "<|im_end|>\n<|im_start|>user\nHow old")
    assert (
        "<|im_start|>user\n<tool_response>\n<b>1</b>\n</tool_response>\n<tool_response>\n2\n\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n31" in text
    )
    assert ids[: len(ours.prompt(talk[:-1]))] == ours.prompt(talk[:-1])


def test_what_qwens_format_has_no_words_for_is_left_out_and_refused(tmp_path):
    ours = hf_tokenizer.read_tokenizer(byte_directory(tmp_path, QWEN))
    bad = [
        ASKS[:1] + [{"role": "assistant", "content": "", "tool_call": "age of Tom"}],
        ASKS[:1] + [{"role": "assistant", "content": "", "tool_call": "age [1]"}],
        [ASKS[0] | {"tools": [AGE]}, ASKS[-1]],
        [*ASKS[:3], BRIEF | {"tools": [AGE]}, ASKS[-1]],
    ]
    good = [ASKS, ASKS[:1] + [{"role": "assistant", "content": "", "tool_call": "now"}]]
    for talk in bad:
        with pytest.raises(ValueError, match="in this chat format|in this format"):
            ours.render(talk)
    rows, dropped = dialogue_rows(ours, [{"messages": talk} for talk in [*bad, *good]], 4000)
    assert [ids for ids, _ in rows] == [ours.render(talk)[0] for talk in good]
    assert dropped == {"tool call, for which the tokenizer has no mark": 4}
    assert '{"name": "now", "arguments": {}}' in ours.encoding.decode(rows[1][0])
    (row,) = response_rows(ours, ASKS[:-1], ["31."])
    assert ours.encoding.decode([i for i, on in zip(*row) if on]) == "31.<|im_end|>"


def test_white_space_that_opens_a_turn_is_one_token_with_the_line_break_before_it(tmp_path):
    """ĊĊ is two line breaks: one stands after the role, the content brings a second and a third."""
    ours = hf_tokenizer.read_tokenizer(
        byte_directory(tmp_path, CHATML, vocab=["ĊĊ"], merges=["Ċ Ċ"])
    )
    talk = [{"role": "user", "content": "\n\nHi"}]
    ids = ours.render(talk)[0]
    assert [ours.encoding.decode([i]) for i in ids] == [
        "<|im_start|>",
        *"user",
        "\n\n",
        "\n",
        *"Hi",
        "<|im_end|>",
        "\n",
    ]
    assert ids + ours.headers["assistant"] == asked(of_transformers(tmp_path), talk)


def test_a_template_is_found_where_transformers_finds_it(tmp_path):
    byte_directory(
        tmp_path,
        [{"name": "tool_use", "template": "x"}, {"name": "default", "template": WITH_DEFAULT}],
    )
    assert hf_tokenizer.read_tokenizer(tmp_path).default_system == "DEFAULT"
    byte_directory(tmp_path, [{"name": "tool_use", "template": WITH_DEFAULT}])
    assert hf_tokenizer.read_tokenizer(tmp_path).default_system is None
    byte_directory(tmp_path, CHATML)
    alone = WITH_DEFAULT.replace("DEFAULT", "Größe")
    (tmp_path / "chat_template.jinja").write_text(alone, encoding="utf-8")
    assert hf_tokenizer.read_tokenizer(tmp_path).default_system == "Größe"
    of_transformers(tmp_path).save_pretrained(tmp_path / "saved")
    assert hf_tokenizer.read_tokenizer(tmp_path / "saved").default_system == "Größe"


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_damaged_file_of_the_tokenizer_is_named(name, tmp_path):
    (byte_directory(tmp_path, CHATML) / name).write_bytes(b'{"chat_template": "\xff')
    with pytest.raises(ValueError, match=f"{name}: cannot be read") as caught:
        hf_tokenizer.read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_line_says_where_a_template_is_not_known(tmp_path, capsys):
    line = ": no chat template that is known here: dialogues are rendered as plain ChatML\n"
    for name, template, told in (
        ("none", None, 1),
        ("other", "{{ messages }}", 1),
        ("ChatML", CHATML, 0),
        ("default", WITH_DEFAULT, 0),
    ):
        ours = tokenizer_of(byte_directory(tmp_path / name, template))
        assert capsys.readouterr().out == f"{tmp_path / name}{line}" * told
        opening = "<|im_start|>system\nDEFAULT<|im_end|>\n" * (name == "default")
        assert ours.encoding.decode(ours.prompt([HI])) == (
            opening + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        )


def test_only_one_rank_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data.files.checkpoints.rank", lambda: 1)
    tokenizer_of(byte_directory(tmp_path))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "template, default",
    [
        (None, ""),
        (CHATML, ""),
        (WITH_DEFAULT.replace("DEFAULT", 'Größe 😀\\n"x"'), 'Größe 😀\n"x"'),
        (QWEN.replace("DEFAULT", ALIBABA), ALIBABA),
    ],
)
def test_a_default_system_turn_outlives_a_checkpoint_and_an_export(
    template, default, tmp_path, capsys
):
    words = hf_tokenizer.read_tokenizer(byte_directory(tmp_path / "source", template))
    model = GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48)).init_weights(1)
    save_checkpoint(tmp_path / "sft.pt", model, words, "sft")
    back = tokenizer_of(tmp_path / "sft.pt")
    assert back.prompt(TALK) == words.prompt(TALK) and back.fingerprint == words.fingerprint
    export(model, back, tmp_path / "out")
    (tmp_path / "out" / "chat_template.jinja").write_text("{{ 'an older one' }}")
    export(model, back, tmp_path / "out")
    again = tokenizer_of(tmp_path / "out")
    assert again.default_system == default and again.prompt(TALK) == words.prompt(TALK)
    assert words.json_calls == back.json_calls == again.json_calls == (default == ALIBABA)
    assert capsys.readouterr().out == ""
    assert asked(of_transformers(tmp_path / "out"), TALK) == words.prompt(TALK)


def test_a_checkpoint_of_before_is_rendered_as_it_was_trained(tmp_path):
    words = hf_tokenizer.read_tokenizer(byte_directory(tmp_path / "source", WITH_DEFAULT))
    model = GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48))
    save_checkpoint(tmp_path / "sft.pt", model, words, "sft")
    saved = torch.load(tmp_path / "sft.pt", weights_only=True)
    assert saved.pop("default_system") == "DEFAULT"
    torch.save(saved, tmp_path / "old.pt")
    back = tokenizer_of(tmp_path / "old.pt")
    assert back.encoding.decode(back.prompt([HI])) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


# ---- added tokens ----

ADDED = [
    {"content": "<think>", "special": False},
    {"content": "</think>", "special": False},
    {"content": "<think>!", "special": False},
    {"content": "<|tool|>", "special": True},
    {"content": "<left>", "special": False, "lstrip": True},
    {"content": "<right>", "special": False, "rstrip": True},
    {"content": "word", "special": False, "single_word": True},
]
SPELLED = [
    "<think>5</think>",
    "a<think>!b<think>",
    "x  <left>  y",
    "x  <right>\n y",
    "<think>",
    "word words sword (word) word",
    "<think",
    "e\u0301<think>e\u0301",
    "",
]


@pytest.mark.parametrize("normalizer", [None, "NFC"])
def test_added_tokens_that_are_not_special_are_single_tokens(normalizer, tmp_path):
    ours = hf_tokenizer.read_tokenizer(
        byte_directory(tmp_path, CHATML, ADDED, normalizer=normalizer)
    )
    ids = ours.encode("a <think>5</think>")
    assert [ours.decode([i]) for i in ids] == ["a", " ", "<think>", "5", "</think>"]
    assert len(ours.encode("<|tool|><|im_end|>")) == 18  # marks that are special stay text
    theirs = of_transformers(tmp_path)
    for text in SPELLED:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
    reply = "<think>\n5</think> 6"
    talk = [{"role": "user", "content": "<think>x"}, {"role": "assistant", "content": reply}, HI]
    assert ours.prompt(talk) == asked(theirs, talk)
    assert ours.read_reply(ours.encode(reply) + [ours.end_id]).content == reply


def test_runs_of_spaces_may_be_added_tokens(tmp_path):
    added = [{"content": " " * n, "special": False} for n in (2, 3, 8)]
    ours = hf_tokenizer.read_tokenizer(byte_directory(tmp_path, CHATML, added))
    theirs = of_transformers(tmp_path)
    for text, parts in (("        x", 2), ("     x", 3), (" x", 2), ("x    ", 3)):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert len(ours.encode(text)) == parts and ours.decode(ours.encode(text)) == text


def test_an_added_token_may_be_a_word_that_the_merges_make(tmp_path):
    """`the` is th + e, and added besides: one token before any merge; so is q, as a word alone."""
    added = [
        {"content": "the", "special": False},
        {"content": "q", "special": False, "single_word": True},
    ]
    byte_directory(tmp_path, CHATML, added, ["th", "the", "hq"], ["t h", "th e", "h q"])
    ours, theirs = hf_tokenizer.read_tokenizer(tmp_path), of_transformers(tmp_path)
    for text, parts in (("the", 1), ("xthe", 2), ("thx", 2), ("q", 1), ("hq", 1), ("aqa", 3)):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
        assert len(ours.encode(text)) == parts, text


# ---- what an export renders ----

THOUGHT = [
    {"role": "user", "content": "2+3?"},
    {"role": "assistant", "think": "2+3=5", "content": "5"},
]
CALLED = [
    HI,
    {"role": "assistant", "content": "", "tool_call": "age Tom"},
    {"role": "tool", "content": "31"},
    {"role": "assistant", "think": "it is 31", "content": "", "tool_call": "calc 31+1"},
    {"role": "tool", "content": "32"},
    {"role": "assistant", "think": "31+1=32", "content": "32"},
]


@pytest.fixture
def plain_model(tokenizer):
    """Without smear, which the layouts of other makers have no place for."""
    return GPT(Config(tokenizer.vocab_size, 128, 2, 32, 4, 2, 64)).init_weights(0)


def test_an_export_renders_every_field(plain_model, tokenizer, tmp_path):
    export(plain_model, tokenizer, tmp_path)
    theirs = of_transformers(tmp_path)
    kinds = ("reasoning", "chat", "agent", "judge", "new_prompt")
    records = world.overall_demonstrations(1, dict.fromkeys(kinds, 4))
    own = [record["messages"] for record in [*records["agent"], *records["chat"]]]
    for talk in (
        THOUGHT,
        [*THOUGHT, HI],
        [BRIEF, *CALLED],
        CALLED,
        CALLED[:3],
        CALLED[:5],
        [*CALLED, HI],
        *own,
    ):
        assert asked(theirs, talk) == tokenizer.prompt(talk), talk
        whole = theirs.apply_chat_template(talk, return_dict=False)
        assert whole == tokenizer.render(talk)[0], talk
    assert (
        "<|think|>it is 31<|end_think|><|tool_call|>calc 31+1<|end|><|tool_result|>32"
        in theirs.decode(asked(theirs, CALLED))
    )


def test_an_export_with_chatml_renders_thoughts_and_refuses_tool_calls_as_we_do(tmp_path):
    words = hf_tokenizer.read_tokenizer(byte_directory(tmp_path / "source", WITH_DEFAULT))
    export(GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48)), words, tmp_path)
    theirs = of_transformers(tmp_path)
    for talk in (THOUGHT, [*THOUGHT, HI], [BRIEF, *THOUGHT, HI], TALK):
        assert asked(theirs, talk) == words.prompt(talk), talk
        whole = words.render(talk)[0] + words.after_end * (talk[-1]["role"] == "assistant")
        assert theirs.apply_chat_template(talk, return_dict=False) == whole
    for talk in (CALLED[:2], [HI, CALLED[2]]):
        with pytest.raises(ValueError, match="no mark for a tool call or its result"):
            words.prompt(talk)
        with pytest.raises(Exception, match="no mark for a tool call or its result"):
            asked(theirs, talk)


def test_an_export_renders_tools_as_we_do(plain_model, tokenizer, tmp_path):
    """By our marks, or as Qwen2.5 does, and from OpenAI's words too."""
    export(plain_model, tokenizer, tmp_path / "ours")
    words = hf_tokenizer.read_tokenizer(byte_directory(tmp_path / "source", QWEN))
    export(GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48)), words, tmp_path / "qwen")
    for own, folder in ((tokenizer, "ours"), (words, "qwen")):
        theirs = of_transformers(tmp_path / folder)
        for first in ([], [BRIEF | {"tools": [AGE, PRICE]}], [BRIEF], "alone"):
            if first == "alone":
                first = [{"role": "system", "content": "", "tools": [AGE]}]
            for end in range(1, len(ASKS) + 1):
                talk = [*first, *ASKS[:end]]
                expected = own.prompt(talk)
                assert asked(theirs, talk) == expected, talk
                messages, tools = in_openais_words(talk)
                given = theirs.apply_chat_template(
                    messages, tools=tools, add_generation_prompt=True, return_dict=False
                )
                assert given == expected, talk
        calls = [{"function": {"name": "now", "arguments": ""}}]
        no_arguments = [HI, {"role": "assistant", "content": "", "tool_calls": calls}]
        assert asked(theirs, no_arguments) == own.prompt(
            [HI, {"role": "assistant", "content": "", "tool_call": "now"}]
        )
    assert '<|system|>Be brief.\n\nTools:\n{"type": "function"' in tokenizer.encoding.decode(
        tokenizer.prompt([BRIEF | {"tools": [AGE]}, HI])
    )


def test_an_exported_template_drops_nothing_in_silence(plain_model, tokenizer, tmp_path):
    export(plain_model, tokenizer, tmp_path / "ours")
    words = hf_tokenizer.read_tokenizer(byte_directory(tmp_path / "source", CHATML))
    export(GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48)), words, tmp_path / "chatml")
    words.default_system, words.json_calls = "x", True
    export(GPT(Config(words.vocab_size, 64, 1, 32, 4, 2, 48)), words, tmp_path / "qwen")
    calls = [{"function": {"name": "age", "arguments": {"of": "Tom"}}}]
    called = {"role": "assistant", "content": "", "tool_calls": calls}
    later = [HI, BRIEF | {"tools": [AGE]}]
    for folder, talk, tools, told in (
        ("chatml", [HI, called], None, "a tool call is text in tool_call"),
        ("chatml", [HI], [AGE], "a tool call is text in tool_call"),
        ("ours", [HI, called | {"tool_calls": calls * 2}], None, "a turn holds one tool call"),
        ("ours", later, None, "tools are defined in the first system turn"),
        ("qwen", later, None, "tools are defined in the first system turn"),
        ("qwen", CALLED, None, "NAME and a JSON object"),
        *((name, [{"role": "robot", "content": "x"}], None, "unknown role robot") for name in ALL),
    ):
        theirs = of_transformers(tmp_path / folder)
        with pytest.raises(Exception, match=told):
            theirs.apply_chat_template(talk, tools=tools)


ALL = ("chatml", "ours", "qwen")
WITH_TOOLS = [
    BRIEF | {"tools": [AGE]},
    {"role": "user", "content": "How old?"},
    {"role": "assistant", "content": "", "think": "I look.", "tool_call": 'age {"of": "Tom"}'},
    {"role": "tool", "content": "31"},
    {"role": "assistant", "content": "31", "think": "so"},
    {"role": "user", "content": "Sure?"},
]
EXPORTS = {  # Config fields, the source's template, a dialogue
    "tiny tokenizer": ({}, None, WITH_TOOLS),
    "Llama, ChatML": ({"qk_norm": False}, WITH_DEFAULT, [*THOUGHT, HI]),
    "Qwen3, ChatML": ({"head_dim": 16, "tied": True}, CHATML, [BRIEF, *THOUGHT, HI]),
    "Qwen2.5": (QWEN2, QWEN.replace("DEFAULT", ALIBABA), WITH_TOOLS),
    "Qwen2.5, no system turn": (QWEN2 | {"tied": True}, QWEN, WITH_TOOLS[1:]),
}


@pytest.mark.parametrize("changes, template, talk", EXPORTS.values(), ids=EXPORTS)
@torch.no_grad()
def test_an_export_loses_nothing(changes, template, talk, tokenizer, tmp_path, capsys):
    """Back here and in `transformers`: logits, ids of a dialogue, and what is written greedily."""
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install safetensors transformers"
    )
    words = tokenizer
    if template:
        words = hf_tokenizer.read_tokenizer(byte_directory(tmp_path / "source", template))
    fields = {"tied": False} | changes
    model = GPT(Config(words.vocab_size, 2048, 2, 32, 4, 2, 48, **fields)).init_weights(0).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "down.weight", "bias")):  # these start at 0
            torch.nn.init.normal_(parameter, std=0.3)
    prompt = words.prompt(talk)
    if not model.config.tied:  # its ninth token would be this one, and is an end mark instead
        ninth = generate(model, words, [prompt], temperature=0.0, max_new=9).lists()[0][-1]
        model.head.weight[words.end_id] = 1.01 * model.head.weight[ninth]
    written = generate(model, words, [prompt], temperature=0.0, max_new=16).lists()[0]
    assert (words.end_id in written) != model.config.tied and len(written) > 1
    save_checkpoint(tmp_path / "sft.pt", model, words, "sft")
    saved = [str(tmp_path / "sft.pt"), "--export", str(tmp_path / "out")]
    subprocess.run([sys.executable, "model.py", *saved], cwd=Path(__file__).parents[1], check=True)

    again = tokenizer_of(tmp_path / "out")
    back = load_checkpoint(tmp_path / "out", again)[0].eval()
    assert capsys.readouterr().out == "" and again.fingerprint == words.fingerprint
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())
    assert again.render(talk) == words.render(talk)
    assert generate(back, again, [prompt], temperature=0.0, max_new=16).lists()[0] == written

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    their_words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert asked(their_words, talk) == prompt
    ids = torch.tensor([prompt])
    assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4
    both = torch.nn.functional.pad(ids.repeat(2, 1), (3, 0), value=words.pad_id)
    attend = torch.ones_like(both)
    attend[:, :3] = 0
    continued = theirs.generate(both, attention_mask=attend, max_new_tokens=16)
    for row in continued[:, both.shape[1] :].tolist():
        assert row == written
    settings = theirs.generation_config
    assert (settings.eos_token_id[0], settings.pad_token_id) == (words.end_id, words.pad_id)
    assert set(settings.eos_token_id[1:]) == words.runtime_ids and not settings.do_sample
    assert their_words.decode(written, skip_special_tokens=True) == words.decode(
        [i for i in written if i not in words.mark_ids]
    )


# ---- real models, where a folder of them is given (POSTTRAIN_MODELS):

MODELS = Path(os.environ.get("POSTTRAIN_MODELS", Path(__file__).parents[2] / "models"))


def real_model(name: str) -> Path:
    if not (MODELS / name / "reference_logits.safetensors").exists():
        pytest.skip(
            f"no {name} directory in {MODELS}; the scripts that build it are named in the README"
        )
    return MODELS / name


@pytest.mark.parametrize("name, close", [("stories260k", 1e-4), ("smollm2", 1e-4)])
def test_a_real_models_logits_are_the_reference_padded_and_cached_too(name, close):
    folder = real_model(name)
    model = ours_from(folder)
    reference = hf.safetensors().load_file(folder / "reference_logits.safetensors")
    rows = [(reference[f"input_ids_{i}"], reference[f"logits_{i}"]) for i in range(3)]
    with torch.no_grad():
        for ids, logits in rows:
            assert (model(ids[None])[0] - logits).abs().max() < close
        longest = max(len(ids) for ids, _ in rows)  # padded on the left, in one batch
        padded = torch.stack(
            [torch.nn.functional.pad(ids, (longest - len(ids), 0)) for ids, _ in rows]
        )
        real = torch.stack(
            [
                torch.nn.functional.pad(
                    torch.ones(len(ids), dtype=torch.bool), (longest - len(ids), 0)
                )
                for ids, _ in rows
            ]
        )
        together = model(padded, attend=real)
        for (ids, logits), got in zip(rows, together):
            assert (got[-len(ids) :] - logits).abs().max() < close
        ids, logits = rows[1]
        cache = Cache(model.config, 1, len(ids), "cpu", torch.float32)
        parts = [
            model.head(model.hidden(ids[None, i:j], cache=cache))
            for i, j in ((0, 10), (10, 11), (11, 12), (12, len(ids)))
        ]
        assert (torch.cat(parts, 1)[0] - logits).abs().max() < close


def test_smollm2s_tokenizer_and_chat_marks_are_the_originals():
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install safetensors transformers"
    )
    folder = real_model("smollm2")
    ours = hf_tokenizer.read_tokenizer(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        if "<|" not in text:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
    assert ours.default_system == SMOLLM
    for talk, output in SMOLLM2_OUTPUTS:
        assert ours.prompt(talk) == asked(theirs, talk)
        assert theirs.decode(ours.prompt(talk)) == output
    for text in TEXTS + ["  two spaces", "\n\nline breaks\n", "\n 5"]:
        if "<|" not in text:
            talk = [{"role": "user", "content": text}]
            assert ours.prompt(talk) == asked(theirs, talk), text


def test_smollm2_knows_its_capital():
    folder = real_model("smollm2")
    words = hf_tokenizer.read_tokenizer(folder)
    samples = generate(
        ours_from(folder),
        words,
        [words.prompt([{"role": "user", "content": "What is the capital of France?"}])],
        temperature=0.0,
        max_new=12,
    )
    assert "Paris" in words.read_reply(samples.lists()[0]).content


def test_stories260ks_tokenizer_is_refused_by_name():
    with pytest.raises(ValueError, match="SentencePiece-like BPE"):
        hf_tokenizer.read_tokenizer(real_model("stories260k"))


@pytest.mark.slow
def test_smollm2_takes_an_sft_step_a_dpo_step_and_an_rl_iteration_on_real_records(tmp_path):
    folder = real_model("smollm2")
    words, model = hf_tokenizer.read_tokenizer(folder), load_checkpoint(folder)[0]
    model.recompute = True
    fixtures = Path(__file__).parent / "fixtures"
    gsm8k = formats.read_records(fixtures / "gsm8k_train_20.jsonl", "instruction")[0]
    rows, _ = dialogue_rows(words, gsm8k, 512)
    own = sft.train(
        model,
        words,
        rows,
        sft.Settings(1, rows=2, muon_lr=1e-4, adam_lr=1e-5, micro_tokens=512),
        seed=1,
        stage="sft",
    )
    assert 0 < own["loss"] < 4  # it has seen such text before
    pairs = [
        tuple(response_rows(words, one["prompt"], [one["chosen"], one["rejected"]]))
        for one in formats.read_records(fixtures / "hh_rlhf_20.jsonl.gz", "preference")[0]
    ]
    pairs = [pair for pair in pairs if max(len(ids) for ids, _ in pair) < 300][:2]
    own = dpo.train(
        model, words, pairs, dpo.Settings(steps=1, rows=2, micro_pairs=1, lr=1e-6), seed=1
    )
    assert own["loss"] == pytest.approx(math.log(2), abs=1e-4)
    tasks = [real.task_of("math", record) for record in gsm8k[:2]]
    settings = ppo.Settings(
        iterations=1,
        prompts=2,
        samples=2,
        epochs=1,
        minibatches=1,
        max_new=24,
        micro_rows=2,
        rehearsal_rows=0,
        mask_truncated=False,
        lr=1e-6,
    )
    own = ppo.train(model, words, tasks, settings, seed=1, stage="rl_stem")
    assert own["first_log_ratio"] < 1e-4 and own["tokens"] > 0
    save_checkpoint(tmp_path / "rl.pt", model, words, "rl_stem")
    words = tokenizer_of(tmp_path / "rl.pt")
    export(load_checkpoint(tmp_path / "rl.pt", words)[0], words, tmp_path / "out")
    assert torch.equal(
        load_checkpoint(tmp_path / "out")[0].embedding.weight, model.embedding.weight
    )


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu():
    pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install safetensors transformers"
    )
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU, and there is none")
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.gpu",
        *"--size tiny --rows 2 --batch 2 --length 64 --new 4 --rounds 1 --device cpu".split(),
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        done.stdout.count("ours is") == 2
        and float(re.search(r"differ by at most (\S+)", done.stdout)[1]) < 1e-4
    )
