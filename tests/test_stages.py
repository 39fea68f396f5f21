"""What the stages of pipeline.py, and those below them, hand on to the loops, which are replaced.

Each fact is checked on two runs that have no value in common, so that a value written into a stage
shows.
"""

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from recorder import Recorder

import distill
import dpo
import pipeline
import ppo
import reward_model
import self_reward
import sft
from data import world
from data.files import checkpoints, comparisons, formats, real, writing
from data.runtime import annotator, rollouts
from data.runtime.rows import dialogue_rows
from model import GPT, Config
from pipeline import STAGES, Run

KEYS = [
    (function.__name__, who) for function, who in STAGES if function is not pipeline.given_teacher
]
DONE = {"tokens": 11, "seconds": 1.0}
NEXT = SimpleNamespace(name="the next model", config=SimpleNamespace(context=192))
NO_HOW = ("reward_model",)  # takes no device: it works where its policy is


def shifted(settings, by: float):
    """Dataclass settings with another number wherever there is one."""
    numbers = {
        one.name: value + type(value)(by)
        for one in fields(settings)
        if type(value := getattr(settings, one.name)) in (int, float)
    }
    return replace(settings, **numbers)


def shifted_schedule(schedule, by: int):
    parts = {
        name: shifted(getattr(schedule, name), by) for name in ("pretrain", "cold_start", "overall")
    }
    return replace(
        schedule,
        **parts,
        documents=schedule.documents + by,
        demonstrations={kind: count + by for kind, count in schedule.demonstrations.items()},
    )


def write_folder(folder, mark: str):
    folder.mkdir()
    writing.write_jsonl(
        folder / "math.jsonl",
        [
            {"question": f"{mark} {k}+{k}?", "answer": f"so {2 * k}\n#### {2 * k}"}
            for k in range(80)
        ],
    )
    writing.write_jsonl(
        folder / "code.jsonl",
        [
            {
                "text": f"{mark}, add {k}.",
                "code": f"def f(x): return x+{k}",
                "test_list": [f"assert f(1) == {1 + k}"],
            }
            for k in range(80)
        ],
    )
    writing.write_jsonl(
        folder / "preference.jsonl",
        [
            {"prompt": f"{mark}, name fruit {k}.", "chosen": f"Plum {k}.", "rejected": "No."}
            for k in range(80)
        ],
    )
    return real.read_folder(folder)


def new_run(out, tokenizer, number: int, data=None) -> Run:
    """Runs 1 and 2 differ in every value."""
    size, device = (("tiny", torch.device("cpu")), ("small", torch.device("meta")))[number - 1]
    schedules = {
        who: shifted_schedule(sft.SCHEDULES[size][who], number) for who in ("student", "teacher")
    }
    stages = {
        name: shifted(one, number) for name, one in pipeline.stage_settings(size, False).items()
    }
    run = Run(
        out / str(number),
        size,
        40 + number,
        device,
        tokenizer,
        schedules,
        1000 + number,
        True,
        stages,
        data,
    )
    contexts = {
        "student": 190 + number,
        "teacher": 250 + number,
        "reward_model": 190 + number,
        "seed_model": 190 + number,
    }
    run.models = {
        name: SimpleNamespace(name=name, config=SimpleNamespace(context=context))
        for name, context in contexts.items()
    }
    return run


@pytest.fixture
def recorder(monkeypatch):
    """Every function that a stage of pipeline.py hands its work to."""
    recorder = Recorder(monkeypatch)
    for name in ("pretrain", "cold_start_sft", "overall_sft", "sft_on_rows"):
        recorder.stand_in(sft, name, DONE)
    recorder.stand_in(distill, "distill", DONE)
    recorder.stand_in(reward_model, "reward_model", ("the trained reward model", DONE))
    for name in ("rl_stem", "rl_code", "rl_preference"):
        recorder.stand_in(ppo, name, DONE)
    recorder.stand_in(self_reward, "next_iteration_model", (NEXT, DONE))
    recorder.stand_in(self_reward, "measure", {"true_reward": 1.0})
    recorder.stand_in(self_reward, "judge_report", {"parsed": 1.0})
    recorder.stand_in(
        sft,
        "rehearsal_data",
        lambda tokenizer, size, seed, context: [("rehearsal", size, seed, context)],
    )
    recorder.stand_in(sft, "chat_prompts", lambda size, seed: [("prompt", size, seed)])
    return recorder


