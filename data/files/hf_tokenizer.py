"""Tokenizers of other makers: a directory's tokenizer.json, read and written.

`read_tokenizer` gives the same `tiktoken.Encoding` as the file, with the checkpoint's own chat
marks and the system turn that its chat template puts where a dialogue has none. A tokenizer that is
not byte-level BPE is refused by name.
"""

import json
import re
import unicodedata
from pathlib import Path

import tiktoken

from data.files import chat_template, json_calls
from data.files import tokenizer as tokenizers
from data.files.tokenizer import Tokenizer
from data.files.writing import write_text

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
# GPT-2's pattern after every digit was cut out by itself. White space before a digit stands at the
# end of its piece, so it is whole.
DIGITS_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"""
)


# ---- writing ----


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges of a byte-level BPE by rank: the last two pieces of each token of several bytes.

    E.g. "the" of the ranks of "t", "h", "e", "th", "the" is (b"th", b"e").
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        pieces = [token[i : i + 1] for i in range(len(token))]
        while len(pieces) > 2:
            pairs = [a + b for a, b in zip(pieces, pieces[1:])]
            k = min(range(len(pairs)), key=lambda k: ranks.get(pairs[k], rank))
            pieces[k : k + 2] = [pairs[k]]
        if len(pieces) == 2:
            merges.append(tuple(pieces))
    return merges


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of a tokenizer.json; of a tokenizer that came from one, that text unchanged."""
    if tokenizer.source:
        return tokenizer.source
    encoding = tokenizer.encoding
    letters = {byte: letter for letter, byte in byte_letters().items()}

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    def by_id(ids: dict) -> list[tuple]:
        return sorted(ids.items(), key=lambda item: item[1])

    added = [
        {
            "id": i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for text, i in by_id(encoding._special_tokens)
    ]
    words = {
        "type": "Split",
        "pattern": {"Regex": encoding._pat_str},
        "behavior": "Isolated",
        "invert": False,
    }
    as_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    bpe = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {spelled(token): rank for token, rank in by_id(encoding._mergeable_ranks)},
        "merges": [" ".join(map(spelled, pair)) for pair in merges_of(encoding._mergeable_ranks)],
    }
    raw = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "post_processor": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, as_bytes]},
        "decoder": as_bytes | {"add_prefix_space": True, "use_regex": True},
        "model": bpe,
    }
    return json.dumps(raw, ensure_ascii=False) + "\n"


def portable(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, which checkpoints carry along from now on.

    One that is neither the tiny one nor read from a directory would be lost without.
    """
    tokenizer.source = tokenizer_json(tokenizer)
    return tokenizer


def write_tokenizer(folder, tokenizer: Tokenizer) -> None:
    """tokenizer.json, and tokenizer_config.json with the chat template, for `transformers`."""
    folder = Path(folder)
    encoding = tokenizer.encoding
    write_text(folder / "tokenizer.json", tokenizer_json(tokenizer))
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # it would come before the one below
    raw = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": encoding.decode([tokenizer.end_id]),
        "pad_token": encoding.decode([tokenizer.pad_id]),
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template.chat_template(
            tokenizer, tokenizer.default_system or "", tokenizer.json_calls
        ),
    }
    write_text(folder / "tokenizer_config.json", json.dumps(raw, indent=1) + "\n")


# ---- reading ----


def byte_letters() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte -> the byte.

    Printable Latin-1 stands for itself, the rest from U+0100 on: a space (0x20) is "\u0120".
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def pattern_of(pre: dict | None, where) -> str:
    """The pattern that cuts text into words before any merge.

    `pre` is the pre-tokenizer of a tokenizer.json, of one of the three kinds that Llama- and
    Qwen-like tokenizers use. Raises ValueError for any other.
    """
    steps = [pre] if pre else []
    if pre and pre["type"] == "Sequence":
        steps = pre["pretokenizers"]
    kinds = [step["type"] for step in steps]
    if steps and kinds[-1] == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        first = steps[0]
        gpt2_words = steps[-1].get("use_regex", True)
        if kinds == ["ByteLevel"] and gpt2_words:
            return GPT2_PATTERN
        if kinds == ["Digits", "ByteLevel"] and first.get("individual_digits") and gpt2_words:
            return DIGITS_PATTERN
        if kinds == ["Split", "ByteLevel"] and not gpt2_words:
            if "Regex" in first["pattern"] and first["behavior"] == "Isolated":
                return first["pattern"]["Regex"]
    raise ValueError(
        f"{where}: pre-tokenizer {' + '.join(kinds) or 'none'}: only byte-level BPE with GPT-2's "
        "pattern, single digits before it, or a pattern of its own can be read"
    )


def added_words(tokens: list[dict]) -> re.Pattern:
    """A pattern that finds added tokens which are not special, as `tokenizers` does.

    The longest is tried first. A token may take in the white space beside it, and some stand only
    as whole words. A match's last group is the token's own text.
    """
    words = []
    for token in sorted(tokens, key=lambda token: -len(token["content"])):
        word = f"({re.escape(token['content'])})"
        if token.get("single_word"):
            word = rf"(?<!\w){word}(?!\w)"
        before = r"\s*" if token.get("lstrip") else ""
        after = r"\s*" if token.get("rstrip") else ""
        words.append(before + word + after)
    return re.compile("|".join(words) or r"(?!)")  # (?!) finds nothing


class HubTokenizer(Tokenizer):
    """A Tokenizer with what other makers' have besides.

    form: the Unicode form to which text is normalised ("NFC"), or None. added: finds the words
    that are one token without being marks. A dialogue that has no system turn may get one, and with
    json_calls tools are text.
    """

    form: str | None = None
    added = added_words([])

    def encode(self, text: str) -> list[int]:
        ids = []
        start = 0
        for found in self.added.finditer(text):
            ids += self.ordinary(text[start : found.start()])
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
        if self.json_calls:
            messages = json_calls.as_chatml(messages, self.default_system)
        return super().render(messages, prompt)


def read_tokenizer(folder) -> Tokenizer:
    """The tokenizer of a directory.

    Raises ValueError in one line where there is none, or one of another kind.
    """
    path = Path(folder) / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    tokenizer = tokenizer_from(text, path)
    if isinstance(tokenizer, HubTokenizer):
        template = chat_template.read_template(Path(folder)) or ""
        kind = chat_template.kind_of(template, tokenizer)
        tokenizer.default_system, tokenizer.json_calls = kind
    return tokenizer


def tokenizer_from(text: str, path) -> Tokenizer:
    """The tokenizer of a tokenizer.json's text, with ChatML turns or with this project's own.

    Raises ValueError that names any other kind. `path` is for that message alone.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    try:
        return parsed_tokenizer(raw, text, path)
    except (KeyError, TypeError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path}: not a tokenizer.json as `tokenizers` writes it ({told})"
        ) from None


