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

from data.files import tokenizer as tokenizers
from data.files.chat_template import chat_template, default_system_of, read_template
from data.files.tokenizer import Tokenizer
from data.files.writing import write_text

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
# GPT-2's pattern after every digit was cut out by itself: white space before a digit stands at the end of its piece, so it is whole
DIGITS_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"""
)


# ---- writing ----


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges of a byte-level BPE by rank: the two pieces that each token of more than one byte is made of last."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            k = min(range(len(parts) - 1), key=lambda k: ranks.get(parts[k] + parts[k + 1], rank))
            parts[k : k + 2] = [parts[k] + parts[k + 1]]
        if len(parts) == 2:
            merges.append(tuple(parts))
    return merges


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of a tokenizer.json; of a tokenizer that came from one, that text unchanged."""
    if tokenizer.source:
        return tokenizer.source
    encoding, letters = (
        tokenizer.encoding,
        {byte: letter for letter, byte in byte_letters().items()},
    )

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

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
        for text, i in sorted(encoding._special_tokens.items(), key=lambda item: item[1])
    ]
    return (
        json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": added,
                "normalizer": None,
                "post_processor": None,
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {
                            "type": "Split",
                            "pattern": {"Regex": encoding._pat_str},
                            "behavior": "Isolated",
                            "invert": False,
                        },
                        {
                            "type": "ByteLevel",
                            "add_prefix_space": False,
                            "trim_offsets": True,
                            "use_regex": False,
                        },
                    ],
                },
                "decoder": {
                    "type": "ByteLevel",
                    "add_prefix_space": True,
                    "trim_offsets": True,
                    "use_regex": True,
                },
                "model": {
                    "type": "BPE",
                    "dropout": None,
                    "unk_token": None,
                    "continuing_subword_prefix": None,
                    "end_of_word_suffix": None,
                    "fuse_unk": False,
                    "byte_fallback": False,
                    "ignore_merges": False,
                    "vocab": {
                        spelled(token): rank
                        for token, rank in sorted(
                            encoding._mergeable_ranks.items(), key=lambda item: item[1]
                        )
                    },
                    "merges": [
                        " ".join(map(spelled, pair))
                        for pair in merges_of(encoding._mergeable_ranks)
                    ],
                },
            },
            ensure_ascii=False,
        )
        + "\n"
    )


def portable(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, which checkpoints carry along: one that is neither the tiny one nor read from a directory would be lost."""
    tokenizer.source = tokenizer_json(tokenizer)
    return tokenizer


def write_tokenizer(folder, tokenizer: Tokenizer) -> None:
    """tokenizer.json, and tokenizer_config.json with the chat template, which `transformers` opens."""
    folder, encoding = Path(folder), tokenizer.encoding
    write_text(folder / "tokenizer.json", tokenizer_json(tokenizer))
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # it would come before the one below
    write_text(
        folder / "tokenizer_config.json",
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": encoding.decode([tokenizer.end_id]),
                "pad_token": encoding.decode([tokenizer.pad_id]),
                "clean_up_tokenization_spaces": False,
                "chat_template": chat_template(tokenizer),
            },
            indent=1,
        )
        + "\n",
    )


# ---- reading ----


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
        if (
            kinds == ["Digits", "ByteLevel"]
            and steps[0].get("individual_digits")
            and steps[1].get("use_regex", True)
        ):
            return DIGITS_PATTERN
        if (
            kinds == ["Split", "ByteLevel"]
            and "Regex" in steps[0]["pattern"]
            and steps[0]["behavior"] == "Isolated"
            and not steps[1].get("use_regex", True)
        ):
            return steps[0]["pattern"]["Regex"]
    raise ValueError(
        f"{where}: pre-tokenizer {' + '.join(kinds) or 'none'}: only byte-level BPE with GPT-2's pattern, single digits before it, or a "
        "pattern of its own can be read"
    )


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
        raise ValueError(
            f"{path}: not a tokenizer.json as `tokenizers` writes it ({type(error).__name__}: {error})"
        ) from None


def parsed_tokenizer(raw: dict, text: str, path) -> Tokenizer:
    bpe, normalizer = raw["model"], (raw.get("normalizer") or {}).get("type")
    if bpe.get("type") != "BPE" or bpe.get("byte_fallback"):
        raise ValueError(
            f"{path}: {'SentencePiece-like BPE' if bpe.get('type') == 'BPE' else bpe.get('type')} is not byte-level BPE"
        )
    if normalizer not in (None, "NFC"):
        raise ValueError(f"{path}: normalizer {normalizer}: only NFC or none can be read")
    pattern = pattern_of(raw.get("pre_tokenizer"), path)
    added = raw.get("added_tokens") or []
    special = {token["content"]: token["id"] for token in added}  # for tiktoken: not by merges
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
    if (
        pattern == tokenizers.PATTERN
        and (ours := tokenizers.from_ranks(ranks)).encoding._special_tokens == special
    ):
        ours.source = text
        return ours  # exported from here
    encoding = tiktoken.Encoding(
        "hub", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
    )
    if not {"<|im_start|>", "<|im_end|>"} <= set(special):
        raise ValueError(f"{path}: no ChatML marks (<|im_start|>, <|im_end|>)")
    begin, end = special["<|im_start|>"], special["<|im_end|>"]
    newline = encoding.encode_ordinary("\n")
    pad = next((special[name] for name in ("<|pad|>", "<|endoftext|>") if name in special), None)
    if pad is None:
        raise ValueError(
            f"{path}: no token besides the end mark that could pad (<|pad|>, <|endoftext|>)"
        )
    tokenizer = HubTokenizer(
        encoding,
        {
            role: [begin, *encoding.encode_ordinary(role + "\n")]
            for role in ("user", "assistant", "system")
        },
        {"end": end, "pad": pad, "begin": begin},
        close=[end, *newline],
    )
    tokenizer.after_end, tokenizer.form, tokenizer.source = newline, normalizer, text
    tokenizer.added = added_words([token for token in added if not token.get("special")])
    return tokenizer
