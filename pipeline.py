"""The whole schedule: the stages in order, every model evaluated, everything kept in one folder.

    student   pretrain > cold_start_sft > overall_sft ---+
                                                         +--> distill > reward_model > rl_stem >
    teacher   given_teacher, or with --teacher train     |    rl_code > rl_preference >
              the same three stages of its own ----------+    self_reward_1 > self_reward_2

A stage is a function of (run, who): it trains run.models[who] and returns its own measurements
(only reward_model trains another, given_teacher none). A `run`: data/runtime/run.py.

Details that matter:

1. Rehearsal is of what was learned last, since that is forgotten first: from distill on teacher
   samples, in a run without distill SFT's demonstrations (ours). That choice is not measured.
   Rehearsal is: without it rl_stem ends 7.0 +-1.2 points lower in math (first version of the
   project), and distill leaves the judge (pairs of answers told apart) at 20% in place of 77%.
2. The teacher is given. It learned by the same code and stages, in 4,000 steps of pretraining and
   15,500 of SFT. So it has something to teach: 98% greedy (mean of math, code, STEM and agent),
   where the student enters distill with 57.9 +-1.1 and gains 22.5 +-0.8 points.
3. A stage ends after a fixed number of steps, never by the clock, or its weights would depend on
   what else the machine does. Random numbers are drawn from seed and stage name. So a run repeats
   bit for bit on a CPU with the same number of threads (tests/test_pipeline.py).
4. What resume compares is `settings_of`: size, seed, eval-n, device, threads, digests of given
   files, settings and entering weights; not the code. A finished stage that differs is refused.
   --force redoes it, and drops the entries of all that was made from its weights.
5. A checkpoint is written straight after training, so a run that is stopped while it evaluates need
   not train again. The long stages of larger sizes are saved in the middle too.

Left out: taking the best of several checkpoints, going back where a stage made the model worse.

    python pipeline.py --size tiny            6 to 8 minutes on two cores; the table grows
    python pipeline.py --size tiny --smoke    every stage in a few steps
    python pipeline.py --seeds 1,2,3          one run after the other
    python model.py runs/tiny-seed1/overall_sft.student.pt    talks to any checkpoint afterwards

A run leaves a .pt and a .csv of every stage; report.md, plots/ and samples.md to read; results.json
with all scores; config.json and env.json; in JSONL what its models wrote and learned from.

Watch the table (greedy/sampled, percent). A greedy score that falls by more than its interval, in
report.md, is forgetting.
"""

import copy
import json
import time
from dataclasses import asdict, replace

import distill as distillation
import ppo
import reward_model as rewards
import self_reward
import sft
from data.files import real
from data.files.checkpoints import digest, key_line, once, surroundings
from data.runtime import run_folder
from data.runtime.devices import rank
from data.runtime.evaluation import COLUMNS, evaluate, table_head
from data.runtime.kept_models import load_models
from data.runtime.queries import kept_rehearsal
from data.runtime.real_rows import file_lessons, file_rankings, file_rows, file_tasks, file_tests
from data.runtime.report import report
from data.runtime.run import REHEARSAL, Run
from data.runtime.run_folder import keys_of, stage_line
from data.runtime.samples import answer_samples
from data.runtime.sizes import sized
from data.runtime.whole_run import Ending, Whole, for_each_seed, pipeline_flags
from model import SIZES, fresh_model, load_checkpoint, placed

# ---- the stages ----


def pretrain(run: Run, who: str) -> dict:
    return sft.pretrain(run.models[who], run.tokenizer, **run.how("pretrain", who))


def cold_start_sft(run: Run, who: str) -> dict:
    if run.data:
        how = file_lessons(run, "cold_start_sft", who, real.CHECKED)
        return sft.sft_on_rows(run.models[who], run.tokenizer, **how)
    return sft.cold_start_sft(run.models[who], run.tokenizer, **run.how("cold_start_sft", who))


def overall_sft(run: Run, who: str) -> dict:
    if run.data:
        how = file_lessons(run, "overall_sft", who, real.DOMAINS)
        return sft.sft_on_rows(run.models[who], run.tokenizer, **how)
    return sft.overall_sft(run.models[who], run.tokenizer, **run.how("overall_sft", who))


