"""Our SFT step and our generation beside those of `transformers`, where it is installed: same work, same process, in turn.

    python -m tests.benchmarks.peers --checkpoint runs/tiny-seed1/overall_sft.student.pt

Every figure is the median of 5 rounds after one warm-up round; in each round ours and theirs run one after the other, so
that a busy machine slows both. The peer is Qwen3ForCausalLM of the same shape with our weights copied over; the
difference of the logits is printed. Nothing is asserted: speed belongs to the machine.

Left out: a Trainer's own cost (collation, callbacks, logging); the peer's step is the bare model, its loss and AdamW.
"""

import argparse
import importlib.util
import random
import statistics
import sys
import time

import torch

from data import tokenizer as tokenizers
from data import world, world_judge
from model import GPT, Config, Optimizers, fail, generate, load_checkpoint, pad_rows, parameter_count
from sft import batch_loss, supervised_count

ROUNDS = 5
STEPS = 10  # steps of one round
CPU = torch.device("cpu")


def peak_memory_mb() -> float:
    """As in pipeline.py, which is not imported because its plotting library would count."""
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def in_turn(functions: dict) -> dict:
    """{name: (median seconds, least, most)} of ROUNDS rounds in which every function runs once, after a warm-up round."""
    seconds = {name: [] for name in functions}
    for _ in range(ROUNDS + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return {name: (statistics.median(times[1:]), min(times[1:]), max(times[1:])) for name, times in seconds.items()}


# ---- the peer: the same shape and the same weights ----

def qwen3(model: GPT):
    """transformers' Qwen3ForCausalLM with the weights of our model, which must have QK-norm as Qwen3 does."""
    from transformers import Qwen3Config, Qwen3ForCausalLM
    c = model.config
    shape = Qwen3Config(vocab_size=c.vocab_size, hidden_size=c.width, intermediate_size=c.ffn, num_hidden_layers=c.layers,
                        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_size,
                        max_position_embeddings=c.context, rope_theta=c.rope_base, rms_norm_eps=c.norm_eps, tie_word_embeddings=c.tied,
                        attention_bias=False, attention_dropout=0.0)
    state = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight, "lm_head.weight": model.head.weight}
    for i, block in enumerate(model.blocks):
        attention, at = block.attention, f"model.layers.{i}."
        sizes = [c.heads * c.head_size, c.kv_heads * c.head_size, c.kv_heads * c.head_size]
        for name, part in zip("qkv", attention.qkv.weight.split(sizes)):
            state[f"{at}self_attn.{name}_proj.weight"] = part
        for name, part in zip(("gate", "up"), block.gate_up.weight.chunk(2)):
            state[f"{at}mlp.{name}_proj.weight"] = part
        state |= {f"{at}self_attn.o_proj.weight": attention.out.weight, f"{at}mlp.down_proj.weight": block.down.weight,
                  f"{at}self_attn.q_norm.weight": attention.query_norm.weight, f"{at}self_attn.k_norm.weight": attention.key_norm.weight,
                  f"{at}input_layernorm.weight": block.attention_norm.weight, f"{at}post_attention_layernorm.weight": block.ffn_norm.weight}
    peer = Qwen3ForCausalLM(shape)
    peer.load_state_dict({name: value.detach().clone() for name, value in state.items()})
    return peer


@torch.no_grad()
def logit_difference(model: GPT, peer, ids) -> float:
    return float((model(ids) - peer(input_ids=ids).logits).abs().max())


