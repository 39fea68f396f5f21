"""Checkpoints of other makers: directories in Hugging Face layout of the Llama and Qwen3 kind, read and written.

`read_model` gives the numbers of a `model.Config` and the weights under our names, `read_tokenizer` the same
`tiktoken.Encoding` as the directory's tokenizer.json, with the checkpoint's own chat marks and the
system turn that its chat template puts where a dialogue has none. A template is compared with plain
ChatML and never run; one that is not known is reported. What this project's model has no
part for (sliding windows, scaled rotary positions, mixtures of experts, biases, other activations; tokenizers that are not
byte-level BPE) is refused by name. Rotary positions are rotate-half on both sides, so no row of a matrix changes its place.

The `safetensors` package is needed here alone, and is imported only when a directory is read or written.
"""

import json
import re
import string
import unicodedata
from pathlib import Path

import tiktoken
import torch
from torch import Tensor

from data.files import tokenizer as tokenizers
from data.files.tokenizer import Tokenizer
from data.files.writing import replacing, write_text
from data.runtime.command import made_folder

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
# GPT-2's pattern after every digit was cut out by itself: white space before a digit stands at the end of its piece, so it is whole
DIGITS_PATTERN = r"""'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"""

# `Tokenizer.render` in Jinja, for `transformers`; on one line, since line breaks would be rendered
CHAT_TEMPLATE = string.Template("""
{% set default_system = $default_system %}
{% if default_system and messages[0]['role'] != 'system' %}
{{ $system + default_system + $close }}
{% endif %}
{% for m in messages %}
{% if tools or m['tool_calls'] %}
{{ raise_exception('a tool call is text in tool_call here') }}
{% endif %}
{% if m['role'] == 'user' %}{{ $user + m['content'] + $close }}
{% elif m['role'] == 'system' %}{{ $system + m['content'] + $close }}
{% elif m['role'] == 'assistant' %}
{{ $assistant }}
{% if m['think'] %}{{ $think + m['think'] + $end_think }}{% endif %}
{% if m['tool_call'] %}{{ $tool_call + m['tool_call'] }}{% endif %}
{{ (m['content'] or '') + $end }}
{% elif m['role'] == 'tool' %}{{ $tool_result + m['content'] }}
{% else %}{{ raise_exception('unknown role ' + m['role']) }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ $assistant }}{% endif %}
""".replace("\n", ""))
# plain ChatML as `template_tags` gives it: what may stand before all, a default system turn, turns
DEFINED = ["if not add_generation_prompt is defined", "set add_generation_prompt = false", "endif"]
NO_SYSTEM = "if loop.first and messages[0]['role'] != 'system'"
DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system\n([^\0]*)<\|im_end\|>\n")
JSON_TEXT = r'"(?:[^"\\\n]|\\["\\bfnrt]|\\u[0-9a-f]{4})*"'
TURNS = ["<|im_start|>\0role\0\n\0content\0<|im_end|>\n", "endfor",
         "if add_generation_prompt", "<|im_start|>assistant\n", "endif"]


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def safetensors():
    try:
        import safetensors.torch as package
    except ImportError:
        raise ValueError("reading and writing safetensors needs the package safetensors: pip install safetensors") from None
    return package


# ---- weights ----

def config_of(raw: dict, where) -> dict:
    """The fields of `model.Config` for a config.json. Raises ValueError by name for what our model cannot compute."""
    kind = raw.get("model_type")
    if kind not in ("llama", "qwen3"):
        raise ValueError(f"{where}: model_type is {kind!r}; llama and qwen3 can be read")
    rope = raw.get("rope_parameters") or {}
    refused = {
        "attention_bias": raw.get("attention_bias"), "mlp_bias": raw.get("mlp_bias"),
        "rope_scaling": raw.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None),
        "partial_rotary_factor": (raw.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1) != 1,
        "sliding window": raw.get("use_sliding_window") or "sliding_attention" in (raw.get("layer_types") or ()),
        "mixture of experts": raw.get("num_experts") or raw.get("num_local_experts"),
        "hidden_act": raw.get("hidden_act", "silu") != "silu" and raw["hidden_act"]}
    if named := [f"{name} ({value})" for name, value in refused.items() if value]:
        raise ValueError(f"{where}: not supported: {', '.join(named)}")
    try:
        return {"vocab_size": raw["vocab_size"], "context": raw["max_position_embeddings"], "layers": raw["num_hidden_layers"],
                "width": raw["hidden_size"], "heads": raw["num_attention_heads"],
                "kv_heads": raw.get("num_key_value_heads") or raw["num_attention_heads"], "ffn": raw["intermediate_size"],
                "head_dim": raw.get("head_dim") or 0, "rope_base": float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
                "norm_eps": raw.get("rms_norm_eps", 1e-6), "qk_norm": kind == "qwen3", "tied": bool(raw.get("tie_word_embeddings", False))}
    except KeyError as error:
        raise ValueError(f"{where}: {error} is missing") from None