def trainer_of(stage: str, data) -> str:
    if stage.startswith("self_reward"):
        return "next_iteration_model"
    return "sft_on_rows" if data and stage in ("cold_start_sft", "overall_sft") else stage


def settings_for(run: Run, stage: str, who: str):
    if stage in ("pretrain", "cold_start_sft", "overall_sft"):
        part = {"cold_start_sft": "cold_start", "overall_sft": "overall"}.get(stage)
        return getattr(run.schedules[who], part) if run.data else run.schedules[who]
    return run.stages[stage]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("stage, who", KEYS, ids=["-".join(key) for key in KEYS])
def test_every_stage_hands_on_its_model_settings_seed_device_and_log(
    recorder, tmp_path, tokenizer, stage, who, number
):
    run = new_run(tmp_path, tokenizer, number)
    models = dict(run.models)
    own = getattr(pipeline, stage)(run, who)
    given = recorder.one(trainer_of(stage, None))
    assert own["tokens"] == DONE["tokens"]
    assert (
        next(given[name] for name in ("model", "policy", "student") if name in given) is models[who]
    )
    assert given["tokenizer"] is tokenizer and given["seed"] == 40 + number
    assert given["log"] == run.out / f"{stage}.{who}.csv"
    assert stage in NO_HOW or given["device"] == run.device
    settings = given["schedule"] if "schedule" in given else given["settings"]
    wanted = settings_for(run, stage, who)
    if stage.startswith("self_reward"):
        wanted = replace(wanted, held_out=max(wanted.held_out, 1000 + number))
    assert settings == wanted


def test_the_given_teacher_is_not_trained(recorder, tmp_path, tokenizer):
    run = new_run(tmp_path, tokenizer, 1)
    models = dict(run.models)
    assert pipeline.given_teacher(run, "teacher") == {"tokens": 0}
    assert recorder.calls == [] and run.models == models


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "stage", ["rl_stem", "rl_code", "rl_preference", "self_reward_1", "self_reward_2"]
)
def test_after_distillation_a_stage_rehearses_what_the_teacher_said_and_preference_learning_no_chat(
    recorder, tmp_path, tokenizer, stage, number
):
    """A run that went through distill keeps the teacher's samples;
    one that did not has demonstrations."""
    run = new_run(tmp_path, tokenizer, number)
    run.out.mkdir()
    run.taught = run.out / pipeline.REHEARSAL
    rows = [
        {"domain": domain, "ids": [k, 9], "own": [0, 1]}
        for k, domain in enumerate(("math", "chat", "other"))
    ]
    writing.write_jsonl(run.taught, [{"student": "its weights"}, *rows])
    run.taught_student = "its weights"
    getattr(pipeline, stage)(run, "student")
    taken = (0, 1, 2) if stage in ("rl_stem", "rl_code") else (0, 2)
    assert recorder.one(trainer_of(stage, None))["rehearsal"] == [
        ([k, 9], [False, True]) for k in taken
    ]
    assert not recorder.of("rehearsal_data")
    run.taught_student = "others"
    with pytest.raises(ValueError, match="was kept by another run of distill"):
        getattr(pipeline, stage)(run, "student")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "stage", ["rl_stem", "rl_code", "rl_preference", "self_reward_1", "self_reward_2"]
)
def test_every_stage_that_could_forget_is_given_the_rehearsal_of_its_size_seed_and_context(
    recorder, tmp_path, tokenizer, stage, number
):
    run = new_run(tmp_path, tokenizer, number)
    getattr(pipeline, stage)(run, "student")
    assert recorder.one(trainer_of(stage, None))["rehearsal"] == [
        ("rehearsal", run.size, 40 + number, 190 + number)
    ]
    assert recorder.one("rehearsal_data")["tokenizer"] is tokenizer


