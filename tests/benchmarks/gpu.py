"""What a GPU makes of the model: utilisation of an SFT step, and decoding, beside `transformers` in
the same run.

    python -m tests.benchmarks.gpu      a GPU; the SmolLM2-135M shape
    python -m tests.benchmarks.gpu --size tiny --rows 4 --batch 4 --length 64 --new 8 --rounds 2
                                        a CPU, to see that it runs

The shape is that of a size's student without smear, which the peer lacks. Both sides have the same
random weights, the same ids, torch.compile in training, bfloat16 autocast and fused AdamW. Every
token is supervised. In decoding ours takes the compiled step, and theirs is `generate` with
bfloat16 weights, its fastest default. No row ends early. Every figure is the median of `--rounds`
rounds after three that compile and warm up. Ours and theirs run one after the other.

Model FLOPs a token are 6 N + 12 layers heads head_size length (PaLM, 2204.02311, appendix B). N are
all parameters, a tied embedding once. Utilisation is that by the card's dense bfloat16 peak, which
is known for a few cards and else given by --peak.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from importlib import util
from types import SimpleNamespace

import torch

from data.files import hf
from data.runtime.command import fail, guarded
from data.runtime.decoding import generate
from data.runtime.devices import autocast, pick_device
from data.runtime.rows import supervised_count
from model import GPT, SIZES, Config, Optimizers, parameter_count, placed
from sft import batch_loss
from tests.benchmarks.peers import in_turn

PEAKS = {  # FLOP/s
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
}


def flops_a_token(model: GPT, length: int) -> float:
    """Of forward and backward in training, by PaLM's count."""
    c = model.config
    return 6 * parameter_count(model) + 12 * c.layers * c.heads * c.head_size * length