def given_teacher(run: Run, who: str) -> dict:
    """Nothing is trained: `python -m tests.experiments.teacher` has done that."""
    return {"tokens": 0}


def distill(run: Run, who: str) -> dict:
    how = run.how("distill", who) | {"tasks": file_tasks(run, *real.CHECKED)}
    how |= {"data": run.out / "distill_pairs.jsonl", "kept": run.out / REHEARSAL}
    return distillation.distill(run.models[who], run.models["teacher"], run.tokenizer, **how)


def reward_model(run: Run, who: str) -> dict:
    run.models["reward_model"], measured = rewards.reward_model(
        run.models[who],
        run.tokenizer,
        run.stages["reward_model"],
        seed=run.seed,
        rankings=file_rankings(run, tell=True),
        data=run.out / "rankings.jsonl",
        log=run.out / f"reward_model.{who}.csv",
    )
    return measured


def rl_stem(run: Run, who: str) -> dict:
    return ppo.rl_stem(run.models[who], run.tokenizer, **rl(run, "rl_stem", who, "math"))


def rl_code(run: Run, who: str) -> dict:
    return ppo.rl_code(run.models[who], run.tokenizer, **rl(run, "rl_code", who, "code"))


def rl_preference(run: Run, who: str) -> dict:
    run.needs("reward_model", "rl_preference", "reward_model")
    how = rl(run, "rl_preference", who, "chat", rehearse_chat=False)
    how["reward_model"] = run.models["reward_model"]
    return ppo.rl_preference(run.models[who], run.tokenizer, **how)


def rl(run: Run, stage: str, who: str, domain: str, rehearse_chat: bool = True) -> dict:
    """What every stage of RL is given. `domain`: of the real files, where there are such."""
    data = {"tasks": file_tasks(run, domain), "rehearsal": rehearsal(run, rehearse_chat)}
    return data | run.how(stage, who)


def self_reward_1(run: Run, who: str) -> dict:
    seed_model = copy.deepcopy(run.models[who])  # M_1: it writes the prompts of both rounds
    run.models["seed_model"] = seed_model
    settings = round_settings(run, "self_reward_1")
    judge = self_reward.judge_report(seed_model, run.tokenizer, settings, seed=run.seed)
    if not run.smoke:
        self_reward.check_seed_model(judge)
    return {"seed_judge": judge} | self_rewarding_round(run, who, 1)


def self_reward_2(run: Run, who: str) -> dict:
    run.needs("seed_model", "self_reward_2", "self_reward_1")
    return self_rewarding_round(run, who, 2)


def self_rewarding_round(run: Run, who: str, number: int) -> dict:
    stage = f"self_reward_{number}"
    how = run.how(stage, who) | {"settings": round_settings(run, stage)}
    run.models[who], measured = self_reward.next_iteration_model(
        run.models[who],
        run.models["seed_model"],
        run.tokenizer,
        round_number=number,
        training_prompts=sft.chat_prompts(run.size, run.seed),
        rehearsal=rehearsal(run, chat=False),
        data=run.out / f"{stage}.jsonl",
        **how,
    )
    return measured


def round_settings(run: Run, stage: str) -> self_reward.Settings:
    settings = run.stages[stage]
    return replace(settings, held_out=max(settings.held_out, run.eval_n))


def measured_afterwards(run: Run, stage: str, who: str, before) -> dict:
    """What a stage alone measures of its trained and saved model. before: the one that entered."""
    if stage == "reward_model":
        how = {"settings": run.stages[stage], "seed": run.seed, "rankings": file_rankings(run)}
        return rewards.held_out_report(run.models[stage], before, run.tokenizer, **how)
    if stage.startswith("self_reward"):
        how = {"settings": round_settings(run, stage), "seed": run.seed}
        seed_model = run.models["seed_model"]
        return self_reward.measure(run.models[who], before, seed_model, run.tokenizer, **how)
    return {}


def rehearsal(run: Run, chat: bool) -> list:
    """What a stage repeats so that it does not forget: what was learned last. Preference learning
    is to change the chat, so there none is repeated: chat=False."""
    if run.data:
        return file_rows(run, real.CHECKED)
    if run.taught:
        return kept_rehearsal(run.taught, chat, run.taught_student)
    return sft.rehearsal_data(run.tokenizer, run.size, run.seed, run.context)


