"""What every chapter does around its training when it runs alone, as `python dpo.py` does.

The settings of the size and the flags, the records of --data, the starting model, the table before
and after, and a checkpoint that the same command does not train again. Models and the functions
that train come as arguments.
"""

import time
from dataclasses import asdict, replace
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
from data.files.hf import read_json
from data.files.writing import write_json
from data.runtime import lessons, own_files
from data.runtime.command import made_folder, out_folder
from data.runtime.devices import rank, start
from data.runtime.evaluation import evaluate, table_head, table_line
from data.runtime.machine import peak_memory_mb
from data.runtime.measures import finite
from data.runtime.real_rows import REPLY, test_tasks
from data.runtime.sizes import sized

PATHS = ("init", "data", "test", "out")  # flags that name files


class Alone:
    """One command of a chapter: its flags, device and tokenizer.

    `name` is that of its folder in runs/, and of its entry in data/runtime/sizes.py.
    """

    def __init__(self, args, name: str, tokenizer=None):
        self.args = args
        self.name = name
        own_files.check(args)
        self.device = start(args)
        self.tokenizer = tokenizer or tokenizer_of(args.init)
        self.has_head = False  # of the table
        self.began = time.perf_counter()
        self.result = {}  # what is told before the end, for the result's file
        self.tasks = None  # of --test, by domain
        self.trained = True  # False where the checkpoint was there already

    def settings(self, tiny, *flags: str, **given):
        """`tiny`, the settings of size tiny, as --size, the named flags and --smoke change them.

        A flag that is not given changes nothing. `given`: other changes; a flag goes over them.
        """
        for flag in (*flags, "rows"):
            value = getattr(self.args, flag, None)
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

    def context(self, own: int) -> int:
        """The most tokens of a record: --context, or the model's `own`."""
        return min(own, self.args.context or own)

    def dialogues(self, records: list[dict], dropped: dict, model, held_out_loss) -> list:
        """The dialogues of --data as rows, and a line with the loss on what is held out of them.

        held_out_loss(model, tokenizer, rows, device) gives it, in nats a token.
        """
        args = self.args
        context = self.context(model.config.context)
        rows = lessons.file_rows(args.data, records, dropped, self.tokenizer, context)
        trained_on, held_out = lessons.held_out_rows("sft", rows)
        loss = held_out_loss(model, self.tokenizer, held_out, self.device)
        print(f"held-out loss before {loss:.3f}", flush=True)
        self.result["held_out_loss_before"] = loss
        return trained_on[: args.records] + held_out

    def batch(self, settings):
        """sft.Settings with --rows in place of the size's batch."""
        if self.args.rows is None:
            return settings
        return replace(settings, rows=self.args.rows, batch_tokens=0)

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

    def eval_n(self) -> int:
        """How many prompts of a domain are answered: --eval-n, and with --smoke 4 at most."""
        return min(4, self.args.eval_n) if self.args.smoke else self.args.eval_n

    def scores(self, name: str, model) -> None:
        """A line of the table: the model's scores on the held-out prompts, or on --test."""
        if getattr(self.args, "test", None):
            return self.exact_match(name, model)
        if not self.has_head:
            print(table_head())
            self.has_head = True
        scores = evaluate(model, self.tokenizer, self.eval_n(), seed=self.args.seed)
        print(table_line(name, scores), flush=True)

    def exact_match(self, name: str, model) -> None:
        """A line: the share of the first --eval-n problems of --test that are answered rightly."""
        context = model.config.context
        self.tasks = self.tasks or test_tasks(self.args.test, self.tokenizer, context)
        how = {"seed": self.args.seed, "tasks": self.tasks, "max_new": REPLY}
        how["temperatures"] = {"greedy": 0.0}
        for domain, scores in evaluate(model, self.tokenizer, self.eval_n(), **how).items():
            told = "{greedy:.3f} of {n} problems (95%: {low:.3f} to {high:.3f})".format(**scores)
            print(f"{domain}, right answers {name}: {told}", flush=True)
            self.result[f"{domain}_{name}"] = scores

    def ends(self, told: str, **measured) -> None:
        """Prints the result and what it cost, and keeps the numbers beside the checkpoint.

        Where only the evaluation came again, the cost that is kept stays that of the training.
        """
        seconds = time.perf_counter() - self.began
        memory = peak_memory_mb()
        told += f"\n{seconds:.0f} s with evaluation"
        if memory:
            told += f", peak memory {memory:,.0f} MB"
        print(told)
        if rank():
            return
        flags = {}
        for flag, value in vars(self.args).items():
            # a path says where somebody keeps things, and a name is enough
            flags[flag] = Path(value).name if flag in PATHS and value else value
        where = {"device": self.device.type, "threads": torch.get_num_threads()}
        result = {"flags": flags | where, **self.result, **measured}
        cost = {"total_seconds": round(seconds, 1), "peak_memory_mb": memory}
        file = self.checkpoint.with_suffix(".json")
        if not self.trained and file.exists():
            before = read_json(file)
            cost = {name: before.get(name) for name in cost}
        write_json(file, finite(result | cost))

    def once(self, path: Path, model, settings, train, *, into=None, **entering):
        """train() -> (trained model, measured), saved straight after it; or what an equal command
        has left there already.

        `model`: what enters. `into()`: where kept weights are loaded, by default `model` itself.
        `entering`: other models that decide the training.
        """
        args, tokenizer = self.args, self.tokenizer
        self.checkpoint = Path(path)
        key = key_of_run(args, tokenizer, self.device, weights=model, **entering)
        into = into or (lambda: model)
        self.trained = False

        def training() -> tuple:
            self.trained = True
            return train()

        return once(path, key, into, tokenizer, path.stem, training, settings=asdict(settings))


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
