"""The models that a run goes on from: what its finished stages have left in its folder."""

from data.runtime.real_rows import fit_files
from data.runtime.run import Run
from data.runtime.run_folder import check_weights


def load_models(run: Run, results: dict, todo: list, load, fresh, load_reward_model) -> None:
    """Fills run.models: as the finished stages left them, or as the run begins.

    Real files lose the prompts that are too long for these models.

    `todo`: the stages still to be run, as (function, model). load(path, tokenizer) gives a model
    first, load_reward_model(path, tokenizer, device) a reward model, and fresh(size, who,
    tokenizer, seed) one with random weights.
    """
    stages = results["stages"]
    for who in ("student", "teacher"):
        asked = any(model == who for _, model in todo)
        ended = evaluated(stages, who)
        if ended:
            path = run.out / ended[-1]["checkpoint"]
            run.models[who] = load(path, run.tokenizer)[0]
            remedy = f"to go on from them, give another --out and this file as --{who}"
            check_weights(path, ended[-1], run.models[who], remedy)
        elif run.starts[who]:
            run.models[who] = load(run.starts[who], run.tokenizer)[0]
        elif asked:
            run.models[who] = fresh(run.size, who, run.tokenizer, run.seed)
    check_contexts(run)
    names = [stage["name"] for stage in stages]
    if "distill" in names and not run.data:
        run.distilled(stages[names.index("distill")].get("weights"))
    if "reward_model" in names:
        path = run.out / "reward_model.student.pt"
        run.models["reward_model"] = load_reward_model(path, run.tokenizer, run.device)
        stage = stages[names.index("reward_model")]
        remedy = "put it back, or give another --out"
        check_weights(path, stage, run.models["reward_model"], remedy)
    if "self_reward_1" in names:  # M_1 is the student that entered the first round
        entered = evaluated(stages[: names.index("self_reward_1")], "student")
        path = run.out / entered[-1]["checkpoint"] if entered else run.starts["student"]
        run.models["seed_model"] = load(path, run.tokenizer)[0]
    if run.data:
        fit_files(run)


def evaluated(stages: list[dict], who: str) -> list[dict]:
    """The stages that trained this model; a reward model is another one, and has no scores."""
    return [stage for stage in stages if stage["model"] == who and stage["eval"]]


def check_contexts(run: Run) -> None:
    """Raises ValueError for a teacher that cannot read the student's rows."""
    if not {"student", "teacher"} <= set(run.models):
        return
    context = run.models["teacher"].config.context
    if context < run.context:
        raise ValueError(
            f"--teacher: its context of {context} tokens is shorter than the student's rows of "
            f"{run.context}"
        )