# ---- the schedule ----

STAGES = [
    (pretrain, "student"),
    (pretrain, "teacher"),
    (cold_start_sft, "student"),
    (cold_start_sft, "teacher"),
    (overall_sft, "student"),
    (overall_sft, "teacher"),
    (given_teacher, "teacher"),
    (distill, "student"),
    (reward_model, "student"),
    (rl_stem, "student"),
    (rl_code, "student"),
    (rl_preference, "student"),
    (self_reward_1, "student"),
    (self_reward_2, "student"),
]


ORDER = keys_of(STAGES)


def place(line: dict) -> int:
    """Where in the schedule the stage of an entry of results.json stands."""
    return ORDER.index((line["name"], line["model"]))


def schedule(stands_in: bool) -> list:
    """STAGES with the given teacher (stands_in), or with the teacher's own three stages."""
    other = (pretrain, cold_start_sft, overall_sft) if stands_in else (given_teacher,)
    return [stage for stage in STAGES if stage[1] == "student" or stage[0] not in other]


def stage_settings(size: str, smoke: bool) -> dict:
    """The settings of each stage after SFT."""
    tiny = {"distill": distillation.Settings(), "reward_model": rewards.Settings()}
    tiny |= ppo.STAGE_SETTINGS
    stages = {stage: sized(settings, stage, size, smoke) for stage, settings in tiny.items()}
    both_rounds = sized(self_reward.Settings(), "self_reward", size, smoke)
    return stages | {"self_reward_1": both_rounds, "self_reward_2": both_rounds}


# ---- resume ----


def settings_of(run: Run, stage: str, who: str, entering: str = "none") -> dict[str, str]:
    """What decides a stage's result and its line of the table, as text by name.

    `entering`: a digest of the weights that it began with (`entering_weights`).
    """
    own = run.stages.get(stage, run.schedules[who])
    settings = None if stage == "given_teacher" else asdict(own)
    given = dict(run.given)
    if who == "student" and ORDER.index((stage, who)) < ORDER.index(("distill", "student")):
        given.pop("teacher", None)  # what comes before distill knows no teacher
    made = {"model": asdict(SIZES[run.size][who]), "settings": [stage, who, settings]}
    decides = {"size": run.size, "seed": run.seed, "eval-n": run.eval_n}
    decides |= surroundings(run.tokenizer, run.device) | given
    decides |= {name: digest(json.dumps(value, sort_keys=True)) for name, value in made.items()}
    decides["entering-weights"] = entering
    return {name: str(value) for name, value in decides.items()}  # JSON gives back the same


def entering_weights(results: dict, stage: str, who: str) -> str:
    """The digests, joined by "+", of every model of finished stages that a stage is given.

    "none" where it begins with what the command line gives, which `settings_of` has elsewhere.
    """
    before = ORDER.index((stage, who))
    earlier = [line for line in results["stages"] if place(line) < before]
    last = {trained_by(line["name"], line["model"]): line for line in earlier}
    models = {"distill": [who, "teacher"], "rl_preference": [who, "reward_model"]}
    given = [last[model] for model in models.get(stage, [who]) if model in last]
    return "+".join(line["weights"] for line in given if "weights" in line) or "none"


def trained_by(stage: str, who: str) -> str:
    return "reward_model" if stage == "reward_model" else who


def unfinished(results: dict, run: Run, wanted: list, force: bool) -> list:
    """The stages still to be run; old entries of these and of what follows leave the results.

    Raises ValueError where a finished one was made with other settings.
    """
    finished = {(line["name"], line["model"]): line["settings"] for line in results["stages"]}
    todo = []
    redone = {}  # {model: the place of its first stage that is run again}
    taught = ORDER.index(("distill", "student"))  # from here on the student knows its teacher
    for function, who in wanted:
        name = function.__name__
        at = ORDER.index((name, who))
        now = settings_of(run, name, who, entering_weights(results, name, who))
        was = finished.get((name, who))
        if was is not None and not force:
            run_folder.same_settings(run.out, f"{name} ({who})", was, now)
        if was != now or who in redone or ("teacher" in redone and at >= taught):
            todo.append((function, who))
            redone.setdefault(who, at)
    if "teacher" in redone:  # distill and all that follows it were made with the old teacher
        redone["student"] = min(taught, redone.get("student", taught))
    # what came later of the same model was made from weights that are now replaced, wanted or not
    results["stages"] = [
        line for line in results["stages"] if place(line) < redone.get(line["model"], len(ORDER))
    ]
    return todo


