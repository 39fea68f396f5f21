"""The model: a decoder-only transformer of today's open kind, its generation, its optimizer and its checkpoints.

RMSNorm with weights, rotary positions (rotate-half), grouped-query attention, optional QK-norm, SwiGLU, no biases,
optionally tied embeddings: one Config covers Llama, Qwen3 and the small models that are trained here from scratch.

**Smear** lets a small model copy. To go on with what followed the same word earlier, a transformer needs an induction
circuit: a head of one layer notes beside each token which token stood before it, and a head of the next layer looks for the
note that fits. Neither head is worth anything before the other is there, so two layers do not find the pair in a minute of
training. With the last three embeddings, each times a learned vector, added to every token's own, the note is there from the
first step and one head is enough (smeared keys of Olsson et al., 2209.11895; Canon layers, 2512.17351).

Left out: dropout (post-training of small models on little data stops early instead), a learned position table, mixture
of experts, sliding windows, a paged cache.

    python model.py runs/tiny-seed1/overall_sft.student.pt     talk to a checkpoint; tool calls are shown as they happen
    python model.py DIRECTORY                                  or to a Llama or Qwen3 model in Hugging Face layout (data/files/hf.py)
    python model.py CHECKPOINT --export DIRECTORY              writes that layout, for `transformers` and others
"""

import math
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data.files import checkpoints, hf, hf_tokenizer
from data.files.checkpoints import tokenizer_of
from data.runtime.command import Parser, ask, check_numbers, command
from data.runtime.decoding import Cache, generate
from data.runtime.devices import pick_device, seed_of


@dataclass(frozen=True)
class Config:
    vocab_size: int
    context: int  # the most tokens of one row
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    head_dim: int = 0  # 0: width / heads
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    qk_norm: bool = True  # keeps attention logits bounded under Muon's large steps; Qwen3 has it, Llama does not
    tied: bool = True
    smear: int = 0  # previous tokens whose embeddings are added to each token's; 0 for public checkpoints

    @property
    def head_size(self) -> int:
        return self.head_dim or self.width // self.heads