@pytest.mark.parametrize("number", [1, 2])
def test_what_the_other_models_of_a_stage_are_and_where_its_data_goes(
    recorder, tmp_path, tokenizer, number
):
    run = new_run(tmp_path, tokenizer, number)
    models = dict(run.models)
    pipeline.distill(run, "student")
    given = recorder.one("distill")
    assert given["teacher"] is models["teacher"] and given["tasks"] is None
    assert given["data"] == run.out / "distill_pairs.jsonl"
    pipeline.rl_preference(run, "student")
    assert recorder.one("rl_preference")["reward_model"] is models["reward_model"]
    pipeline.reward_model(run, "student")
    given = recorder.one("reward_model")
    assert given["rankings"] is None and given["data"] == run.out / "rankings.jsonl"
    assert run.models["reward_model"] == "the trained reward model"
    for stage in ("rl_stem", "rl_code"):
        getattr(pipeline, stage)(run, "student")
        assert (
            recorder.one(stage)["tasks"] is None and recorder.one(stage).get("reward_model") is None
        )


@pytest.mark.parametrize("number", [1, 2])
def test_a_self_rewarding_round_is_given_its_number_prompts_models_and_seed(
    recorder, tmp_path, tokenizer, number
):
    run = new_run(tmp_path, tokenizer, number)
    before, seed_model = run.models["student"], run.models["seed_model"]
    pipeline.self_reward_2(run, "student")
    pipeline.measured_afterwards(run, "self_reward_2", "student", before)
    given, measured = recorder.one("next_iteration_model"), recorder.one("measure")
    assert (
        given["seed_model"] is seed_model and given["round_number"] == 2 and given["score"] is None
    )
    assert given["training_prompts"] == [("prompt", run.size, 40 + number)]
    assert given["data"] == run.out / "self_reward_2.jsonl" and run.models["student"] is NEXT
    assert (measured["model"], measured["before"], measured["seed_model"]) == (
        NEXT,
        before,
        seed_model,
    )
    assert (
        measured["seed"] == 40 + number
        and measured["settings"] == given["settings"]
        and measured["part"] == "test"
    )
    pipeline.self_reward_1(run, "student")
    judged = recorder.one("judge_report")
    assert (
        judged["seed"] == 40 + number
        and judged["model"] is run.models["seed_model"]
        and judged["part"] == "test"
    )
    assert [given["round_number"] for given in recorder.of("next_iteration_model")] == [2, 1]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("files", [False, True])
def test_a_reward_model_is_measured_after_its_training_on_what_that_has_held_out(
    recorder, tmp_path, tokenizer, number, files
):
    run = new_run(
        tmp_path,
        tokenizer,
        number,
        write_folder(tmp_path / "data", f"Set {number}") if files else None,
    )
    before, trained = run.models["student"], run.models["reward_model"]
    recorder.stand_in(reward_model, "held_out_report", {"accuracy": 0.75})
    told = pipeline.measured_afterwards(run, "reward_model", "student", before)
    given = recorder.one("held_out_report")
    assert told == {"accuracy": 0.75} and given["model"] is trained and given["policy"] is before
    assert given["tokenizer"] is tokenizer and given["seed"] == 40 + number
    assert given["settings"] == run.stages["reward_model"]
    # of the same rankings, so that the tenth that was not trained on is the same
    pipeline.reward_model(run, "student")
    assert given["rankings"] == recorder.one("reward_model")["rankings"]
    assert bool(given["rankings"]) == files


@pytest.mark.parametrize("number", [1, 2])
def test_every_stage_of_real_files_is_given_what_its_files_hold_and_nothing_held_out(
    recorder, tmp_path, tokenizer, number
):
    data = write_folder(tmp_path / "data", f"Set {number}")
    run = new_run(tmp_path, tokenizer, number, data)
    context = 190 + number

    def shown(domains):
        return dialogue_rows(
            tokenizer, [one for domain in domains for one in data.demonstrations[domain]], context
        )[0]

    for stage, domains in (("cold_start_sft", real.CHECKED), ("overall_sft", real.DOMAINS)):
        for who in ("student", "teacher"):
            getattr(pipeline, stage)(run, who)
            given = recorder.of("sft_on_rows")[-1]
            assert given["rows"] == shown(domains)
            assert given["settings"] == settings_for(run, stage, who)
            assert (
                given["seed"] == 40 + number
                and given["stage"] == stage
                and given["device"] == run.device
            )
            assert (
                given["log"] == run.out / f"{stage}.{who}.csv" and given["model"] is run.models[who]
            )
    for stage, domains in (
        ("distill", real.CHECKED),
        ("rl_stem", ("math",)),
        ("rl_code", ("code",)),
        ("rl_preference", ("chat",)),
    ):
        getattr(pipeline, stage)(run, "student")
        given = recorder.one(stage)
        assert given["tasks"] == [
            task for domain in domains for task in data.tasks["train"][domain]
        ]
        if stage != "distill":
            assert given["rehearsal"] == shown(real.CHECKED)
        assert all(task.prompt.startswith(f"Set {number}") for task in given["tasks"])
    assert not recorder.of("rehearsal_data") and not recorder.of("cold_start_sft")


