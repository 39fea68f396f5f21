"""Remakes data/teacher.tiny.pt, the teacher that is given to a tiny run: the same code and stages,
more data and time.

    python -m tests.experiments.teacher               half an hour; the file, its digest, its scores
    python -m tests.experiments.teacher --out FILE    elsewhere, to compare

The weights are kept in half precision and scored as they are kept. On the CPU, the torch and the
number of threads that data/reference_run/RESULTS.md names beside the digest the same bits come out.
Elsewhere other ones do, as good.
"""

import argparse
import hashlib
from pathlib import Path

import torch

import sft
from data import world
from data.files import tokenizer as tokenizers
from data.files import writing
from data.files.checkpoints import save_checkpoint
from data.runtime.command import guarded
from data.runtime.evaluation import evaluate, table_head, table_line
from model import load_checkpoint, parameter_count
from tests.experiments.ceiling import AMPLE, ample_model, by_family

TEACHER = Path(__file__).parents[2] / "data" / "teacher.tiny.pt"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", default=str(TEACHER), help="the file to write")
    parser.add_argument("--eval-n", type=int, default=1000, help="held-out prompts a domain")
    parser.add_argument("--scores", default=None, metavar="FILE", help="JSON for the scores")
    parser.add_argument("--smoke", action="store_true", help="a few steps; needs another --out")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads, which decide the bits")
    args = parser.parse_args()
    if args.smoke and Path(args.out) == TEACHER:
        raise ValueError("--smoke: would overwrite the teacher; give another --out")
    torch.set_num_threads(args.threads)
    tokenizer = tokenizers.tiny()
    model = ample_model(sft.smoke(AMPLE) if args.smoke else AMPLE, tokenizer, seed=0)
    save_checkpoint(
        Path(args.out), model.half(), tokenizer, "overall_sft", world_version=world.WORLD_VERSION
    )
    digest = hashlib.sha256(Path(args.out).read_bytes()).hexdigest()[:12]
    print(f"{args.out}: {parameter_count(model):,} parameters, digest {digest}", flush=True)
    model, _ = load_checkpoint(args.out, tokenizer)
    table = by_family(model, tokenizer, "test", 4 if args.smoke else 200)
    for name, row in table.items():
        correct = f", correct {100 * row['correct']:.0f}" if "correct" in row else ""
        print(f"{name:20} {row['domain']:6} {100 * row['score']:4.0f}{correct}", flush=True)
    scores = evaluate(model, tokenizer, 4 if args.smoke else args.eval_n, seed=0)
    print(table_head())
    print(table_line("teacher (given)", scores))
    if args.scores:
        kept = {"digest": digest, "torch": torch.__version__, "threads": args.threads}
        writing.write_json(args.scores, kept | {"eval": scores, "families": table})


if __name__ == "__main__":
    guarded(main)
