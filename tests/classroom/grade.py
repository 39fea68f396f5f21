"""Grades a student's copy: each exercise in a process of its own, compared in this one.

First every student's function runs on the fresh cases, then the visible tests, up to two processes
at a time; only after the last of them are the solutions imported here, and the answers compared.
"""

import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.classroom import compare
from tests.classroom.blank import ROOT
from tests.classroom.cases import computed, generator
from tests.classroom.exercises import EXERCISES, Exercise
from tests.classroom.room import ANSWER, work

SECONDS = 8  # of the processor for the fresh cases, twice that for the visible tests
WAIT = 5  # times as many on the clock, for a process that waits for something
PLAIN = 0.6  # the share of the points that the plain cases are worth
VISIBLE = 0.5  # the largest share with a visible test that fails


@dataclass
class Answer:
    lines: list[dict] = field(default_factory=list)
    end: str = ""  # why the process ended before it was done

    @property
    def done(self) -> bool:
        return bool(self.lines) and self.lines[-1].get("done") is True


@dataclass
class Result:
    exercise: Exercise
    score: float
    output: str


# ---- the processes ----


def read_answer(text: bytes, end: str) -> Answer:
    """A line of JSON an answer; what is not is the end of it."""
    answer = Answer(end=end)
    for line in text.split(b"\n"):
        if not line:
            continue
        try:
            value = json.loads(line)
        except ValueError:
            answer.end = end or "its answer cannot be read"
            break
        if not isinstance(value, dict):
            answer.end = end or "its answer cannot be read"
            break
        if "error" in value:
            answer.end = str(value["error"])
            break
        answer.lines.append(value)
    return answer


def ended(status: int, seconds: int) -> str:
    """How a process ended, in words; "" for a good end."""
    if status == -getattr(signal, "SIGXCPU", 0):
        return f"stopped after {seconds} seconds"
    if status < 0:
        return f"crashed with signal {-status}"
    return "" if status == 0 else f"ended early with exit code {status}"


class Forked:
    """A child that has torch already."""

    def __init__(self, job: dict):
        self.job = job
        self.began = time.monotonic()
        self.text = b""
        self.pipe, answer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            os.setsid()
            try:
                work(job, answer)
            finally:
                os._exit(0)
        os.close(answer)

    def is_late(self) -> bool:
        """Whether it waits, and for too long; one that only gets no processor is not late."""
        if time.monotonic() - self.began <= WAIT * self.job["seconds"]:
            return False
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        return state not in ("R", "D")

    def read(self) -> bool:
        """Whether there was something to read."""
        some = os.read(self.pipe, 2**16)
        self.text += some
        return bool(some) and len(self.text) < ANSWER

    def finish(self, stopped: bool) -> Answer:
        # a process whose pipe is closed is about to end, if it does not mean to stay
        for _ in range(0 if stopped else 100):
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                break
            time.sleep(0.01)
        try:
            os.killpg(self.pid, signal.SIGKILL)  # with a stray of its own, if it left one
        except (ProcessLookupError, PermissionError):
            pass
        os.close(self.pipe)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        seconds = self.job["seconds"]
        if stopped:
            return read_answer(self.text, f"stopped after {seconds} seconds")
        answer = read_answer(self.text, "")
        if not answer.done and not answer.end:
            answer.end = ended(status, seconds) or "ended early with exit code 0"
        return answer


def run_forked(jobs: list[dict], workers: int, tick) -> list[Answer]:
    """The answers of the jobs in their order, `workers` processes at a time."""
    answers = {}
    waiting = list(enumerate(jobs))
    running = {}
    while waiting or running:
        while waiting and len(running) < workers:
            number, job = waiting.pop(0)
            child = Forked(job)
            running[child.pipe] = number, child
        ready, _, _ = select.select(list(running), [], [], 0.2)
        for pipe in list(running):
            number, child = running[pipe]
            late = child.is_late()
            if late or pipe in ready and not child.read():
                del running[pipe]
                answers[number] = child.finish(late)
                tick(child.job)
    return [answers[number] for number in range(len(jobs))]


def run_fresh(jobs: list[dict], tick) -> list[Answer]:
    """The same with a new interpreter a job, where a process cannot be forked."""
    answers = []
    for job in jobs:
        how = {"input": json.dumps(job).encode(), "stdout": subprocess.PIPE, "cwd": ROOT}
        command = [sys.executable, "-m", "tests.classroom.room"]
        seconds = job["seconds"]
        try:
            # 30 seconds for the imports
            done = subprocess.run(
                command, timeout=WAIT * seconds + 30, stderr=subprocess.DEVNULL, **how
            )
            answer = read_answer(done.stdout[:ANSWER], "")
            if not answer.done and not answer.end:
                end = ended(done.returncode, seconds)
                answer.end = end or "ended early with exit code 0"
        except subprocess.TimeoutExpired:
            answer = Answer(end=f"stopped after {seconds} seconds")
        answers.append(answer)
        tick(job)
    return answers


