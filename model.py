"""The model: a decoder-only transformer, its log-probabilities, its sampling and its optimizer.

One Config covers Llama, Qwen2, Qwen3 and the small models trained here from random weights.
Tokens go through the embedding, the smear, the blocks, a last norm and the head:

    smear      y_t = x_t + sum over j = 1 .. 3 of w_j * x_{t-j}, on the embeddings, w_j learned
    block      h = x + attention(norm(x)),   y = h + swiglu(norm(h))
    RMSNorm    norm(x) = w * x / sqrt(mean(x^2) + eps), w learned (1910.07467)
    RoPE       at position p the pair (x_i, x_{i + d/2}) of a head of d numbers turns by the angle
               p * base^(-2i / d), so that positions enter q.k by their distance only (2104.09864)
    attention  o_m = sum over n <= m of softmax_n(q_m . k_n / sqrt(d)) v_n in each head, then W_out;
               a group of query heads shares a key and a value head (2305.13245)
    SwiGLU     swiglu(x) = W_down (silu(W_gate x) * (W_up x)), silu(z) = z sigmoid(z) (2002.05202)
    log p      log p(x_t | x_<t) = z[x_t] / T - logsumexp(z / T); z: logits at t - 1, T: temperature

Muon: average a matrix's gradients, M = 0.95 M + 0.05 G = U S V^T, and step along about U V^T, where
all singular values are 1. A direction with small gradients moves as far as one with large ones.

**Details that matter**

1. Smear. To repeat what followed a word earlier, a head must mark each token with the one before
   it, and a head of the next layer must look for that mark. Neither helps alone, so training takes
   long to find the pair. Smear is the mark (smeared keys, 2209.11895; Canon layers, 2512.17351).
   After 2,000 steps 25% of answers copy their word, without smear 10% (two seeds).
2. Tiny has two wide layers: held-out loss 0.75, of four narrow 1.07 in the same time (version 1).
3. QK-norm bounds the attention logits under Muon's large steps (2010.04245). Not measured.
4. W_out and W_down start at zero: a new block adds nothing (the idea of 1901.09321). Not measured.
5. Positions count real tokens, and smear takes padding as 0. So padding changes nothing (tested).
6. Muon (Jordan, 2024) for the blocks' matrices, AdamW for the rest. From random weights and in SFT
   a step learns several times as much. DPO and RL take AdamW alone: in RL Muon cost 4 points of
   code (one seed). Three Newton-Schulz iterations learn as much as five, 1/6 faster.
7. One matrix for queries, keys and values, and one for gate and up. Separate ones changed held-out
   loss by -0.008 +-0.033 nats after SFT, the score by -0.5 +-3.9 points (five seeds, 95%).
8. AdamW's eps is 1e-8 (1711.05101). It is added to the root of the mean squared gradient: at 1e-5,
   as in OpenAI's first RLHF code, a weight with small gradients hardly moves. Not measured.
9. Each row draws one uniform number a position: when it ends changes no other row (tested).

Left out: dropout (on little data training stops early instead), learned positions, mixtures of
experts, sliding windows, a paged cache. Fast decoding: data/runtime/decoding.py.

    python model.py runs/tiny-seed1/overall_sft.student.pt     talk to it; tool calls are shown
    python model.py A DIRECTORY --prompt "What is 47 + 38?"    several; Llama, Qwen2, Qwen3 too
    python model.py CHECKPOINT --export DIRECTORY              Hugging Face layout (without smear)
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data.files.checkpoints import export, load, tokenizer_of
from data.runtime import talk
from data.runtime.command import Parser, command
from data.runtime.decoding import Cache, one_token, places
from data.runtime.devices import pick_device, seed_of
from data.runtime.sizes import SHAPES


@dataclass(frozen=True)
class Config:
    vocab_size: int
    context: int  # the most tokens of one row
    layers: int
    width: int  # numbers of a token between the blocks
    heads: int  # query heads
    kv_heads: int  # key and value heads; each is shared by heads / kv_heads query heads
    ffn: int  # numbers of a token inside SwiGLU
    head_dim: int = 0  # 0: width / heads
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    qk_norm: bool = True
    qkv_bias: bool = False  # Qwen2's queries, keys and values have one
    tied: bool = True  # embedding and head are one matrix, which saves parameters
    smear: int = 0  # how many tokens back; 0 for public checkpoints, which have none

    @property
    def head_size(self) -> int:
        return self.head_dim or self.width // self.heads


SIZES = {size: {who: Config(**one) for who, one in pair.items()} for size, pair in SHAPES.items()}


# ---- the transformer ----


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in rotate-half order; x (N, heads, S, d), cos and sin (.., S, d/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def smeared(row: Tensor, weights: Tensor) -> Tensor:
    """The last S of the embeddings row (N, J + S, width), each smeared, (N, S, width).

    weights (J, width), the previous token's first; a missing or padded embedding is 0.
    """
    reach = len(weights)
    x = row[:, reach:]  # (N, S, width)
    for j, weight in enumerate(weights, start=1):
        x = x + weight * row[:, reach - j : row.shape[1] - j]
    return x


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.heads = config.heads
        self.kv_heads = config.kv_heads
        self.size = config.head_size
        # a small model's time is the number of calls, not their size, hence one matrix for three
        outputs = (self.heads + 2 * self.kv_heads) * self.size
        self.qkv = nn.Linear(config.width, outputs, bias=config.qkv_bias)
        self.out = nn.Linear(self.heads * self.size, config.width, bias=False)
        self.query_norm = RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos, sin, mask, cache: Cache | None, layer: int) -> Tensor:
        count = self.heads + 2 * self.kv_heads
        qkv = self.qkv(x).view(*x.shape[:2], count, self.size).transpose(1, 2)  # (N, count, S, d)
        if x.shape[1] == 1 and cache is not None:
            return self.out(one_token(self, qkv, lambda x: rotate(x, cos, sin), mask, cache, layer))
        queries, keys, values = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        queries = rotate(self.query_norm(queries), cos, sin)  # (N, heads, S, d)
        keys = rotate(self.key_norm(keys), cos, sin)  # (N, kv_heads, S, d)
        if cache is not None:
            keys, values = cache.append(layer, keys, values)  # (N, kv_heads, columns, d)
        group = self.heads // self.kv_heads
        if group > 1:
            keys = keys.repeat_interleave(group, dim=1)  # (N, heads, columns, d)
            values = values.repeat_interleave(group, dim=1)
        causal = mask is None  # then the cache held nothing before
        mixed = F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.ffn_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.gate_up = nn.Linear(config.width, 2 * config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x: Tensor, cos, sin, mask, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, mask, cache, layer)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)  # (N, S, ffn) each
        return x + self.down(F.silu(gate) * up)


class GPT(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.recompute = False  # keep no activations of the blocks; backward computes them again
        self.compiled = False  # decoding by the compiled step (data/runtime/decoding.py)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        if config.smear:
            self.smear = nn.Parameter(torch.zeros(config.smear, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        pairs = torch.arange(0, config.head_size, 2, dtype=torch.float32)  # (d/2,), 2i of pair i
        speeds = config.rope_base ** (-pairs / config.head_size)
        angles = torch.arange(config.context)[:, None] * speeds  # (context, d/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    @torch.no_grad()
    def init_weights(self, seed: int) -> "GPT":
        """Matrices normal with 1/sqrt(inputs), embedding and head apart; 0: detail 4, biases."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight", "bias")):
                parameter.zero_()
            elif name.startswith(("embedding", "head")):
                # tied, it is the head too: logits start small but a token's own, 0.05 * width
                scale = 0.5 if name.startswith("embedding") and not self.config.tied else 0.05
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            elif name == "smear":
                halves = 0.5 ** torch.arange(1, len(parameter) + 1)  # 1/2, 1/4, 1/8
                parameter.copy_(halves[:, None].expand_as(parameter))
            elif parameter.dim() == 2:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn / math.sqrt(parameter.shape[1]))
        return self

    def embedded(self, ids: Tensor, real: Tensor | None, cache: Cache | None) -> Tensor:
        """What enters the first block, (N, S, width); real (N, S) is False at a padded position."""
        x = self.embedding(ids)  # (N, S, width)
        if not self.config.smear:
            return x
        if real is not None:
            x = x * real[:, :, None]
        if cache is None:
            return smeared(F.pad(x, (0, 0, self.config.smear, 0)), self.smear)
        return smeared(cache.with_recent(x), self.smear)

    def hidden(self, ids, attend: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Last hidden states (N, S, width) of ids (N, S), which follow the columns of the cache.

        attend (N, columns) is True at real tokens, cached ones included; None: all are real, or the
        padding stands on the right, where no real token looks. ValueError beyond the context.
        """
        start = cache.length if cache is not None else 0
        end = start + ids.shape[1]
        limit = self.config.context
        if end > limit:
            raise ValueError(f"a row of {end} tokens is longer than the context of {limit}")
        positions, mask = places(attend, start, end, ids.device)
        cos = self.cos[positions]  # (S, d/2), or (N, 1, S, d/2) with attend
        sin = self.sin[positions]
        x = self.embedded(ids, None if attend is None else attend[:, start:], cache)
        for layer, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, mask, cache, layer, use_reentrant=False)
            else:
                x = block(x, cos, sin, mask, cache, layer)
        if cache is not None:
            cache.advance(ids.shape[1])
        return self.norm(x)

    def forward(self, ids, select: Tensor | None = None, attend: Tensor | None = None) -> Tensor:
        """Logits (N, S, V), or of the positions in select (N, S) bool alone, (selected, V)."""
        hidden = self.hidden(ids, attend)
        return self.head(hidden if select is None else hidden[select])


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def load_checkpoint(path, tokenizer=None, device="cpu", build=GPT, kind="checkpoint") -> tuple:
    """(model, all else that was saved) of a file of ours or a Hugging Face directory; build(config)
    makes another kind of model. Raises ValueError in one line for what does not fit."""
    return load(path, tokenizer, device, lambda fields: build(Config(**fields)), kind)


def fresh_model(size: str, who: str, tokenizer, seed: int) -> GPT:
    """A model of a size with random weights, and a vocabulary for this tokenizer."""
    config = replace(SIZES[size][who], vocab_size=tokenizer.vocab_size)
    return GPT(config).init_weights(seed_of(seed, who))


def placed(model: GPT, args, device: torch.device) -> GPT:
    """The model on its device, with what --recompute and --compile ask for."""
    model.recompute = args.recompute
    if args.compile:
        model.compile(dynamic=True)  # the training forward
        model.compiled = True  # and the decode step
    return model.to(device)


# ---- log-probabilities and samples ----


def token_logprobs(model, ids, mask, temperature: float = 1.0, attend=None) -> Tensor:
    """log p(ids[:, t] | ids[:, :t]) in nats where mask (N, S) is True, 0 elsewhere, (N, S) float32.

    mask[:, 0] must be False: the first token has nothing before it.
    """
    select = F.pad(mask[:, 1:], (0, 1))  # (N, S), whose logits predict each masked token
    logits = model(ids, select=select, attend=attend).float() / temperature  # (selected, V)
    picked = logits.gather(1, ids[mask][:, None])[:, 0] - logits.logsumexp(1)  # (selected,)
    return torch.zeros(ids.shape, device=ids.device).masked_scatter(mask, picked)


@torch.no_grad()
def generate(model: GPT, tokenizer, prompts, *, max_new=64, temperature=1.0, seed=0) -> list:
    """One response to each prompt, a list of ids: [(its ids, their log-probabilities)].

    A uniform number is looked up in the summed probabilities: with p = (.25, .5, .25) the sums are
    .25, .75 and 1, and .3 draws the second token. Every token reads its whole row again; the fast
    one in data/runtime/decoding.py keeps a cache, and draws the same for prompts sorted by length.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed_of(seed, 0))
    numbers = torch.rand(max_new, len(prompts), generator=generator).to(device)  # (T, N)
    samples = []
    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        logprobs = []
        for number in numbers[: model.config.context - len(prompt), row]:
            logits = model(torch.tensor([ids], device=device))[0, -1, : tokenizer.vocab_size]
            probabilities = (logits.float() / (temperature or 1.0)).softmax(0)  # (V,)
            cdf = probabilities.cumsum(0)  # (V,)
            drawn = torch.searchsorted(cdf, number * cdf[-1], right=True).clamp(max=len(cdf) - 1)
            token = int(drawn if temperature else probabilities.argmax())
            ids.append(token)
            logprobs.append(float(probabilities[token].log()))
            if token == tokenizer.end_id or token in tokenizer.runtime_ids:
                break
        samples.append((ids[len(prompt) :], logprobs))
    return samples