def fresh(config: Config) -> GPT:
    """Random weights, also where a new model has zeros, so that attention and FFN take part."""
    model = GPT(config).init_weights(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in model.blocks:
            for matrix in (block.attention.out.weight, block.down.weight):
                matrix.copy_(torch.randn(matrix.shape, generator=generator) * 0.02)
    return model


def peer_of(model: GPT, device: torch.device):
    """transformers' Llama or Qwen3 with the same weights; None where it is not installed."""
    if util.find_spec("transformers") is None:
        return None
    from dataclasses import asdict

    import transformers

    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        hf.write_model(folder, asdict(model.config), model.state_dict())
        model_of = transformers.AutoModelForCausalLM.from_pretrained
        return model_of(folder, dtype=torch.float32).to(device)


def speeds(functions: dict, rounds: int, device, tokens: int) -> dict:
    """{name: tokens a second}, printed with the time of the slowest and fastest round."""

    def timed(function):
        def run():
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    functions = {name: timed(function) for name, function in functions.items()}
    in_turn(functions, 1)  # compiles
    times = in_turn(functions, rounds)
    for name, (median, least, most) in times.items():
        print(
            f"  {name:13} {1000 * median:9.1f} ms ({1000 * least:.1f} to {1000 * most:.1f}), "
            f"{tokens / median:11,.0f} tokens/s"
        )
    return {name: tokens / median for name, (median, _, _) in times.items()}


def training(model: GPT, tokenizer, args, device, peak: float | None) -> None:
    """Prints the speed of an SFT step, ours and theirs, and its utilisation of the card."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (args.rows, args.length), generator=generator)
    rows = [(row, [True] * args.length) for row in ids.tolist()]
    peer = peer_of(model, device)
    ids = ids.to(device)  # (rows, length)
    if peer is not None:
        with torch.no_grad():
            apart = float((model(ids[:1]) - peer(input_ids=ids[:1]).logits).abs().max())
        print(f"  same weights: logits in float32 differ by at most {apart:.1e}")
    placed(model, SimpleNamespace(recompute=False, compile=True), device)

    def ours(optimizers=Optimizers(model.train(), 1e-4)):
        batch_loss(model, tokenizer, rows, supervised_count(rows), device).backward()
        optimizers.step(1.0)

    functions = {"ours": ours}
    if peer is not None:
        peer.train().compile()

        def theirs(optimizers=Optimizers(peer, 1e-4)):
            with autocast(device):
                loss = peer(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizers.step(1.0)

        functions["transformers"] = theirs
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = speeds(functions, args.rounds, device, args.rows * args.length)
    work = flops_a_token(model, args.length)
    for name, speed in found.items():
        utilisation = f", utilisation {100 * speed * work / peak:.1f}%" if peak else ""
        print(f"  {name:13} {speed * work / 1e12:9.2f} TFLOP/s{utilisation}")
    if "transformers" in found:
        print(f"  ours is {found['ours'] / found['transformers']:.2f} times as fast")
    if device.type == "cuda":
        print(f"  peak memory of both {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def decoding(model: GPT, args, device) -> None:
    """Prints the speed of greedy decoding, ours and theirs."""
    vocabulary = model.config.vocab_size
    # its end mark is one that is never written
    endless = SimpleNamespace(
        pad_id=0, end_id=vocabulary, runtime_ids=set(), vocab_size=vocabulary + 1
    )
    shape = (args.batch, args.length // 8)
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(1, vocabulary, shape, generator=generator)
    peer = peer_of(model, device)
    placed(model, SimpleNamespace(recompute=False, compile=True), device).eval()
    how = {"max_new": args.new, "temperature": 0.0}
    functions = {"ours": lambda: generate(model, endless, prompts.tolist(), **how)}
    if peer is not None:
        peer = peer.eval().to(torch.bfloat16 if device.type == "cuda" else torch.float32)
        ids = prompts.to(device)
        functions["transformers"] = lambda: peer.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=args.new,
            min_new_tokens=args.new,
            do_sample=False,
            pad_token_id=0,
        )
    found = speeds(functions, args.rounds, device, args.batch * args.new)
    if "transformers" in found:
        print(f"  ours is {found['ours'] / found['transformers']:.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="base", help="whose student's shape"
    )
    parser.add_argument("--rows", type=int, default=16, help="rows of the training step")
    parser.add_argument(
        "--length",
        type=int,
        default=1024,
        help="tokens of such a row; prompts have an eighth of it",
    )
    parser.add_argument("--batch", type=int, default=64, help="rows that are decoded at once")
    parser.add_argument("--new", type=int, default=256, help="tokens that are decoded a row")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that the median is taken of")
    parser.add_argument(
        "--peak",
        type=float,
        default=None,
        help="the card's dense bfloat16 TFLOP/s, for the utilisation",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    args = parser.parse_args()
    if min(args.rows, args.length // 8, args.batch, args.new, args.rounds) < 1:
        fail("--rows, --batch, --new and --rounds need at least 1, --length at least 8")
    config = replace(SIZES[args.size]["student"], smear=0)
    if max(args.length, args.length // 8 + args.new) > config.context:
        fail(
            f"--length {args.length} --new {args.new}: a row or a prompt with its new tokens "
            f"exceeds this shape's context of {config.context}"
        )
    try:
        device = pick_device(args.device)
    except ValueError as error:
        fail(error)
    os.environ |= {"HF_HUB_OFFLINE": "1"}  # nothing is asked of any server
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = args.peak * 1e12 if args.peak else PEAKS.get(card)
    alone = "; transformers is not installed and not measured"
    if util.find_spec("transformers"):
        alone = ""
    print(
        f"{time.strftime('%Y-%m-%d')}, {card}, torch {torch.__version__}, "
        f"median of {args.rounds} rounds{alone}"
    )
    tokenizer = SimpleNamespace(pad_id=0)
    print(
        f"SFT step: {args.rows} rows of {args.length} tokens, "
        f"{parameter_count(GPT(config)):,} parameters"
    )
    training(fresh(config).to(device), tokenizer, args, device, peak)
    print(
        f"decoding: {args.batch} rows of {args.length // 8} tokens, "
        f"{args.new} new ones each, greedy"
    )
    decoding(fresh(config).to(device), args, device)


if __name__ == "__main__":
    guarded(main)
