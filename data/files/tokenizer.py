"""Text to token ids and back: a wrapper over `tiktoken.Encoding`, chat marks, and the mask of supervised tokens.

The default ranks are our own, trained on the tiny world's text (`python -m data.world --tokenizer`, seconds) and kept in
`data/tiny.tiktoken` in tiktoken's file format. Digits are split one by one, so that 47 is always the tokens 4 and 7 and
column arithmetic has columns to work on. Nothing is ever downloaded.

A dialogue becomes

    <|user|>What is 47 + 38?<|assistant|><|think|>47+38: 7+8=15 4+3=7 7+1=8<|end_think|>85<|end|>

and a tool call is a turn of its own, which the runtime answers:

    <|user|>How old is Tom?<|assistant|><|tool_call|>age Tom<|end|><|tool_result|>31<|assistant|>31<|end|>

Supervised (mask True) is exactly what the assistant writes, each turn with its end mark; a tool's result never is. The
marks exist only as ids: a user's string that spells `<|assistant|>` is encoded as ordinary text and forges no turn.
"""

import base64
import codecs
import functools
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import tiktoken

from data.files import writing

MARKS = ("user", "assistant", "system", "think", "end_think", "tool_call", "tool_result", "end", "pad")
# GPT-4's pattern with digits one by one: a word with the space before it, one digit, a run of punctuation, white space.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
TINY = Path(__file__).parents[1] / "tiny.tiktoken"
ENTRIES = 759  # with the nine marks: a vocabulary of 768


@dataclass
class Reply:
    """What an assistant wrote: worked steps, the text after them, its tool calls with their results.

    complete: the reply ended with its end mark and its marks are in order; a reply that was cut off is not complete.
    """

    content: str
    think: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = True


class Tokenizer:
    """encoding: the byte-level BPE; headers: ids that open a turn, by role; pad_id and end_id differ.

    close: ids after a user's or system's turn, and after_end: those after the end mark of an assistant's turn that is followed by
    another one (none in our own format; ChatML needs some).
    """

    after_end: list[int] = []
    source: str | None = None  # the tokenizer.json that it was read from; a checkpoint carries it along
    # the system turn of a dialogue that has none; None for a chat template that is not known
    default_system: str | None = ""

    def __init__(self, encoding: tiktoken.Encoding, headers: dict[str, list[int]], ids: dict[str, int], close: list[int] = ()):
        self.encoding, self.headers, self.close = encoding, headers, list(close)
        self.end_id, self.pad_id = ids["end"], ids["pad"]
        self.think_id, self.end_think_id = ids.get("think"), ids.get("end_think")
        self.call_id, self.result_id = ids.get("tool_call"), ids.get("tool_result")
        if self.pad_id == self.end_id:
            raise ValueError("the pad mark must not be the end mark: the end mark would go unsupervised")
        self.mark_ids = set(ids.values())
        # what only the runtime may write: a model that writes one of these ends its reply as malformed, so no tool result
        # and no user turn can be forged
        self.runtime_ids = self.mark_ids - {self.end_id, self.think_id, self.end_think_id, self.call_id}
        self.vocab_size = encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; the spelling of a mark inside it stays text."""
        return self.encoding.encode_ordinary(text)

    def decode(self, ids) -> str:
        return self.encoding.decode([int(i) for i in ids if i != self.pad_id])

    def shown(self, ids) -> str:
        """The text with all marks."""
        return "".join(self.pieces(ids))

    def pieces(self, ids) -> list[str]:
        """The text of each token, marks too. A character of several tokens stands whole at its last one, and "" at those before: decoded one
        by one, each of them would be a replacement mark."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        texts = [decoder.decode(self.encoding.decode_single_token_bytes(int(i))) for i in ids]
        if texts:
            texts[-1] += decoder.decode(b"", final=True)
        return texts

    @property
    def fingerprint(self) -> str:
        """A digest of ranks and marks: a checkpoint carries it and is refused by another tokenizer."""
        ranks = sorted(self.encoding._mergeable_ranks.items(), key=lambda item: item[1])
        return hashlib.sha256(repr((ranks, sorted(self.encoding._special_tokens.items()))).encode()).hexdigest()[:16]

    def render(self, messages: list[dict], prompt: bool = False) -> tuple[list[int], list[bool]]:
        """(ids, mask) of a dialogue; mask is True on what the assistant writes, end marks included,
        in turns whose "weight" is not 0.

        With prompt=True the dialogue ends with the header that asks the assistant to write.
        Raises ValueError for an unknown role.
        """
        ids, mask = [], []

        def add(part, supervised=False):
            ids.extend(part)
            mask.extend([supervised] * len(part))

        for i, message in enumerate(messages):
            role = message["role"]
            if i and messages[i - 1]["role"] == "assistant":
                add(self.after_end)
            if self.call_id is None and (role == "tool" or message.get("tool_call")):
                raise ValueError("this tokenizer has no mark for a tool call or its result")
            if role == "tool":
                add([self.result_id, *self.encode(message["content"])])
                continue
            if role not in self.headers:
                raise ValueError(f"unknown role {role!r}: expected one of {', '.join([*self.headers, 'tool'])}")
            if role != "assistant":
                add(self.turn(role, message["content"]))
                continue
            add(self.headers[role])
            learned = message.get("weight") != 0
            if message.get("think"):
                if self.think_id is None:
                    add(self.encode(message["think"] + "\n"), learned)
                else:
                    add([self.think_id, *self.encode(message["think"]), self.end_think_id], learned)
            if message.get("tool_call"):
                add([self.call_id, *self.encode(message["tool_call"])], learned)
            add(self.encode(message.get("content", "")) + [self.end_id], learned)
        if prompt:
            if messages and messages[-1]["role"] == "assistant":
                add(self.after_end)
            add(self.headers["assistant"])
        return ids, mask

    def turn(self, role: str, content: str) -> list[int]:
        """A user's or system's turn, whole."""
        return [*self.headers[role], *self.encode(content), *self.close]

    def prompt(self, messages: list[dict]) -> list[int]:
        return self.render(messages, prompt=True)[0]

    def document(self, text: str) -> list[int]:
        """A text of pretraining: the end mark closes it, and so also opens the next one."""
        return self.encode(text) + [self.end_id]

    def read_reply(self, ids: list[int]) -> Reply:
        """The reply in the ids after a prompt: model-written turns with the tool results that were inserted."""
        reply, header = Reply(""), list(self.headers["assistant"])
        ids = [int(i) for i in ids]
        while ids and ids[-1] == self.pad_id:
            ids.pop()
        reply.complete = bool(ids) and ids[-1] == self.end_id
        turns, start, i = [], 0, 0
        while i < len(ids):  # only a tool's result is followed by another header
            if ids[i:i + len(header)] == header and self.result_id in ids[start:i]:
                turns.append(ids[start:i])
                i += len(header)
                start = i
            else:
                i += 1
        for turn in [*turns, ids[start:]]:
            body, result = turn, None
            if self.result_id in turn:
                cut = turn.index(self.result_id)
                body, result = turn[:cut], self.decode(turn[cut + 1:])
            if body and body[-1] == self.end_id:
                body = body[:-1]
            else:
                reply.complete = False
            if self.think_id in body:
                open_at = body.index(self.think_id)
                if self.end_think_id not in body[open_at:]:  # steps that never end hold no answer
                    reply.complete, reply.think = False, self.decode(body[open_at + 1:])
                    continue
                shut_at = body.index(self.end_think_id, open_at)
                reply.think = self.decode(body[open_at + 1:shut_at])
                body = body[:open_at] + body[shut_at + 1:]
            call_at = body.index(self.call_id) if self.call_id in body else None
            text = body if call_at is None else body[:call_at] + body[call_at + 1:]
            if any(i in self.mark_ids for i in text):  # a mark out of order
                reply.complete = False
            if call_at is not None:
                reply.calls.append((self.decode(body[call_at + 1:]), result or ""))
                reply.complete = reply.complete and result is not None
            else:
                reply.content = self.decode(text).strip()
        return reply


