"""What every chapter does around its training when it runs alone, as `python dpo.py` does.

The settings of the size and the flags, the records of --data, the starting model, the table before
and after, and a checkpoint that the same command does not train again. Models and the functions
that train come as arguments.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from data.files import formats, hf_tokenizer
from data.files import tokenizer as tokenizers
from data.files.checkpoints import (
    kept_training,
    key_of,
    key_of_run,
    once,
    save_checkpoint,
    tokenizer_of,
)
from data.runtime.command import made_folder, out_folder
from data.runtime.devices import start
from data.runtime.evaluation import evaluate, table_head, table_line
from data.runtime.sizes import sized


class Alone:
    """One command of a chapter: its flags, device and tokenizer.

    `name` is that of its folder in runs/, and of its entry in data/runtime/sizes.py.
    """

    def __init__(self, args, name: str, tokenizer=None):
        self.args = args
        self.name = name
        self.device = start(args)
        self.tokenizer = tokenizer or tokenizer_of(args.init)
        self.has_head = False  # of the table

    def settings(self, tiny, *flags: str, **given):
        """`tiny`, the settings of size tiny, as --size, the named flags and --smoke change them.

        A flag that is not given changes nothing. `given`: other changes; a flag goes over them.
        """
        for flag in flags:
            value = getattr(self.args, flag)
            if value is not None:
                given[flag] = value
        return sized(tiny, self.name, self.args.size, self.args.smoke, **given)

    def records(self, kind: str) -> tuple[list[dict] | None, dict]:
        """(the records of --data, how many are left out and why); None without --data."""
        if not self.args.data:
            return None, {}
        records, dropped, notes = formats.read_records(self.args.data, kind)
        tell_notes(notes)
        return records, dropped

    def text(self) -> str | None:
        """The plain text of --data, or None without it.

        Without --init the tokenizer becomes one of the text's own, learned from its first nine
        tenths, those that are trained on.
        """
        if not self.args.data:
            return None
        text, notes = formats.read_text(self.args.data)
        if self.args.init is None:
            learned = tokenizers.trained([text[: len(text) * 9 // 10]])
            self.tokenizer = hf_tokenizer.portable(learned)
        tell_notes(notes)
        return text

    def folder(self) -> Path:
        """The folder of what the command leaves, held for this process alone."""
        smoke = "-smoke" if self.args.smoke else ""
        return out_folder(self.args.out or f"runs/{self.name}{smoke}")

    def tell_size(self, model) -> None:
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{count:,} parameters, {self.device}, {torch.get_num_threads()} threads")

    def scores(self, name: str, model) -> None:
        """A line of the table: the model's scores on the held-out prompts."""
        if not self.has_head:
            print(table_head())
            self.has_head = True
        n = min(4, self.args.eval_n) if self.args.smoke else self.args.eval_n
        scores = evaluate(model, self.tokenizer, n, seed=self.args.seed)
        print(table_line(name, scores), flush=True)

    def once(self, path: Path, model, settings, train, *, into=None, **entering):
        """train() -> (trained model, measured), saved straight after it; or what an equal command
        has left there already.

        `model`: what enters. `into()`: where kept weights are loaded, by default `model` itself.
        `entering`: other models that decide the training.
        """
        args, tokenizer = self.args, self.tokenizer
        key = key_of_run(args, tokenizer, self.device, weights=model, **entering)
        into = into or (lambda: model)
        return once(path, key, into, tokenizer, path.stem, train, settings=asdict(settings))


def tell_notes(notes: list[str]) -> None:
    for note in notes:
        print(note)


def sft_checkpoint(
    args, who: str, tokenizer, device, *, path: str | None, schedule, fresh, stages
) -> Path:
    """Where the SFT model of a chapter lies; a line says so.

    It is `path`, or --init for the student, else overall_sft of a run with this size and seed, else
    in a folder of its own. Where that has none yet, it is made here and now and kept for the next
    time: fresh() is a model with random weights, and the stages take it through the schedule.
    """
    path = path or (args.init if who == "student" else None)
    left = Path(f"runs/{args.size}-seed{args.seed}/overall_sft.{who}.pt")
    if path is None and left.exists() and not args.smoke:
        path = left
    if path is None:
        smoke = "-smoke" if args.smoke else ""
        path = Path(f"runs/sft-{args.size}{smoke}-seed{args.seed}/overall_sft.{who}.pt")
        model = fresh()
        key = key_of(tokenizer, device, weights=model, settings=(args.seed, schedule))
        if kept_training(path, key) is None:
            made_folder(path.parent, "give --init CHECKPOINT")
            print(
                f"no {who} checkpoint of these settings yet: pretraining and SFT come first "
                "(a minute or two at size tiny)",
                flush=True,
            )
            model = model.to(device)
            for stage in stages:
                stage(model, tokenizer, schedule, seed=args.seed, device=device)
            save_checkpoint(path, model, tokenizer, "overall_sft", key=key)
    print(f"{who}: {path}")
    return path