def reply_of(tokenizer, row) -> str:
    return tokenizer.read_reply([token for token, on in zip(*row) if on]).content


@pytest.mark.parametrize("number", [1, 2])
def test_the_reward_model_of_real_files_is_given_their_pairs_with_the_chosen_reply_first(
    recorder, tmp_path, tokenizer, number
):
    data = write_folder(tmp_path / "data", f"Set {number}")
    run = new_run(tmp_path, tokenizer, number, data)
    run.stages["reward_model"] = replace(run.stages["reward_model"], prompts=7 + number)
    pipeline.reward_model(run, "student")
    given = recorder.one("reward_model")
    assert len(given["rankings"]) == 7 + number and given["seed"] == 40 + number
    for ranking in given["rankings"]:
        levels = comparisons.parse_ranking(ranking["ranking"], 2)
        better, worse = sorted(range(2), key=levels.__getitem__)
        replies = [reply_of(tokenizer, row) for row in ranking["rows"]]
        assert (
            levels[better] < levels[worse]
            and replies[better].startswith("Plum ")
            and replies[worse] == "No."
        )
        assert all(
            f"Set {number}, name fruit" in tokenizer.decode(ids) for ids, _ in ranking["rows"]
        )


# ---- evaluating a stage ----


def a_stage(run, who):
    run.trained = True
    return dict(DONE)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("files", [False, True])
def test_a_stage_is_evaluated_after_it_was_trained_on_held_out_prompts_with_the_runs_seed(
    recorder, tmp_path, tokenizer, monkeypatch, number, files
):
    data = write_folder(tmp_path / "data", "Set") if files else None
    run = new_run(tmp_path, tokenizer, number, data)
    monkeypatch.setattr(pipeline, "settings_of", lambda *key: {"key": f"of {key[1:]}"})
    recorder.stand_in(
        pipeline,
        "evaluate",
        lambda **given: {"math": {"greedy": 0.5, "sampled": float(run.trained)}},
    )
    for name in ("try_room", "save_checkpoint"):  # the models are no modules
        recorder.stand_in(checkpoints, name)
    recorder.stand_in(pipeline, "answer_samples")
    a_stage.__name__, run.trained = "rl_code", False
    line = pipeline.run_stage(run, a_stage, "student", "entering")
    given = recorder.one("evaluate")
    assert (
        given["model"] is run.models["student"]
        and given["n"] == 1000 + number
        and given["seed"] == 40 + number
    )
    assert (
        given["part"] == "test"
        and given["temperatures"] is None
        and line["eval"]["math"]["sampled"] == 1.0
    )
    if files:
        assert given["tasks"] == {domain: data.tasks["test"][domain] for domain in ("math", "code")}
        assert all(given["tasks"].values()) and given["max_new"] == 256
    else:
        assert given["tasks"] is None and set(given["domains"]) == {*world.DOMAINS, "phrasing"}
    saved = recorder.one("save_checkpoint")
    assert saved["model"] is run.models["student"] and saved["stage"] == "rl_code"
    assert (
        saved["path"] == run.out / "rl_code.student.pt"
        and line["checkpoint"] == "rl_code.student.pt"
    )
    assert line["settings"] == {"key": "of ('rl_code', 'student', 'entering')"}
    assert saved["key"] == checkpoints.key_line(line["settings"])
    order = [called for called, _ in recorder.calls if called in ("save_checkpoint", "evaluate")]
    assert order == ["save_checkpoint", "evaluate"]


