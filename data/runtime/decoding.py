"""Fast decoding: ragged prompts in one batch with a cache, n samples a prompt, tool calls, several ranks, a compiled step."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.runtime.devices import autocast, gathered, progress, ranks, seed_of, share
from data.runtime.rows import pad_rows


class Cache:
    """Keys and values of every layer for N rows of at most `size` columns; `length` columns are filled.

    recent (N, smear, width) holds the last embeddings, which the next token's is smeared with."""

    def __init__(self, config, rows: int, size: int, device, dtype):
        shape = (rows, config.kv_heads, size, config.head_size)
        # zeros, since the compiled step reads columns that are still to come: it weighs them with 0, and 0 * nan would be nan
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        # of an embedding's precision, which autocast leaves alone
        self.recent = torch.zeros(rows, config.smear, config.width, device=device, dtype=torch.promote_types(dtype, torch.float32))
        self.length = 0
        self.place: Tensor | None = None  # (1,), the column of the next token in the compiled step, which writes and reads whole tensors

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.place is not None:
            for whole, new in ((self.keys, keys), (self.values, values)):
                whole[layer].index_copy_(2, self.place, new.to(whole[layer].dtype))
            return self.keys[layer], self.values[layer]
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length:end] = keys
        self.values[layer][:, :, self.length:end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def with_recent(self, x: Tensor) -> Tensor:
        """The last embeddings and then x, (N, smear + S, width); x's last ones are kept for the next call."""
        row = torch.cat([self.recent, x], 1)
        last = row[:, -self.recent.shape[1]:]
        if self.place is not None:
            self.recent.copy_(last)
        else:
            self.recent = last
        return row

    def begin(self, prompt: "Cache", rows: Tensor) -> None:
        """Start with these rows of a cache that holds the prompts; an earlier batch is wiped out, since 0 * nan would be nan."""
        for whole, part in zip((*self.keys, *self.values), (*prompt.keys, *prompt.values)):
            whole[:, :, :part.shape[2]] = part.index_select(0, rows)
            whole[:, :, part.shape[2]:] = 0
        self.recent.copy_(prompt.recent.index_select(0, rows))

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        for parts in (self.keys, self.values):
            for layer, part in enumerate(parts):  # one by one, so that there are never two whole caches
                parts[layer] = part.index_select(0, rows)
        self.recent = self.recent.index_select(0, rows)


@dataclass
class Samples:
    """n samples a prompt, prompt-major: row i answers prompt i // n.

    tokens (N, T), padded on the right; logprobs (N, T) under the distribution that was sampled from; own (N, T) True where
    the model itself wrote the token (a tool's result is inserted, not written); lengths (N,); truncated (N,) True where
    the length limit cut the row off.
    """

    tokens: Tensor
    logprobs: Tensor
    own: Tensor
    lengths: Tensor
    truncated: Tensor

    def lists(self) -> list[list[int]]:
        """The tokens of each row without padding."""
        return [row[:length] for row, length in zip(self.tokens.tolist(), self.lengths.tolist())]


def sampling_logits(logits: Tensor, temperature: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits (N, V) of the distribution that is sampled from. temperature (N,); rows at 0 keep temperature 1 (greedy)."""
    logits, temperature = logits.float(), torch.where(temperature > 0, temperature, 1.0)
    if bool((temperature != 1).any()):
        logits = logits / temperature[:, None]
    if top_k:
        kth = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        outside = ordered.softmax(1).cumsum(1) - ordered.softmax(1) >= top_p  # the better tokens hold that mass already
        outside[:, 0] = False
        logits = logits.scatter(1, order, ordered.masked_fill(outside, -torch.inf))
    return logits


def draw(probabilities: Tensor, uniform: Tensor, greedy: Tensor) -> Tensor:
    """Token ids (N,) from probabilities (N, V) by inverse CDF: one uniform number a row, where torch.multinomial would draw V of them.

    A row that is greedy (N,) takes its likeliest token. What nobody needs is left out: on a CPU these are the longest operations
    of a small model's step, and argmax would take three times as long as max.
    """
    if bool(greedy.all()):
        return probabilities.max(1).indices
    cdf = probabilities.cumsum(1)
    sampled = torch.searchsorted(cdf, (uniform * cdf[:, -1])[:, None], right=True)[:, 0].clamp(max=cdf.shape[1] - 1)
    return torch.where(greedy, probabilities.max(1).indices, sampled) if bool(greedy.any()) else sampled


class ToolQueue:
    """Tokens to be inserted into rows: a row that ends a turn with a tool call gets the result and a new header."""

    LIMIT = 4  # calls a row; a model that calls forever is cut off

    def __init__(self, tokenizer, run_tool, rows: int):
        self.tokenizer, self.run_tool = tokenizer, run_tool
        self.turn = [[] for _ in range(rows)]
        self.forced = [[] for _ in range(rows)]
        self.calls = [0] * rows

    def next(self, row: int, token: int) -> tuple[int, bool, bool]:
        """(token to use, written by the model?, row finished?) when the model samples `token` for the row."""
        if self.forced[row]:
            return self.forced[row].pop(0), False, False
        turn, tokenizer = self.turn[row], self.tokenizer
        if token != tokenizer.end_id:
            turn.append(token)
            return token, True, token in tokenizer.runtime_ids
        if tokenizer.call_id in turn and self.calls[row] < self.LIMIT:
            call = tokenizer.decode(turn[turn.index(tokenizer.call_id) + 1:])
            self.forced[row] = [tokenizer.result_id, *tokenizer.encode(self.run_tool(call)), *tokenizer.headers["assistant"]]
            self.calls[row] += 1
            self.turn[row] = []
            return token, True, False
        return token, True, True


def step(model, token: Tensor, attend: Tensor, cache: Cache) -> Tensor:
    """Logits (N, V) after one more token (N,) in column cache.place; attend (N, columns) is False for columns still to come.

    Every step has the same shapes, so that it compiles once.
    """
    positions = attend.sum(1, keepdim=True) - 1  # (N, 1)
    cos, sin = model.cos[positions][:, None], model.sin[positions][:, None]
    mask = torch.where(attend[:, None, None, :], 0.0, -torch.inf)
    x = model.embedded(token[:, None], None, cache)
    for layer, block in enumerate(model.blocks):
        x = block(x, cos, sin, mask, cache, layer)
    return model.head(model.norm(x))[:, 0]


@functools.cache
def compiled_step():
    """`step` by torch.compile; one for all models, since a copied model must not keep another's."""
    return torch.compile(step, mode="reduce-overhead")


FIXED = {}  # the last cache that `fixed_cache` made, by its shape


def fixed_cache(*shape) -> Cache:
    """A cache for the compiled step. It is kept, and given out again for a next batch of the same shape: a CUDA graph writes to fixed
    addresses, and is recorded anew for others."""
    if shape not in FIXED:
        FIXED.clear()  # before the next one, so that there are never two
        FIXED[shape] = cache = Cache(*shape)
        cache.place = torch.zeros(1, dtype=torch.long, device=cache.keys[0].device)
        for tensor in (*cache.keys, *cache.values, cache.recent, cache.place):
            torch._dynamo.mark_static_address(tensor)  # or no CUDA graph is made of a step that writes into its inputs
    return FIXED[shape]


@torch.no_grad()
def generate(model, tokenizer, prompts: list[list[int]], *, n: int = 1, max_new: int = 64, temperature=1.0, top_k: int = 0,
             top_p: float = 1.0, seed: int = 0, run_tool=None, rows: int = 512) -> Samples:
    """n samples of at most max_new tokens for each prompt (lists of ids), `rows` samples at a time.

    temperature: one number, or n of them, one for each sample of a prompt; 0 is greedy. run_tool: str -> str answers tool
    calls in the middle of generation. The samples depend on the seed and on the prompts, not on what finishes when.
    Raises ValueError for an empty list, or a prompt that leaves no room in the context.
    """
    if not prompts or not all(prompts) or max_new < 1:
        raise ValueError("generation needs at least one prompt, no empty prompt, and room for one new token")
    longest = max(map(len, prompts))
    if longest + 1 > model.config.context:
        raise ValueError(f"a prompt of {longest} tokens leaves no room in the context of {model.config.context}")
    was_training = model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))  # prompts of like length need little padding
    per_batch = max(1, rows // n)
    results = {}
    for start in range(0, len(order), per_batch):
        taken = order[start:start + per_batch]
        generator = torch.Generator().manual_seed(seed_of(seed, start))  # one a batch: how long another batch took changes nothing
        mine = share(range(len(taken)))
        if not mine:
            continue
        places = torch.tensor(mine).repeat_interleave(n) * n + torch.arange(n).repeat(len(mine))  # of this rank's rows in the batch
        batch = generate_batch(model, tokenizer, [prompts[taken[k]] for k in mine], n, max_new, temperature, top_k, top_p, generator,
                               len(taken) * n, places, run_tool)
        for j, k in enumerate(mine):
            results[taken[k]] = [tensor[j * n:(j + 1) * n] for tensor in batch]
    model.train(was_training)
    if ranks() > 1:
        device = next(model.parameters()).device
        results = gathered({i: [tensor.cpu() for tensor in row] for i, row in results.items()})
        results = {i: [tensor.to(device) for tensor in row] for i, row in results.items()}
    results = [results[i] for i in range(len(prompts))]
    width = max(result[0].shape[1] for result in results)
    pads = (tokenizer.pad_id, 0.0, False)
    padded = [torch.cat([F.pad(r[j], (0, width - r[j].shape[1]), value=pads[j]) for r in results]) for j in range(3)]
    return Samples(*padded, torch.cat([r[3] for r in results]), torch.cat([r[4] for r in results]))


def generate_batch(model, tokenizer, prompts, n, max_new, temperature, top_k, top_p, generator, drawn, places, run_tool):
    """One batch of `generate`: (tokens, logprobs, own) of shape (N, T), lengths and truncated (N,).

    `drawn` uniform numbers are drawn a step, and the batch's rows take those at their `places` (N,)."""
    device = next(model.parameters()).device
    ids = pad_rows(prompts, tokenizer.pad_id, left=True, device=device)  # (B, P)
    real = pad_rows([[True] * len(prompt) for prompt in prompts], False, left=True, device=device)
    column, size = ids.shape[1], min(ids.shape[1] + max_new, model.config.context)
    dtype = torch.bfloat16 if device.type == "cuda" else model.embedding.weight.dtype
    with autocast(device):
        # a batch without padding needs no mask, which attention is faster without
        cache = Cache(model.config, len(prompts), column if model.compiled else size, device, dtype)
        ragged = not bool(real.all())
        logits = model.head(model.hidden(ids, real if ragged else None, cache)[:, -1])  # each prompt is read once
    known = tokenizer.vocab_size  # some checkpoints have more rows in the embedding than the tokenizer has tokens
    copies = torch.arange(len(prompts), device=device).repeat_interleave(n)
    logits, real = logits[copies], real[copies]
    total, steps = len(prompts) * n, size - column
    if model.compiled:
        whole = min(-(-size // 128) * 128, model.config.context)  # few different shapes, each of which costs a compilation or a recording
        prompt, cache = cache, fixed_cache(model.config, total, whole, device, dtype)
        cache.begin(prompt, copies)
        real = F.pad(real, (0, whole - column))
    else:
        cache.select(copies)
    heat = torch.as_tensor(temperature, dtype=torch.float32, device=device).reshape(-1)
    heat = heat.repeat(total) if heat.numel() == 1 else heat.repeat(len(prompts))
    tokens = torch.full((total, steps), tokenizer.pad_id, device=device)
    logprobs, own = torch.zeros(total, steps, device=device), torch.zeros(total, steps, dtype=torch.bool, device=device)
    alive, running = torch.arange(total, device=device), torch.ones(total, dtype=torch.bool, device=device)
    lengths = torch.zeros(total, dtype=torch.long, device=device)
    last = torch.zeros(tokenizer.vocab_size, dtype=torch.bool, device=device)  # the tokens after which a row is over
    last[[tokenizer.end_id, *sorted(tokenizer.runtime_ids)]] = True
    queue = ToolQueue(tokenizer, run_tool, total) if run_tool is not None else None
    for step in progress(range(steps), f"{total} samples", "token", delay=3):
        # one number for every row, finished ones too: dropping rows changes nothing for the others
        uniform = torch.rand(drawn, generator=generator)[places].to(device)
        probabilities = sampling_logits(logits[:, :known], heat[alive], top_k, top_p).softmax(1)
        token = draw(probabilities, uniform[alive], heat[alive] == 0)
        logprob = probabilities.gather(1, token[:, None])[:, 0].clamp(min=1e-38).log()
        keep = running[alive]
        if queue is None:
            written, done = keep, last[token]
        else:
            named = [queue.next(row, new) if on else (new, False, True)
                     for row, new, on in zip(alive.tolist(), token.tolist(), keep.tolist())]
            token, written, done = (torch.tensor(column, device=device) for column in zip(*named))
        tokens[alive, step] = torch.where(keep, token, tokenizer.pad_id)
        logprobs[alive, step] = torch.where(written & keep, logprob, 0.0)
        own[alive, step] = written & keep
        lengths[alive] += keep
        running[alive] = keep & ~done
        left = int(running.sum())
        if left == 0 or step == steps - 1:
            break
        if left <= 0.8 * len(alive) and not model.compiled:  # finished rows stop costing
            kept = running[alive].nonzero()[:, 0]
            cache.select(kept)
            alive, token, real = alive[kept], token[kept], real[kept]
        with autocast(device):
            if model.compiled:
                real[:, column + step] = True
                cache.place.fill_(column + step)
                logits = compiled_step()(model, token, real, cache)
            else:
                real = F.pad(real, (0, 1), value=True)
                logits = model.head(model.hidden(token[:, None], real if ragged else None, cache)[:, 0])
    used = step + 1
    return tokens[:, :used], logprobs[:, :used], own[:, :used], lengths, running
