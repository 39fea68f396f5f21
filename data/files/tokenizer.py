"""Text to token ids and back, chat marks, and the mask of supervised tokens, over `tiktoken`.

The default ranks are our own. They are trained on the tiny world's text in seconds
(`python -m data.world --tokenizer`) and kept in `data/tiny.tiktoken`, in tiktoken's file format.
Digits are split one by one: 47 is always the tokens 4 and 7, so that column arithmetic has columns
to work on. Nothing is ever downloaded.

A dialogue becomes

    <|user|>What is 47 + 38?<|assistant|><|think|>47+38: 7+8=15 4+3=7 7+1=8<|end_think|>85<|end|>

and a tool call is a turn of its own, which the runtime answers:

    <|user|>How old is Tom?<|assistant|><|tool_call|>age Tom<|end|>
    <|tool_result|>31<|assistant|>31<|end|>

without the line break. Supervised (mask True) is exactly what the assistant writes, each turn with
its end mark. A tool's result never is. The marks exist only as ids: a user's string that spells
`<|assistant|>` is encoded as ordinary text and forges no turn.
"""

import base64
import codecs
import functools
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import tiktoken

from data.files import writing

MARKS = (
    "user",
    "assistant",
    "system",
    "think",
    "end_think",
    "tool_call",
    "tool_result",
    "end",
    "pad",
)
# GPT-4's pattern with digits one by one: a word with the space before it, one digit, a run of
# punctuation, white space
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
TINY = Path(__file__).parents[1] / "tiny.tiktoken"
ENTRIES = 759  # with the nine marks: a vocabulary of 768


@dataclass
class Reply:
    """What an assistant wrote: its steps, the text after them, its tool calls with their results.

    complete: the reply ended with its end mark, and its marks are in order. A reply that was cut
    off is not complete.
    """

    content: str
    think: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = True


class Tokenizer:
    """encoding: the byte-level BPE. headers: ids that open a turn, by role. ids: those of marks.

    close: the ids after a user's or system's turn. after_end: those after the end mark of an
    assistant's turn that another one follows (none in our own format; ChatML needs some).
    """

    after_end: list[int] = []
    # the text of the tokenizer.json that it was read from; a checkpoint carries it along
    source: str | None = None
    # the system turn of a dialogue that has none; None for a chat template that is not known
    default_system: str | None = ""
    json_calls: bool = False  # tools are written as text, as json_calls.py does

    def __init__(
        self,
        encoding: tiktoken.Encoding,
        headers: dict[str, list[int]],
        ids: dict[str, int],
        close: list[int] = (),
    ):
        self.encoding = encoding
        self.headers = headers
        self.close = list(close)
        self.end_id, self.pad_id = ids["end"], ids["pad"]
        self.think_id, self.end_think_id = ids.get("think"), ids.get("end_think")
        self.call_id, self.result_id = ids.get("tool_call"), ids.get("tool_result")
        if self.pad_id == self.end_id:
            raise ValueError(
                "the pad mark must not be the end mark: the end mark would go unsupervised"
            )
        self.mark_ids = set(ids.values())
        # What only the runtime may write. A model that writes one of these ends its reply as
        # malformed, so that it can forge no tool result and no user turn.
        self.runtime_ids = self.mark_ids - {
            self.end_id,
            self.think_id,
            self.end_think_id,
            self.call_id,
        }
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
        """The text of each token, marks too.

        A character of several tokens stands whole at its last one, and "" at those before. Decoded
        one by one, each of them would be a replacement mark.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        texts = [decoder.decode(self.encoding.decode_single_token_bytes(int(i))) for i in ids]
        if texts:
            texts[-1] += decoder.decode(b"", final=True)
        return texts

    def marked(self, ids, mask) -> str:
        """The text with all marks, and every supervised token between brackets."""
        return "".join(f"[{text}]" if on else text for text, on in zip(self.pieces(ids), mask))

    @property
    def fingerprint(self) -> str:
        """A digest of ranks and marks.

        A checkpoint carries it, and is refused with another tokenizer.
        """
        ranks = sorted(self.encoding._mergeable_ranks.items(), key=lambda item: item[1])
        return hashlib.sha256(
            repr((ranks, sorted(self.encoding._special_tokens.items()))).encode()
        ).hexdigest()[:16]

    def render(self, messages: list[dict], prompt: bool = False) -> tuple[list[int], list[bool]]:
        """(ids, mask) of a dialogue, both of its length in tokens.

        mask is True on what the assistant writes, end marks included, in turns whose "weight" is
        not 0. With prompt=True the dialogue ends with the header that asks the assistant to write.
        Raises ValueError for an unknown role.
        """
        ids = []
        mask = []

        def add(more, supervised=False):
            ids.extend(more)
            mask.extend([supervised] * len(more))

        for i, message in enumerate(messages):
            role = message["role"]
            if i and messages[i - 1]["role"] == "assistant":
                add(self.after_end)
            uses_tools = role == "tool" or message.get("tool_call") or message.get("tools")
            if self.call_id is None and uses_tools:
                raise ValueError("this tokenizer has no mark for a tool call or its result")
            if role == "tool":
                add([self.result_id, *self.encode(message["content"])])
                continue
            if role not in self.headers:
                raise ValueError(
                    f"unknown role {role!r}: expected one of {', '.join([*self.headers, 'tool'])}"
                )
            if role != "assistant":
                add(self.turn(role, with_tools(message)))
                continue
            add(self.headers[role])
            learned = message.get("weight") != 0
            if message.get("think"):
                if self.think_id is None:
                    add(self.encode(message["think"] + "\n"), learned)
                else:
                    add([self.think_id, *self.encode(message["think"]), self.end_think_id], learned)
            add(self.encode(message.get("content", "")), learned)
            if message.get("tool_call"):  # what follows the mark is the call, up to the end
                add([self.call_id, *self.encode(message["tool_call"])], learned)
            add([self.end_id], learned)
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
        """The reply in the ids after a prompt: the model's turns, the tool results between them."""
        ids = [int(i) for i in ids]
        while ids and ids[-1] == self.pad_id:
            ids.pop()
        reply = Reply("", complete=bool(ids) and ids[-1] == self.end_id)
        for turn in self.split_turns(ids):
            self.read_turn(turn, reply)
        return reply

    def split_turns(self, ids: list[int]) -> list[list[int]]:
        """The ids of each assistant's turn, with the tool's result behind it."""
        header = list(self.headers["assistant"])
        turns = []
        start = i = 0
        while i < len(ids):  # only a tool's result is followed by another header
            if ids[i : i + len(header)] == header and self.result_id in ids[start:i]:
                turns.append(ids[start:i])
                i += len(header)
                start = i
            else:
                i += 1
        return [*turns, ids[start:]]

    def read_turn(self, turn: list[int], reply: Reply) -> None:
        """Writes what one turn says into the reply: its thought, and its call or its text."""
        body = turn
        result = None
        if self.result_id in turn:
            cut = turn.index(self.result_id)
            body = turn[:cut]
            result = self.decode(turn[cut + 1 :])
        if body and body[-1] == self.end_id:
            body = body[:-1]
        else:
            reply.complete = False
        if self.think_id in body:
            open_at = body.index(self.think_id)
            if self.end_think_id not in body[open_at:]:  # steps that never end hold no answer
                reply.complete = False
                reply.think = self.decode(body[open_at + 1 :])
                return
            shut_at = body.index(self.end_think_id, open_at)
            reply.think = self.decode(body[open_at + 1 : shut_at])
            body = body[:open_at] + body[shut_at + 1 :]
        call_at = body.index(self.call_id) if self.call_id in body else None
        text = body if call_at is None else body[:call_at] + body[call_at + 1 :]
        if any(i in self.mark_ids for i in text):  # a mark out of order
            reply.complete = False
        if call_at is None:
            reply.content = self.decode(text).strip()
            return
        reply.calls.append((self.decode(body[call_at + 1 :]), result or ""))
        reply.complete = reply.complete and result is not None