# ---- one level down: what each stage gives its loop ----


@pytest.fixture
def loop(monkeypatch, tokenizer):
    """The loops replaced by recorders."""
    recorder = Recorder(monkeypatch)
    for place in (sft, dpo, distill, reward_model, ppo):
        recorder.stand_in(place, "train", DONE | {"loss": 0.5, "held_out_losses": [0.5]})
    return recorder


def plain(tokenizer) -> GPT:
    return GPT(Config(tokenizer.vocab_size, 128, 1, 16, 2, 1, 16)).init_weights(3)


HOW = [
    {"seed": 41, "device": torch.device("cpu"), "log": "a.csv"},
    {"seed": 42, "device": torch.device("meta"), "log": "b.csv"},
]


def first_tokens(rows) -> list:
    return [tuple(ids) for ids, _ in rows]


@pytest.mark.parametrize(
    "stage, part",
    [("pretrain", "pretrain"), ("cold_start_sft", "cold_start"), ("overall_sft", "overall")],
)
def test_the_sft_stages_train_on_rows_of_their_seed_with_the_settings_of_their_part(
    loop, tokenizer, stage, part
):
    schedule = sft.smoke(sft.SCHEDULES["tiny"]["student"])
    for k, name in enumerate(("pretrain", "cold_start", "overall")):
        schedule = replace(
            schedule,
            **{name: sft.Settings(4 + k, rows=5 + k, muon_lr=0.1 + k, adam_lr=0.2 + k, warmup=k)},
        )
    model = plain(tokenizer)
    for how in HOW:
        getattr(sft, stage)(model, tokenizer, schedule, **how)
        given = loop.calls[-1][1]
        assert (
            given["model"] is model
            and given["settings"] == getattr(schedule, part)
            and given["stage"] == stage
        )
        assert {key: given[key] for key in how} == how and given["held_out"]
        assert len(given["rows"]) >= given["settings"].steps * given["settings"].rows
    one, other = (first_tokens(given["rows"]) for given in loop.of("train"))
    assert set(one) != set(other)  # another seed, other demonstrations
    getattr(sft, stage)(model, tokenizer, schedule, **HOW[0])
    assert first_tokens(loop.calls[-1][1]["rows"]) == one


@pytest.mark.parametrize("stage", ["rl_stem", "rl_code", "rl_preference"])
def test_an_rl_stage_filters_and_trains_with_its_own_seed_settings_reward_and_rehearsal(
    loop, tokenizer, monkeypatch, stage
):
    loop.stand_in(rollouts, "pass_rates", lambda **given: [0.5 for _ in given["tasks"]])
    settings = replace(ppo.STAGE_SETTINGS[stage], candidates=9, max_new=17, lr=0.25)
    policy = plain(tokenizer)
    more = {}
    if stage == "rl_preference":
        more["reward_model"] = "the reward model"
    for how in HOW:
        getattr(ppo, stage)(
            policy, tokenizer, settings=settings, rehearsal=["a row", how["seed"]], **how, **more
        )
        given = loop.calls[-1][1]
        assert (
            given["policy"] is policy and given["settings"] == settings and given["stage"] == stage
        )
        assert {key: given[key] for key in how} == how
        assert given["rehearsal"] == ["a row", how["seed"]]
        assert given["reward_model"] == more.get("reward_model") and given["reference"] is None
        assert 0 < len(given["tasks"]) <= 9
        assert {task.domain for task in given["tasks"]} <= set(rollouts.DOMAINS[stage])
    one, other = loop.of("train")
    assert {task.prompt for task in one["tasks"]} != {task.prompt for task in other["tasks"]}
    if stage != "rl_preference":
        first, second = loop.of("pass_rates")
        assert (
            first["model"] is policy
            and first["max_new"] == 17
            and first["samples"] == 16
            and first["seed"] != second["seed"]
        )


