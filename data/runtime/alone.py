"""What every chapter does around its training when it runs alone, as `python dpo.py` does.

The settings of the size and the flags, the records of --data, the starting model, the table before
and after, and a checkpoint that the same command does not train again. Models and the functions
that train come as arguments.
"""

from dataclasses import asdict
from pathlib import Path

from data.files import formats
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

    def folder(self) -> Path:
        """The folder of what the command leaves, held for this process alone."""
        smoke = "-smoke" if self.args.smoke else ""
        return out_folder(self.args.out or f"runs/{self.name}{smoke}")

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


def sft_checkpoint(args, who: str, tokenizer, device, *, schedule, fresh, train) -> Path:
    """Where the SFT model of a size and seed lies: in a run's folder, else in one of its own.

    Where it is in neither it is made here and now: fresh() is a model with random weights, and
    train(model) takes it through the stages of the schedule.
    """
    left = Path(f"runs/{args.size}-seed{args.seed}/overall_sft.{who}.pt")
    if left.exists() and not args.smoke:
        return left
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
        train(model)
        save_checkpoint(path, model, tokenizer, "overall_sft", key=key)
    return path
