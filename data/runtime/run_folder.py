"""What a run keeps in its folder: results.json, config.json, env.json.

results.json has an entry for each finished stage: its name and model, its seconds and tokens, its
checkpoint and the digest of the weights in it, the settings that decided it, its scores ("eval"),
and what it alone measured.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path

from data import world
from data.files import writing
from data.files.checkpoints import damage, digest, remove_middle
from data.runtime.evaluation import table_line
from data.runtime.machine import environment, peak_memory_mb
from data.runtime.measures import finite
from data.runtime.run import Run

# ---- results.json ----


def read_results(out: Path) -> dict:
    """What a run has left in the folder; without a file, {"stages": []}.

    Raises ValueError in one line for anything but the results of a run.
    """
    path = out / "results.json"
    results = read_json(path, {"stages": []})
    if not isinstance(results, dict) or not isinstance(results.get("stages"), list):
        raise ValueError(
            f"{path}: not the results of a run; delete the file, or give another --out"
        )
    for stage in results["stages"]:
        # run folders of older versions kept the settings as one line, "size=tiny seed=1 ..."
        if isinstance(stage.get("settings"), str):
            named = [item for item in stage["settings"].split() if "=" in item]
            stage["settings"] = dict(item.split("=", 1) for item in named)
        for row in (stage["eval"] or {}).values():
            for key, value in row.items():
                if value is None:  # a score that could not be found; JSON has no NaN
                    row[key] = math.nan
            if "low" not in row:
                raise ValueError(
                    f"{path}: of an older version, which kept no interval's ends; "
                    "give another --out"
                )
    return results


def read_json(path: Path, default):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError:
        raise ValueError(
            f"{path}: not valid JSON; delete the file, or give another --out"
        ) from None


def write_results(out: Path, results: dict) -> None:
    writing.write_json(out / "results.json", finite(results))


def keys_of(stages: list) -> list[tuple[str, str]]:
    """The names of stages (function, model), as results.json has them."""
    return [(function.__name__, who) for function, who in stages]


def add_stage(out: Path, results: dict, stage: dict, order: list) -> None:
    """Puts a finished stage into its place in the order of keys, and writes the file.

    The seconds are those of all finished stages, and the peak memory of every process of the run.
    """
    results["stages"].append(stage)
    results["stages"].sort(key=lambda one: order.index((one["name"], one["model"])))
    seconds = sum(one["seconds"] for one in results["stages"])
    results["seconds"] = round(seconds, 1)
    memory = max(peak_memory_mb() or 0, results.get("peak_memory_mb") or 0)
    results["peak_memory_mb"] = memory or None
    write_results(out, results)


# ---- the entry of a stage ----


def stage_line(stage: dict) -> str:
    """The entry as a line of the growing table; of a reward model, how well it ranks."""
    name = f"{stage['name']} ({stage['model']})"
    if stage["name"] == "given_teacher":
        name = "teacher (given)"
    if stage["eval"] is not None:
        return table_line(name, stage["eval"])
    words = {
        "accuracy": "held-out accuracy",
        "true_accuracy": "by the true rubric",
        "annotator_agreement": "the annotator with itself",
    }
    measured = {key: stage["measured"].get(key) for key in words}
    told = [f"{words[key]} {value:.3f}" for key, value in measured.items() if value is not None]
    return f"{name:26} " + ", ".join(told)


def check_scores(stage: dict) -> None:
    """Raises FloatingPointError where a score is not a number.

    Code has none where no program could be run, as with --no-exec.
    """
    for domain, row in (stage["eval"] or {}).items():
        if domain != "code" and not math.isfinite(row["greedy"]):
            told = f"{stage['name']} ({stage['model']})"
            raise FloatingPointError(f"{told}: the evaluation is not a number")


def check_kept(out: Path, results: dict, wanted: list, force: bool) -> None:
    """Raises ValueError where the checkpoint of a finished stage in `wanted` is missing or damaged.

    With `force` the stage counts as one that was made with other settings.
    """
    keys = keys_of(wanted)
    for stage in results["stages"]:
        if (stage["name"], stage["model"]) not in keys:
            continue
        path = out / stage["checkpoint"]
        wrong = damage(path)
        if wrong and not force:
            raise ValueError(
                f"{path}: the checkpoint of the finished stage {stage['name']} "
                f"({stage['model']}) {wrong}; put it back, or --force redoes the "
                "stage and what follows"
            )
        if wrong:
            stage["settings"] = {}


def check_weights(path: Path, stage: dict, model, remedy: str) -> None:
    """Raises ValueError where a file of the right form holds other weights than its stage had."""
    now = digest(model)
    if stage.get("weights", now) != now:
        raise ValueError(
            f"{path}: holds other weights than those that {stage['name']} "
            f"({stage['model']}) ended with; {remedy}"
        )


def same_schedule(out: Path, results: dict, stages: list, force: bool) -> None:
    """Leaves in the results the stages of this run's schedule.

    Raises ValueError for other ones: another --teacher made them. `force` leaves them out.
    """
    finished = results["stages"]
    keys = keys_of(stages)
    other = [stage for stage in finished if (stage["name"], stage["model"]) not in keys]
    if other and not force:
        raise ValueError(
            f"{out}: {other[0]['name']} ({other[0]['model']}) was finished with another --teacher; "
            "--force redoes what follows from it, or give another --out"
        )
    results["stages"] = [stage for stage in finished if stage not in other]


def same_settings(out: Path, stage: str, was: dict, now: dict) -> None:
    """Raises ValueError, with what differs, where a stage was finished with other settings."""
    if was == now:
        return
    other = [name for name in now if name in was and was[name] != now[name]]
    told = ", ".join(f"{name} {was[name]}, now {now[name]}" for name in other)
    told = f" ({told})" if told else ""
    raise ValueError(
        f"{out}: {stage} was finished with other settings{told}; --force redoes it and what "
        "follows, or give another --out"
    )


def begin(run: Run, args, results: dict, finished: list[dict]) -> None:
    """What is written before the first stage: config.json, env.json, and what is redone goes.

    `finished`: the entries of before. The results get what is known of the run by now.
    """
    results |= {"size": run.size, "seed": run.seed, "world_version": world.WORLD_VERSION}
    redone = [stage for stage in finished if stage not in results["stages"]]
    for stage in redone:
        remove_middle(run.out / f"{stage['name']}.{stage['model']}.csv")
    if redone:  # the file must not say finished of what is now replaced, should this run be killed
        write_results(run.out, results)
    models = {who: run.models[who] for who in ("student", "teacher") if who in run.models}
    results["params"] = {who: count_of(model) for who, model in models.items()}
    config = {
        # without the folder, so that two runs can be compared
        "arguments": vars(args) | {"out": None},
        "models": {who: asdict(model.config) for who, model in models.items()},
        "schedules": {who: asdict(schedule) for who, schedule in run.schedules.items()},
        "stages": {name: asdict(settings) for name, settings in run.stages.items()},
    }
    writing.write_json(run.out / "config.json", config)
    writing.write_json(run.out / "env.json", environment())


def count_of(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