def raw_config(config: dict) -> dict:
    """The config.json of a `model.Config` given as a dict: Qwen3 where it has QK-norm, else Llama."""
    kind = "qwen3" if config["qk_norm"] else "llama"
    return {"architectures": ["Qwen3ForCausalLM" if config["qk_norm"] else "LlamaForCausalLM"], "model_type": kind,
            "vocab_size": config["vocab_size"], "max_position_embeddings": config["context"], "num_hidden_layers": config["layers"],
            "hidden_size": config["width"], "num_attention_heads": config["heads"], "num_key_value_heads": config["kv_heads"],
            "intermediate_size": config["ffn"], "head_dim": config["head_dim"] or config["width"] // config["heads"],
            "rope_theta": config["rope_base"], "rms_norm_eps": config["norm_eps"], "tie_word_embeddings": config["tied"], "hidden_act": "silu",
            "attention_bias": False, "torch_dtype": "float32"}


def names(config: dict) -> dict[str, list[str]]:
    """Our name of each weight -> the names of the tensors that are stacked to it, in their order."""
    table = {"embedding.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
    if not config["tied"]:
        table["head.weight"] = ["lm_head.weight"]
    for i in range(config["layers"]):
        theirs, ours = f"model.layers.{i}", f"blocks.{i}"
        table[f"{ours}.attention_norm.weight"] = [f"{theirs}.input_layernorm.weight"]
        table[f"{ours}.ffn_norm.weight"] = [f"{theirs}.post_attention_layernorm.weight"]
        table[f"{ours}.attention.qkv.weight"] = [f"{theirs}.self_attn.{part}_proj.weight" for part in "qkv"]
        table[f"{ours}.attention.out.weight"] = [f"{theirs}.self_attn.o_proj.weight"]
        table[f"{ours}.gate_up.weight"] = [f"{theirs}.mlp.{part}_proj.weight" for part in ("gate", "up")]
        table[f"{ours}.down.weight"] = [f"{theirs}.mlp.down_proj.weight"]
        if config["qk_norm"]:
            table[f"{ours}.attention.query_norm.weight"] = [f"{theirs}.self_attn.q_norm.weight"]
            table[f"{ours}.attention.key_norm.weight"] = [f"{theirs}.self_attn.k_norm.weight"]
    return table


def read_model(folder) -> tuple[dict, dict[str, Tensor]]:
    """(fields of `model.Config`, weights by our names in float32) of a directory, one file or sharded.

    Raises ValueError in one line that names the file for anything missing, unexpected or not supported.
    """
    folder = Path(folder)
    config = config_of(read_json(folder / "config.json"), folder / "config.json")
    index = folder / "model.safetensors.index.json"
    files = sorted(set(read_json(index).get("weight_map", {}).values())) if index.exists() else ["model.safetensors"]
    weights = {}
    for file in files:
        package = safetensors()
        try:
            weights |= package.load_file(folder / file)
        except Exception as error:  # the package's own errors are no OSError
            raise ValueError(f"{folder / file}: cannot be read ({error})") from None
    wanted = names(config)
    if missing := [name for parts in wanted.values() for name in parts if name not in weights]:
        raise ValueError(f"{folder}: {missing[0]} is missing ({len(missing)} tensors in all)")
    used = {name for parts in wanted.values() for name in parts}
    spare = [name for name in weights if name not in used and not name.endswith("rotary_emb.inv_freq") and not (config["tied"] and name == "lm_head.weight")]
    if spare:
        raise ValueError(f"{folder}: {spare[0]} has no place in the model ({len(spare)} tensors in all)")
    try:
        return config, {ours: torch.cat([weights[name].float() for name in parts]) for ours, parts in wanted.items()}
    except RuntimeError:  # parts of one matrix of different widths
        raise ValueError(f"{folder}: the tensors have other shapes than config.json says") from None


def write_model(folder, config: dict, weights: dict[str, Tensor], **more) -> None:
    """The directory that `read_model` reads back exactly, and `transformers` too. `more` goes into config.json: the ids of marks.

    Raises ValueError for a model with smear.
    """
    if config.get("smear"):
        raise ValueError("--export: this model has smear, a part that the Llama and Qwen3 layouts "
                         "lack; only models without it can be exported")
    folder = made_folder(folder, "give another --export DIR")
    head = config["head_dim"] or config["width"] // config["heads"]
    sizes = {"qkv": [config["heads"] * head, config["kv_heads"] * head, config["kv_heads"] * head], "gate_up": [config["ffn"]] * 2}
    stored = {}
    for ours, parts in names(config).items():
        pieces = weights[ours].split(next((s for key, s in sizes.items() if f"{key}.weight" in ours), [len(weights[ours])]))
        stored |= {name: piece.detach().float().cpu().contiguous() for name, piece in zip(parts, pieces)}
    package = safetensors()
    with replacing(folder / "model.safetensors") as temporary:
        try:
            package.save_file(stored, temporary, metadata={"format": "pt"})
        except Exception as error:  # the package's own errors are no OSError
            raise OSError(str(error)) from None
    write_text(folder / "config.json", json.dumps(raw_config(config) | more, indent=1) + "\n")
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)  # safetensors lets nobody else read it


