"""Peak memory of one training step, stage by stage, each in a process of its own.

    python -m tests.benchmarks.memory                the SmolLM2-135M shape, rows of 512 tokens
    python -m tests.benchmarks.memory --recompute    the same with gradient checkpointing
    python -m tests.benchmarks.memory --size tiny --length 128    seconds, to see that it runs

Weights are random and rows are random tokens: memory does not depend on what is said. The settings
are those of the size but for the amount of work: a batch is `--rows` rows, two optimizer steps, so
that the second one finds the optimizer's state in memory. Half of a row is the response. In RL the
reward is made up, so that every row is learned from; a response ends where it happens to draw a
mark, and few are as long as they may be, so that the figure is a little too low. "generation" stops
after one token, when all that it will ever hold is there.

The figure is the process's peak resident memory, the libraries included. On a GPU it says little.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import torch

import dpo
import ppo
import sft
from data.files import real
from data.files import tokenizer as tokenizers
from data.runtime.command import fail, guarded
from data.runtime.decoding import generate
from data.runtime.machine import peak_memory_mb
from data.runtime.sizes import sized
from model import GPT, SIZES, parameter_count
from tests.benchmarks.gpu import fresh

CPU = torch.device("cpu")


def random_rows(vocabulary: int, count: int, length: int, start: int = 0) -> list:
    """Rows of `length` tokens, of which the second half is supervised."""
    generator = torch.Generator().manual_seed(start)
    ids = torch.randint(1, vocabulary, (count, length), generator=generator).tolist()
    mask = [k >= length // 2 for k in range(length)]
    return [(row, mask) for row in ids]


def load(model: GPT, args) -> None:
    """The weights alone."""


def sft_step(model: GPT, args) -> None:
    settings = sft.SCHEDULES[args.size]["student"].cold_start
    settings = replace(settings, steps=2, rows=args.rows, batch_tokens=0, save_every=0)
    rows = random_rows(model.config.vocab_size, 2 * args.rows, args.length)
    held_out = random_rows(model.config.vocab_size, args.rows, args.length, start=1)
    how = {"seed": 1, "stage": "memory", "held_out": held_out}
    sft.train(model, SimpleNamespace(pad_id=0), rows, settings, **how)


def dpo_step(model: GPT, args) -> None:
    tokenizer = tokenizers.tiny()
    few = {"steps": 2, "rows": args.rows // 2, "rehearsal_rows": args.rows}
    settings = sized(dpo.Settings(), "dpo", args.size, **few)
    rows = random_rows(model.config.vocab_size, args.rows, args.length)
    pairs = list(zip(rows[::2], rows[1::2]))
    rehearsal = random_rows(model.config.vocab_size, args.rows, args.length, start=1)
    dpo.train(model, tokenizer, pairs, settings, seed=1, rehearsal=rehearsal)


def generation(model: GPT, args) -> None:
    """256 rows of as many tokens as the other stages have, half of them new."""
    half = args.length // 2
    prompts = [ids[:half] for ids, _ in random_rows(model.config.vocab_size, 16, args.length)]
    everything = set(range(model.config.vocab_size))
    stops = {"end_id": 0, "runtime_ids": everything, "vocab_size": model.config.vocab_size}
    generate(model, SimpleNamespace(pad_id=0, **stops), prompts, n=16, max_new=half)


def rl_iteration(model: GPT, args) -> None:
    tokenizer = tokenizers.tiny()
    task = real.Task("math", "?", (("user", "?" * (args.length // 2 - 8)),), answer="1")
    few = {"iterations": 2, "prompts": 2, "samples": max(2, args.rows // 2), "minibatches": 1}
    few |= {"max_new": args.length // 2, "rehearsal_rows": args.rows, "save_every": 0}
    settings = sized(ppo.Settings(), "rl_stem", args.size, **few)
    rehearsal = random_rows(model.config.vocab_size, args.rows, args.length)
    ppo.robust_reward = lambda domain, tokens, **_: len(set(tokens)) / len(tokens)
    how = {"seed": 1, "stage": "rl_stem", "rehearsal": rehearsal}
    ppo.train(model, tokenizer, [task, task], settings, **how)


STAGES = {
    "load": load,
    "sft": sft_step,
    "dpo": dpo_step,
    "generation": generation,
    "rl": rl_iteration,
}


def one_stage(args) -> None:
    """Runs in the child; prints its peak."""
    torch.set_num_threads(args.threads)
    model = fresh(replace(SIZES[args.size]["student"], smear=0))
    model.recompute = args.recompute
    began = time.perf_counter()
    STAGES[args.stage](model, args)
    print(f"{peak_memory_mb() or float('nan')} {time.perf_counter() - began}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="base", help="whose student's shape"
    )
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch, an even number")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--stage", choices=tuple(STAGES), default=None, help="only this one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.length < 32 or args.rows < 2 or args.rows % 2 or args.threads < 1:
        fail("--length needs at least 32, --rows an even number, --threads 1")
    if args.child:
        return one_stage(args)
    count = parameter_count(GPT(replace(SIZES[args.size]["student"], smear=0)))
    print(
        f"{time.strftime('%Y-%m-%d')}, {count:,} parameters, torch {torch.__version__}, "
        f"{args.rows} rows of {args.length} tokens, recompute {args.recompute}",
        flush=True,
    )
    flags = [word for word in sys.argv[1:] if word != "--stage" and word not in STAGES]
    for stage in [args.stage] if args.stage else STAGES:
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--child", "--stage", stage]
        done = subprocess.run([*command, *flags], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{stage:12} ended with code {done.returncode}", flush=True)
            continue
        peak, seconds = map(float, done.stdout.split()[-2:])
        print(f"{stage:12} {peak / 1024:6.2f} GiB  {seconds:6.0f} s", flush=True)


if __name__ == "__main__":
    guarded(main)