# ---- the optimizer ----


def learning_rate_scale(step: int, steps: int, warmup: int = 0, constant: float = 0.5) -> float:
    """Linear warm-up, 1 until the share `constant` of all steps, then linear towards 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = max(warmup, int(constant * steps))
    return 1.0 if step < start else (steps - step) / max(1, steps - start)


class Optimizers:
    """Muon on the block matrices and AdamW on the rest, stepped as one; muon_lr None: all AdamW.

    own_lr: {name of a parameter: its own AdamW learning rate}.
    """

    def __init__(self, model: nn.Module, adam_lr: float, muon_lr=None, own_lr=None):
        own_lr = own_lr or {}
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        apart = {name: p for name, p in trained.items() if name in own_lr}
        matrices = [p for name, p in trained.items() if p.dim() == 2 and ".blocks." in f".{name}"]
        by_muon = [] if muon_lr is None else matrices
        taken = {id(p) for p in [*by_muon, *apart.values()]}
        rest = [p for p in trained.values() if id(p) not in taken]
        groups = [{"params": rest, "lr": adam_lr}]
        groups += [{"params": [p], "lr": own_lr[name]} for name, p in apart.items()]
        adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.optimizers = [adamw]
        if muon_lr is not None:
            how = {"momentum": 0.95, "weight_decay": 0.0, "ns_steps": 3}
            self.optimizers.append(torch.optim.Muon(by_muon, lr=muon_lr, **how))
        self.base = [[group["lr"] for group in one.param_groups] for one in self.optimizers]
        self.parameters = [*rest, *apart.values(), *by_muon]

    def step(self, scale: float, clip: float = 1.0) -> float:
        """One update with every learning rate times scale; the gradient's norm before clipping.

        Raises FloatingPointError, and changes nothing, where the gradient is not finite.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        if not torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(f"the gradient's norm is {float(norm)}")
        for optimizer, rates in zip(self.optimizers, self.base):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> list:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list) -> None:
        for optimizer, state in zip(self.optimizers, states):
            optimizer.load_state_dict(state)


# ---- alone ----


def main() -> None:
    parser = Parser("Talk to checkpoints, or export one.")
    talk.add_flags(parser)
    command(parser, run, "stopped")


def run(args) -> None:
    talk.check(args)
    device = pick_device(args.device)
    conversations = []
    for path in args.checkpoints:
        with talk.notes_apart():
            tokenizer = tokenizer_of(path)
        model, saved = load_checkpoint(path, tokenizer, device)
        told = f"{parameter_count(model):,} parameters, stage {saved['stage']}"
        conversations.append(talk.Conversation(path, model, tokenizer, told))
    if args.export:
        export(model, tokenizer, args.export)
        print(f"{args.export}: {told}, and the tokenizer, in Hugging Face layout")
    else:
        talk.talk(conversations, args)


if __name__ == "__main__":
    main()