def run_jobs(jobs: list[dict], workers: int, fork: bool, tick) -> list[Answer]:
    return run_forked(jobs, workers, tick) if fork else run_fresh(jobs, tick)


# ---- from answers to points ----


def result_of(exercise: Exercise, seed: int, fresh: Answer, visible: Answer | None) -> Result:
    """The points of an exercise and what is said of it. The solutions are needed from here on."""
    from tests.classroom.mistakes import all_mistakes

    chapter = importlib.import_module(exercise.module)
    right = getattr(chapter, exercise.function)
    cases = exercise.draw(generator(exercise.name, seed))
    if fresh.done and not is_attempt(fresh):
        return Result(exercise, 0.0, "still blank")
    found = [line for line in fresh.lines if "done" not in line]
    lines = visible_lines(exercise, visible)
    failed_visible = any(line.startswith("FAILED") for line in lines)
    wrong = []
    expected = [computed(case, chapter, right) for case in cases]
    for number, case in enumerate(cases):
        got = found[number] if number < len(found) else None
        why = fresh.end if got is None else compare.difference(got, expected[number])
        if why or got is None:
            wrong.append((number, why or "no answer"))
    count = f"fresh cases: {len(cases) - len(wrong)} of {len(cases)} right"
    lines.append(f"{count} (seed {seed})")
    if wrong:
        number, why = wrong[0]
        lines += [f"first wrong: {cases[number].told}", compare.shown_inputs(cases[number]), why]
        tried = cases, expected, found
        named = compare.usual_mistake(all_mistakes().get(exercise.name, ()), chapter, right, *tried)
        if named:
            lines.append(f"This is what comes out when {named}.")
        more = [f"{cases[k].told}" for k, _ in wrong[1:]]
        if more:
            lines.append(f"wrong too: {'; '.join(more)}")
    share = share_of(cases, {number for number, _ in wrong})
    if failed_visible and share > VISIBLE:
        share = VISIBLE
        lines.append("A visible test fails, so half the points are the most.")
    return Result(exercise, round(share * exercise.points, 2), "\n".join(lines))


def share_of(cases: list, wrong: set[int]) -> float:
    """0 where a plain case is wrong; else 60%, and the special cases share the rest."""
    edges = [number for number, case in enumerate(cases) if case.edge]
    if wrong - set(edges):
        return 0.0
    right = len(edges) - len(wrong)
    return PLAIN + (1 - PLAIN) * right / len(edges) if edges else 1.0


def visible_lines(exercise: Exercise, visible: Answer | None) -> list[str]:
    if visible is None:
        return ["visible tests: not run, since there is no answer yet"]
    outcomes = next((line["outcomes"] for line in visible.lines if "outcomes" in line), None)
    if outcomes is None:
        return [f"FAILED visible tests: {visible.end or 'none ran'}"]
    names = {str(name).split("[")[0] for name, *_ in outcomes}
    failed = [f"FAILED {name}: {why}" for name, passed, why in outcomes if passed is not True]
    failed += [f"FAILED {name}: did not run" for name in exercise.tests if name not in names]
    return [f"visible tests: {len(outcomes) - len(failed)} of {len(outcomes)} passed", *failed]


def grade(
    folder: Path,
    seed: int,
    *,
    exercises=EXERCISES,
    seconds=SECONDS,
    workers=2,
    fork=True,
    tell=print,
):
    """The results of all exercises, in the order of the table."""
    if "sft" in sys.modules and Path(sys.modules["sft"].__file__ or "").parent == ROOT:
        raise RuntimeError("the solutions are imported already: grade in a process of its own")
    own_folder = tempfile.mkdtemp(prefix="classroom-")
    count = {"done": 0}

    def tick(job: dict) -> None:
        count["done"] += 1
        tell(job, count["done"])

    def jobs_of(kind: str, some) -> list[dict]:
        most = seconds if kind == "fresh" else 2 * seconds
        shared = {"kind": kind, "folder": str(folder), "seed": seed, "seconds": most}
        jobs = []
        for exercise in some:
            own = os.path.join(own_folder, f"{exercise.name}-{kind}")
            os.mkdir(own)
            jobs.append(shared | {"exercise": exercise.name, "own_folder": own})
        return jobs

    try:
        answers = run_jobs(jobs_of("fresh", exercises), workers, fork, tick)
        # a blank, and what has run out of time, needs no second process
        given = [k for k, answer in enumerate(answers) if is_attempt(answer)]
        some = [exercises[k] for k in given]
        visible = run_jobs(jobs_of("visible", some), workers, fork, tick)
    finally:
        shutil.rmtree(own_folder, ignore_errors=True)
    seen = dict(zip(given, visible))
    return [
        result_of(exercise, seed, answers[k], seen.get(k)) for k, exercise in enumerate(exercises)
    ]


def is_attempt(answer: Answer) -> bool:
    if not answer.done:
        return False
    return any(line.get("raised") != "NotImplementedError" for line in answer.lines[:-1])