def test_distillation_samples_filters_and_trains_with_its_seed_settings_models_and_tasks(
    loop, tokenizer, monkeypatch, tmp_path
):
    data = {"pairs": ["pair"], "rehearsal": [("math", "row")]}
    loop.stand_in(
        distill,
        "preference_data",
        lambda **given: (data["pairs"], data["rehearsal"], [{"seed": given["seed"]}], {}),
    )
    settings = distill.Settings(steps=3, queries=7)
    student = plain(tokenizer)
    teacher = plain(tokenizer)
    for how, tasks in zip(HOW, (None, ["a task"])):
        distill.distill(
            student, teacher, tokenizer, settings, tasks=tasks, data=tmp_path / "pairs.jsonl", **how
        )
        (_, asked), (_, given) = loop.calls[-2:]
        for one in (asked, given):
            assert (
                one["student"] is student
                and one["teacher"] is teacher
                and one["settings"] == settings
            )
            assert one["seed"] == how["seed"] and one["device"] == how["device"]
        assert (
            asked["tasks"] == tasks and given["pairs"] == ["pair"] and given["rehearsal"] == ["row"]
        )
        assert given["log"] == how["log"]
        assert formats.read_jsonl(tmp_path / "pairs.jsonl") == [{"seed": how["seed"]}]


def test_a_reward_model_is_made_with_its_seed_from_rankings_of_its_seed(
    loop, tokenizer, monkeypatch
):
    row = tokenizer.render(
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    )
    loop.stand_in(
        annotator,
        "annotated_rankings",
        lambda **given: [{"part": given["part"], "seed": given["seed"], "rows": [row]}],
    )
    loop.stand_in(annotator, "report", {})
    settings = reward_model.Settings(prompts=5, outputs=3, held_out=2, ties="half")
    policy = plain(tokenizer)
    heads = []
    for seed in (41, 42):
        made, _ = reward_model.reward_model(policy, tokenizer, settings, seed=seed, log="a.csv")
        reward_model.held_out_report(made, policy, tokenizer, settings, seed=seed)
        given, train, test = loop.of("train")[-1], *loop.of("annotated_rankings")[-2:]
        assert [
            (one["part"], one["prompts"], one["outputs"], one["seed"]) for one in (train, test)
        ] == [("train", 5, 3, seed), ("test", 2, 3, seed)]
        assert train["model"] is test["model"] is policy
        assert given["model"] is loop.of("report")[-1]["model"] is made
        assert given["settings"] == settings
        assert given["seed"] == seed and given["log"] == "a.csv"
        assert [one["part"] for one in given["rankings"]] == ["train"]
        assert [one["part"] for one in loop.of("report")[-1]["rankings"]] == ["test"]
        assert loop.of("report")[-1]["ties"] == "half"
        heads.append(made.score.weight)
    assert not torch.equal(*heads)


def test_a_round_creates_its_data_and_trains_a_copy_with_its_seed_settings_and_rehearsal(
    loop, tokenizer, tmp_path
):
    loop.stand_in(self_reward, "create_self_instruction_data", (["pair"], [], {"pairs": 1}))
    settings = self_reward.Settings(training=dpo.Settings(steps=3, lr=0.5), passes=1000)
    model, seed_model = plain(tokenizer), plain(tokenizer)
    for number, how in enumerate(HOW, 1):
        following, _ = self_reward.next_iteration_model(
            model,
            seed_model,
            tokenizer,
            settings,
            round_number=number,
            training_prompts=["p"],
            rehearsal=["row"],
            **how | {"device": torch.device("cpu")},
        )
        asked, given = loop.of("create_self_instruction_data")[-1], loop.of("train")[-1]
        assert (
            asked["model"] is model
            and asked["seed_model"] is seed_model
            and asked["training_prompts"] == ["p"]
        )
        assert given["model"] is following is not model and given["pairs"] == ["pair"]
        assert given["settings"] == settings.training and given["rehearsal"] == ["row"]
        assert (
            given["seed"] == how["seed"]
            and given["log"] == how["log"]
            and given["stage"] == f"self_reward_{number}"
        )
    seeds = [asked["seed"] for asked in loop.of("create_self_instruction_data")]
    self_reward.next_iteration_model(
        model, seed_model, tokenizer, settings, round_number=2, training_prompts=["p"], seed=41
    )
    # by round and by seed
    assert len({*seeds, loop.of("create_self_instruction_data")[-1]["seed"]}) == 3
