"""Fast decoding: what `generate` of model.py teaches, for many ragged prompts at once.

A prompt is read once, whatever the number of its samples, and its keys and values are cached.
Prompts are padded on the left. Rows that are over stop costing. A tool call is answered in the
middle of a reply. Under torchrun each rank writes its share. With --compile a step of fixed shapes
is compiled, and on a GPU recorded as a CUDA graph.

A model is whatever has the parts of `model.GPT`: embedding, blocks, norm, head, config, `embedded`,
`hidden` and the tables cos and sin.
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.runtime.devices import autocast, gathered, progress, ranks, seed_of, share
from data.runtime.room import cached_rows
from data.runtime.rows import pad_rows

# ---- what is cached, and where a row stands ----


class Cache:
    """Keys and values of every layer for N rows of at most `size` columns; `length` are filled.

    recent (N, smear, width) holds the last embeddings, which the next token's is smeared with.
    """

    def __init__(self, config, rows: int, size: int, device, dtype):
        shape = (rows, config.kv_heads, size, config.head_size)
        # zeros, since the compiled step reads columns that are still to come: it weighs them with
        # 0, and 0 * nan would be nan
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        # of an embedding's precision, which autocast leaves alone
        precise = torch.promote_types(dtype, torch.float32)
        self.recent = torch.zeros(rows, config.smear, config.width, device=device, dtype=precise)
        self.length = 0
        # (1,), the next token's column in the compiled step, which writes and reads whole tensors
        self.place: Tensor | None = None

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer so far, with new ones (N, kv_heads, S, d) at the end."""
        if self.place is not None:
            for whole, new in ((self.keys, keys), (self.values, values)):
                whole[layer].index_copy_(2, self.place, new.to(whole[layer].dtype))
            return self.keys[layer], self.values[layer]
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, length: int) -> None:
        """So many columns were filled in every layer."""
        self.length += length

    def with_recent(self, x: Tensor) -> Tensor:
        """The last embeddings, then x, (N, smear + S, width); x's last are kept for the next."""
        row = torch.cat([self.recent, x], 1)
        last = row[:, -self.recent.shape[1] :]
        if self.place is None:
            self.recent = last
        else:
            self.recent.copy_(last)
        return row

    def put(self, first: int, part: "Cache", end: int) -> None:
        """The rows from `first` on become those of `part`, whose columns end before `end`."""
        rows = slice(first, first + len(part.recent))
        for whole, read in zip((*self.keys, *self.values), (*part.keys, *part.values)):
            whole[rows, :, end - part.length : end] = read[:, :, : part.length]
        self.recent[rows] = part.recent
        self.length = end

    def begin(self, prompt: "Cache", rows: Tensor) -> None:
        """Start with these rows of a cache that holds the prompts; an earlier batch is wiped out,
        since 0 * nan would be nan."""
        pairs = zip((*self.keys, *self.values), (*prompt.keys, *prompt.values))
        for whole, read in pairs:
            whole[:, :, : read.shape[2]] = read.index_select(0, rows)
            whole[:, :, read.shape[2] :] = 0
        self.recent.copy_(prompt.recent.index_select(0, rows))

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        for tensors in (self.keys, self.values):
            # one by one, so that there are never two whole caches; columns to come are not copied
            for layer, tensor in enumerate(tensors):
                tensors[layer] = tensor.new_zeros(len(rows), *tensor.shape[1:])
                filled = tensor[:, :, : self.length]
                torch.index_select(filled, 0, rows, out=tensors[layer][:, :, : self.length])
        self.recent = self.recent.index_select(0, rows)