def from_ranks(ranks: dict[bytes, int], name: str = "tiny") -> Tokenizer:
    ids = {mark: len(ranks) + i for i, mark in enumerate(MARKS)}
    encoding = tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks,
                                 special_tokens={f"<|{mark}|>": i for mark, i in ids.items()})
    return Tokenizer(encoding, {role: [ids[role]] for role in ("user", "assistant", "system")}, ids)


def load(path: Path = TINY) -> Tokenizer:
    """The tokenizer whose ranks are in a file of tiktoken's format: `base64(token bytes) rank` a line."""
    ranks = {}
    for line in Path(path).read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return from_ranks(ranks, Path(path).stem)


@functools.cache
def tiny() -> Tokenizer:
    return load(TINY)


def train(texts: list[str], entries: int) -> dict[bytes, int]:
    """Byte-pair encoding (Sennrich et al., 1508.07909): merge the most frequent neighbours until there are `entries` ranks, or
    nothing is left to merge.

    Words are counted once and merged by their count; ties go to the pair that is first in byte order, so it repeats.
    """
    import regex  # tiktoken depends on it: the same pattern language that encoding uses
    words = Counter()
    for text in texts:
        words.update(regex.findall(PATTERN, text))
    parts = {word: [bytes([b]) for b in word.encode()] for word in words}
    ranks = {bytes([i]): i for i in range(256)}
    while len(ranks) < entries:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(parts[word], parts[word][1:]):
                pairs[pair] += count
        if not pairs:  # every word is one token
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = best[0] + best[1]
        ranks[merged] = len(ranks)
        for word, tokens in parts.items():
            if merged not in word.encode():
                continue
            joined, i = [], 0
            while i < len(tokens):
                if tuple(tokens[i:i + 2]) == best:
                    joined.append(merged)
                    i += 2
                else:
                    joined.append(tokens[i])
                    i += 1
            parts[word] = joined
    return ranks


def trained(texts: list[str]) -> Tokenizer:
    """A tokenizer of the tiny size for these texts."""
    return from_ranks(train(texts, ENTRIES), "trained")


def save(ranks: dict[bytes, int], path: Path) -> None:
    writing.write_text(path, "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