def prepare(args) -> tuple[Run, list, dict]:
    """(the run, the stages still to do, the results so far), by the command line and the folder."""
    whole = Whole(args)
    stages = schedule(whole.stands_in)
    wanted = whole.asked(stages)
    run = whole.run(sft.SCHEDULES[args.size], stage_settings(args.size, args.smoke))
    results = run_folder.read_results(run.out)
    finished = results["stages"]
    run_folder.same_schedule(run.out, results, stages, args.force)
    run_folder.check_kept(run.out, results, wanted, args.force)
    todo = unfinished(results, run, wanted, args.force)
    whole.check_starts(todo, results)
    load_models(run, results, todo, load_checkpoint, fresh_model, rewards.load_reward_model)
    for name in [name for name in run.models if name != "reward_model"]:
        run.models[name] = placed(run.models[name], args, run.device)
    run_folder.begin(run, args, results, finished)
    return run, todo, results


# ---- one stage after the other ----


def run_stages(run: Run, todo: list, results: dict) -> None:
    """Train, save, evaluate and report; the table on the terminal grows by a line a stage."""
    print(table_head(real.CHECKED if run.data else COLUMNS))
    for line in results["stages"]:
        print(stage_line(line) + "  (done before)")
    try:
        for function, who in todo:
            entering = entering_weights(results, function.__name__, who)
            line = run_stage(run, function, who, entering)
            run_folder.add_stage(run.out, results, line, ORDER)
            print(stage_line(line) + f"  {line['seconds']:.0f} s", flush=True)
            run_folder.check_scores(line)
    finally:  # once, since the plots take longer than many a stage of a smoke run
        if results["stages"] and rank() == 0:
            report(run.out, results)


def run_stage(run: Run, function, who: str, entering: str) -> dict:
    """One stage: its entry in results.json. Where its checkpoint is there, it is only evaluated."""
    name = function.__name__
    began = time.perf_counter()
    before = run.models[who]
    trained = trained_by(name, who)
    path = run.out / f"{name}.{who}.pt"
    settings = settings_of(run, name, who, entering)

    def training() -> tuple:
        measured = function(run, who)
        return run.models[trained], measured | {"training_seconds": time.perf_counter() - began}

    def untrained():
        return rewards.RewardModel(before) if name == "reward_model" else copy.deepcopy(before)

    key = key_line(settings)
    run.models[trained], measured = once(path, key, untrained, run.tokenizer, name, training)
    if name == "self_reward_1":
        run.models["seed_model"] = before  # M_1, where the round was trained before
    if name == "distill":
        run.distilled(digest(run.models["student"]))
    evaluation = time.perf_counter()
    measured |= measured_afterwards(run, name, who, before)
    scores = None
    if name != "reward_model":
        given = {"seed": run.seed} | file_tests(run)
        scores = evaluate(run.models[who], run.tokenizer, run.eval_n, **given)
        answer_samples(run, name, who)
    seconds = measured.pop("training_seconds") + time.perf_counter() - evaluation
    return {
        "name": name,
        "model": who,
        "seconds": round(seconds, 2),
        "tokens": measured.pop("tokens"),
        "checkpoint": path.name,
        "weights": digest(run.models[trained]),
        "settings": settings,
        "eval": scores,
        "measured": run_folder.finite(measured),
    }


# ---- the command ----


def main() -> None:
    for_each_seed(pipeline_flags(__doc__).parse_args(), one_run)


def one_run(args) -> None:
    with Ending() as ending:
        run, todo, results = prepare(args)
        ending.knows(run.out, results)
        run_stages(run, todo, results)
        print(f"{results['seconds']:.0f} s in all; {run.out / 'report.md'}")


if __name__ == "__main__":
    main()