# ---- tokenizer ----

def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges of a byte-level BPE by rank: the two pieces that each token of more than one byte is made of last."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i:i + 1] for i in range(len(token))]
        while len(parts) > 2:
            k = min(range(len(parts) - 1), key=lambda k: ranks.get(parts[k] + parts[k + 1], rank))
            parts[k:k + 2] = [parts[k] + parts[k + 1]]
        if len(parts) == 2:
            merges.append(tuple(parts))
    return merges


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of a tokenizer.json; of a tokenizer that came from one, that text unchanged."""
    if tokenizer.source:
        return tokenizer.source
    encoding, letters = tokenizer.encoding, {byte: letter for letter, byte in byte_letters().items()}

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for text, i in sorted(encoding._special_tokens.items(), key=lambda item: item[1])]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": encoding._pat_str}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False,
                  "vocab": {spelled(token): rank for token, rank in sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1])},
                  "merges": [" ".join(map(spelled, pair)) for pair in merges_of(encoding._mergeable_ranks)]}}, ensure_ascii=False) + "\n"


def portable(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, which checkpoints carry along: one that is neither the tiny one nor read from a directory would be lost."""
    tokenizer.source = tokenizer_json(tokenizer)
    return tokenizer


def write_tokenizer(folder, tokenizer: Tokenizer) -> None:
    """tokenizer.json, and tokenizer_config.json with the chat template, which `transformers` opens."""
    folder, encoding = Path(folder), tokenizer.encoding
    write_text(folder / "tokenizer.json", tokenizer_json(tokenizer))
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # it would come before the one below
    write_text(folder / "tokenizer_config.json", json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": encoding.decode([tokenizer.end_id]), "pad_token": encoding.decode([tokenizer.pad_id]),
        "clean_up_tokenization_spaces": False, "chat_template": chat_template(tokenizer)},
        indent=1) + "\n")


# ---- chat templates ----

def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Jinja knows no pairs of surrogates


def chat_template(tokenizer: Tokenizer) -> str:
    """The Jinja template that renders every field of a message as `tokenizer.render` does.

    Only the line break after an assistant's last turn, where a format has one, is not ours.
    """
    def text(*ids):
        return quoted(tokenizer.encoding.decode(ids))

    refused = "raise_exception('no mark for a tool call or its result')"
    marks = {"think": '""', "end_think": quoted("\n"), "tool_call": refused, "tool_result": refused}
    ids = {"think": tokenizer.think_id, "end_think": tokenizer.end_think_id,
           "tool_call": tokenizer.call_id, "tool_result": tokenizer.result_id}
    return CHAT_TEMPLATE.substitute(
        marks | {name: text(i) for name, i in ids.items() if i is not None},
        **{role: text(*header) for role, header in tokenizer.headers.items()},
        default_system=quoted(tokenizer.default_system or ""), close=text(*tokenizer.close),
        end=text(tokenizer.end_id, *tokenizer.after_end))