def awake(model: GPT) -> GPT:
    """What starts at zero made random, so that attention and FFN take part when logits are compared."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


# ---- an SFT step ----

def step_of_ours(model, tokenizer, rows):
    optimizers = Optimizers(model, adam_lr=1e-3, muon_lr=None)
    model.train()

    def step():
        batch_loss(model, tokenizer, rows, supervised_count(rows), CPU).backward()
        optimizers.step(1.0)
    return step


def step_of_peer(model, rows):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()

    def step():
        ids = pad_rows([row[0] for row in rows], 0)
        labels = pad_rows([[i if on else -100 for i, on in zip(*row)] for row in rows], -100)
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def sft_step(tokenizer, peers: bool) -> None:
    config, rng = Config(512, 256, 4, 96, 4, 2, 256, tied=False), random.Random(0)
    rows = [([rng.randrange(config.vocab_size) for _ in range(64)], [False] * 38 + [True] * 26) for _ in range(32)]
    tokens = sum(len(row[0]) for row in rows)
    model = awake(GPT(config).init_weights(0))
    print(f"SFT step: {len(rows)} rows of 64 tokens, {supervised_count(rows) / tokens:.0%} supervised, AdamW, {parameter_count(model):,} parameters")
    steps = {"ours": step_of_ours(model, tokenizer, rows)}
    if peers:
        peer = qwen3(model)
        ids, labels = torch.tensor([row[0] for row in rows]), torch.tensor([[i if on else -100 for i, on in zip(*row)] for row in rows])
        with torch.no_grad():
            loss = float(batch_loss(model, tokenizer, rows, supervised_count(rows), CPU))
            print(f"  same weights: logits differ by at most {logit_difference(model, peer, ids):.1e}, "
                  f"losses {loss:.6f} and {float(peer(input_ids=ids, labels=labels).loss):.6f}, parameters {parameter_count(peer):,}")
        steps["transformers"] = step_of_peer(peer, rows)
    times = in_turn({name: lambda step=step: [step() for _ in range(STEPS)] for name, step in steps.items()})
    for name, (median, least, most) in times.items():
        print(f"  {name:13} {1000 * median / STEPS:7.2f} ms a step ({1000 * least / STEPS:.2f} to {1000 * most / STEPS:.2f}), "
              f"{tokens * STEPS / median:9,.0f} tokens/s")
    if peers:
        print(f"  ours is {times['transformers'][0] / times['ours'][0]:.2f} times as fast as transformers; TRL: not measured here")


# ---- generation ----

def real_prompts(tokenizer, count: int = 192) -> list[list[int]]:
    """Evaluation prompts of all six domains in equal parts."""
    each = count // len(world.DOMAINS)
    messages = [task.messages for domain in world.DOMAINS[:5] for task in world.evaluation_tasks(domain, each)]
    messages += [[{"role": "user", "content": world_judge.judge_prompt(task.prompt, response)}]
                 for task, *responses in world.evaluation_judge_pairs(each // 2) for response in responses]
    return [tokenizer.prompt(dialogue) for dialogue in messages]


def useful(row: list[int], ends: set) -> int:
    """Tokens up to and including the first one that ends the row."""
    return next((k + 1 for k, token in enumerate(row) if token in ends), len(row))


def generation(tokenizer, model: GPT, peers: bool, trained: bool, max_new: int = 64) -> None:
    prompts, ends = real_prompts(tokenizer), {tokenizer.end_id, *tokenizer.runtime_ids}
    print(f"generation: {len(prompts)} evaluation prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens in one batch, greedy, "
          f"at most {max_new} new tokens, natural stops, {parameter_count(model):,} parameters, "
          f"{'checkpoint' if trained else 'random weights, which rarely stop (--checkpoint gives trained ones)'}")
    rows = {}

    def ours():
        rows["ours"] = generate(model, tokenizer, prompts, max_new=max_new, temperature=0.0).lists()
    functions = {"ours": ours}
    if peers:
        peer = qwen3(model).eval()
        ids = pad_rows(prompts, tokenizer.pad_id, left=True)
        real = pad_rows([[1] * len(prompt) for prompt in prompts], 0, left=True)
        same = torch.tensor([prompt[:min(map(len, prompts))] for prompt in prompts])
        print(f"  same weights: logits differ by at most {logit_difference(model, peer, same):.1e}")

        def theirs():
            with torch.no_grad():
                out = peer.generate(input_ids=ids, attention_mask=real, max_new_tokens=max_new, do_sample=False, eos_token_id=sorted(ends),
                                    pad_token_id=tokenizer.pad_id)
            rows["transformers"] = out[:, ids.shape[1]:].tolist()
        functions["transformers"] = theirs
    times, speed = in_turn(functions), {}
    for name, (median, least, most) in times.items():
        lengths = [useful(row, ends) for row in rows[name]]
        stopped = sum(row[k - 1] in ends for row, k in zip(rows[name], lengths))
        speed[name] = sum(lengths) / median
        print(f"  {name:13} {median:6.2f} s ({least:.2f} to {most:.2f}), {sum(lengths):,} useful tokens, {stopped} of {len(lengths)} rows stopped, "
              f"{speed[name]:9,.0f} useful tokens/s")
    if peers:
        equal = sum(a[:useful(a, ends)] == b[:useful(b, ends)] for a, b in zip(rows["ours"], rows["transformers"]))
        print(f"  ours is {speed['ours'] / speed['transformers']:.2f} times as fast as transformers; {equal} of {len(prompts)} replies are equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", default=None, help="one of our checkpoints with QK-norm, for generation; without it, random weights")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of both")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    try:
        model = load_checkpoint(args.checkpoint, tokenizer)[0] if args.checkpoint else awake(GPT(Config(512, 256, 4, 96, 4, 2, 256, tied=False)).init_weights(0))
    except ValueError as error:
        fail(error)
    if not model.config.qk_norm:
        fail(f"{args.checkpoint}: has no QK-norm, which Qwen3 has; give another checkpoint")
    peers = importlib.util.find_spec("transformers") is not None
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {ROUNDS} after a warm-up")
    if peers:
        print(f"peak memory before transformers is imported: {peak_memory_mb():.0f} MB")
        import transformers
        print(f"transformers {transformers.__version__}; peak memory with it: {peak_memory_mb():.0f} MB")
    else:
        print("transformers: not installed, ours alone")
    sft_step(tokenizer, peers)
    print(f"  peak memory so far {peak_memory_mb():.0f} MB")
    generation(tokenizer, model, peers, args.checkpoint is not None)
    print(f"  peak memory {peak_memory_mb():.0f} MB")


if __name__ == "__main__":
    main()
