"""A run of the pipeline: what every stage is given."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from data.files import real

REHEARSAL = "distill_rehearsal.jsonl"  # the teacher's samples that `distill` keeps


@dataclass
class Run:
    """Where to write, which models there are, and how much to do."""

    out: Path
    size: str
    seed: int
    device: torch.device
    tokenizer: object
    schedules: dict  # of SFT: {"student": sft.Schedule, "teacher": sft.Schedule}
    eval_n: int  # prompts a domain of the evaluation
    smoke: bool
    stages: dict  # the settings of each stage after SFT
    data: real.Folder | None = None  # --data: real files in place of the tiny world
    # what else decides the results: digests of --student, --teacher and --data, and --compile
    given: dict = field(default_factory=dict)
    # the teacher's samples that `distill` has kept, once the student has learned from them
    taught: Path | None = None
    taught_student: str | None = None  # the digest of the weights that it ended with
    # "student" and "teacher", trained in place; then "reward_model" and "seed_model"
    models: dict = field(default_factory=dict)
    # the checkpoints that student and teacher begin with; None: random weights
    starts: dict = field(default_factory=dict)

    @property
    def context(self) -> int:
        """The most tokens of one row: the student's context.

        With real files no more than 1,024, which nearly all of them keep to.
        """
        context = self.models["student"].config.context
        return min(context, 1024) if self.data else context

    def how(self, stage: str, who: str) -> dict:
        """What every training is given: its settings, its seed, its device, the CSV of its log.

        The settings of a stage of SFT stand in the model's schedule.
        """
        log = self.out / f"{stage}.{who}.csv"
        how = {"seed": self.seed, "device": self.device, "log": log}
        if stage in self.stages:
            return {"settings": self.stages[stage]} | how
        return {"schedule": self.schedules[who]} | how

    def needs(self, model: str, stage: str, earlier: str) -> None:
        """Raises ValueError where `stage` comes without the earlier one, which makes `model`."""
        if model not in self.models:
            told = f"{stage} needs the stage {earlier} before it; name it in --stages too"
            raise ValueError(told)

    def distilled(self, student: str | None) -> None:
        """From now on what is rehearsed is what the teacher said. student: a digest of weights."""
        self.taught = self.out / REHEARSAL
        self.taught_student = student