def read_template(folder: Path) -> str | None:
    """The text of a directory's chat template; None where there is none."""
    alone, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if alone.exists():  # it comes first, as in `transformers`
        try:
            return alone.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(f"{alone}: cannot be read ({error})") from None
    raw = read_json(config) if config.exists() else {}
    template = raw.get("chat_template") if isinstance(raw, dict) else None
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def template_tags(template: str) -> list[str] | None:
    """The tags of a template, whatever their spaces and quotes: a block as its words, an output as
    the text that it writes, a message's field as its name between NUL characters. None where text
    stands between the tags, or an output is not a sum of texts and fields."""
    template = template.replace("\\n", "\n")
    # a minus takes the white space beside it
    template = re.sub(r"\s*(\{[%{])-|-([%}]\})\s*", r"\1\2", template)
    template = template.replace("%}\n", "%}")  # `transformers` drops the line break after a block
    tags = re.findall(r"\{%.*?%\}|\{\{.*?\}\}", template, re.DOTALL)
    if "".join(tags) != template:
        return None
    literal, known = r"""(?:'[^'\\]*'|"[^"\\]*")""", []
    for tag in tags:
        inside = tag[2:-2].strip()
        if tag.startswith("{%"):
            known.append(" ".join(inside.replace('"', "'").split()))
            continue
        field = r"""\bmessage(?:\[['"](\w+)['"]\]|\.(\w+))"""
        inside = re.sub(field, "'\0\\1\\2\0'", inside)
        if not re.fullmatch(rf"{literal}(?:\s*\+\s*{literal})*", inside):
            return None
        known.append("".join(part[1:-1] for part in re.findall(literal, inside)))
    return known


def default_system_of(template: str, tokenizer: Tokenizer) -> str | None:
    """The system turn that a ChatML template puts before a dialogue that has none, "" where it puts
    nothing; None for a template of any other kind. What `write_tokenizer` wrote is known too."""
    written = re.match(rf"\{{% set default_system = ({JSON_TEXT}) %\}}", template)
    if written and template.replace(written[1], '""', 1) == chat_template(tokenizer):
        return json.loads(written[1])
    tags = template_tags(template) or []
    if tags[:3] == DEFINED:
        tags = tags[3:]
    if tags[:1] != ["for message in messages"]:
        return None
    if tags[1:] == TURNS:
        return ""
    if tags[1:2] + tags[3:] == [NO_SYSTEM, "endif", *TURNS]:
        found = DEFAULT_SYSTEM.fullmatch(tags[2])
        return found[1] if found else None
    return None


# ---- reading a tokenizer ----


def byte_letters() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte -> the byte: printable Latin-1 stands for itself, the rest from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def pattern_of(pre: dict | None, where) -> str:
    """The pattern that cuts text into words before any merge, of the three kinds that Llama- and Qwen-like tokenizers use."""
    steps = pre["pretokenizers"] if pre and pre["type"] == "Sequence" else [pre] if pre else []
    kinds = [step["type"] for step in steps]
    if steps and kinds[-1] == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return GPT2_PATTERN
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
            return DIGITS_PATTERN
        if kinds == ["Split", "ByteLevel"] and "Regex" in steps[0]["pattern"] and steps[0]["behavior"] == "Isolated" and not steps[1].get("use_regex", True):
            return steps[0]["pattern"]["Regex"]
    raise ValueError(f"{where}: pre-tokenizer {' + '.join(kinds) or 'none'}: only byte-level BPE with GPT-2's pattern, single digits before it, or a "
                     "pattern of its own can be read")


def added_words(tokens: list[dict]) -> re.Pattern:
    """A pattern that finds added tokens which are not special, as `tokenizers` does: the longest
    first, with the white space that a token takes in, and some only as whole words. A match's last
    group is the token's own text."""
    words = []
    for token in sorted(tokens, key=lambda token: -len(token["content"])):
        word = f"({re.escape(token['content'])})"
        if token.get("single_word"):
            word = rf"(?<!\w){word}(?!\w)"
        before, after = (r"\s*" if token.get(side) else "" for side in ("lstrip", "rstrip"))
        words.append(before + word + after)
    return re.compile("|".join(words) or r"(?!)")  # (?!) finds nothing


