"""What the lessons share: seeds, a line for each finished condition, and small students."""

import math
import time
from dataclasses import replace
from pathlib import Path

import torch

import reward_model as rewards
import sft
from data import world
from data.files import checkpoints
from data.files import tokenizer as tokenizers
from data.runtime.lessons import told_rows
from model import GPT, fresh_model, load_checkpoint

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
CHAT = tuple(family.name for family in world.families_of("chat"))


class Desk:
    """Where a lesson works: it notes what it measured, and says how long the rest will take.

    `table`: {condition: {column: [a value a seed, None where there is none]}}. `expected`: how
    many times `note` will be called. `preparation`: seconds of the processor that went into kept
    models, here or earlier; `begun_with`: those that went into them here.
    """

    def __init__(self, seeds: list[int], out: Path):
        self.tokenizer = tokenizers.tiny()
        self.seeds = seeds
        self.out = out
        self.table = {}
        self.preparation = 0.0
        self.begun_with = 0.0
        self.noted = 0
        self.expected = 0
        self.began = time.perf_counter()

    def note(self, seed: int, condition: str, **numbers: float | None) -> None:
        """Keeps the numbers of one seed in one condition, and prints them."""
        for name, value in numbers.items():
            known = value is not None and math.isfinite(value)
            self.table.setdefault(condition, {}).setdefault(name, []).append(
                float(value) if known else None
            )
        self.noted += 1
        told = ", ".join(f"{name} {told_number(value)}" for name, value in numbers.items())
        seconds = time.perf_counter() - self.began
        left = seconds / self.noted * max(0, self.expected - self.noted)
        counted = f"{self.noted} of {self.expected}, about {left:.0f} s left"
        print(f"seed {seed}, {condition}: {told}  ({counted})", flush=True)

    def teacher(self) -> GPT:
        """The model that comes with the project, `data/teacher.tiny.pt`."""
        path = checkpoints.given_teacher("tiny", self.tokenizer)
        return load_checkpoint(path, self.tokenizer)[0].eval()

    def kept(self, name: str, into, train, **decides):
        """train(), or what an earlier lesson kept of the same training in this folder.

        The key holds the project's source: who has changed a loss means to train again.
        """
        files = sorted([*ROOT.glob("*.py"), *ROOT.glob("data/**/*.py")])
        source = [file.read_bytes() for file in files]
        key = checkpoints.key_of(self.tokenizer, CPU, source=source, **decides)

        def timed() -> tuple:
            began = time.process_time()
            model, _ = train()
            seconds = time.process_time() - began
            self.begun_with += seconds
            return model, {"processor": seconds}

        path = self.out / f"{name}.pt"
        model, measured = checkpoints.once(path, key, into, self.tokenizer, "lesson", timed)
        self.preparation += measured["processor"]
        return model


def told_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


# ---- tasks and students ----


def drawn(names, count: int, seed: int, part: str = "train") -> list[world.Task]:
    """Up to `count` different prompts of these families, equally many of each."""
    rng = world.generator(seed, "lessons", part, *names)
    tasks = {}
    for turn in range(4 * count):
        family = world.BY_NAME[names[turn % len(names)]]
        task = family.draw(rng, part, range(1, 6), world.TRAINED)
        tasks.setdefault(task.prompt, task)
    return list(tasks.values())[:count]


def demonstrations(tokenizer, tasks: list, seed: int) -> list:
    """A demonstration of each task, as rows of tokens."""
    rng = world.generator(seed, "lessons", "demonstrations")
    records = [world.demonstration(task, rng) for task in tasks]
    return told_rows("lesson", tokenizer, records, 256)


def student(desk: Desk, name: str, families, seed: int, steps: int) -> GPT:
    """The tiny student after SFT from random weights on some families, kept in the folder."""
    rows = demonstrations(desk.tokenizer, drawn(families, 1500, seed), seed)
    settings = sft.Settings(steps)

    def fresh() -> GPT:
        return fresh_model("tiny", "student", desk.tokenizer, seed)

    def training() -> tuple:
        model = fresh()
        how = {"seed": seed, "stage": name}
        return model, sft.train_in_passes(model, desk.tokenizer, rows, settings, **how)

    decides = {"weights": fresh(), "rows": rows, "settings": settings}
    return desk.kept(f"{name}.seed{seed}", fresh, training, **decides)


def chat_student(desk: Desk, seed: int, sft_steps: int = 300) -> GPT:
    """A student that has seen chat alone, of mixed quality: most answers are impolite or wrong."""
    return student(desk, "chat", CHAT, seed, sft_steps)


def chat_reward_model(desk: Desk, policy: GPT, seed: int, prompts: int) -> rewards.RewardModel:
    """A reward model of the student's own answers, ranked by the simulated annotator."""
    settings = replace(rewards.Settings(), prompts=prompts)

    def training() -> tuple:
        return rewards.reward_model(policy, desk.tokenizer, settings, seed=seed)

    decides = {"policy": policy, "settings": settings, "seed": seed}
    into = rewards.RewardModel(policy)
    return desk.kept(f"reward_model.seed{seed}", lambda: into, training, **decides).eval()