# tiny: a laptop CPU, minutes. small: one GPU, minutes. base: the SmolLM2 shapes, one or more GPUs.
SIZES = {
    # two wide layers learn more in a minute on a CPU than four narrow ones; the short base suits rows of 30 to 150 tokens
    "tiny": {"student": Config(768, 256, 2, 96, 4, 2, 160, rope_base=1000.0, tied=False, smear=3),
             "teacher": Config(768, 256, 2, 192, 6, 3, 368, rope_base=1000.0, tied=False, smear=3)},
    "small": {"student": Config(512, 512, 8, 320, 5, 5, 864, smear=3), "teacher": Config(512, 512, 12, 512, 8, 4, 1408, smear=3)},
    "base": {"student": Config(49152, 2048, 30, 576, 9, 3, 1536, rope_base=100000.0, qk_norm=False),
             "teacher": Config(49152, 2048, 32, 960, 15, 5, 2560, rope_base=100000.0, qk_norm=False)},
}


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (Zhang and Sennrich, 1910.07467)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2104.09864), rotate-half order. x (N, heads, S, d); cos, sin broadcast (.., S, d/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def smeared(row: Tensor, weights: Tensor) -> Tensor:
    """y_t = x_t + sum_j w_j * x_{t-j}, (N, S, width), for weights (J, width), of which the first is the previous token's.

    row (N, J + S, width) holds x with the J embeddings before it; a missing or padded one is 0.
    """
    reach, length = len(weights), row.shape[1] - len(weights)
    x = row[:, reach:]
    for j, weight in enumerate(weights, start=1):
        x = x + weight * row[:, reach - j:reach - j + length]
    return x


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.heads, self.kv_heads, self.size = config.heads, config.kv_heads, config.head_size
        # one matrix for queries, keys and values: on a small model the number of operations is what costs time
        self.qkv = nn.Linear(config.width, (config.heads + 2 * config.kv_heads) * self.size, bias=False)
        self.out = nn.Linear(config.heads * self.size, config.width, bias=False)
        self.query_norm = RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(self.size, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        rows, length, _ = x.shape
        qkv = self.qkv(x).view(rows, length, self.heads + 2 * self.kv_heads, self.size).transpose(1, 2)  # (N, heads + 2 kv_heads, S, d)
        if length == 1 and cache is not None:
            return self.out(self.one_token(qkv, cos, sin, attend, cache, layer))
        queries, keys, values = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        queries, keys = rotate(self.query_norm(queries), cos, sin), rotate(self.key_norm(keys), cos, sin)
        if cache is not None:
            keys, values = cache.append(layer, keys, values)
        group = self.heads // self.kv_heads
        if group > 1:
            keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=attend, is_causal=attend is None)
        return self.out(mixed.transpose(1, 2).reshape(rows, length, self.heads * self.size))

    def one_token(self, qkv: Tensor, cos: Tensor, sin: Tensor, attend: Tensor | None, cache: Cache, layer: int) -> Tensor:
        """What one new token a row takes from the columns before it, (N, 1, heads * d); qkv (N, heads + 2 kv_heads, 1, d), and attend
        (N, 1, 1, columns) is added to the scores: 0, or -inf at a padded column.

        With so little to compute the number of operations is what costs time: queries and keys are normed and turned together, and
        two small products take a third of the time of the fused kernel on a CPU.
        """
        rows, group = len(qkv), self.heads // self.kv_heads
        turned, values = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        if isinstance(self.query_norm, RMSNorm):
            weights = torch.cat([self.query_norm.weight.expand(self.heads, -1), self.key_norm.weight.expand(self.kv_heads, -1)])
            turned = F.rms_norm(turned, (self.size,), None, self.query_norm.eps) * weights[:, None]
        queries, keys = rotate(turned, cos, sin).split([self.heads, self.kv_heads], dim=1)
        keys, values = cache.append(layer, keys, values)
        shared = (queries * self.size ** -0.5).reshape(rows, self.kv_heads, group, self.size)  # the query heads that share a key head
        scores = shared @ keys.transpose(2, 3)  # (N, kv_heads, group, columns)
        if attend is not None:
            scores = scores + attend.to(scores.dtype)
        return (scores.softmax(-1) @ values).reshape(rows, 1, self.heads * self.size)


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.attention_norm, self.ffn_norm = RMSNorm(config.width, config.norm_eps), RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.gate_up = nn.Linear(config.width, 2 * config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, attend, cache, layer)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class GPT(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.recompute = False  # activations of the blocks again in the backward pass, instead of keeping them
        self.compiled = False  # generation by the compiled `step`
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        if config.smear:
            self.smear = nn.Parameter(torch.zeros(config.smear, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        angles = torch.arange(config.context)[:, None] * config.rope_base ** (
            -torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def init_weights(self, seed: int) -> "GPT":
        """Normal with 1/sqrt(inputs), drawn in a fixed order; what writes into the residual stream starts at zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith(("out.weight", "down.weight")):
                    parameter.zero_()
                elif name.startswith(("embedding", "head")):
                    scale = 0.5 if name.startswith("embedding") and not self.config.tied else 0.05
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
                elif name == "smear":
                    parameter.copy_(0.5 ** torch.arange(1, len(parameter) + 1)[:, None].expand_as(parameter))
                elif parameter.dim() == 2:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter.shape[1]))
        return self

    def hidden(self, ids: Tensor, attend: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Last hidden states (N, S, width) of ids (N, S).

        attend (N, columns) bool says which columns, cached ones included, are real tokens; None: all of them. Padding on
        the right needs no mask, since no real token looks at it. Raises ValueError for rows longer than the context.
        """
        start = cache.length if cache is not None else 0
        length = ids.shape[1]
        if start + length > self.config.context:
            raise ValueError(f"a row of {start + length} tokens is longer than the context of {self.config.context}")
        if attend is None:
            cos, sin = self.cos[start:start + length], self.sin[start:start + length]
            mask = None if start == 0 or length == 1 else torch.ones(length, start + length, dtype=torch.bool, device=ids.device).tril(start)
        else:
            positions = (attend.cumsum(1) - 1).clamp(min=0)[:, start:]  # (N, S)
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]  # (N, 1, S, d/2)
            mask = attend[:, None, None, :]
            if length == 1:
                mask = torch.where(mask, 0.0, -torch.inf)
            else:
                causal = torch.ones(length, start + length, dtype=torch.bool, device=ids.device).tril(start)
                # a padded query sees itself, so that no softmax runs over nothing
                mask = mask & causal | torch.eye(start + length, dtype=torch.bool, device=ids.device)[start:]
        x = self.embedded(ids, None if attend is None else attend[:, start:], cache)
        for layer, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, mask, cache, layer, use_reentrant=False)
            else:
                x = block(x, cos, sin, mask, cache, layer)
        if cache is not None:
            cache.length += length
        return self.norm(x)

    def embedded(self, ids: Tensor, real: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """What enters the first block, (N, S, width); real (N, S) is False at a padded position, which is smeared as 0."""
        x = self.embedding(ids)
        if not self.config.smear:
            return x
        if real is not None:
            x = x * real[:, :, None]
        if cache is None:
            row = torch.cat([x.new_zeros(len(x), *self.smear.shape), x], 1)  # (N, smear + S, width)
        else:
            row = cache.with_recent(x)
        return smeared(row, self.smear)

    def forward(self, ids: Tensor, select: Tensor | None = None, attend: Tensor | None = None) -> Tensor:
        """Logits (N, S, V), or with select (N, S) bool only those of the selected positions, (selected, V)."""
        hidden = self.hidden(ids, attend)
        return self.head(hidden if select is None else hidden[select])


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def token_logprobs(model: nn.Module, ids: Tensor, mask: Tensor, temperature: float = 1.0, attend: Tensor | None = None) -> Tensor:
    """log p(ids[:, t] | ids[:, :t]) at temperature, (N, S) float32, where mask (N, S) is True, and 0 elsewhere.

    mask[:, 0] must be False: the first token has nothing before it.
    """
    select = F.pad(mask[:, 1:], (0, 1))  # the position whose logits predict each masked token
    logits = model(ids, select=select, attend=attend).float() / temperature  # (selected, V)
    picked = logits.gather(1, ids[mask][:, None])[:, 0] - logits.logsumexp(1)
    return torch.zeros(ids.shape, device=ids.device).masked_scatter(mask, picked)


# ---- optimizer ----

def learning_rate_scale(step: int, steps: int, warmup: int = 0, constant: float = 0.5) -> float:
    """Linear warm-up over `warmup` steps, constant until the share `constant` of all steps, then linear towards 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = max(warmup, int(constant * steps))
    return 1.0 if step < start else (steps - step) / max(1, steps - start)


class Optimizers:
    """Muon on the block matrices and AdamW on the rest, stepped as one; with muon_lr None AdamW takes everything.

    Muon (torch.optim.Muon) orthogonalises each update; from scratch and in SFT it learns several times faster a step. It takes
    `qkv` and `gate_up` as one matrix each. With queries, keys, values, gate and up apart, as where they are separate modules,
    the held-out loss after pretraining, cold start and overall SFT of the tiny student differed by -0.013 +-0.019, -0.013 +-0.028
    and -0.008 +-0.033 nats (five seeds, 95%), and the greedy score on math, code, stem and agent by -0.5 +-3.9 points: no
    difference that shows, for more and smaller products.

    own_lr: AdamW's learning rate of a parameter that has one of its own, by the parameter's name.
    """

    def __init__(self, model: nn.Module, adam_lr: float, muon_lr: float | None = None,
                 own_lr: dict[str, float] | None = None):
        own_lr = own_lr or {}
        apart = {name: p for name, p in model.named_parameters() if name in own_lr and p.requires_grad}
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and ".blocks." in f".{name}" and p.requires_grad]
        by_muon = {id(p) for p in matrices} if muon_lr is not None else set()
        taken = by_muon | {id(p) for p in apart.values()}
        rest = [p for p in model.parameters() if id(p) not in taken and p.requires_grad]
        groups = [{"params": rest, "lr": adam_lr}]
        groups += [{"params": [p], "lr": own_lr[name]} for name, p in apart.items()]
        # torch's eps of 1e-8 is added to the root of a gradient's mean square: it is small beside the gradient, whatever the learning
        # rate. At the 1e-5 of OpenAI's first RLHF code a weight whose gradients lie below that would hardly move
        self.parts = [torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
        if muon_lr is not None:
            # three Newton-Schulz iterations learn as much as the usual five and cost a sixth less of a small model's step
            self.parts.append(torch.optim.Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.0, ns_steps=3))
        self.base = [[group["lr"] for group in part.param_groups] for part in self.parts]
        self.parameters = [*rest, *apart.values(), *(matrices if by_muon else [])]

    def step(self, scale: float, clip: float = 1.0) -> float:
        """One update with every learning rate times scale; the gradient's norm before clipping.

        Raises FloatingPointError, and changes nothing, where the gradient is not finite.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        if not torch.isfinite(norm):
            for part in self.parts:
                part.zero_grad(set_to_none=True)
            raise FloatingPointError(f"the gradient's norm is {float(norm)}")
        for part, rates in zip(self.parts, self.base):
            for group, rate in zip(part.param_groups, rates):
                group["lr"] = rate * scale
            part.step()
            part.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> list:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list) -> None:
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


# ---- checkpoints, new models ----

def load_checkpoint(path, tokenizer=None, device="cpu", build=GPT, kind="checkpoint") -> tuple[nn.Module, dict]:
    """(model, everything else that was saved) of a file of ours, or of a directory in Hugging Face layout; build(config) makes another
    kind of model than a GPT. Raises ValueError in one line for anything else, or where the tokenizer is another one."""
    return checkpoints.load(path, tokenizer, device, lambda fields: build(Config(**fields)), kind)


def fresh_model(size: str, who: str, tokenizer, seed: int) -> GPT:
    """A model of a size with random weights, and a vocabulary for this tokenizer."""
    return GPT(replace(SIZES[size][who], vocab_size=tokenizer.vocab_size)).init_weights(seed_of(seed, who))


def placed(model: GPT, args, device: torch.device) -> GPT:
    """The model on its device, with what --recompute and --compile ask for."""
    model.recompute = args.recompute
    if args.compile:
        model.compile(dynamic=True)  # the training forward
        model.compiled = True  # and the decode step
    return model.to(device)


# ---- a conversation in the terminal ----

def export(model: GPT, tokenizer, folder) -> None:
    """Write the Hugging Face layout, which opens in `transformers` and reads back exactly. Raises ValueError for a model with smear."""
    hf.write_model(folder, asdict(model.config), model.state_dict(), eos_token_id=tokenizer.end_id, pad_token_id=tokenizer.pad_id)
    hf_tokenizer.write_tokenizer(folder, tokenizer)


def main() -> None:
    parser = Parser("Talk to a checkpoint, or export it.")
    parser.add_argument("checkpoint", help="a .pt file of a run, or a Llama or Qwen3 directory")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--export", default=None, metavar="DIR", help="write the model in Hugging Face layout, and stop")
    command(parser, talk, "stopped")


def talk(args) -> None:
    from data.world import run_tool
    check_numbers(args)
    tokenizer = tokenizer_of(args.checkpoint)
    model, saved = load_checkpoint(args.checkpoint, tokenizer, pick_device(args.device))
    if args.export:
        export(model, tokenizer, args.export)
        return print(f"{args.export}: {parameter_count(model):,} parameters and the tokenizer, in Hugging Face layout")
    print(f"{args.checkpoint}: {parameter_count(model):,} parameters, stage {saved['stage']}. An empty line starts over, Ctrl-D ends.")
    messages, turn = [], 0
    while True:
        try:
            text = ask("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not text:
            messages = []
            continue
        messages.append({"role": "user", "content": text})
        prompt = tokenizer.prompt(messages)
        if len(prompt) + 16 > model.config.context:
            print("(the conversation is full and starts over)")
            messages = messages[-1:]
            prompt = tokenizer.prompt(messages)[-model.config.context // 2:]
        turn += 1
        try:
            samples = generate(model, tokenizer, [prompt], max_new=96, temperature=args.temperature, seed=seed_of(args.seed, turn), run_tool=run_tool)
        except KeyboardInterrupt:
            print("(stopped)")
            messages.pop()
            continue
        reply = tokenizer.read_reply(samples.lists()[0])
        if reply.think:
            print(f"  (thinks) {reply.think}")
        for call, result in reply.calls:
            print(f"  (calls)  {call} -> {result}")
        print(reply.content if reply.complete else f"{reply.content} (cut off)")
        messages.append({"role": "assistant", "content": reply.content})


if __name__ == "__main__":
    main()