class HubTokenizer(Tokenizer):
    """A Tokenizer with what other makers' have besides: a form to which text is normalised, words
    that are one token without being marks, and a system turn for a dialogue that has none."""

    form: str | None = None
    added = added_words([])

    def encode(self, text: str) -> list[int]:
        ids, start = [], 0
        for found in self.added.finditer(text):
            ids += self.ordinary(text[start:found.start()])
            ids.append(self.encoding.encode_single_token(found[found.lastindex]))
            start = found.end()
        return ids + self.ordinary(text[start:])

    def ordinary(self, text: str) -> list[int]:
        return super().encode(unicodedata.normalize(self.form, text) if self.form else text)

    def turn(self, role: str, content: str) -> list[int]:
        """White space that opens the content may be one token with the line break of the header."""
        return [self.headers[role][0], *self.encode(f"{role}\n{content}"), *self.close]

    def render(self, messages: list[dict], prompt: bool = False) -> tuple[list[int], list[bool]]:
        if self.default_system and messages and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default_system}, *messages]
        return super().render(messages, prompt)


def read_tokenizer(folder) -> Tokenizer:
    """The tokenizer of a directory. Raises ValueError in one line where there is none, or one of another kind."""
    path = Path(folder) / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    tokenizer = tokenizer_from(text, path)
    if isinstance(tokenizer, HubTokenizer):
        tokenizer.default_system = default_system_of(read_template(Path(folder)) or "", tokenizer)
    return tokenizer


def tokenizer_from(text: str, path) -> Tokenizer:
    """The tokenizer of a tokenizer.json's text, with ChatML turns, or with this project's own. Raises ValueError by name for any other kind; `path` is for
    that message alone."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    try:
        return parsed_tokenizer(raw, text, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a tokenizer.json as `tokenizers` writes it ({type(error).__name__}: {error})") from None


def parsed_tokenizer(raw: dict, text: str, path) -> Tokenizer:
    bpe, normalizer = raw["model"], (raw.get("normalizer") or {}).get("type")
    if bpe.get("type") != "BPE" or bpe.get("byte_fallback"):
        raise ValueError(f"{path}: {'SentencePiece-like BPE' if bpe.get('type') == 'BPE' else bpe.get('type')} is not byte-level BPE")
    if normalizer not in (None, "NFC"):
        raise ValueError(f"{path}: normalizer {normalizer}: only NFC or none can be read")
    pattern = pattern_of(raw.get("pre_tokenizer"), path)
    added = raw.get("added_tokens") or []
    special = {token["content"]: token["id"] for token in added}  # for tiktoken: not by merges
    letters = byte_letters()
    pairs = [pair.replace(" ", "") if isinstance(pair, str) else "".join(pair)
             for pair in bpe["merges"]]
    # an added word may be one that the merges, or a single byte, make too
    plain = bpe["vocab"].keys() - (special.keys() - set(pairs) - letters.keys())
    ranks = {bytes(letters[letter] for letter in text): i
             for text, i in bpe["vocab"].items() if text in plain}
    merged = [bytes(letters[letter] for letter in pair) for pair in pairs]
    order = [ranks[token] for token in dict.fromkeys(merged)]
    if order != sorted(order):  # tiktoken merges the pair whose result has the lowest id first
        raise ValueError(f"{path}: the ids do not follow the order of the merges")
    if pattern == tokenizers.PATTERN and (ours := tokenizers.from_ranks(ranks)).encoding._special_tokens == special:
        ours.source = text
        return ours  # exported from here
    encoding = tiktoken.Encoding("hub", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    if not {"<|im_start|>", "<|im_end|>"} <= set(special):
        raise ValueError(f"{path}: no ChatML marks (<|im_start|>, <|im_end|>)")
    begin, end = special["<|im_start|>"], special["<|im_end|>"]
    newline = encoding.encode_ordinary("\n")
    pad = next((special[name] for name in ("<|pad|>", "<|endoftext|>") if name in special), None)
    if pad is None:
        raise ValueError(f"{path}: no token besides the end mark that could pad (<|pad|>, <|endoftext|>)")
    tokenizer = HubTokenizer(encoding, {role: [begin, *encoding.encode_ordinary(role + "\n")] for role in ("user", "assistant", "system")},
                             {"end": end, "pad": pad, "begin": begin}, close=[end, *newline])
    tokenizer.after_end, tokenizer.form, tokenizer.source = newline, normalizer, text
    tokenizer.added = added_words([token for token in added if not token.get("special")])
    return tokenizer