def with_tools(message: dict) -> str:
    """The content of a turn, and under it the tools that a system turn may name: JSON, one a line.

    E.g. "Be brief.", a blank line, "Tools:", `{"type": "function", "function": {"name": "age"}}`.
    """
    if not message.get("tools"):
        return message["content"]
    told = "\n".join(["Tools:", *(json.dumps(t, ensure_ascii=False) for t in message["tools"])])
    return f"{message['content']}\n\n{told}" if message["content"] else told


def from_ranks(ranks: dict[bytes, int], name: str = "tiny") -> Tokenizer:
    ids = {mark: len(ranks) + i for i, mark in enumerate(MARKS)}
    encoding = tiktoken.Encoding(
        name,
        pat_str=PATTERN,
        mergeable_ranks=ranks,
        special_tokens={f"<|{mark}|>": i for mark, i in ids.items()},
    )
    headers = {role: [ids[role]] for role in ("user", "assistant", "system")}
    return Tokenizer(encoding, headers, ids)


def load(path: Path = TINY) -> Tokenizer:
    """The tokenizer of a file of ranks in tiktoken's format: `base64(token bytes) rank` a line."""
    ranks = {}
    for line in Path(path).read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return from_ranks(ranks, Path(path).stem)


@functools.cache
def tiny() -> Tokenizer:
    return load(TINY)


def train(texts: list[str], entries: int) -> dict[bytes, int]:
    """Byte-pair encoding (Sennrich et al., 1508.07909): token -> rank, `entries` of them.

    The most frequent neighbours are merged until there are so many ranks, or nothing is left to
    merge. Words are counted once and merged by their count. Of equally frequent pairs the one that
    is first in byte order is merged, so that training repeats.
    """
    import regex  # tiktoken depends on it: the same pattern language that encoding uses

    words = Counter()
    for text in texts:
        words.update(regex.findall(PATTERN, text))
    tokens_of = {word: [bytes([b]) for b in word.encode()] for word in words}
    ranks = {bytes([i]): i for i in range(256)}
    while len(ranks) < entries:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(tokens_of[word], tokens_of[word][1:]):
                pairs[pair] += count
        if not pairs:  # every word is one token
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = best[0] + best[1]
        ranks[merged] = len(ranks)
        for word, tokens in tokens_of.items():
            if merged in word.encode():
                tokens_of[word] = joined(tokens, best)
    return ranks


def joined(tokens: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """The tokens with each occurrence of the pair, from the left, made one."""
    made = []
    i = 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            made.append(pair[0] + pair[1])
            i += 2
        else:
            made.append(tokens[i])
            i += 1
    return made


def trained(texts: list[str]) -> Tokenizer:
    """A tokenizer of the tiny size for these texts."""
    return from_ranks(train(texts, ENTRIES), "trained")


def save(ranks: dict[bytes, int], path: Path) -> None:
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    writing.write_text(path, "".join(lines))
