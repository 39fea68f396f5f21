"""The log of a training: a line of numbers a step, as a CSV and on a progress bar."""

import math
import time
from pathlib import Path

from tqdm import tqdm

from data.files.writing import write_csv
from data.runtime.alarms import Alarms
from data.runtime.devices import progress, rank


class Log:
    """The lines of one training; the loop stays in the chapter, a line is what it tells of a step.

    history = Log("dpo", path)
    for step in history.steps(settings.steps):
        ...                        # batch, loss, backward
        history.check(loss, step)  # before the optimizer's step
        ...                        # step
        history.line({"step": step, "loss": loss}, f"loss {loss:.3f}")
    history.write()

    `path`: the CSV, or None. `lines`: what a training that was stopped in its middle had told. What
    leaves its healthy range for long is said in a line (data/runtime/alarms.py), once a training.
    """

    def __init__(self, stage: str, path: Path | None = None, lines: list[dict] = ()):
        self.stage = stage
        self.path = path
        self.lines = list(lines)
        self.alarms = Alarms(stage)
        for line in self.lines:
            self.alarms.of(line)  # which were given before
        self.began = time.perf_counter()
        self.bar = None

    def steps(self, count: int, unit: str = "step"):
        """The numbers of the steps that are left of `count`, on a progress bar."""
        done = len(self.lines)
        self.bar = progress(range(count), self.stage, unit)
        for step in self.bar:
            if step >= done:
                yield step

    def check(self, loss: float, step: int) -> None:
        """Raises FloatingPointError for a loss that is not finite.

        Called before the optimizer's step, it leaves the weights as they were.
        """
        if not math.isfinite(loss):
            raise FloatingPointError(f"{self.stage}: the loss is {loss} at step {step}")

    def line(self, numbers: dict, told: str = "") -> None:
        """A line of the CSV; `told` stands beside the progress bar, an alarm above it."""
        self.lines.append(numbers)
        for said in self.alarms.of(numbers):
            if rank() == 0:
                tqdm.write(said)
        if told:
            self.bar.set_postfix_str(told)

    def write(self) -> None:
        """The CSV with all lines so far; a column that a line lacks is empty there."""
        if self.path is not None:
            write_csv(self.path, self.lines)

    def mean(self, name: str, last: int) -> float:
        """The mean of a column over the last lines."""
        recent = self.lines[-last:]
        return sum(line[name] for line in recent) / len(recent)

    def seconds(self) -> float:
        """Since the log began."""
        return time.perf_counter() - self.began