def parsed_tokenizer(raw: dict, text: str, path) -> Tokenizer:
    """The tokenizer of a tokenizer.json that is parsed already.

    Raises ValueError for what is not supported, and KeyError and its like for another layout.
    """
    bpe = raw["model"]
    kind = bpe.get("type")
    normalizer = (raw.get("normalizer") or {}).get("type")
    if kind != "BPE" or bpe.get("byte_fallback"):
        told = "SentencePiece-like BPE" if kind == "BPE" else kind
        raise ValueError(f"{path}: {told} is not byte-level BPE")
    if normalizer not in (None, "NFC"):
        raise ValueError(f"{path}: normalizer {normalizer}: only NFC or none can be read")
    pattern = pattern_of(raw.get("pre_tokenizer"), path)
    added = raw.get("added_tokens") or []
    special = {token["content"]: token["id"] for token in added}  # for tiktoken: not by merges
    ranks = ranks_of(bpe, special, path)
    if pattern == tokenizers.PATTERN:
        ours = tokenizers.from_ranks(ranks)
        if ours.encoding._special_tokens == special:  # exported from here
            ours.source = text
            return ours
    encoding = tiktoken.Encoding(
        "hub", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
    )
    tokenizer = with_chatml(encoding, special, path)
    tokenizer.form = normalizer
    tokenizer.source = text
    tokenizer.added = added_words([token for token in added if not token.get("special")])
    return tokenizer


def ranks_of(bpe: dict, special: dict[str, int], path) -> dict[bytes, int]:
    """The id of each token that bytes or merges make, for tiktoken, which merges by these ids."""
    letters = byte_letters()
    pairs = [
        pair.replace(" ", "") if isinstance(pair, str) else "".join(pair) for pair in bpe["merges"]
    ]
    # an added word may be one that the merges, or a single byte, make too
    plain = bpe["vocab"].keys() - (special.keys() - set(pairs) - letters.keys())
    ranks = {
        bytes(letters[letter] for letter in text): i
        for text, i in bpe["vocab"].items()
        if text in plain
    }
    merged = [bytes(letters[letter] for letter in pair) for pair in pairs]
    order = [ranks[token] for token in dict.fromkeys(merged)]
    if order != sorted(order):  # tiktoken merges the pair whose result has the lowest id first
        raise ValueError(f"{path}: the ids do not follow the order of the merges")
    return ranks


def with_chatml(encoding: tiktoken.Encoding, special: dict[str, int], path) -> HubTokenizer:
    """The tokenizer that writes turns as ChatML does: <|im_start|>role, the content, <|im_end|>."""
    if not {"<|im_start|>", "<|im_end|>"} <= set(special):
        raise ValueError(f"{path}: no ChatML marks (<|im_start|>, <|im_end|>)")
    begin, end = special["<|im_start|>"], special["<|im_end|>"]
    newline = encoding.encode_ordinary("\n")
    pad = next((special[name] for name in ("<|pad|>", "<|endoftext|>") if name in special), None)
    if pad is None:
        raise ValueError(
            f"{path}: no token besides the end mark that could pad (<|pad|>, <|endoftext|>)"
        )
    headers = {
        role: [begin, *encoding.encode_ordinary(role + "\n")]
        for role in ("user", "assistant", "system")
    }
    marks = {"end": end, "pad": pad, "begin": begin}
    tokenizer = HubTokenizer(encoding, headers, marks, close=[end, *newline])
    tokenizer.after_end = newline
    return tokenizer