def places(attend: Tensor | None, start: int, end: int, device):
    """(positions, mask) of the columns from start to end.

    positions index the tables of angles. mask (.., end - start, end) is True where a token may
    look; for a single new token it is added to the scores: 0, or -inf at a padded column. None:
    everywhere up to the token itself. attend (N, end) is False at padded columns.
    """
    length = end - start
    causal = None
    if length > 1 and (start > 0 or attend is not None):
        causal = torch.ones(length, end, dtype=torch.bool, device=device).tril(start)
    if attend is None:
        return slice(start, end), causal
    mask = attend[:, None, None, :]  # (N, 1, 1, columns)
    if length == 1:
        position = (attend.sum(1) - 1).clamp(min=0)  # (N,)
        return position[:, None, None], torch.where(mask, 0.0, -torch.inf)
    positions = (attend.cumsum(1) - 1).clamp(min=0)[:, None, start:]  # (N, 1, S)
    # a padded query sees itself, so that no softmax runs over nothing
    itself = torch.eye(end, dtype=torch.bool, device=device)[start:]
    return positions, mask & causal | itself


# ---- one new token a row ----


def one_token(
    attention, qkv: Tensor, turn, mask: Tensor | None, cache: Cache, layer: int
) -> Tensor:
    """What `model.Attention` mixes for one new token a row, (N, 1, heads * d).

    qkv (N, heads + 2 kv_heads, 1, d); turn(x) turns x by the token's position; mask (N, 1, 1,
    columns) is added to the scores. With so little to compute the number of operations is what
    costs time: queries and keys are normed and turned together, and two small products take a
    third of the time of the fused kernel on a CPU.
    """
    heads, kv_heads, size = attention.heads, attention.kv_heads, attention.size
    turned, values = qkv.split([heads + kv_heads, kv_heads], dim=1)
    if not isinstance(attention.query_norm, torch.nn.Identity):
        query_weight = attention.query_norm.weight.expand(heads, -1)
        key_weight = attention.key_norm.weight.expand(kv_heads, -1)
        weights = torch.cat([query_weight, key_weight])[:, None]  # (heads + kv_heads, 1, d)
        turned = F.rms_norm(turned, (size,), None, attention.query_norm.eps) * weights
    queries, keys = turn(turned).split([heads, kv_heads], dim=1)
    keys, values = cache.append(layer, keys, values)  # (N, kv_heads, columns, d)
    # the query heads that share a key head stand together, (N, kv_heads, group, d)
    shared = (queries * size**-0.5).reshape(len(qkv), kv_heads, heads // kv_heads, size)
    scores = shared @ keys.transpose(2, 3)  # (N, kv_heads, group, columns)
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    return (scores.softmax(-1) @ values).reshape(len(qkv), 1, heads * size)


def step(model, token: Tensor, attend: Tensor, cache: Cache) -> Tensor:
    """Logits (N, V) after one more token (N,) in column cache.place.

    attend (N, columns) is False for columns still to come. Every step has the same shapes, so that
    it compiles once.
    """
    positions = attend.sum(1, keepdim=True) - 1  # (N, 1)
    cos = model.cos[positions][:, None]  # (N, 1, 1, d/2)
    sin = model.sin[positions][:, None]
    mask = torch.where(attend[:, None, None, :], 0.0, -torch.inf)  # (N, 1, 1, columns)
    x = model.embedded(token[:, None], None, cache)  # (N, 1, width)
    for layer, block in enumerate(model.blocks):
        x = block(x, cos, sin, mask, cache, layer)
    return model.head(model.norm(x))[:, 0]


@functools.cache
def compiled_step():
    """`step` by torch.compile; one for all models, since a copied model must not keep another's."""
    return torch.compile(step, mode="reduce-overhead")


FIXED = {}  # the last cache that `fixed_cache` made, by its shape


def fixed_cache(*shape) -> Cache:
    """A cache for the compiled step.

    It is kept, and given out again for a next batch of the same shape: a CUDA graph writes to fixed
    addresses, and is recorded anew for others.
    """
    if shape not in FIXED:
        FIXED.clear()  # before the next one, so that there are never two
        FIXED[shape] = cache = Cache(*shape)
        cache.place = torch.zeros(1, dtype=torch.long, device=cache.keys[0].device)
        for tensor in (*cache.keys, *cache.values, cache.recent, cache.place):
            # or no CUDA graph is made of a step that writes into its inputs
            torch._dynamo.mark_static_address(tensor)
    return FIXED[shape]


# ---- which token ----


def sampling_logits(
    logits: Tensor, temperature: Tensor, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Logits (N, V) of the distribution that is sampled from.

    temperature (N,); rows at 0 keep temperature 1 (greedy). top_k keeps the k likeliest tokens,
    top_p the fewest likeliest that hold that much probability (nucleus sampling, 1904.09751).
    """
    logits = logits.float()
    temperature = torch.where(temperature > 0, temperature, 1.0)
    if bool((temperature != 1).any()):
        logits = logits / temperature[:, None]
    if top_k:
        kth = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        # the better tokens hold that mass already
        outside = ordered.softmax(1).cumsum(1) - ordered.softmax(1) >= top_p
        outside[:, 0] = False
        logits = logits.scatter(1, order, ordered.masked_fill(outside, -torch.inf))
    return logits


def draw(probabilities: Tensor, uniform: Tensor, greedy: Tensor) -> Tensor:
    """Token ids (N,) from probabilities (N, V) by inverse CDF, with uniform numbers (N,).

    One number a row, where torch.multinomial would draw V of them. A row that is greedy (N,) takes
    its likeliest token. What nobody needs is left out: on a CPU these are the longest operations of
    a small model's step, and argmax would take three times as long as max.
    """
    if bool(greedy.all()):
        return probabilities.max(1).indices
    cdf = probabilities.cumsum(1)
    sampled = torch.searchsorted(cdf, (uniform * cdf[:, -1])[:, None], right=True)[:, 0]
    sampled = sampled.clamp(max=cdf.shape[1] - 1)
    if bool(greedy.any()):
        return torch.where(greedy, probabilities.max(1).indices, sampled)
    return sampled


class ToolQueue:
    """Tokens to be inserted into rows: a row that ends a turn with a tool call gets the result and
    a new header."""

    LIMIT = 4  # calls a row; a model that calls forever is cut off

    def __init__(self, tokenizer, run_tool, rows: int):
        self.tokenizer = tokenizer
        self.run_tool = run_tool
        self.turn = [[] for _ in range(rows)]
        self.forced = [[] for _ in range(rows)]
        self.calls = [0] * rows

    def next(self, row: int, token: int) -> tuple[int, bool, bool]:
        """(token to use, written by the model?, row finished?) when the model samples `token`."""
        if self.forced[row]:
            return self.forced[row].pop(0), False, False
        turn, tokenizer = self.turn[row], self.tokenizer
        if token != tokenizer.end_id:
            turn.append(token)
            return token, True, token in tokenizer.runtime_ids
        if tokenizer.call_id in turn and self.calls[row] < self.LIMIT:
            call = tokenizer.decode(turn[turn.index(tokenizer.call_id) + 1 :])
            result = tokenizer.encode(self.run_tool(call))
            self.forced[row] = [tokenizer.result_id, *result, *tokenizer.headers["assistant"]]
            self.calls[row] += 1
            self.turn[row] = []
            return token, True, False
        return token, True, True

    def answer(self, rows: Tensor, token: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`next` for many rows (R,) at once; a row that is over (keep False) is left alone."""
        named = []
        for row, new, on in zip(rows.tolist(), token.tolist(), keep.tolist()):
            named.append(self.next(row, new) if on else (new, False, True))
        used, written, done = (torch.tensor(one, device=token.device) for one in zip(*named))
        return used, written, done


# ---- many prompts ----


@dataclass
class Samples:
    """n samples a prompt, prompt-major: row i answers prompt i // n.

    tokens (N, T), padded on the right; logprobs (N, T) under the distribution that was sampled
    from; own (N, T) True where the model itself wrote the token (a tool's result is inserted, not
    written); lengths (N,); truncated (N,) True where the length limit cut the row off.
    """

    tokens: Tensor
    logprobs: Tensor
    own: Tensor
    lengths: Tensor
    truncated: Tensor

    def lists(self) -> list[list[int]]:
        """The tokens of each row without padding."""
        return [row[:length] for row, length in zip(self.tokens.tolist(), self.lengths.tolist())]


@torch.no_grad()
def generate(
    model,
    tokenizer,
    prompts: list[list[int]],
    *,
    n: int = 1,
    max_new: int = 64,
    temperature=1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    run_tool=None,
    rows: int = 512,
) -> Samples:
    """n samples of at most max_new tokens for each prompt (lists of ids), `rows` at a time.

    temperature: one number, or n of them, one for each sample of a prompt; 0 is greedy. run_tool:
    str -> str answers tool calls in the middle of generation. Where the keys and values of so many
    rows would not fit, there are fewer at a time. The samples depend on the seed, on the prompts
    and on that number, not on what finishes when. Raises ValueError for an empty list, or a prompt
    that leaves no room in the context.
    """
    check(prompts, max_new, model.config.context)
    how = {"max_new": max_new, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    was_training = model.training
    model.eval()
    # prompts of like length need little padding
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    columns = min(len(prompts[order[-1]]) + max_new, model.config.context)
    per_batch = max(1, cached_rows(model, rows, columns, kept_as(model)) // n)
    results = {}
    for start in range(0, len(order), per_batch):
        taken = order[start : start + per_batch]
        # one a batch: how long another batch took changes nothing
        generator = torch.Generator().manual_seed(seed_of(seed, start))
        mine = share(range(len(taken)))
        if not mine:
            continue
        # the places of this rank's rows in the batch
        rows_of = torch.tensor(mine).repeat_interleave(n) * n + torch.arange(n).repeat(len(mine))
        numbers = functools.partial(uniform, generator, len(taken) * n, rows_of)
        texts = [prompts[taken[k]] for k in mine]
        batch = generate_batch(model, tokenizer, texts, n, numbers, run_tool=run_tool, **how)
        results[tuple(taken[k] for k in mine)] = batch
    model.train(was_training)
    device = next(model.parameters()).device
    return joined(results, len(prompts), n, tokenizer.pad_id, device)


def check(prompts: list[list[int]], max_new: int, context: int) -> None:
    """Raises ValueError in one line for prompts that nothing can be written after."""
    if not prompts or not all(prompts) or max_new < 1:
        needs = "at least one prompt, no empty prompt, and room for one new token"
        raise ValueError(f"generation needs {needs}")
    longest = max(map(len, prompts))
    if longest + 1 > context:
        raise ValueError(f"a prompt of {longest} tokens leaves no room in the context of {context}")


def uniform(generator: torch.Generator, drawn: int, rows: Tensor) -> Tensor:
    """The numbers of these rows, of `drawn` rows on all ranks.

    One for every row at every step, finished ones too: dropping rows changes nothing for others.
    """
    return torch.rand(drawn, generator=generator)[rows]


def joined(results: dict, prompts: int, n: int, pad: int, device) -> Samples:
    """The samples of all batches and ranks, in the order of the prompts and of one width.

    results: the numbers of a batch's prompts -> what `generate_batch` gave for them.
    """
    if ranks() > 1:
        on_cpu = {which: [tensor.cpu() for tensor in batch] for which, batch in results.items()}
        results = gathered(on_cpu)
    rows = prompts * n
    width = max(batch[0].shape[1] for batch in results.values())
    whole = Samples(
        tokens=torch.full((rows, width), pad, device=device),
        logprobs=torch.zeros(rows, width, device=device),
        own=torch.zeros(rows, width, dtype=torch.bool, device=device),
        lengths=torch.zeros(rows, dtype=torch.long, device=device),
        truncated=torch.zeros(rows, dtype=torch.bool, device=device),
    )
    for which, batch in results.items():
        places_of = torch.tensor(which)[:, None] * n + torch.arange(n)  # (prompts, n)
        places_of = places_of.flatten().to(device)
        for one, part in zip(vars(whole).values(), batch):
            part = part.to(device)
            if part.dim() == 2:
                one = one[:, : part.shape[1]]
            one.index_copy_(0, places_of, part)
    return whole


# ---- one batch ----

WORTH = 8192  # tokens of padding that more forwards must save; the tiny run's batches stay whole


def kept_as(model) -> torch.dtype:
    """The precision of keys and values."""
    return torch.bfloat16 if model.embedding.weight.is_cuda else model.embedding.weight.dtype


def alike(prompts: list[list[int]]) -> list[list[list[int]]]:
    """The prompts, sorted by length, in groups that are read apart.

    A prompt of more than twice a group's shortest begins another, unless all of that saves so
    little padding that one forward for all is as fast.
    """
    groups = [[prompts[0]]]
    for prompt in prompts[1:]:
        if len(prompt) > 2 * len(groups[-1][0]):
            groups.append([])
        groups[-1].append(prompt)
    read = sum(len(group) * len(group[-1]) for group in groups)
    saved = len(prompts) * len(prompts[-1]) - read  # tokens
    return groups if saved >= WORTH else [prompts]


class Growing:
    """The rows of a batch behind a cache that takes a column a token; rows that are over leave."""

    def __init__(self, model, prompts: list[list[int]], n: int, size: int, pad: int):
        self.model = model
        self.device = next(model.parameters()).device
        self.dtype = kept_as(model)
        self.real = self.marks(prompts)  # (B, P)
        self.column = self.real.shape[1]  # of the next token
        # a batch without padding needs no mask, which attention is faster without
        self.ragged = not bool(self.real.all())
        columns = self.prompt_columns(size)
        self.cache = Cache(model.config, len(prompts), columns, self.device, self.dtype)
        logits = self.read_prompts(prompts, pad)  # (B, V)
        copies = torch.arange(len(prompts), device=self.device).repeat_interleave(n)
        self.logits = logits[copies]  # (N, V)
        self.real = self.real[copies]  # (N, P)
        # and then (N, columns), True where a row that is read has a token
        self.spread(copies, size)

    def marks(self, prompts: list[list[int]]) -> Tensor:
        """(B, P), False at the padding on the left."""
        marks = [[True] * len(prompt) for prompt in prompts]
        return pad_rows(marks, False, left=True, device=self.device)

    def read_prompts(self, prompts: list[list[int]], pad: int) -> Tensor:
        """The logits (B, V) after each prompt, whose keys and values are then in the cache."""
        logits = []
        groups = alike(prompts)
        first = 0
        for group in groups:
            ids = pad_rows(group, pad, left=True, device=self.device)  # (b, p)
            real = self.marks(group)
            attend = None if bool(real.all()) else real
            cache = self.cache
            if len(groups) > 1:
                shape = (len(group), ids.shape[1])
                cache = Cache(self.model.config, *shape, self.device, self.dtype)
            with autocast(self.device):
                logits.append(self.model.head(self.model.hidden(ids, attend, cache)[:, -1]))
            if len(groups) > 1:
                self.cache.put(first, cache, self.column)
            first += len(group)
        return torch.cat(logits)

    def prompt_columns(self, size: int) -> int:
        return size

    def spread(self, copies: Tensor, size: int) -> None:
        """The prompts' cache becomes that of the rows (N,), which are copies of prompts."""
        self.cache.select(copies)
        self.real = F.pad(self.real, (0, size - self.column), value=True)

    def drop(self, kept: Tensor) -> None:
        self.cache.select(kept)
        self.real = self.real[kept]

    def read(self, token: Tensor) -> None:
        """One more token (N,) a row; `logits` (N, V) are then those of the next."""
        self.column += 1
        attend = self.real[:, : self.column] if self.ragged else None
        with autocast(self.device):
            hidden = self.model.hidden(token[:, None], attend, self.cache)  # (N, 1, width)
            self.logits = self.model.head(hidden[:, 0])


class Fixed(Growing):
    """The same for the compiled step: a cache of fixed size and address, and no row leaves."""

    def prompt_columns(self, size: int) -> int:
        return self.column

    def spread(self, copies: Tensor, size: int) -> None:
        config = self.model.config
        # few different shapes, each of which costs a compilation or a recording
        whole = min(-(-size // 128) * 128, config.context)
        prompt = self.cache
        self.cache = fixed_cache(config, len(copies), whole, self.device, self.dtype)
        self.cache.begin(prompt, copies)
        self.real = F.pad(self.real, (0, whole - self.column))

    def read(self, token: Tensor) -> None:
        self.real[:, self.column] = True
        self.cache.place.fill_(self.column)
        self.column += 1
        with autocast(self.device):
            self.logits = compiled_step()(self.model, token, self.real, self.cache)


class Written:
    """What N rows have written: tokens, logprobs, own (N, T), lengths, and who is still running."""

    def __init__(self, rows: int, steps: int, pad: int, device):
        self.tokens = torch.full((rows, steps), pad, device=device)
        self.logprobs = torch.zeros(rows, steps, device=device)
        self.own = torch.zeros(rows, steps, dtype=torch.bool, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.running = torch.ones(rows, dtype=torch.bool, device=device)
        self.pad = pad

    def write(self, position: int, rows: Tensor, token, logprob, own, done) -> None:
        """A token of each of these rows (R,); those that are over get padding."""
        keep = self.running[rows]
        own = own & keep
        self.tokens[rows, position] = torch.where(keep, token, self.pad)
        self.logprobs[rows, position] = torch.where(own, logprob, 0.0)
        self.own[rows, position] = own
        self.lengths[rows] += keep
        self.running[rows] = keep & ~done

    def until(self, used: int) -> tuple[Tensor, ...]:
        """(tokens, logprobs, own) of `used` columns, lengths, truncated."""
        wide = (self.tokens, self.logprobs, self.own)
        return *(tensor[:, :used] for tensor in wide), self.lengths, self.running


def last_tokens(tokenizer, device) -> Tensor:
    """(V,) True at the tokens after which a row is over."""
    last = torch.zeros(tokenizer.vocab_size, dtype=torch.bool, device=device)
    last[[tokenizer.end_id, *sorted(tokenizer.runtime_ids)]] = True
    return last


def generate_batch(
    model,
    tokenizer,
    prompts: list[list[int]],
    n: int,
    numbers,
    *,
    max_new: int,
    temperature,
    top_k: int,
    top_p: float,
    run_tool,
) -> tuple[Tensor, ...]:
    """One batch of `generate`: (tokens, logprobs, own) of shape (N, T), lengths and truncated (N,).

    numbers() gives a uniform number a row for the next token.
    """
    longest = max(map(len, prompts))
    size = min(longest + max_new, model.config.context)
    rows = (Fixed if model.compiled else Growing)(model, prompts, n, size, tokenizer.pad_id)
    device, total, steps = rows.device, len(prompts) * n, size - longest
    heat = torch.as_tensor(temperature, dtype=torch.float32, device=device).reshape(-1)
    heat = heat.repeat(total if heat.numel() == 1 else len(prompts))  # (N,)
    text = Written(total, steps, tokenizer.pad_id, device)
    alive = torch.arange(total, device=device)  # the rows that are still computed
    last = last_tokens(tokenizer, device)
    queue = ToolQueue(tokenizer, run_tool, total) if run_tool is not None else None
    for position in progress(range(steps), f"{total} samples", "token", delay=3):
        uniforms = numbers().to(device)  # (N,)
        # some checkpoints have more rows in the embedding than the tokenizer has tokens
        known = rows.logits[:, : tokenizer.vocab_size]
        probabilities = sampling_logits(known, heat[alive], top_k, top_p).softmax(1)
        token = draw(probabilities, uniforms[alive], heat[alive] == 0)
        logprob = probabilities.gather(1, token[:, None])[:, 0].clamp(min=1e-38).log()
        own = text.running[alive]
        if queue is None:
            done = last[token]
        else:
            token, own, done = queue.answer(alive, token, own)
        text.write(position, alive, token, logprob, own, done)
        left = int(text.running.sum())
        if left == 0 or position == steps - 1:
            break
        if left <= 0.8 * len(alive) and not model.compiled:  # finished rows stop costing
            kept = text.running[alive].nonzero()[:, 0]
            rows.drop(kept)
            alive = alive[kept]
            token = token[kept]
        rows.read(token)
    return text.until(position + 1)
