"""What the stages of the pipeline are given of real files: rows, rankings, tasks.

run.data is the folder of --data (`data.files.real.Folder`). Without one the tiny world makes all of
it.
"""

import random

from data.files import formats, real
from data.files.comparisons import as_ranking
from data.runtime.annotator import rankings_of
from data.runtime.devices import seed_of
from data.runtime.rows import before_reply, check_prompts, dialogue_rows, tell_dropped
from data.runtime.run import Run

REPLY = 256  # tokens that are left for a reply to a real prompt


def file_rows(run: Run, domains, tell: str | None = None) -> list:
    """The demonstrations of these domains.

    Where a stage is named in `tell`, the terminal has how many were left out. Raises ValueError
    then for fewer than two different prompts.
    """
    records = [record for domain in domains for record in run.data.demonstrations[domain]]
    rows, dropped = dialogue_rows(run.tokenizer, records, run.context)
    if tell:
        tell_dropped(tell, dropped)
        check_prompts(tell, list(map(before_reply, rows)), dropped)
    return rows


def file_lessons(run: Run, stage: str, who: str, domains) -> dict:
    """What `sft.sft_on_rows` is given in a stage of SFT."""
    rows = file_rows(run, domains, tell=stage)
    how = run.how(stage, who)
    schedule = how.pop("schedule")
    settings = {"cold_start_sft": schedule.cold_start, "overall_sft": schedule.overall}[stage]
    return {"rows": rows, "settings": settings, "stage": stage} | how


def file_rankings(run: Run, tell: bool = False) -> list | None:
    """A sample of the pairs, as rankings of two; None without files."""
    if not run.data:
        return None
    dropped = {}
    records = map(as_ranking, run.data.pairs)
    rankings = rankings_of(records, run.tokenizer, run.context, dropped)
    if tell:
        tell_dropped("reward_model", dropped)
        check_prompts("reward_model", [ranking["opening"] for ranking in rankings], dropped)
    rng = random.Random(seed_of(run.seed, "reward_model", "rankings"))
    return rng.sample(rankings, min(len(rankings), run.stages["reward_model"].prompts))


def file_tasks(run: Run, *domains: str) -> list | None:
    """The training prompts of these domains; None without files."""
    if not run.data:
        return None
    return [task for domain in domains for task in run.data.tasks["train"][domain]]


def file_tests(run: Run) -> dict:
    """What `evaluate` is given besides: the prompts that were held out, and more room."""
    if not run.data:
        return {}
    tasks = {domain: run.data.tasks["test"][domain] for domain in real.CHECKED}
    return {"tasks": tasks, "max_new": REPLY}


def test_tasks(path, tokenizer, context: int) -> dict:
    """{domain: tasks} of a file of problems with checked answers: math, or code with tests.

    A prompt that leaves too little of the context for a reply is left out: in a batch of prompts
    the longest one decides how long all replies may be. A line tells what was left out. Raises
    formats.DataError for a broken record, ValueError where nothing can be checked.
    """
    records, dropped, _ = formats.read_records(path, "instruction")
    folder = real.Folder(tasks={}, demonstrations={}, dropped=dropped)
    domain = "code" if any("tests" in record for record in records) else "math"
    tasks = [task for task, _ in real.answered_tasks(domain, records, folder)]
    folder.tasks["test"] = {domain: tasks}

    def length_of(messages) -> int:
        return len(tokenizer.prompt(messages))

    real.drop_long(folder, length_of, context - min(REPLY, context // 2))
    if not folder.tasks["test"][domain]:
        raise ValueError(f"{path}: nothing can be checked{formats.because(folder.dropped)}")
    tell_dropped(str(path), folder.dropped)
    return folder.tasks["test"]


def fit_files(run: Run) -> None:
    """Drops prompts that leave no room for a reply; prints what was left out while reading.

    Raises ValueError for a student whose context is too short.
    """
    context = run.context
    if context < 2 * REPLY:
        raise ValueError(
            f"--data: the student's context of {context} tokens is too short for real prompts and "
            f"{REPLY} tokens of reply; give --student a checkpoint with at least {2 * REPLY}"
        )

    def length_of(messages) -> int:
        return len(run.tokenizer.prompt(messages))

    real.drop_long(run.data, length_of, context - REPLY)
    print("".join(f"{note}\n" for note in run.data.notes), end="")
    if run.data.dropped:
        print(formats.dropped_line(run.data.dropped))
